//! The development chain and its contracts: every case on the embedded chain and on a real anvil.

use std::sync::Mutex;

use ethers_core::abi::Token;
use ethers_core::types::{Block, Bytes, H160, H256, Log, TransactionReceipt, U64, U256};
use ethers_core::utils::{hex, keccak256};
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tollpass::devnet::accounts;
use tollpass::devnet::accounts::DevWallet;
use tollpass::devnet::chain::DevChainSettings;
use tollpass::devnet::contracts;

use crate::support::chains::{Network, each_network};
use crate::support::contracts::{Stage, call, manager, units, wallet};

const CHALLENGE_PERIOD: u64 = 500;

fn address(address: H160) -> Token {
    Token::Address(address)
}

fn number(number: impl Into<U256>) -> Token {
    Token::Uint(number.into())
}

fn bytes(bytes: &Bytes) -> Token {
    Token::Bytes(bytes.to_vec())
}

fn word(address: H160) -> H256 {
    address.into()
}

/// Checks one event: its name, its indexed words after the parties, and the words of its data.
fn assert_event(stage: &Stage<'_>, log: &Log, signature: &str, open_block: Option<u32>, data: &[U256]) {
    let mut topics =
        vec![H256(keccak256(signature)), word(stage.sender.address()), word(stage.receiver.address())];
    topics.extend(open_block.map(|block| H256::from_low_u64_be(block.into())));
    let found: Vec<_> = log.data.chunks(32).map(U256::from_big_endian).collect();
    assert_eq!((log.address, &log.topics, found.as_slice()), (stage.manager(), &topics, data), "{signature}");
}

async fn info(stage: &Stage<'_>, open_block: u32) -> [U256; 4] {
    let arguments = [address(stage.sender.address()), address(stage.receiver.address()), number(open_block)];
    let words = stage.ask("getChannelInfo", &arguments).await.unwrap();
    let key = stage.ask("getKey", &arguments).await.unwrap();
    assert_eq!(words[0], key[0]);
    [words[1], words[2], words[3], words[4]]
}

#[tokio::test]
async fn channels_are_opened_and_topped_up_by_one_transfer() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let receipt = stage.succeed(&stage.sender, stage.token(), stage.transfer(units(10), None)).await;
        let block = receipt.block_number.unwrap().as_u32();
        let created = receipt.logs.last().unwrap();
        assert_event(&stage, created, "ChannelCreated(address,address,uint192)", None, &[units(10)]);
        let receipt =
            stage.succeed(&stage.sender, stage.token(), stage.transfer(units(5), Some(block))).await;
        let topped_up = receipt.logs.last().unwrap();
        let signature = "ChannelToppedUp(address,address,uint32,uint192)";
        assert_event(&stage, topped_up, signature, Some(block), &[units(5)]);
        assert_eq!(info(&stage, block).await, [units(15), U256::zero(), U256::zero(), U256::zero()]);
        assert_eq!(stage.tokens(stage.sender.address()).await, units(985));
        assert_eq!(stage.tokens(stage.manager()).await, units(15));
    })
    .await;
}

#[tokio::test]
async fn channels_are_opened_and_topped_up_after_an_approval() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let plain = stage.deployed.plain.unwrap();
        let (token, contract): (H160, H160) = (plain.token.into(), plain.channel_manager.into());
        let approve = |value| call(contracts::plain_token(), "approve", &[address(contract), number(value)]);
        let receiver = stage.receiver.address();
        let open = manager("createChannel", &[address(receiver), number(units(10))]);
        stage.refuse("opening without an allowance", &stage.sender, contract, open.clone()).await;
        stage.succeed(&stage.sender, token, approve(units(15))).await;
        stage.refuse("changing an allowance", &stage.sender, token, approve(units(16))).await;
        let receipt = stage.succeed(&stage.sender, contract, open).await;
        let block = receipt.block_number.unwrap().as_u32();
        assert_eq!(receipt.logs[0].topics[0], H256(keccak256("ChannelCreated(address,address,uint192)")));
        let top_up = |value| manager("topUp", &[address(receiver), number(block), number(value)]);
        stage.refuse("topping up above the allowance", &stage.sender, contract, top_up(units(6))).await;
        stage.succeed(&stage.sender, contract, top_up(units(5))).await;
        stage.succeed(&stage.sender, token, approve(units(1))).await;
        stage.succeed(&stage.sender, token, approve(U256::zero())).await;
    })
    .await;
}

#[tokio::test]
async fn invalid_openings_revert_without_a_reason() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let (sender, token) = (&stage.sender, stage.token());
        let (us, them) = (sender.address(), stage.receiver.address());
        let block = stage.open(units(60)).await;
        let parties = [us.0, them.0].concat();
        for (what, data) in [
            ("a deposit above the limit", stage.transfer(units(100) + 1, None)),
            ("a top up above the limit", stage.transfer(units(40) + 1, Some(block))),
            ("a top up of nothing", stage.transfer(U256::zero(), Some(block))),
            ("a top up of no channel", stage.transfer(units(1), Some(block + 1))),
            ("data of 39 bytes", stage.transfer_with(units(1), parties[..39].to_vec())),
            ("data of 41 bytes", stage.transfer_with(units(1), [&parties[..], &[0]].concat())),
            ("no data", stage.transfer_with(units(1), Vec::new())),
            ("another's sender", stage.transfer_with(units(1), [them.0, us.0].concat())),
            ("more than we have", stage.transfer(units(941), Some(block))),
        ] {
            stage.refuse(what, sender, token, data).await;
        }
        let fallback = [address(us), number(units(1)), Token::Bytes(parties)];
        stage
            .refuse(
                "a call that the token did not make",
                sender,
                stage.manager(),
                manager("tokenFallback", &fallback),
            )
            .await;
        let delegate = [address(us), address(them), number(units(1))];
        stage
            .refuse(
                "a delegate that is not trusted",
                sender,
                stage.manager(),
                manager("createChannelDelegate", &delegate),
            )
            .await;
        let delegate = [address(us), address(them), number(block), number(units(1))];
        stage
            .refuse(
                "a top up by one not trusted",
                sender,
                stage.manager(),
                manager("topUpDelegate", &delegate),
            )
            .await;
        let nobody = [address(us), address(them), number(block + 1)];
        let refused = stage.ask("getChannelInfo", &nobody).await;
        assert!(refused.is_err(), "no such channel on {}: {refused:?}", network.name);
        stage.succeed(sender, token, stage.transfer(units(40), Some(block))).await;
        assert_eq!(info(&stage, block).await[0], units(100));
        // The two-argument transfer notifies no contract, and the tokens are lost.
        let lost = call(contracts::token(), "transfer", &[address(stage.manager()), number(units(1))]);
        stage.succeed(sender, token, lost).await;
        assert_eq!(stage.tokens(stage.manager()).await, units(101));
    })
    .await;
}

#[tokio::test]
async fn a_second_channel_in_the_same_block_reverts() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let _: Value = network.request("evm_setAutomine", rpc_params![false]).await.unwrap();
        let first = stage.submit(&stage.sender, stage.token(), stage.transfer(units(1), None)).await;
        let second = stage.submit(&stage.sender, stage.token(), stage.transfer(units(2), None)).await;
        let _: Value = network.request("evm_mine", rpc_params![]).await.unwrap();
        let (first, second) = (stage.receipt(first).await, stage.receipt(second).await);
        assert_eq!(first.block_number, second.block_number);
        assert_eq!((first.status, second.status), (Some(U64::one()), Some(U64::zero())), "{}", network.name);
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_appoints_contracts_that_open_for_others() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let list = |who| [Token::Array(vec![address(who)])];
        let add = manager("addTrustedContracts", &list(stage.token()));
        stage.refuse("trust by a stranger", &stage.sender, stage.manager(), add.clone()).await;
        let owner = DevWallet::new(&accounts::key(0).unwrap()).unwrap();
        // Called on behalf of a contract, the token: it may open and top up for others once it is trusted.
        let block = stage.open(units(1)).await;
        let (us, them) = (stage.sender.address(), stage.receiver.address());
        let parties = [us.0, them.0].concat();
        let for_us = [
            manager("createChannelDelegate", &[address(us), address(them), number(0)]),
            manager("tokenFallback", &[address(stage.token()), number(1), Token::Bytes(parties)]),
        ];
        for call in &for_us {
            assert!(stage.view(stage.token(), stage.manager(), call.clone()).await.is_err());
        }
        let receipt = stage.succeed(&owner, stage.manager(), add).await;
        for call in &for_us {
            stage.view(stage.token(), stage.manager(), call.clone()).await.unwrap();
        }
        let nothing = manager("topUpDelegate", &[address(us), address(them), number(block), number(0)]);
        assert!(stage.view(stage.token(), stage.manager(), nothing).await.is_err());
        assert_eq!(
            receipt.logs[0].topics,
            [H256(keccak256("TrustedContract(address,bool)")), word(stage.token())]
        );
        assert_eq!(stage.ask("trusted_contracts", &[address(stage.token())]).await.unwrap(), [U256::one()]);
        let receipt = stage
            .succeed(&owner, stage.manager(), manager("addTrustedContracts", &list(owner.address())))
            .await;
        assert!(receipt.logs.is_empty(), "an account is no contract");
        stage.succeed(&owner, stage.manager(), manager("removeTrustedContracts", &list(stage.token()))).await;
        assert_eq!(stage.ask("trusted_contracts", &[address(stage.token())]).await.unwrap(), [U256::zero()]);
        assert_eq!(stage.ask("owner_address", &[]).await.unwrap(), [U256::from(owner.address().as_bytes())]);
        assert_eq!(stage.ask("token", &[]).await.unwrap(), [U256::from(stage.token().as_bytes())]);
        assert_eq!(stage.ask("challenge_period", &[]).await.unwrap(), [CHALLENGE_PERIOD.into()]);
        assert_eq!(stage.ask("channel_deposit_bugbounty_limit", &[]).await.unwrap(), [units(100)]);
        let version = stage.ask("version", &[]).await.unwrap();
        assert_eq!(version[2] >> 216, U256::from(b"0.2.0".as_slice()));
    })
    .await;
}

#[tokio::test]
async fn the_reference_signatures_close_the_reference_channel() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/microraiden.json")).unwrap();
    let (proof, closing) = (&vectors["balance_proofs"][0], &vectors["closing_signatures"][0]);
    let signature =
        |vector: &Value, name: &str| Bytes::from(hex::decode(vector[name].as_str().unwrap()).unwrap());
    each_network(async |network| {
        let stage = Stage::set(network).await;
        assert_eq!(stage.manager(), proof["contract"].as_str().unwrap().parse().unwrap());
        let block = proof["open_block_number"].as_u64().unwrap();
        network.mine(block - 1 - network.height().await).await;
        assert_eq!(u64::from(stage.open(units(1)).await), block);
        for form in ["signature", "signature_v01"] {
            let arguments = [
                address(stage.receiver.address()),
                number(block),
                number(15),
                bytes(&signature(proof, form)),
            ];
            let signer = stage.ask("extractBalanceProofSignature", &arguments).await.unwrap();
            assert_eq!(signer, [U256::from(stage.sender.address().as_bytes())], "{form}");
        }
        let key = U256::from(
            hex::decode(proof["channel_key_if_signer_is_sender"].as_str().unwrap()).unwrap().as_slice(),
        );
        let channel = stage.ask("channels", &[Token::FixedBytes(word_of(key))]).await.unwrap();
        assert_eq!(channel, [units(1), block.into()]);
        let close = manager(
            "cooperativeClose",
            &[
                address(stage.receiver.address()),
                number(block),
                number(15),
                bytes(&signature(proof, "signature_v01")),
                bytes(&signature(closing, "signature")),
            ],
        );
        let receipt = stage.succeed(&wallet_of_a_stranger(), stage.manager(), close).await;
        let settled = receipt.logs.last().unwrap();
        let name = "ChannelSettled(address,address,uint32,uint192,uint192)";
        assert_event(&stage, settled, name, Some(block as u32), &[15.into(), 15.into()]);
        assert_eq!(stage.tokens(stage.receiver.address()).await, units(1_000) + 15);
        assert_eq!(stage.tokens(stage.sender.address()).await, units(1_000) - 15);
    })
    .await;
}

fn word_of(number: U256) -> Vec<u8> {
    let mut word = [0; 32];
    number.to_big_endian(&mut word);
    word.to_vec()
}

fn wallet_of_a_stranger() -> DevWallet {
    DevWallet::new(&accounts::key(5).unwrap()).unwrap()
}

#[tokio::test]
async fn a_cooperative_close_needs_both_signatures_under_the_same_total() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let block = stage.open(units(2)).await;
        let (one, two, three) = (units(1), units(2), units(3));
        let close = |balance: U256, proof: Bytes, closing: Bytes| {
            let receiver = address(stage.receiver.address());
            manager(
                "cooperativeClose",
                &[receiver, number(block), number(balance), bytes(&proof), bytes(&closing)],
            )
        };
        let cut = |signature: Bytes| Bytes::from(signature[..64].to_vec());
        let with_v = |signature: Bytes, v: u8| Bytes::from([&signature[..64], &[v]].concat());
        for (what, data) in [
            ("totals that differ", close(one, stage.proof(block, one), stage.closing(block, two))),
            ("a total that was not signed", close(two, stage.proof(block, one), stage.closing(block, two))),
            ("more than the deposit", close(three, stage.proof(block, three), stage.closing(block, three))),
            ("a short signature", close(one, cut(stage.proof(block, one)), stage.closing(block, one))),
            ("v = 2", close(one, with_v(stage.proof(block, one), 2), stage.closing(block, one))),
            ("v = 29", close(one, stage.proof(block, one), with_v(stage.closing(block, one), 29))),
            ("another block", close(one, stage.proof(block + 1, one), stage.closing(block + 1, one))),
        ] {
            stage.refuse(what, &stage.sender, stage.manager(), data).await;
        }
        stage
            .succeed(
                &stage.receiver,
                stage.manager(),
                close(two, stage.proof(block, two), stage.closing(block, two)),
            )
            .await;
        let again = close(two, stage.proof(block, two), stage.closing(block, two));
        stage.refuse("closing twice", &stage.receiver, stage.manager(), again).await;
    })
    .await;
}

#[tokio::test]
async fn closing_alone_takes_the_challenge_period() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let (sender, contract) = (&stage.sender, stage.manager());
        let receiver = address(stage.receiver.address());
        let block = stage.open(units(3)).await;
        let request = |balance: U256| {
            manager("uncooperativeClose", &[receiver.clone(), number(block), number(balance)])
        };
        let settle = manager("settle", &[receiver.clone(), number(block)]);
        stage.refuse("settling before closing", sender, contract, settle.clone()).await;
        stage.refuse("closing above the deposit", sender, contract, request(units(3) + 1)).await;
        stage.refuse("closing by the receiver", &stage.receiver, contract, request(units(1))).await;
        let receipt = stage.succeed(sender, contract, request(units(1))).await;
        let name = "ChannelCloseRequested(address,address,uint32,uint192)";
        assert_event(&stage, &receipt.logs[0], name, Some(block), &[units(1)]);
        let settle_block = receipt.block_number.unwrap().as_u64() + CHALLENGE_PERIOD;
        assert_eq!(info(&stage, block).await, [units(3), settle_block.into(), units(1), U256::zero()]);
        stage.refuse("closing twice", sender, contract, request(units(2))).await;
        stage
            .refuse("a top up while closing", sender, stage.token(), stage.transfer(units(1), Some(block)))
            .await;
        let withdraw =
            manager("withdraw", &[number(block), number(units(1)), bytes(&stage.proof(block, units(1)))]);
        stage.refuse("a withdrawal while closing", &stage.receiver, contract, withdraw).await;
        // The next transaction is mined in the settle block itself: one too early.
        network.mine(settle_block - 1 - network.height().await).await;
        let early = stage.run(sender, contract, settle.clone()).await;
        assert_eq!((early.block_number, early.status), (Some(settle_block.into()), Some(U64::zero())));
        stage.refuse("settling by the receiver", &stage.receiver, contract, settle.clone()).await;
        let receipt = stage.succeed(sender, contract, settle).await;
        let name = "ChannelSettled(address,address,uint32,uint192,uint192)";
        assert_event(&stage, receipt.logs.last().unwrap(), name, Some(block), &[units(1), units(1)]);
        assert_eq!(stage.tokens(sender.address()).await, units(999));
    })
    .await;
}

#[tokio::test]
async fn a_unilateral_close_below_the_withdrawn_amount_locks_the_channel() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let (sender, receiver, contract) = (&stage.sender, &stage.receiver, stage.manager());
        let block = stage.open(units(9)).await;
        let withdraw = |total: U256| {
            manager("withdraw", &[number(block), number(total), bytes(&stage.proof(block, total))])
        };
        stage.refuse("withdrawing nothing", receiver, contract, withdraw(U256::zero())).await;
        stage.refuse("withdrawing above the deposit", receiver, contract, withdraw(units(10))).await;
        stage.refuse("withdrawing by the sender", sender, contract, withdraw(units(2))).await;
        stage.succeed(receiver, contract, withdraw(units(2))).await;
        stage.refuse("withdrawing the same again", receiver, contract, withdraw(units(2))).await;
        let receipt = stage.succeed(receiver, contract, withdraw(units(5))).await;
        let name = "ChannelWithdraw(address,address,uint32,uint192)";
        assert_event(&stage, receipt.logs.last().unwrap(), name, Some(block), &[units(3)]);
        assert_eq!(info(&stage, block).await[3], units(5));
        let receiver_token = address(receiver.address());
        let request = |total: U256| {
            manager("uncooperativeClose", &[receiver_token.clone(), number(block), number(total)])
        };
        stage.succeed(sender, contract, request(units(4))).await;
        network.mine(CHALLENGE_PERIOD + 1).await;
        let settle = manager("settle", &[receiver_token.clone(), number(block)]);
        stage.refuse("settling below what was withdrawn", sender, contract, settle).await;
        stage.refuse("closing again", sender, contract, request(units(5))).await;
        stage.refuse("topping up", sender, stage.token(), stage.transfer(units(1), Some(block))).await;
        let close = |total: U256| {
            let signatures = [bytes(&stage.proof(block, total)), bytes(&stage.closing(block, total))];
            let [proof, closing] = signatures;
            manager(
                "cooperativeClose",
                &[receiver_token.clone(), number(block), number(total), proof, closing],
            )
        };
        stage.refuse("closing together below it", receiver, contract, close(units(4))).await;
        let receipt = stage.succeed(receiver, contract, close(units(5))).await;
        let name = "ChannelSettled(address,address,uint32,uint192,uint192)";
        assert_event(&stage, receipt.logs.last().unwrap(), name, Some(block), &[units(5), U256::zero()]);
        assert_eq!(stage.tokens(receiver.address()).await, units(1_005));
    })
    .await;
}

/// What must be the same on both networks: everything that does not depend on the clock.
fn essence(receipt: &TransactionReceipt) -> Value {
    let logs: Vec<_> =
        receipt.logs.iter().map(|log| json!([log.address, log.topics, log.data, log.log_index])).collect();
    json!([
        receipt.transaction_hash,
        receipt.from,
        receipt.to,
        receipt.status,
        receipt.gas_used,
        receipt.cumulative_gas_used,
        receipt.contract_address,
        receipt.block_number,
        receipt.transaction_index,
        receipt.transaction_type,
        receipt.effective_gas_price,
        receipt.logs_bloom,
        logs
    ])
}

/// An EIP-1559 transaction, whose price depends on the base fee of its block.
async fn mint_with_a_tip(stage: &Stage<'_>) -> TransactionReceipt {
    let data = call(contracts::token(), "mint", &[address(stage.receiver.address()), number(1)]);
    let transaction = json!({
        "from": wallet_of_a_stranger().address(), "to": stage.token(), "data": data, "gas": "0x20000",
        "maxFeePerGas": "0x12a05f200", "maxPriorityFeePerGas": "0x3",
    });
    let hash = stage.network.request("eth_sendTransaction", rpc_params![transaction]).await.unwrap();
    stage.receipt(hash).await
}

#[tokio::test]
async fn both_networks_give_the_same_receipts() {
    let seen: Mutex<Vec<Vec<Value>>> = Mutex::default();
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let (sender, contract, token) = (&stage.sender, stage.manager(), stage.token());
        let mut receipts = vec![stage.succeed(sender, token, stage.transfer(units(9), None)).await];
        let opening_gas = receipts[0].gas_used.unwrap();
        assert!((80_000..110_000).contains(&opening_gas.as_u64()), "{opening_gas}");
        let block = receipts[0].block_number.unwrap().as_u32();
        receipts.push(stage.succeed(sender, token, stage.transfer(units(1), Some(block))).await);
        receipts.push(stage.run(sender, token, stage.transfer(U256::zero(), Some(block))).await);
        let request =
            manager("uncooperativeClose", &[address(stage.receiver.address()), number(block), number(1)]);
        receipts.push(stage.succeed(sender, contract, request).await);
        receipts.push(mint_with_a_tip(&stage).await);
        network.mine(CHALLENGE_PERIOD).await;
        receipts.push(mint_with_a_tip(&stage).await);
        let settle = manager("settle", &[address(stage.receiver.address()), number(block)]);
        receipts.push(stage.succeed(sender, contract, settle).await);
        seen.lock().unwrap().push(receipts.iter().map(essence).collect());
    })
    .await;
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().all(|receipts| *receipts == seen[0]), "{seen:#?}");
}

#[tokio::test]
async fn early_nonces_wait_and_wrong_ones_are_named() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let (sender, token) = (&stage.sender, stage.token());
        let sign =
            async |nonce: u64| stage.sign(sender, token, stage.transfer(units(1), None), nonce.into()).await;
        let send =
            async |raw: &Bytes| network.request::<H256>("eth_sendRawTransaction", rpc_params![raw]).await;
        let (early, first) = (sign(1).await, sign(0).await);
        let waiting = send(&early).await.unwrap();
        let none: Option<TransactionReceipt> =
            network.request("eth_getTransactionReceipt", rpc_params![waiting]).await.unwrap();
        assert!(none.is_none());
        let error = send(&early).await.unwrap_err().to_string();
        assert!(error.contains("already"), "{error}");
        let hash = send(&first).await.unwrap();
        assert_eq!(stage.receipt(hash).await.status, Some(U64::one()));
        stage.receipt(waiting).await;
        let other = stage.sign(sender, token, stage.transfer(units(2), None), U256::zero()).await;
        let error = send(&other).await.unwrap_err().to_string();
        assert!(error.contains("nonce too low"), "{error}");
        let poor = stage.sign(&wallet(0xcc), token, Bytes::new(), U256::zero()).await;
        let error = send(&poor).await.unwrap_err().to_string().to_lowercase();
        assert!(error.contains("insufficient funds"), "{error}");
        for garbage in ["0x", "0x02", "0xc0", "0xf8", "0x02c0", "0x01ff00", "0x03c0"] {
            assert!(
                network.request::<H256>("eth_sendRawTransaction", rpc_params![garbage]).await.is_err(),
                "{garbage}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn events_are_found_by_range_topic_and_address() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let block = stage.open(units(1)).await;
        stage.succeed(&stage.sender, stage.token(), stage.transfer(units(1), Some(block))).await;
        let created = H256(keccak256("ChannelCreated(address,address,uint192)"));
        let topped_up = H256(keccak256("ChannelToppedUp(address,address,uint32,uint192)"));
        let us = word(stage.sender.address());
        let find = async |topics: Value, from: u32| -> Vec<Log> {
            let filter = json!({"address": stage.manager(), "topics": topics, "fromBlock": format!("{from:#x}"), "toBlock": "latest"});
            network.request("eth_getLogs", rpc_params![filter]).await.unwrap()
        };
        let all = find(json!([[created, topped_up], us]), 0).await;
        assert_eq!(all.iter().map(|log| log.topics[0]).collect::<Vec<_>>(), [created, topped_up]);
        assert_eq!(all[0].block_number, Some(block.into()));
        assert_eq!(find(json!([created, null, us]), 0).await, []);
        assert_eq!(find(json!([null, us]), block + 1).await, all[1..]);
        let above = json!({"fromBlock": "0xffff", "toBlock": "0xfffff"});
        let above: Result<Vec<Log>, _> = network.request("eth_getLogs", rpc_params![above]).await;
        assert!(above.is_err(), "a filter above the head");
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_takes_blocks_and_state_back() {
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let height = network.height().await;
        let snapshot: U64 = network.request("evm_snapshot", rpc_params![]).await.unwrap();
        let block = stage.open(units(1)).await;
        network.mine(3).await;
        let reverted: bool = network.request("evm_revert", rpc_params![snapshot]).await.unwrap();
        assert!(reverted);
        assert_eq!(network.height().await, height);
        assert_eq!(stage.tokens(stage.sender.address()).await, units(1_000));
        network.mine(1).await;
        let again = stage.open(units(1)).await;
        assert_eq!(again, block + 1, "the opening moved by a block");
        let head: Block<H256> =
            network.request("eth_getBlockByNumber", rpc_params!["latest", false]).await.unwrap();
        let parent: Block<H256> =
            network.request("eth_getBlockByHash", rpc_params![head.parent_hash, false]).await.unwrap();
        assert_eq!(parent.number, Some(block.into()));
    })
    .await;
}

#[tokio::test]
async fn the_estimate_is_enough_and_no_more() {
    let seen: Mutex<Vec<U256>> = Mutex::default();
    each_network(async |network| {
        let stage = Stage::set(network).await;
        let call = json!({"from": stage.sender.address(), "to": stage.token(), "data": stage.transfer(units(1), None)});
        let gas = network.request("eth_estimateGas", rpc_params![call]).await.unwrap();
        seen.lock().unwrap().push(gas);
        let bad = json!({"from": stage.sender.address(), "to": stage.token(), "data": stage.transfer(units(101), None)});
        let error = network.request::<U256>("eth_estimateGas", rpc_params![bad]).await.unwrap_err().to_string();
        assert!(error.contains("execution reverted"), "{error}");
    })
    .await;
    let seen = seen.into_inner().unwrap();
    // Anvil stops its search slightly above the minimum.
    assert!(seen.iter().all(|gas| *gas >= seen[0] && *gas <= seen[0] * 102 / 100), "{seen:?}");
}

#[tokio::test]
async fn an_old_network_knows_legacy_transactions_only() {
    let network =
        Network::embedded(DevChainSettings { has_base_fee: false, ..DevChainSettings::default() }).await;
    let stage = Stage::set(&network).await;
    stage.open(units(1)).await;
    let head: Value = network.request("eth_getBlockByNumber", rpc_params!["latest", false]).await.unwrap();
    assert_eq!(head.get("baseFeePerGas"), None);
    for method in ["eth_feeHistory", "eth_maxPriorityFeePerGas"] {
        let error = network.request::<Value>(method, rpc_params!["0x1", "latest", [50]]).await.unwrap_err();
        assert!(error.to_string().contains("Method not found"), "{method}: {error}");
    }
}

#[tokio::test]
async fn a_wide_query_is_refused_where_the_node_says_so() {
    let network =
        Network::embedded(DevChainSettings { max_log_range: Some(10), ..DevChainSettings::default() }).await;
    network.mine(30).await;
    let query = |to: u64| rpc_params![json!({"fromBlock": "0x1", "toBlock": format!("{to:#x}")})];
    assert!(network.request::<Vec<Log>>("eth_getLogs", query(10)).await.is_ok());
    assert!(network.request::<Vec<Log>>("eth_getLogs", query(11)).await.is_err());
}

#[tokio::test]
async fn a_clock_makes_blocks_and_a_stopped_chain_frees_its_port() {
    let settings = DevChainSettings {
        block_time: Some(std::time::Duration::from_millis(20)),
        ..DevChainSettings::default()
    };
    let network = Network::embedded(settings).await;
    let started = network.height().await;
    let stage = Stage::set(&network).await;
    assert!(stage.open(units(1)).await > started as u32);
    let address = network.url.trim_start_matches("http://").to_owned();
    network.stop().await;
    tokio::net::TcpListener::bind(address).await.unwrap();
}

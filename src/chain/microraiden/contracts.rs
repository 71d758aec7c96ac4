//! Typed calls and events of the contracts (µRaiden 0.2.0; the token: ERC-20 with ERC-223's `transfer`).
//!
//! The two-argument `transfer` is left out on purpose: sent to the channel contract it succeeds, and the tokens are
//! lost.

use ethers_core::abi::Token;
use ethers_core::types::{Bytes, H160, H256, U256};
use ethers_core::utils::keccak256;

use crate::chain::contract_call::ContractCall;
use crate::protocol::{Address, Amount, ChannelId, ChannelOp, Signature};

/// An event of the channel contract. The first topics are the event, the payer and the receiver, and for all but the first
/// one the open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chain) enum ChannelEvent {
    /// Its data is the deposit; the open block is that of the event.
    Created,
    /// Its data is the amount added.
    ToppedUp,
    /// Its data is the total of the request.
    CloseRequested,
    /// Its data is the final total, then the receiver's tokens.
    Settled,
    /// Its data is the amount withdrawn.
    Withdraw,
}

impl ChannelEvent {
    /// All events that tell of a channel.
    pub const ALL: [Self; 5] =
        [Self::Created, Self::ToppedUp, Self::CloseRequested, Self::Settled, Self::Withdraw];

    /// The event's name and the types of its parameters.
    const fn signature(self) -> &'static str {
        match self {
            Self::Created => "ChannelCreated(address,address,uint192)",
            Self::ToppedUp => "ChannelToppedUp(address,address,uint32,uint192)",
            Self::CloseRequested => "ChannelCloseRequested(address,address,uint32,uint192)",
            Self::Settled => "ChannelSettled(address,address,uint32,uint192,uint192)",
            Self::Withdraw => "ChannelWithdraw(address,address,uint32,uint192)",
        }
    }

    /// The first topic of such an event.
    pub fn topic(self) -> H256 {
        H256(keccak256(self.signature()))
    }
}

/// The token that channels hold: an `address`.
pub(in crate::chain) fn token() -> ContractCall {
    ContractCall::new("token()", [])
}

/// The contract's version: a `string`.
pub(in crate::chain) fn version() -> ContractCall {
    ContractCall::new("version()", [])
}

/// Blocks between a unilateral close and its settlement: a `uint32`.
pub(in crate::chain) fn challenge_period() -> ContractCall {
    ContractCall::new("challenge_period()", [])
}

/// The highest deposit of a channel: a `uint192`.
pub(in crate::chain) fn deposit_limit() -> ContractCall {
    ContractCall::new("channel_deposit_bugbounty_limit()", [])
}

/// Opens a channel with tokens that the contract may move.
pub(in crate::chain) fn create_channel(receiver: Address, deposit: Amount) -> ContractCall {
    ContractCall::new("createChannel(address,uint192)", [address(receiver), amount(deposit)])
}

/// Adds tokens that the contract may move to a channel.
pub(in crate::chain) fn top_up(channel: ChannelId, added: Amount) -> ContractCall {
    let ChannelId { receiver, open_block } = channel;
    ContractCall::new("topUp(address,uint32,uint192)", [address(receiver), block(open_block), amount(added)])
}

/// A channel of `sender`; see [`ChannelInfo`].
pub(in crate::chain) fn channel_info(sender: Address, channel: ChannelId) -> ContractCall {
    let ChannelId { receiver, open_block } = channel;
    ContractCall::new(
        "getChannelInfo(address,address,uint32)",
        [address(sender), address(receiver), block(open_block)],
    )
}

/// The answer to [`channel_info`]: the channel's key, deposit, settle block, closing balance and withdrawn total.
pub(in crate::chain) type ChannelInfo = ([u8; 32], U256, u32, U256, U256);

fn cooperative_close(
    channel: ChannelId,
    balance: Amount,
    balance_signature: Signature,
    closing_signature: Signature,
) -> ContractCall {
    let ChannelId { receiver, open_block } = channel;
    ContractCall::new(
        "cooperativeClose(address,uint32,uint192,bytes,bytes)",
        [
            address(receiver),
            block(open_block),
            amount(balance),
            Token::Bytes(balance_signature.0.into()),
            Token::Bytes(closing_signature.0.into()),
        ],
    )
}

fn uncooperative_close(channel: ChannelId, balance: Amount) -> ContractCall {
    let ChannelId { receiver, open_block } = channel;
    ContractCall::new(
        "uncooperativeClose(address,uint32,uint192)",
        [address(receiver), block(open_block), amount(balance)],
    )
}

fn settle(channel: ChannelId) -> ContractCall {
    let ChannelId { receiver, open_block } = channel;
    ContractCall::new("settle(address,uint32)", [address(receiver), block(open_block)])
}

/// ERC-223's `transfer`, which calls the receiver, a contract, with `data`.
pub(in crate::chain) fn transfer(to: Address, value: Amount, data: Vec<u8>) -> ContractCall {
    ContractCall::new("transfer(address,uint256,bytes)", [address(to), amount(value), Token::Bytes(data)])
}

fn address(of: Address) -> Token {
    Token::Address(H160::from(of))
}

fn amount(units: Amount) -> Token {
    Token::Uint(units.into())
}

fn block(number: u32) -> Token {
    Token::Uint(number.into())
}

/// The `data` that the token passes to the channel contract: payer and receiver, and for a top-up the open block.
pub(in crate::chain) fn transfer_data(payer: Address, op: &ChannelOp) -> Vec<u8> {
    let mut data = Vec::with_capacity(44);
    data.extend_from_slice(&payer.0);
    data.extend_from_slice(&op.receiver().0);
    if let ChannelOp::TopUp { channel, .. } = op {
        data.extend_from_slice(&channel.open_block.to_be_bytes());
    }
    data
}

/// How an operation is carried out on the chain.
pub(in crate::chain) enum OpKind {
    /// Moves this many base units into a channel.
    Fund(Amount),
    /// Ends a channel, or starts its challenge period, by this call of the channel contract.
    End(ChannelId, Bytes),
}

/// How `op` is carried out.
pub(in crate::chain) fn op_kind(op: &ChannelOp) -> OpKind {
    match *op {
        ChannelOp::Open { deposit, .. } => OpKind::Fund(deposit),
        ChannelOp::TopUp { added, .. } => OpKind::Fund(added),
        ChannelOp::CloseTogether { channel, total, balance_signature, closing_signature } => {
            let call = cooperative_close(channel, total, balance_signature, closing_signature);
            OpKind::End(channel, call.data())
        }
        ChannelOp::CloseAlone { channel, total } => {
            OpKind::End(channel, uncooperative_close(channel, total).data())
        }
        ChannelOp::Settle { channel } => OpKind::End(channel, settle(channel).data()),
    }
}

#[cfg(test)]
mod tests {
    use ethers_core::utils::hex;

    use crate::chain::microraiden::contracts::*;

    #[test]
    fn calls_have_the_selectors_of_the_original() {
        let (one, other) = (Address([1; 20]), Address([2; 20]));
        let channel = ChannelId { receiver: other, open_block: 7 };
        let (total, signature) = (Amount::from(5), Signature([3; 65]));
        for (selector, call) in [
            ("fc0c546a", token()),
            ("54fd4d50", version()),
            ("0a00840c", challenge_period()),
            ("6108b5ff", deposit_limit()),
            ("a6d15963", create_channel(other, total)),
            ("016a8cf6", top_up(channel, total)),
            ("0eba6b06", channel_info(one, channel)),
            ("1c6f609b", cooperative_close(channel, total, signature, signature)),
            ("323cb59b", uncooperative_close(channel, total)),
            ("5a8e9d66", settle(channel)),
            ("be45fd62", transfer(one, total, vec![1, 2, 3])),
        ] {
            assert_eq!(hex::encode(&call.data()[..4]), selector, "{call:?}");
            assert_eq!(Ok(call.data()), call.checked_data(), "{call:?}");
        }
    }

    #[test]
    fn events_have_the_topics_of_the_original() {
        let topics = ChannelEvent::ALL.map(|event| hex::encode(event.topic()));
        assert_eq!(
            topics,
            [
                "986876e67d288f7b8bc5229976a1d5710be919feb66d2e1aec1bf3eadebba207",
                "283bcbed58779cdfe40c216a69673863430a43dbf7fe557730c0498890e55126",
                "960e55a871be40c817ffd64e2117c513e42f047ccfdcbc5454e68dfc65e9a9b0",
                "5f32714de7650ec742b858687d8db145623b99b0748db73df3ffc4d718867a8d",
                "e588a2bb9921c62e0da981f10952a3bb82216bf11a1f731da610fd2542eef27d",
            ]
        );
    }

    #[test]
    fn the_data_of_a_transfer_is_40_bytes_to_open_and_44_to_top_up() {
        let (payer, receiver) = (Address([1; 20]), Address([2; 20]));
        let open = transfer_data(payer, &ChannelOp::Open { receiver, deposit: Amount::from(5) });
        assert_eq!(open, [[1; 20], [2; 20]].concat());
        let channel = ChannelId { receiver, open_block: 0x0102_0304 };
        let top_up = transfer_data(payer, &ChannelOp::TopUp { channel, added: Amount::from(5) });
        assert_eq!(top_up, [&[1; 20][..], &[2; 20], &[1, 2, 3, 4]].concat());
    }
}

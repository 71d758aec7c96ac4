//! The parts of a payment, measured separately and on one thread: signatures, recovery, the engine, the journal.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ethers_core::types::{H256, RecoveryMessage};
use http::HeaderMap;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, Secp256k1, SecretKey};

use tollpass::devnet::accounts::DevWallet;
use tollpass::payments::journal::Journal;
use tollpass::protocol::channel::{Channel, ChannelDraft};
use tollpass::protocol::engine::{Effect, Engine, Input, Outcome, PurchaseId, Record, host_name};
use tollpass::protocol::policy::AuthorizationLimits;
use tollpass::protocol::policy::Deposit;
use tollpass::protocol::policy::SpendLimit;
use tollpass::protocol::schemes::microraiden::{self, MicroRaiden, proof};
use tollpass::protocol::schemes::{Payer, Scheme as _};
use tollpass::protocol::{Account, Address, Amount, ChannelId, Offer, OnChain, Policy, Signature};

const KEY: [u8; 32] = [7; 32];
const DIGEST: [u8; 32] = [9; 32];
/// The longest time to measure one part.
const PATIENCE: Duration = Duration::from_millis(600);
/// How many operations are timed together.
const BATCH: u32 = 50;

/// Measures and prints all of them. Returns the time of the payer's signature and the seller's verification together,
/// in microseconds.
pub fn report() -> anyhow::Result<f64> {
    println!("{:<44} {:>11}", "one part of a payment, on one thread", "median");
    let wallet = DevWallet::new(&KEY).context("no key")?;
    show("sign, k256", || wallet.sign(H256(black_box(DIGEST))));
    let curve = Secp256k1::new();
    let key = SecretKey::from_byte_array(KEY)?;
    let message = Message::from_digest(DIGEST);
    let sign = show("sign, libsecp256k1", || curve.sign_ecdsa_recoverable(black_box(message), &key));

    let signed = wallet.sign(H256(DIGEST)).context("no signature")?;
    show("recover, k256 (through ethers-core)", || {
        signed.recover(RecoveryMessage::Hash(black_box(H256(DIGEST))))
    });
    let bytes: [u8; 65] = signed.into();
    let id = if bytes[64] == 27 { RecoveryId::Zero } else { RecoveryId::One };
    let signature = RecoverableSignature::from_compact(&bytes[..64], id)?;
    let recover = show("recover, libsecp256k1", || curve.recover_ecdsa(black_box(message), &signature));

    let account = account();
    let channel = ChannelId { receiver: Address([3; 20]), open_block: 9 };
    show("digest of a payment", || {
        proof::balance_digest(channel, black_box(Amount::from(7)), account.contract)
    });
    let draft = ChannelDraft { channel, total: Amount::from(7), price: Amount::from(1), is_query: false };
    let payer = Payer { address: account.payer, account: Some(account) };
    show("headers of a payment", || {
        let mut fields = HeaderMap::new();
        MicroRaiden::attach(black_box(&draft), &payer, &Signature(bytes), &mut fields);
        fields
    });
    grants(channel, account)?;
    writes(channel, account)?;
    Ok(sign + recover)
}

/// Prints and returns the median, in microseconds.
fn show<T>(what: &str, mut work: impl FnMut() -> T) -> f64 {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < PATIENCE {
        let start = Instant::now();
        for _ in 0..BATCH {
            black_box(work());
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(BATCH));
    }
    let median = crate::median(&times);
    println!("{what:<44} {median:>8.1} µs");
    median
}

/// From a demand to the grant and back, in the engine only.
fn grants(channel: ChannelId, account: Account) -> anyhow::Result<()> {
    let policy = Policy {
        version: 0,
        clients: Arc::default(),
        distinguishes_clients: false,
        budgets: Vec::new(),
        rules: Vec::new(),
        deposit: Deposit::default(),
        hooks: Arc::default(),
        max_attempts: 8,
        sign_ahead: 256,
        ready_timeout: PATIENCE,
        pay_timeout: PATIENCE,
        authorizations: AuthorizationLimits::default(),
    };
    let mut engine = Engine::new(Arc::new(policy));
    let on_chain = OnChain {
        deposit: Amount::MAX,
        settle_block: 0,
        closing_balance: Amount::ZERO,
        withdrawn: Amount::ZERO,
    };
    let ready = Input::Ready {
        account,
        channels: Vec::new(),
        hosts: Vec::new(),
        intents: Vec::new(),
        deposits: Vec::new(),
        on_chain: vec![(channel, Some(on_chain))],
        cursor: 0,
    };
    engine.handle(ready, Instant::now());
    // Otherwise, each payment would first query the seller.
    engine.handle(Input::SellerTotal(channel, Amount::ZERO, false), Instant::now());
    let offer = Offer::MicroRaiden(microraiden::ChannelOffer {
        price: Amount::from(1),
        contract: account.contract,
        receiver: channel.receiver,
        token: Some(account.token),
        gateway: None,
        complaint: None,
        state: None,
    });
    let (host, max_price) = (host_name("seller.example"), Amount::from(1));
    let limit = SpendLimit {
        host,
        max_price: max_price.into(),
        receivers: Vec::new(),
        preference: Arc::default(),
        hooks: Arc::default(),
        budgets: Arc::default(),
        origin: Default::default(),
    };
    let (mut next, mut granted) = (0, 0);
    show("demand, grant and return, in the engine", || {
        let (purchase, now) = (PurchaseId(next), Instant::now());
        next += 1;
        let (offer, limit) = (offer.clone(), limit.clone());
        let deadline = now + Duration::from_secs(60);
        engine.handle(Input::Demand { purchase, offer, limit, deadline }, now);
        while let Some(effect) = engine.poll_effect() {
            match effect {
                Effect::Grant(..) => granted += 1,
                Effect::Persist(seq, _) => engine.handle(Input::Durable(seq), now),
                _ => {}
            }
        }
        engine.handle(Input::Answer(purchase, Outcome::Accepted), now);
    });
    anyhow::ensure!(granted == next, "{granted} of {next} were granted");
    Ok(())
}

/// One durable write, as it precedes a signature without sign-ahead.
fn writes(id: ChannelId, account: Account) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("no temporary directory")?;
    let mut journal = Journal::open(directory.path())?;
    let account = journal.load(&account)?.id;
    let channel = Channel::new(OnChain {
        deposit: Amount::MAX,
        settle_block: 0,
        closing_balance: Amount::ZERO,
        withdrawn: Amount::ZERO,
    });
    show("one durable write of the journal (waits)", || {
        journal.write(Some(account), &[Record::Channel(id, channel)])
    });
    Ok(())
}

fn account() -> Account {
    let address = |byte| Address([byte; 20]);
    Account { chain_id: 1337, contract: address(0xcc), token: address(0x70), payer: address(0xaa) }
}

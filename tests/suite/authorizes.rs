//! One-shot payments: each is an authorization of its own, without a channel and without a chain. The seller here checks
//! signatures with code of its own and takes each authorization once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ethers_core::types::{Signature as EthersSignature, U256};
use ethers_core::utils::{hex, keccak256};
use http::{HeaderName, Request, StatusCode};
use tollpass::channels::Operation;
use tollpass::config::Config;
use tollpass::payments::journal;
use tollpass::payments::ledger::{LedgerRow, LedgerState};
use tollpass::payments::{Spending, Tally};
use tollpass::protocol::engine::HoldReason;
use tollpass::protocol::policy::{Allow, PriceLimit};
use tollpass::protocol::schemes::test_token::{COMPLAINT, OFFER, PAYMENT, RECEIPT, at_most};
use tollpass::protocol::{Address, Amount};

use crate::ledger;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Presented};
use crate::support::payer::{Alice, PATIENCE, Running};
use crate::support::ports::ReservedPort;
use crate::support::wire::{Got, Wire, ask};

const BOB: Address = Address([0xb0; 20]);
const MALLORY: Address = Address([0x3a; 20]);

/// A rule for the host, and what it permits in the test's asset.
const RULE: &str = "[[pay]]\nhost = \"localhost\"\nmax_price = 10\n";
/// A rule in the channels' token.
const CHANNEL_RULE: &str = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10\n";
/// A complaint that ends soon.
const LATER: &str = "[hooks.insufficient_confirmations]\naction = \"retry\"\nevery = \"10ms\"\ntimes = 5\ntimeout = \"20s\"\n";

/// What a seller answers once it was presented an authorization.
type Cheat = fn() -> Answer;

/// The authorizations that a seller took.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<BTreeSet<[u8; 32]>>>);

impl Taken {
    /// Takes an authorization of `price` for Bob; `None` if it is not a good one, or was taken before.
    fn take(&self, presented: &Presented, price: u64) -> Option<[u8; 32]> {
        let value = presented.headers.get(&PAYMENT)?.to_str().unwrap();
        let mut parts = value.split(", ").map(|part| part.split_once('=').unwrap());
        let mut next = |name| {
            let (key, value) = parts.next().unwrap();
            assert_eq!(key, name, "{value}");
            hex::decode(value).unwrap()
        };
        let (payer, nonce, signature) = (next("payer"), next("nonce"), next("signature"));
        let mut amount = [0; 32];
        U256::from(price).to_big_endian(&mut amount);
        let schema = keccak256(b"string messageaddress payeeuint192 pricebytes32 nonce");
        let values = [b"test-token payment".as_slice(), &BOB.0, &amount[8..], &nonce].concat();
        let digest = keccak256([schema, keccak256(values)].concat());
        let signer = EthersSignature::try_from(signature.as_slice()).unwrap().recover(digest).ok()?;
        let nonce = nonce.try_into().unwrap();
        (signer.as_bytes() == payer && self.0.lock().unwrap().insert(nonce)).then_some(nonce)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn offer(price: impl ToString, payee: Address) -> Answer {
    let offer = format!("price={}, payee={payee}", price.to_string());
    Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n").header(&OFFER, offer)
}

fn served(nonce: [u8; 32]) -> Answer {
    Answer::new(StatusCode::OK, "goods\n").header(&RECEIPT, hex::encode_prefixed(nonce))
}

/// Sells at one price.
fn honest(taken: &Taken, price: u64) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let taken = taken.clone();
    move |presented| match taken.take(presented, price) {
        Some(nonce) => served(nonce),
        None => offer(price, BOB),
    }
}

/// Makes an honest offer until a request carries an authorization, then answers with `then`.
fn once_paid(
    price: u64,
    mut then: impl FnMut(&Presented) -> Answer + Send + 'static,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |presented| match presented.headers.contains_key(&PAYMENT) {
        true => then(presented),
        false => offer(price, BOB),
    }
}

/// Has the rules for "localhost" permit the test's asset, which no configuration file can name.
fn permit(config: &mut Config) {
    for rule in &mut config.policy.rules {
        if let Allow::Pay { max_price, .. } = &mut rule.allow
            && rule.host.to_string() == "localhost"
        {
            let PriceLimit::ChannelToken(units) = *max_price else { panic!("{max_price}") };
            *max_price = at_most(units);
        }
    }
}

async fn alice(more: &str) -> (Alice, Running) {
    let alice = Alice::without_chain(&format!("{RULE}{more}"));
    let proxy = alice.start_with(permit).await;
    (alice, proxy)
}

fn request(seller: &Mallory, path: &str) -> Request<crate::support::wire::Body> {
    let url = format!("http://localhost:{}{path}", seller.address().port());
    Request::get(url).body(empty()).unwrap()
}

async fn buy(proxy: &Running, seller: &Mallory) -> Got {
    let asked = ask(proxy.address, request(seller, "/goods"));
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
}

/// Asks a seller that is paid from channels; its rule is for its address.
async fn buy_from_channel(proxy: &Running, seller: &Mallory) -> Got {
    let asked = ask(proxy.address, Request::get(seller.url()).body(empty()).unwrap());
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
}

fn channel_seller() -> impl Future<Output = Mallory> {
    Mallory::spawn(|_| Demand { contract: BOB, receiver: BOB, token: BOB }.base(5))
}

/// The reason in `Proxy-Status` for a 402 that was not paid.
fn reason(got: &Got) -> &str {
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    got.header(&HeaderName::from_static("proxy-status")).expect("a 402 that is not paid has a reason")
}

/// The amounts paid and in doubt, in the test's asset. There must be none in the channels' token.
fn spent(proxy: &Running) -> (Tally, Tally) {
    let report = proxy.payments.report();
    assert_eq!(report.total(), Spending::default());
    let of_asset = |spending: &tollpass::payments::AssetSpending| {
        assert_eq!((spending.network.as_str(), spending.token.as_str()), ("test:local", "TEST"));
        (spending.total().paid, spending.total().unclear)
    };
    report.other_assets.first().map(of_asset).unwrap_or_default()
}

fn tally(requests: u64, amount: u64) -> Tally {
    Tally { requests, amount: amount.into() }
}

/// How many authorizations the journal holds as open.
fn open_authorizations(alice: &Alice) -> i64 {
    let journal = rusqlite::Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    journal.query_row("SELECT count(*) FROM authorization", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_price_is_paid_without_a_chain_and_the_next_time_with_the_first_request() {
    let taken = Taken::default();
    let seller = Mallory::spawn(honest(&taken, 5)).await;
    let (alice, proxy) = alice("").await;
    for round in 1..=3 {
        let got = buy(&proxy, &seller).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"));
        let names: Vec<_> =
            got.headers.keys().filter(|name| name.as_str().starts_with("test-token")).collect();
        assert!(names.is_empty(), "the hop's own headers pass: {names:?}");
        assert_eq!(taken.count(), round);
    }
    let paid: Vec<bool> =
        seller.presented().iter().map(|presented| presented.headers.contains_key(&PAYMENT)).collect();
    assert_eq!(paid, [false, true, true, true], "only the first request asks for the price");
    assert_eq!(spent(&proxy), (tally(3, 15), Tally::default()));
    let [line] = &proxy.payments.report().other_assets[0].payees[..] else { panic!("one payee") };
    assert_eq!(
        (line.host.as_str(), line.receiver),
        (&*format!("localhost:{}", seller.address().port()), BOB)
    );
    proxy.stop().await;
    assert_eq!(open_authorizations(&alice), 0, "each was taken");
}

#[tokio::test]
async fn offers_outside_the_rule_are_refused_with_the_reason_and_nothing_is_signed() {
    let listed = "receivers = [\"0x3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a\"]\n";
    let refused = [
        ("", offer(11, BOB), "price 11 TEST is above max_price 10 TEST"),
        ("", offer(0, BOB), "a price of 0"),
        (listed, offer(5, BOB), "not among the rule's receivers"),
        ("", offer("five", BOB), "test-token-offer does not have the form"),
        ("", Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n"), "no payment scheme"),
    ];
    for (more, answer, why) in refused {
        let seller = Mallory::spawn(move |_| answer.clone()).await;
        let (alice, proxy) = alice(more).await;
        let got = buy(&proxy, &seller).await;
        assert!(reason(&got).contains(why), "{got:?}");
        assert_eq!(got.text(), "pay\n");
        assert_eq!((seller.presented().len(), spent(&proxy)), (1, Default::default()));
        proxy.stop().await;
        assert_eq!(open_authorizations(&alice), 0);
    }
}

#[tokio::test]
async fn without_a_chain_nothing_is_paid_from_a_channel() {
    let channels = channel_seller().await;
    let (_alice, proxy) = alice(CHANNEL_RULE).await;
    let got = buy_from_channel(&proxy, &channels).await;
    assert!(reason(&got).contains("paid from a channel, and no [chain] is configured"), "{got:?}");
    let receiver = BOB;
    let opening = Operation::Open { receiver, deposit: 5.into() };
    let refused = proxy.channels.operate(opening).await.unwrap_err();
    assert_eq!(refused.to_string(), "no [chain] is configured, so there are no channels");
    proxy.stop().await;
}

#[tokio::test]
async fn a_rule_for_one_asset_pays_no_other() {
    let seller = Mallory::spawn(honest(&Taken::default(), 5)).await;
    let alice = Alice::without_chain(RULE);
    let proxy = alice.start_with(|_| {}).await;
    let got = buy(&proxy, &seller).await;
    let why = "the seller asks for TEST on test:local, which the rule's max_price (10) does not allow";
    assert!(reason(&got).contains(why), "{got:?}");
    proxy.stop().await;
}

/// A 402 names several ways to pay: one that is malformed or not permitted does not hide the one that is.
#[tokio::test]
async fn of_several_offers_the_permitted_one_is_paid() {
    let channels = |price: &'static str| Demand { contract: BOB, receiver: BOB, token: BOB }.base(price);
    for other in [channels("five"), channels("5")] {
        let taken = Taken::default();
        let ledger = taken.clone();
        let seller = Mallory::spawn(move |presented| match ledger.take(presented, 5) {
            Some(nonce) => served(nonce),
            None => other.clone().header(&OFFER, format!("price=5, payee={BOB}")),
        });
        let seller = seller.await;
        let (_alice, proxy) = alice("").await;
        let got = buy(&proxy, &seller).await;
        assert_eq!((got.status, taken.count()), (StatusCode::OK, 1), "{got:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn the_same_authorization_is_presented_until_the_seller_takes_it() {
    let taken = Taken::default();
    let (seen, ledger) = (Arc::new(Mutex::new(0)), taken.clone());
    let script = once_paid(5, move |presented| {
        *seen.lock().unwrap() += 1;
        if *seen.lock().unwrap() < 4 {
            return offer(5, BOB).header(&COMPLAINT, "later");
        }
        served(ledger.take(presented, 5).expect("a good authorization"))
    });
    let seller = Mallory::spawn(script).await;
    let (_alice, proxy) = alice(LATER).await;
    assert_eq!(buy(&proxy, &seller).await.status, StatusCode::OK);
    let payments: BTreeSet<_> = seller
        .presented()
        .iter()
        .filter_map(|asked| asked.headers.get(&PAYMENT).cloned())
        .map(|value| value.as_bytes().to_vec())
        .collect();
    assert_eq!((seller.presented().len(), payments.len()), (5, 1), "the same bytes each time");
    assert_eq!(spent(&proxy), (tally(1, 5), Tally::default()));
    proxy.stop().await;
}

#[tokio::test]
async fn a_seller_that_keeps_asking_gets_one_authorization_and_it_stays_in_doubt() {
    let dearer = || offer(6, BOB).header(&COMPLAINT, "later");
    let cheats: [(Cheat, usize, &str); 4] = [
        (|| offer(5, BOB), 2, "asks again without giving a reason"),
        (|| offer(5, BOB).header(&COMPLAINT, "later"), 7, "gave up after 5 attempts"),
        (dearer, 2, "would exceed its price of 5"),
        (|| offer(5, MALLORY).header(&COMPLAINT, "later"), 2, "changed the receiver"),
    ];
    for (cheat, requests, why) in cheats {
        let seller = Mallory::spawn(once_paid(5, move |_| cheat())).await;
        let (alice, proxy) = alice(LATER).await;
        let got = buy(&proxy, &seller).await;
        assert!(reason(&got).contains(why), "{got:?}");
        assert_eq!(seller.presented().len(), requests, "{why}");
        assert_eq!(spent(&proxy), (Tally::default(), tally(1, 5)), "{why}");
        proxy.stop().await;
        assert_eq!(open_authorizations(&alice), 1, "{why}: it can still be redeemed");
    }
}

#[tokio::test]
async fn a_lost_response_or_an_error_leaves_the_authorization_in_doubt() {
    let ends: [(Answer, StatusCode); 2] = [
        (Answer::CutBeforeHead, StatusCode::BAD_GATEWAY),
        (Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "sorry\n"), StatusCode::INTERNAL_SERVER_ERROR),
    ];
    for (end, status) in ends {
        let seller = Mallory::spawn(once_paid(5, move |_| end.clone())).await;
        let (alice, proxy) = alice("").await;
        assert_eq!(buy(&proxy, &seller).await.status, status);
        assert_eq!(spent(&proxy), (Tally::default(), tally(1, 5)));
        proxy.stop().await;
        assert_eq!(open_authorizations(&alice), 1);
    }
}

#[tokio::test]
async fn an_authorization_in_flight_is_a_hold_until_the_seller_responds() {
    let seller = Mallory::spawn(once_paid(5, |_| Answer::Never)).await;
    let (_alice, proxy) = alice("[limits]\nanswer_timeout = \"500ms\"\n").await;
    assert!(proxy.payments.holds().is_empty());
    let (address, request) = (proxy.address, request(&seller, "/goods"));
    let slow = tokio::spawn(async move { ask(address, request).await.status });
    let looks = async {
        while proxy.payments.holds().is_empty() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.expect("nothing is held");
    let [hold] = &proxy.payments.holds()[..] else { panic!("one payment, one hold") };
    assert_eq!((hold.reason, hold.amount, hold.payee), (HoldReason::InFlight, 5.into(), BOB));
    assert_eq!((hold.channel.as_deref(), hold.host.as_deref()), (None, Some("localhost")));
    assert!(hold.token.is_some() && hold.free_in_s.is_some(), "{hold:?}");
    assert_eq!(slow.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    assert!(proxy.payments.holds().is_empty(), "in doubt, it counts as spent for good");
    proxy.stop().await;
}

#[tokio::test]
async fn nothing_is_signed_that_the_journal_cannot_record() {
    let taken = Taken::default();
    let seller = Mallory::spawn(honest(&taken, 5)).await;
    let (alice, proxy) = alice("").await;
    let other = rusqlite::Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    other.execute_batch("DROP TABLE authorization").unwrap();
    let got = buy(&proxy, &seller).await;
    assert!(reason(&got).contains("the journal cannot be written, so nothing is signed"), "{got:?}");
    assert_eq!((seller.presented().len(), taken.count()), (1, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn a_node_that_is_down_holds_up_channels_only() {
    let taken = Taken::default();
    let seller = Mallory::spawn(honest(&taken, 5)).await;
    let channels = channel_seller().await;
    let nothing = ReservedPort::new();
    let chain = format!("[chain]\nrpc_url = \"{}\"\nchannel_manager = \"{BOB}\"\n", nothing.url());
    let (_alice, proxy) = alice(&format!("{CHANNEL_RULE}{chain}[limits]\nready_timeout = \"500ms\"\n")).await;
    assert_eq!(buy(&proxy, &seller).await.status, StatusCode::OK);
    let got = buy_from_channel(&proxy, &channels).await;
    assert!(reason(&got).contains("not ready to pay"), "{got:?}");
    assert_eq!((taken.count(), spent(&proxy)), (1, (tally(1, 5), Tally::default())));
    proxy.stop().await;
}

#[tokio::test]
async fn while_an_authorization_waits_for_the_disk_channels_pay_within_their_durable_limit() {
    let fair = Fair::open().await;
    let taken = Taken::default();
    let seller = Mallory::spawn(honest(&taken, 5)).await;
    let rules = format!("{RULE}[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n{}", crate::pays::QUICK);
    let alice = Alice::ruled(&fair.market, &rules).await;
    let proxy = alice.start_with(permit).await;
    let mut client = Wire::connect(proxy.address).await;
    let paid = || Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(client.ask(paid()).await.unwrap().status, StatusCode::OK);
    // From here on no write begins until the test lets it.
    let (gate, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = Mutex::new(waiting);
    journal::before_writes(&alice.state_dir(), move || {
        // An error: the gate is open for good.
        let _ = waiting.lock().unwrap().recv();
    });
    let mut stream = tokio::task::JoinSet::new();
    for n in 0..8 {
        stream.spawn(ask(proxy.address, request(&seller, &format!("/goods/{n}"))));
    }
    // Each has received the price, and waits for the record of its authorization or soon will.
    seller.await_presented(8).await;
    for _ in 0..8 {
        assert_eq!(client.ask(paid()).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!((taken.count(), seller.presented().len()), (0, 8), "no authorization before its record");
    drop(gate);
    while let Some(got) = stream.join_next().await {
        assert_eq!(got.unwrap().status, StatusCode::OK);
    }
    assert_eq!(taken.count(), 8);
    assert_eq!(proxy.promised().await, (9 * PRICE).into());
    proxy.stop().await;
}

/// What an authorization counts, and its states, with those between left out.
fn ends(rows: &[LedgerRow]) -> Vec<LedgerState> {
    let has_next = |at: usize| rows[at + 1..].iter().any(|row| row.payment == rows[at].payment);
    (0..rows.len()).filter(|at| !has_next(*at)).map(|at| rows[at].state).collect()
}

#[tokio::test]
async fn the_ledger_has_each_authorization_from_before_it_is_signed_to_its_end() {
    let taken = Taken::default();
    let seller = Mallory::spawn(honest(&taken, 5)).await;
    let (alice, proxy) = alice("").await;
    assert_eq!(buy(&proxy, &seller).await.status, StatusCode::OK);
    let paid = ledger::await_rows(&alice, |rows| ends(rows) == [LedgerState::Paid]).await;
    assert_eq!(paid[0].state, LedgerState::Held, "recorded with the authorization");
    assert_eq!((paid[0].path.as_str(), paid[0].nonce.len(), paid[0].counts), ("/goods", 64, 5.into()));
    assert_eq!((paid[0].parties.network.as_str(), paid[0].parties.token.as_str()), ("test:local", "TEST"));
    let total = ledger::sum(&paid);
    assert_eq!(
        (total.payments, total.paid, total.in_flight),
        (1, Amount::from(5).into(), Amount::ZERO.into())
    );

    // The next one is signed ahead, and its seller is gone.
    drop(seller);
    let port = paid[0].parties.host.rsplit(':').next().unwrap();
    let gone = Request::get(format!("http://localhost:{port}/goods")).body(empty()).unwrap();
    assert_eq!(ask(proxy.address, gone).await.status, StatusCode::BAD_GATEWAY);
    let unsent = [LedgerState::Paid, LedgerState::Unsent];
    let all = ledger::await_rows(&alice, |rows| ends(rows) == unsent).await;
    assert_eq!(ledger::sum(&all).total(), Amount::from(5).into());
    proxy.stop().await;
    assert_eq!(ledger::rows(&alice), all);
}

#[tokio::test]
async fn the_ledger_tells_refused_authorizations_from_those_in_doubt() {
    let ends_with: [(Cheat, LedgerState); 2] =
        [(|| Answer::CutBeforeHead, LedgerState::InDoubt), (|| offer(5, BOB), LedgerState::Refused)];
    for (end, state) in ends_with {
        let seller = Mallory::spawn(once_paid(5, move |_| end())).await;
        let (alice, proxy) = alice("").await;
        buy(&proxy, &seller).await;
        proxy.stop().await;
        let all = ledger::rows(&alice);
        assert_eq!((ends(&all), all[0].state), (vec![state], LedgerState::Held));
        assert_eq!(ledger::sum(&all).in_doubt, Amount::from(5).into());
    }
}

/// The files of the journal at any moment are what a crash leaves.
#[tokio::test]
async fn a_crash_loses_no_authorization() {
    let seller = Mallory::spawn(once_paid(5, |_| Answer::Never)).await;
    let (alice, proxy) = alice("").await;
    let (address, asked) = (proxy.address, request(&seller, "/goods"));
    let asking = tokio::spawn(async move { ask(address, asked).await });
    // The payment has arrived, so its authorization is on disk.
    seller.await_presented(2).await;
    let after = Alice::without_chain(RULE);
    std::fs::create_dir(after.state_dir()).unwrap();
    std::fs::set_permissions(after.state_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for file in [journal::FILE, "tollpass.db-wal"] {
        std::fs::copy(alice.state_dir().join(file), after.state_dir().join(file)).unwrap();
    }
    asking.abort();
    let next = after.start_with(permit).await;
    let all = ledger::await_rows(&after, |rows| ends(rows) == [LedgerState::InDoubt]).await;
    assert_eq!((all[0].state, all[0].path.as_str()), (LedgerState::Held, "/goods"));
    assert_eq!(ledger::sum(&all).total(), Amount::from(5).into());
    next.stop().await;
}

//! A thousand purchases by many clients at once, from a seller that fails at random, while the program is killed and
//! started again: none is paid for twice, and the ledger has what moved on the chain.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ethers_core::abi::Token;
use ethers_core::rand::rngs::StdRng;
use ethers_core::rand::{Rng as _, SeedableRng as _};
use ethers_core::types::{H256, Log, TransactionReceipt, U64, U256};
use ethers_core::utils::{hex, keccak256};
use jsonrpsee::core::client::ClientT as _;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use tollpass::devnet::chain::{DevChain, DevChainSettings};
use tollpass::devnet::{contracts, deploy};
use tollpass::protocol::{Address, Amount};

use super::*;
use crate::program::{run, text};
use crate::support::market::account;
use crate::support::wire::{ask_or_leave, whole};

/// How many purchases there are, unless the environment variable `CROWD_PURCHASES` says otherwise.
const PURCHASES: u64 = 1000;
/// The random choices; the environment variable `CROWD_SEED` makes other ones.
const SEED: u64 = 13;
/// How many clients buy at the same time.
const CLIENTS: u64 = 50;
/// How often the program is killed.
const KILLS: u64 = 8;
/// How often a client sends the request of one purchase.
const MOST_ATTEMPTS: usize = 30;
/// After so many failures, the seller is honest about a purchase.
const MOST_FAULTS: u32 = 4;
/// How long a payment is valid, in seconds: longer than any run.
const VALIDITY: u64 = 7200;
/// The time limit; a run takes a part of it.
const WITHIN: Duration = Duration::from_secs(240);
/// In which request header a client names its purchase, for the seller's books.
const NUMBER: HeaderName = HeaderName::from_static("x-number");

/// A purchase as its client sees it at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Served,
    PaidNotDelivered,
    GivenUp,
}

/// What happened to one purchase.
#[derive(Clone, Debug, Default)]
struct Story {
    /// The authorizations that it was paid with.
    nonces: BTreeSet<String>,
    /// What the seller and the client saw, in order.
    events: Vec<String>,
    /// The seller is silent, and the client gives up.
    silence: Arc<Notify>,
}

/// The stories of all purchases.
#[derive(Clone, Default)]
struct Stories(Arc<Mutex<BTreeMap<u64, Story>>>);

impl Stories {
    fn tell(&self, number: u64, event: String) {
        self.0.lock().unwrap().entry(number).or_default().events.push(event);
    }

    fn silence(&self, number: u64) -> Arc<Notify> {
        Arc::clone(&self.0.lock().unwrap().entry(number).or_default().silence)
    }
}

/// The seller's facilitator, which submits authorizations to the chain.
struct Facilitator {
    node: HttpClient,
    token: Address,
    /// What the chain was given, with permits once it is in a block.
    known: Mutex<BTreeMap<String, Arc<Semaphore>>>,
    /// Failures of what must succeed.
    failures: Mutex<Vec<String>>,
}

/// The seller, which fails at random.
struct Shop {
    facilitator: Arc<Facilitator>,
    dice: StdRng,
    stories: Stories,
    faults: BTreeMap<u64, u32>,
    /// How many payments were presented.
    presented: Arc<watch::Sender<u64>>,
}

impl Facilitator {
    fn is_mined(&self, nonce: &str) -> bool {
        self.known.lock().unwrap().get(nonce).is_some_and(|mined| mined.available_permits() > 0)
    }

    /// Submits the authorization unless that was done before; returns what has permits once it is in a block.
    fn settle(self: &Arc<Self>, payload: &Value, times: usize, after: Duration) -> Arc<Semaphore> {
        let nonce = payload["authorization"]["nonce"].as_str().unwrap().to_owned();
        let mined = match self.known.lock().unwrap().entry(nonce) {
            std::collections::btree_map::Entry::Occupied(known) => return Arc::clone(known.get()),
            std::collections::btree_map::Entry::Vacant(new) => {
                Arc::clone(new.insert(Arc::new(Semaphore::new(0))))
            }
        };
        let (ours, payload, open) = (Arc::clone(self), payload.clone(), Arc::clone(&mined));
        tokio::spawn(async move {
            // The chain is slow.
            tokio::time::sleep(after).await;
            let all = futures_util::future::join_all((0..times).map(|_| ours.submit(&payload))).await;
            let succeeded = all.iter().filter(|is_done| **is_done).count();
            if succeeded != 1 {
                let failure = format!("{succeeded} of {times} transactions: {payload}");
                ours.failures.lock().unwrap().push(failure);
            }
            open.add_permits(1_000_000);
        });
        mined
    }

    /// True if the transaction has moved the tokens.
    async fn submit(&self, payload: &Value) -> bool {
        let field = |name: &str| payload["authorization"][name].as_str().unwrap();
        let number = |name: &str| Token::Uint(U256::from_dec_str(field(name)).unwrap());
        let owner = |name: &str| Token::Address(field(name).parse().unwrap());
        let bytes = |text: &str| hex::decode(text).unwrap();
        let arguments = [
            owner("from"),
            owner("to"),
            number("value"),
            number("validAfter"),
            number("validBefore"),
            Token::FixedBytes(bytes(field("nonce"))),
            Token::Bytes(bytes(payload["signature"].as_str().unwrap())),
        ];
        let data = contracts::authorized_token().call("transferWithAuthorization", &arguments).unwrap();
        let from = account(0).address();
        let transaction = json!({ "from": from, "to": self.token, "data": data, "gas": "0x30d40" });
        let Ok(hash) = self.node.request::<H256, _>("eth_sendTransaction", rpc_params![transaction]).await
        else {
            return false;
        };
        loop {
            let receipt: Option<TransactionReceipt> =
                self.node.request("eth_getTransactionReceipt", rpc_params![hash]).await.unwrap();
            if let Some(receipt) = receipt {
                return receipt.status == Some(U64::one());
            }
        }
    }

    /// The nonces of all authorizations that the token has taken, one for each time.
    async fn used(&self) -> Vec<String> {
        let topic = H256::from(keccak256("AuthorizationUsed(address,bytes32)"));
        let filter = json!({ "address": self.token, "fromBlock": "0x0", "topics": [topic] });
        let logs: Vec<Log> = self.node.request("eth_getLogs", rpc_params![filter]).await.unwrap();
        logs.iter().map(|log| hex::encode(log.topics[2])).collect()
    }

    async fn balance_of(&self, owner: &str) -> u64 {
        let owner = Token::Address(owner.parse().unwrap());
        let data = contracts::authorized_token().call("balanceOf", &[owner]).unwrap();
        let call = json!({ "to": self.token, "data": data });
        self.node.request::<U256, _>("eth_call", rpc_params![call, "latest"]).await.unwrap().as_u64()
    }
}

impl Shop {
    fn entry(&self, version: Version) -> Value {
        let mut entry = version.entry(PRICE);
        entry["asset"] = json!(self.facilitator.token);
        // Each block is a second later than the one before it, so that the chain's clock goes fast.
        entry["maxTimeoutSeconds"] = json!(VALIDITY);
        entry["extra"] =
            json!({"name": contracts::AUTHORIZED_NAME, "version": contracts::AUTHORIZED_VERSION});
        entry
    }

    fn asks(&self, version: Version, error: &str) -> Answer {
        version.asks(error, &[self.entry(version)])
    }

    /// A receipt of failure, or the offer with an error.
    fn fails(&self, version: Version, reason: &str) -> Answer {
        match version {
            V1 => self.asks(V1, reason),
            V2 => Answer::new(StatusCode::PAYMENT_REQUIRED, "{}")
                .header(&V2.receipt(), V2.stated(false, Some(reason))),
        }
    }

    fn answer(&mut self, request: &Presented) -> Answer {
        let number: u64 = request.headers[NUMBER].to_str().unwrap().parse().unwrap();
        let answer = self.respond(request, number);
        let text = match &answer {
            Answer::Head { status, .. } => status.to_string(),
            Answer::Held(_, answer) => match &**answer {
                Answer::Head { status, .. } => format!("{status}, once it is settled"),
                other => format!("{other:?}"),
            },
            other => format!("{other:?}"),
        };
        self.stories.tell(number, format!("the seller responds {text}"));
        answer
    }

    fn respond(&mut self, request: &Presented, number: u64) -> Answer {
        let version = if request.target.starts_with("/v1/") { V1 } else { V2 };
        let Some(value) = request.headers.get(version.header()) else {
            return self.asks(version, "Payment required");
        };
        let payment: Value = serde_json::from_slice(&STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
        let payload = &payment["payload"];
        let nonce = payload["authorization"]["nonce"].as_str().unwrap();
        assert_eq!(payload["authorization"]["value"], PRICE.to_string());
        let bare = nonce.trim_start_matches("0x").to_owned();
        self.stories.tell(number, format!("the seller gets {bare}"));
        self.stories.0.lock().unwrap().entry(number).or_default().nonces.insert(bare);
        let count = *self.presented.borrow() + 1;
        self.presented.send_replace(count);

        let faults = self.faults.entry(number).or_default();
        let is_honest = *faults >= MOST_FAULTS || self.dice.gen_bool(0.4);
        let is_down = count % 200 >= 180;
        if is_down && *faults < MOST_FAULTS {
            *faults += 1;
            return self.fails(version, "fetch failed");
        }
        if is_honest {
            return self.serves(version, number, payload, nonce, 1);
        }
        *faults += 1;
        let kind = self.dice.gen_range(0..6);
        self.stories.tell(number, format!("fault {kind}"));
        match kind {
            // The facilitator fails after or before it has submitted, or is slow.
            0 | 1 => drop(self.facilitator.settle(payload, 1, Duration::ZERO)),
            2 => drop(self.facilitator.settle(payload, 2, Duration::ZERO)),
            3 => {
                let after = Duration::from_millis(self.dice.gen_range(20..400));
                self.facilitator.settle(payload, 1, after);
                if self.dice.gen_bool(0.5) {
                    return self.fails(version, "settlement_pending");
                }
            }
            _ => {}
        }
        self.fault(version, payload, nonce, number)
    }

    /// What an honest seller responds.
    fn serves(&self, version: Version, number: u64, payload: &Value, nonce: &str, times: usize) -> Answer {
        if self.facilitator.is_mined(nonce) {
            return self.asks(version, "invalid_exact_evm_nonce_already_used");
        }
        let mined = self.facilitator.settle(payload, times, Duration::ZERO);
        let goods = format!("goods {number}\n").leak();
        let answer =
            Answer::new(StatusCode::OK, goods).header(&version.receipt(), version.stated(true, None));
        Answer::Held(mined, Box::new(answer))
    }

    fn fault(&mut self, version: Version, payload: &Value, nonce: &str, number: u64) -> Answer {
        let status = |code: u16| Answer::new(StatusCode::from_u16(code).unwrap(), "{\"error\":\"so it is\"}");
        match self.dice.gen_range(0..16) {
            0 => status(504),
            1 => status(502),
            2 => status(500),
            3 => status(503),
            4 => status(429),
            5 | 6 => Answer::CutBeforeHead,
            7 => {
                if self.dice.gen_bool(0.5) {
                    self.stories.silence(number).notify_waiters();
                }
                Answer::Never
            }
            8 => self.asks(version, "Payment required"),
            9 => self.asks(version, "the node is busy"),
            10 => status(402),
            11 => Answer::new(StatusCode::PAYMENT_REQUIRED, "<html>")
                .header(&http::header::CONTENT_TYPE, "text/html"),
            12 => self.fails(version, "unexpected_settle_error"),
            13 => self.fails(version, "Unexpected token '<', \"<html>\" is not valid JSON"),
            // It takes the payment, and fails with a receipt.
            14 => match self.serves(version, number, payload, nonce, 1) {
                Answer::Held(mined, answer) => {
                    Answer::Held(mined, Box::new(answer.with_status(StatusCode::INTERNAL_SERVER_ERROR)))
                }
                asks => asks,
            },
            // It submits twice by mistake, and serves.
            _ => self.serves(version, number, payload, nonce, 2),
        }
    }
}

/// The clients and what they know.
struct Crowd {
    seller: SocketAddr,
    /// The proxy's address while it runs.
    proxy: watch::Receiver<Option<SocketAddr>>,
    next: AtomicU64,
    purchases: u64,
    finished: watch::Sender<u64>,
    stories: Stories,
    seed: u64,
}

impl Crowd {
    /// Buys one thing after another.
    async fn client(self: Arc<Self>) -> Vec<(u64, End)> {
        let mut ends = Vec::new();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.purchases {
                return ends;
            }
            ends.push((number, self.buy(number).await));
            self.finished.send_modify(|count| *count += 1);
        }
    }

    /// Sends the request of a purchase until the response is final.
    async fn buy(&self, number: u64) -> End {
        let mut dice = StdRng::seed_from_u64(self.seed ^ (number << 8));
        let mut proxy = self.proxy.clone();
        for _ in 0..MOST_ATTEMPTS {
            let address = proxy.wait_for(Option::is_some).await.unwrap().unwrap();
            let request = self.request(number, &mut dice);
            let gives_up = self.stories.silence(number);
            // Only while no answer is on its way: if one is, nobody can know whether it arrives. The proxy notices that this
            // client has left: one that waits gets an authorization of its own.
            let asking = ask_or_leave(address, request, gives_up.notified());
            let asked = timeout(PATIENCE, asking).await.expect("no answer");
            let event = match &asked {
                Some(Some(got)) => format!("the client gets {} {}", got.status, reason(got)),
                Some(None) => "the client loses its connection".to_owned(),
                None => "the client gives up".to_owned(),
            };
            self.stories.tell(number, event);
            match asked {
                Some(Some(got)) if got.status == StatusCode::OK => {
                    assert_eq!(got.text(), format!("goods {number}\n"), "{number}");
                    return End::Served;
                }
                Some(Some(got)) if reason(&got).contains("reason=paid-not-delivered") => {
                    // Or it is the seller's own failure, with a receipt.
                    assert!(got.status.is_server_error(), "{number}: {got:?}");
                    return End::PaidNotDelivered;
                }
                Some(Some(_)) => {}
                None => {}
                Some(None) => {
                    // It was killed, unless it cut the connection itself.
                    let _ = timeout(Duration::from_millis(50), proxy.changed()).await;
                }
            }
        }
        End::GivenUp
    }

    /// Purchases differ by their URL, their body or their `Idempotency-Key`.
    fn request(&self, number: u64, dice: &mut StdRng) -> Request<crate::support::wire::Body> {
        let version = if number.is_multiple_of(2) { "v2" } else { "v1" };
        let url = format!("http://localhost:{}/{version}", self.seller.port());
        let request = match number / 2 % 4 {
            0 => Request::get(format!("{url}/goods/{number}")),
            1 => Request::post(format!("{url}/goods/{number}")),
            2 => Request::post(format!("{url}/orders")),
            _ => Request::post(format!("{url}/orders")).header("idempotency-key", format!("order-{number}")),
        };
        let body = match number / 2 % 4 {
            0 => whole(""),
            1 => whole("the same"),
            2 => whole(format!("order {number}")),
            _ => whole(format!("order at {}", dice.r#gen::<u64>())),
        };
        request.header(NUMBER, number).body(body).unwrap()
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test]
async fn a_thousand_purchases_at_once_with_faults_and_kills_cost_once_each() {
    let (purchases, seed) = (variable("CROWD_PURCHASES", PURCHASES), variable("CROWD_SEED", SEED));
    println!("{purchases} purchases, seed {seed}");
    timeout(WITHIN, buy_all(purchases, seed)).await.expect("it does not end");
}

async fn buy_all(purchases: u64, seed: u64) {
    let chain = DevChain::spawn(DevChainSettings::default()).await.unwrap();
    let token = deploy::deploy_authorized_token(&chain.url()).await.unwrap();
    // A budget that has nothing to lose: it is enough only if no purchase counts twice.
    let most = purchases * PRICE;
    let alice = Alice::without_chain(&format!(
        "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 0\n\
         eip712_name = \"{}\"\neip712_version = \"{}\"\n\
         [[pay]]\nhost = \"localhost\"\nmax_price = \"{PRICE} TOY\"\n\
         [[budget]]\nname = \"all\"\nwallet = true\ntotal = \"{most} TOY\"\n\
         [limits]\nanswer_timeout = \"1s\"\nunclear_repeats = 1\nundelivered_payments = 0\n\
         max_validity = \"2h\"\nahead_validity = \"2h\"\nretry_window = \"10m\"\n",
        contracts::AUTHORIZED_NAME,
        contracts::AUTHORIZED_VERSION,
    ));
    let tokens = [(token, Amount::from(2 * most))];
    deploy::fund(&chain.url(), alice.address, U256::zero(), &tokens).await.unwrap();
    let facilitator = Arc::new(Facilitator {
        node: HttpClient::builder().build(chain.url()).unwrap(),
        token,
        known: Mutex::default(),
        failures: Mutex::default(),
    });
    let stories = Stories::default();
    let presented = Arc::new(watch::Sender::new(0));
    let mut shop = Shop {
        facilitator: Arc::clone(&facilitator),
        dice: StdRng::seed_from_u64(seed),
        stories: stories.clone(),
        faults: BTreeMap::new(),
        presented: Arc::clone(&presented),
    };
    let seller = Mallory::spawn(move |request| shop.answer(request)).await;
    let (address, proxy) = watch::channel(None);
    let crowd = Arc::new(Crowd {
        seller: seller.address(),
        proxy,
        next: AtomicU64::new(0),
        purchases,
        finished: watch::Sender::new(0),
        stories: stories.clone(),
        seed,
    });

    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&crowd).client())).collect();
    let mut dice = StdRng::seed_from_u64(seed + 1);
    let (mut finished, mut payments) = (crowd.finished.subscribe(), presented.subscribe());
    for life in 1..=KILLS {
        let program = alice.serve(&[]).await;
        address.send_replace(Some(program.address));
        let _ = finished.wait_for(|count| *count >= purchases * life / (KILLS + 2)).await;
        let moment = *presented.borrow() + dice.gen_range(1..30);
        let is_over = finished.wait_for(|count| *count == purchases);
        tokio::select! {
            _ = payments.wait_for(|count| *count >= moment) => {}
            _ = is_over => {}
        }
        address.send_replace(None);
        let log = program.kill().await;
        stories.0.lock().unwrap().values_mut().for_each(|story| story.events.push("killed".to_owned()));
        assert!(!log.contains("panicked"), "{log}");
    }
    let program = alice.serve(&[]).await;
    address.send_replace(Some(program.address));
    let mut ends = BTreeMap::new();
    for client in clients {
        ends.extend(client.await.unwrap());
    }
    // What the seller has submitted late is in a block, too.
    let all: Vec<_> = facilitator.known.lock().unwrap().values().cloned().collect();
    for mined in all {
        drop(mined.acquire().await.unwrap());
    }
    program.terminate();
    let (status, log) = program.ended().await;
    assert!(status.success(), "{log}");
    let failures = facilitator.failures.lock().unwrap().clone();
    assert!(failures.is_empty(), "{} failures, such as {}", failures.len(), failures[0]);
    let stories = stories.0.lock().unwrap().clone();
    judge(&alice, &facilitator, &ends, &stories, purchases).await;
    println!("{} payments were presented", *presented.borrow());
}

/// Compares the chain, the seller's books, the clients' responses and the ledger.
async fn judge(
    alice: &Alice,
    facilitator: &Facilitator,
    ends: &BTreeMap<u64, End>,
    stories: &BTreeMap<u64, Story>,
    purchases: u64,
) {
    let rows = ledger::rows(alice);
    let used = facilitator.used().await;
    let on_chain: BTreeSet<String> = used.iter().cloned().collect();
    assert_eq!(used.len(), on_chain.len(), "a nonce was taken twice");
    assert_eq!(facilitator.balance_of(BOB).await, used.len() as u64 * PRICE);
    assert!(used.len() as u64 <= purchases, "{} transfers for {purchases} purchases", used.len());

    let mut counts = BTreeMap::new();
    for (number, end) in ends {
        *counts.entry(*end).or_insert(0) += 1;
        let Some(story) = stories.get(number) else { continue };
        let taken = story.nonces.intersection(&on_chain).count();
        let about = || {
            let states: Vec<_> = rows.iter().filter(|row| story.nonces.contains(&row.nonce)).collect();
            format!("purchase {number}: {end:?}, {taken} transfers, {story:#?} {states:#?}")
        };
        assert!(story.nonces.len() <= 1 && (*end == End::GivenUp || taken == 1), "{}", about());
    }
    println!("{counts:?}, {} transfers", used.len());
    assert_eq!(ends.len() as u64, purchases);
    assert_eq!(counts.get(&End::GivenUp), None);
    assert!(counts.len() == 2 && counts[&End::Served] > purchases / 10, "{counts:?}");

    // The last state of each authorization.
    let mut last = BTreeMap::new();
    for row in &rows {
        last.insert(row.nonce.clone(), row);
    }
    let presented: BTreeSet<&String> = stories.values().flat_map(|story| &story.nonces).collect();
    for (nonce, row) in &last {
        let is_used = on_chain.contains(nonce);
        match row.state {
            LedgerState::Paid | LedgerState::PaidNotDelivered => assert!(is_used, "{row:?}"),
            LedgerState::InDoubt | LedgerState::Refused => {}
            LedgerState::Unsent => assert!(!presented.contains(nonce), "{row:?}"),
            _ => panic!("no end: {row:?}"),
        }
    }
    for nonce in presented {
        assert!(last.contains_key(nonce), "no row for {nonce}");
    }
    let open = last.values().filter(|row| row.state != LedgerState::Unsent).count() as u64;
    let sum = ledger::sum(&rows);
    assert_eq!(sum.total(), Amount::from(open * PRICE).into(), "{sum:?}");
    assert_eq!(sum.in_flight, Amount::ZERO.into(), "{sum:?}");
    assert!(open >= used.len() as u64 && open <= purchases, "{open} authorizations");

    let config = alice.config_path();
    let command = async |arguments: &[&str]| run(&[arguments, &["--config", text(&config)]].concat()).await;
    let verified = run(&["ledger", "--config", text(&config), "verify"]).await;
    assert!(verified.code == 0 && verified.out.contains("is unchanged, from row 1"), "{verified:?}");
    let budget = command(&["budget", "--json"]).await;
    let budget: Value = serde_json::from_str(&budget.out).unwrap_or_else(|_| panic!("{budget:?}"));
    let spent = |amount: u64| format!("{amount} TOY");
    let window = &budget[0]["windows"][0];
    assert_eq!(
        (&window["spent"], &window["held"]),
        (&json!(spent(open * PRICE)), &json!(spent(0))),
        "{budget}"
    );
}

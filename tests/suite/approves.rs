//! Payments that wait for the operator: `tollpass pending`, `approve` and `deny` against a running proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Request, StatusCode};
use serde_json::Value;
use tokio::task::JoinHandle;
use tollpass::admin;
use tollpass::payments::PendingApproval;
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount};

use crate::program::{run, text};
use crate::support::cheats::{once_paid, price_rises};
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Presented};
use crate::support::market::Market;
use crate::support::payer::{Alice, PATIENCE, Program, Running, program};
use crate::support::raw::{Raw, soon};
use crate::support::wire::{Got, ask};

/// Every payment needs the operator's approval.
const ASK: &str = "[hooks]\npayment_requested = { action = \"ask\" }\n";

/// A proxy whose operator is asked.
struct Desk {
    alice: Alice,
    proxy: Running,
}

impl Desk {
    async fn open(market: &Market, config: &str) -> Self {
        Self::of(Alice::with(market, config).await).await
    }

    /// The same with this instead of the usual rule.
    async fn ruled(market: &Market, config: &str) -> Self {
        Self::of(Alice::ruled(market, config).await).await
    }

    async fn of(alice: Alice) -> Self {
        let proxy = alice.start().await;
        proxy.ready().await;
        Self { alice, proxy }
    }

    /// Sends a request in a task.
    fn get(&self, url: &str) -> JoinHandle<Got> {
        let request = Request::get(url).body(empty()).unwrap();
        let address = self.proxy.address;
        tokio::spawn(async move { soon("the answer", ask(address, request)).await })
    }

    async fn pending(&self) -> Vec<PendingApproval> {
        admin::pending(&admin::socket(&self.alice.state_dir())).await.unwrap().expect("it runs")
    }

    /// Waits until this many payments are pending.
    async fn await_pending(&self, count: usize) -> Vec<PendingApproval> {
        let waiting = async {
            loop {
                let pending = self.pending().await;
                if pending.len() == count {
                    return pending;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("another number of payments is pending")
    }

    async fn next(&self) -> PendingApproval {
        self.await_pending(1).await.remove(0)
    }

    async fn decide(&self, id: u64, is_approved: bool) {
        admin::decide(&admin::socket(&self.alice.state_dir()), id, is_approved, None).await.unwrap().unwrap();
    }

    /// Runs the command line on her configuration.
    async fn command(&self, arguments: &[&str]) -> crate::program::Ran {
        let path = self.alice.config_path();
        let (command, rest) = arguments.split_first().unwrap();
        run(&[&[command, "--config", text(&path)], rest].concat()).await
    }
}

fn reason(got: &Got) -> &str {
    assert_eq!(got.headers.get_all("proxy-status").iter().count(), 1, "{got:?}");
    got.headers["proxy-status"].to_str().unwrap()
}

fn demand(market: &Market) -> Demand {
    Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token }
}

#[tokio::test]
async fn a_request_waits_until_the_operator_approves_it_and_holds_nothing_meanwhile() {
    let fair = Fair::open().await;
    let token = fair.market.token;
    let asset = format!(
        "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 2\n{ASK}"
    );
    let desk = Desk::open(&fair.market, &asset).await;
    let url = format!("{}/paid", fair.origin.url());
    let waiting = desk.get(&format!("{url}?hush"));
    let pending = desk.next().await;
    assert!(desk.proxy.channels().await.is_empty());
    assert_eq!(fair.market.openings().await, 0);

    let listed = desk.command(&["pending"]).await;
    let row = listed.out.lines().nth(1).unwrap();
    for cell in [&pending.id.to_string(), "10 TOY", "127.0.0.1", &format!("GET {url}")] {
        assert!(row.contains(cell), "no {cell} in {listed:?}");
    }
    assert!(!listed.out.contains("hush"), "{listed:?}");
    let json: Value = serde_json::from_str(&desk.command(&["pending", "--json"]).await.out).unwrap();
    assert_eq!((&json[0]["price"], &json[0]["shown"]), (&"1000".into(), &"10 TOY".into()));
    assert_eq!(json[0]["payee"], fair.origin.receiver().to_string());
    assert_eq!(json[0]["asset"], format!("{token} on eip155:31337"));
    let client = json[0]["client"].as_str().unwrap();
    assert!(client.starts_with("127.0.0.1:"), "{client}");
    assert!((1..=300).contains(&json[0]["left"].as_u64().unwrap()), "{json}");

    let id = pending.id.to_string();
    let approved = desk.command(&["approve", &id]).await;
    assert_eq!((approved.code, approved.out), (0, format!("approved: 10 TOY for GET {url}\n")));
    let got = waiting.await.unwrap();
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(desk.proxy.promised().await, Amount::from(PRICE));
    desk.command(&["approve", &id]).await.expect_failure(&["no request waits for approval", &id]);

    // Although the price is known now, the approval was for one request.
    let waiting = desk.get(&url);
    let second = desk.next().await;
    assert!(second.id > pending.id);
    let denied = desk.command(&["deny", &second.id.to_string()]).await;
    assert_eq!(denied.code, 0, "{denied:?}");
    let got = waiting.await.unwrap();
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
    assert!(reason(&got).contains("denied: the operator denied"), "{got:?}");
    assert_eq!(desk.proxy.promised().await, Amount::from(PRICE));
    desk.proxy.stop().await;
}

#[tokio::test]
async fn a_time_out_is_not_a_denial_and_too_many_questions_are_refused() {
    let fair = Fair::open().await;
    let limits = format!("{ASK}[limits]\napproval_timeout = \"400ms\"\nmax_approvals = 1\n");
    let desk = Desk::open(&fair.market, &limits).await;
    let url = format!("{}/paid", fair.origin.url());
    let waiting = desk.get(&url);
    let first = desk.next().await;
    let refused = desk.get(&url).await.unwrap();
    assert_eq!(refused.status, StatusCode::PAYMENT_REQUIRED);
    assert!(reason(&refused).contains("limits.max_approvals"), "{refused:?}");
    let late = waiting.await.unwrap();
    assert_eq!(late.status, StatusCode::PAYMENT_REQUIRED);
    let told = reason(&late);
    assert!(
        told.contains("timed out") && told.contains("not a denial") && !told.contains("denied:"),
        "{told}"
    );
    assert!(desk.pending().await.is_empty());
    let id = first.id.to_string();
    desk.command(&["approve", &id]).await.expect_failure(&["no request waits for approval"]);
    // It was the seller's own 402, and nothing was signed.
    let direct = ask(fair.origin.address(), Request::get("/paid").body(empty()).unwrap()).await;
    assert_eq!((&late.body, &refused.body), (&direct.body, &direct.body));
    assert!(desk.proxy.channels().await.is_empty());
    // Sent again, it asks again.
    let waiting = desk.get(&url);
    assert!(desk.next().await.id > first.id);
    waiting.await.unwrap();
    desk.proxy.stop().await;
}

#[tokio::test]
async fn the_question_of_a_client_that_leaves_disappears_and_a_shutdown_ends_the_others() {
    let fair = Fair::open().await;
    let desk = Desk::open(&fair.market, ASK).await;
    let url = format!("{}/paid", fair.origin.url());
    let client =
        Raw::asking(desk.proxy.address, format!("GET {url} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")).await;
    desk.await_pending(1).await;
    drop(client);
    desk.await_pending(0).await;
    let waiting = desk.get(&url);
    desk.await_pending(1).await;
    desk.proxy.shutdown.begin();
    let got = waiting.await.unwrap();
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
    assert!(reason(&got).contains("shutting down"), "{got:?}");
    desk.proxy.stop().await;
    let ran = run(&["pending", "--config", text(&desk.alice.config_path())]).await;
    ran.expect_failure(&["no proxy is running"]);
}

#[tokio::test]
async fn terms_that_change_while_the_operator_decides_are_asked_about_again() {
    let market = Market::open().await;
    let demand = demand(&market);
    let other = Demand { receiver: Address([0x67; 20]), ..demand };
    let unpaid = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&unpaid);
    let seller = Mallory::spawn(move |presented| match presented.payment {
        Some(_) => Answer::new(StatusCode::OK, "here you are"),
        None => match count.fetch_add(1, Ordering::Relaxed) {
            0 => demand.base(100),
            1 => demand.base(200),
            2 => other.base(200),
            // Above the rule's limit, which comes before the question.
            10.. => demand.base(20_000),
            _ => other.base(200),
        },
    })
    .await;
    let desk = Desk::open(&market, ASK).await;
    let url = format!("{}/x", seller.url());
    let waiting = desk.get(&url);
    let mut last = 0;
    for (price, payee) in [(100, demand.receiver), (200, demand.receiver), (200, other.receiver)] {
        let asked = desk.next().await;
        assert_eq!((asked.price, asked.payee), (Amount::from(price), payee));
        assert!(asked.id > last);
        assert_eq!(seller.highest(), Amount::ZERO);
        last = asked.id;
        desk.decide(asked.id, true).await;
    }
    let got = waiting.await.unwrap();
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"here you are"[..]));
    assert_eq!(seller.highest(), Amount::from(200));

    let waiting = desk.get(&url);
    let asked = desk.next().await;
    unpaid.store(10, Ordering::Relaxed);
    desk.decide(asked.id, true).await;
    let got = waiting.await.unwrap();
    assert!(reason(&got).contains("above max_price"), "{got:?}");
    assert_eq!(desk.proxy.promised().await, Amount::from(200));
    desk.proxy.stop().await;
}

#[tokio::test]
async fn an_answer_that_needs_no_payment_any_more_is_passed_on() {
    let market = Market::open().await;
    let demand = demand(&market);
    let seller = Mallory::spawn(move |presented| match presented.number {
        0 => demand.base(100),
        _ => Answer::new(StatusCode::OK, "free now"),
    })
    .await;
    let desk = Desk::open(&market, ASK).await;
    let waiting = desk.get(&format!("{}/x", seller.url()));
    desk.decide(desk.next().await.id, true).await;
    assert_eq!(&waiting.await.unwrap().body[..], b"free now");
    assert!(desk.proxy.channels().await.is_empty());
    desk.proxy.stop().await;
}

#[tokio::test]
async fn a_price_that_rises_after_a_payment_is_not_covered_and_does_not_wait() {
    let market = Market::open().await;
    let demand = demand(&market);
    let seller = Mallory::spawn(price_rises(demand, 100)).await;
    let desk = Desk::open(&market, ASK).await;
    let waiting = desk.get(&format!("{}/x", seller.url()));
    desk.decide(desk.next().await.id, true).await;
    let got = waiting.await.unwrap();
    assert!(reason(&got).contains("the new ones need approval"), "{got:?}");
    assert!(desk.pending().await.is_empty());
    assert_eq!(seller.highest(), Amount::from(100));
    desk.proxy.stop().await;
}

#[tokio::test]
async fn only_prices_above_the_limit_are_asked_about_and_none_above_the_highest_one() {
    let market = Market::open().await;
    let demand = demand(&market);
    let price = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&price);
    let seller = Mallory::spawn(move |presented| match presented.payment {
        Some(_) if presented.target == "/rises" => price_of(demand, 101, presented),
        Some(_) => Answer::new(StatusCode::OK, "done"),
        None => demand.base(asked.load(Ordering::Relaxed)),
    })
    .await;
    let token = market.token;
    let asset = format!(
        "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 2\nusd = \"0.5\"\n"
    );
    for above in ["100", "\"1 TOY\"", "\"$0.50\""] {
        let rule = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = \"2 TOY\"\nsend_ahead = false\nask_above = ";
        let rule = if above == "100" { rule.replace("\"2 TOY\"", "200") } else { rule.to_owned() };
        let desk = Desk::ruled(&market, &format!("{rule}{above}\n{asset}")).await;
        let url = format!("{}/x", seller.url());
        price.store(100, Ordering::Relaxed);
        assert_eq!(desk.get(&url).await.unwrap().status, StatusCode::OK, "{above}");
        price.store(101, Ordering::Relaxed);
        let waiting = desk.get(&url);
        let one = desk.next().await;
        assert_eq!((&*one.shown, one.price), ("1.01 TOY", Amount::from(101)));
        desk.decide(one.id, true).await;
        assert_eq!(waiting.await.unwrap().status, StatusCode::OK, "{above}");
        price.store(201, Ordering::Relaxed);
        let got = desk.get(&url).await.unwrap();
        assert!(reason(&got).contains("above max_price"), "{got:?}");
        // A price that rises beyond it after a payment is not paid either.
        price.store(100, Ordering::Relaxed);
        let got = desk.get(&format!("{}/rises", seller.url())).await.unwrap();
        assert!(reason(&got).contains("the new ones need approval"), "{got:?}");
        desk.proxy.stop().await;
    }
}

/// The seller rejects the payment, and wants this price.
fn price_of(demand: Demand, price: u64, presented: &Presented) -> Answer {
    let payment = presented.payment.unwrap();
    let held = payment.total.saturating_sub(Amount::from(100));
    demand.base(price).with_state(payment.sender, held, None).complain(&rdn::INVALID_AMOUNT)
}

#[tokio::test]
async fn an_approval_in_advance_covers_later_payments_until_it_is_revoked_and_survives_a_restart() {
    let market = Market::open().await;
    let demand = demand(&market);
    let price = Arc::new(AtomicU64::new(100));
    let asked = Arc::clone(&price);
    let seller = Mallory::spawn(move |presented| match presented.payment {
        Some(_) => Answer::new(StatusCode::OK, "done"),
        None => demand.base(asked.load(Ordering::Relaxed)),
    })
    .await;
    let url = |path: &str| format!("{}/{path}", seller.url());
    let desk = Desk::open(&market, ASK).await;
    let (first, second) = (desk.get(&url("a")), desk.get(&url("b")));
    let pending = desk.await_pending(2).await;
    let approved = desk.command(&["approve", &pending[0].id.to_string(), "--always", "--for", "2h"]).await;
    assert!(approved.out.contains("and for 2h every payment of up to 100 units of"), "{approved:?}");
    // The other request is covered, too.
    for waiting in [first, second] {
        assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    }
    assert!(desk.pending().await.is_empty());
    // Another path, and then a remembered price, which goes with the first request.
    for path in ["c", "c"] {
        assert_eq!(desk.get(&url(path)).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(desk.proxy.promised().await, Amount::from(400));
    let json = desk.command(&["approvals", "--json"]).await;
    let listed: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&listed[0]["host"], &listed[0]["max_price"]),
        (&"127.0.0.1".into(), &"100".into()),
        "{json:?}"
    );
    let lasts = listed[0]["until"].as_u64().unwrap() - listed[0]["since"].as_u64().unwrap();
    assert_eq!((listed.as_array().unwrap().len(), lasts), (1, 7200));

    // After a restart it still covers the price, but no higher one.
    let Desk { alice, proxy } = desk;
    proxy.stop().await;
    let desk = Desk::of(alice).await;
    assert_eq!(desk.get(&url("d")).await.unwrap().status, StatusCode::OK);
    price.store(101, Ordering::Relaxed);
    let waiting = desk.get(&url("e"));
    let id = desk.next().await.id;
    desk.decide(id, false).await;
    waiting.await.unwrap();
    price.store(100, Ordering::Relaxed);
    let shown = desk.command(&["approvals"]).await.out;
    let row = shown.lines().nth(1).unwrap();
    assert!(row.contains("100 units of") && row.contains(&demand.receiver.to_string()), "{shown}");

    let standing = listed[0]["id"].to_string();
    assert_eq!(desk.command(&["approvals", "revoke", &standing]).await.out, format!("revoked: {standing}\n"));
    desk.command(&["approvals", "revoke", &standing]).await.expect_failure(&["not found"]);
    let waiting = desk.get(&url("d"));
    let id = desk.next().await.id.to_string();
    desk.command(&["approve", &id, "--for", "1h"]).await.expect_failure(&["--always"]);
    desk.command(&["approve", &id, "--always", "--for", "367d"]).await.expect_failure(&["366d"]);
    let negative = desk.command(&["approve", &id, "--always", "--for", "-1s"]).await;
    negative.expect_failure(&["write a number and its unit"]);
    assert_eq!(desk.command(&["approve", &id, "--always"]).await.code, 0);
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);

    // Without a running proxy, the journal has it.
    let Desk { alice, proxy } = desk;
    proxy.stop().await;
    let config = alice.config_path();
    let listed = run(&["approvals", "--json", "--config", text(&config)]).await;
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let standing = listed[0]["id"].to_string();
    assert_eq!(listed[0]["until"].as_u64().unwrap() - listed[0]["since"].as_u64().unwrap(), 30 * 86400);
    let ran = run(&["approvals", "--config", text(&config), "revoke", &standing, "--json"]).await;
    assert_eq!((ran.code, ran.out), (0, format!("{{\"revoked\":{standing}}}\n")), "{}", ran.errors);
    let desk = Desk::of(alice).await;
    let _waiting = desk.get(&url("d"));
    desk.next().await;
    desk.proxy.stop().await;
}

#[tokio::test]
async fn a_body_is_sent_again_after_the_approval() {
    let market = Market::open().await;
    let demand = demand(&market);
    let seller = Mallory::spawn(once_paid(demand, 100, |_| Answer::new(StatusCode::OK, "done"))).await;
    let desk = Desk::open(&market, ASK).await;
    let head = format!("POST {}/x HTTP/1.1\r\nHost: {}\r\n", seller.url(), seller.address());
    let mut client = Raw::asking(desk.proxy.address, format!("{head}Content-Length: 5\r\n\r\nhello")).await;
    desk.decide(desk.next().await.id, true).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    let bodies: Vec<_> =
        seller.presented().into_iter().map(|one| (one.payment.is_some(), one.body)).collect();
    assert_eq!(bodies, [false, false, true].map(|is_paid| (is_paid, "hello".into())));
    desk.proxy.stop().await;
}

#[tokio::test]
async fn a_body_that_waits_for_the_payment_waits_for_the_approval() {
    let fair = Fair::open().await;
    // Too large to be kept, so that it can be sent only once.
    let limits =
        "[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"60KiB\"\nexpect_continue_timeout = \"60s\"\n";
    let desk = Desk::open(&fair.market, &format!("{ASK}{limits}")).await;
    let address = fair.origin.address();
    let all = vec![b'x'; 1_000_000];
    let mut client = Raw::asking(
        desk.proxy.address,
        format!(
            "POST http://{address}/paid/echo HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            all.len()
        ),
    )
    .await;
    desk.decide(desk.next().await.id, true).await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.send(&all).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200"));
    assert!(client.exactly(14).await.starts_with(b"1000000 bytes"));
    desk.proxy.stop().await;
}

#[tokio::test]
async fn inspect_shows_the_offer_and_what_would_be_done_without_paying() {
    let fair = Fair::open().await;
    let (paid, free) = (format!("{}/paid", fair.origin.url()), format!("{}/free", fair.origin.url()));
    let payee = fair.origin.receiver();
    let pay = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = ";
    let webhook = "webhook = \"http://127.0.0.1:1/\"";
    for (rest, would, reason, details) in [
        (format!("{pay}1000\n"), "pay", "", ""),
        (format!("{pay}999\n"), "refuse", "above-max-price", "the price 1000 is above max_price 999"),
        (String::new(), "refuse", "no-rule", "no [[pay]] rule matches"),
        (
            "[[pay]]\nhost = \"*\"\ndeny = true\n".to_owned(),
            "refuse",
            "denied-by-rule",
            "a [[pay]] rule denies",
        ),
        (format!("{pay}1000\n{ASK}"), "ask", "", "`tollpass approve`"),
        (format!("{pay}1000\nask_above = 1000\n"), "pay", "", ""),
        (format!("{pay}1000\nask_above = 999\n"), "ask", "", "`tollpass approve`"),
        (
            format!("{pay}1000\n[hooks]\npayment_requested = {{ action = \"ask\", {webhook} }}\n"),
            "ask",
            "",
            "the webhook http://127.0.0.1:1 decides",
        ),
        (
            format!("{pay}1000\n[hooks]\npayment_requested = {{ action = \"abort\" }}\n"),
            "refuse",
            "not-wanted",
            "hooks.payment_requested aborts",
        ),
        (format!("{pay}\"$1\"\n"), "pay", "", "if max_price ($1) allows the channel contract's token"),
        (
            format!("{pay}1000\n[deposit]\nmax_per_channel = 999\n"),
            "refuse",
            "channel-limit",
            "deposit.max_per_channel 999",
        ),
        (
            format!("{pay}1000\n[[budget]]\nname = \"all\"\nwallet = true\nper_hour = 999\ntotal = 5000\n"),
            "refuse",
            "over-budget",
            "999 of per_hour = 999; raise it",
        ),
        (format!("{pay}1000\n[[budget]]\nname = \"all\"\nwallet = true\ntotal = \"$5\"\n"), "pay", "", ""),
    ] {
        let alice = Alice::ruled(&fair.market, &rest).await;
        let config = alice.config_path();
        let ran = run(&["inspect", &paid, "--json", "--config", text(&config)]).await;
        let json: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        let offer = &json["offers"][0];
        assert_eq!((&json["status"], &offer["would"]), (&402.into(), &would.into()), "{rest}: {json}");
        assert_eq!(offer["reason"].as_str().unwrap_or_default(), reason, "{rest}: {json}");
        assert!(offer["details"].as_str().unwrap_or_default().contains(details), "{rest}: {json}");
        assert_eq!((&offer["price"], &offer["payee"]), (&"1000".into(), &payee.to_string().into()));
        assert!(!alice.state_dir().exists(), "it needs no state");
        let ran = run(&["inspect", &paid, "--config", text(&config)]).await;
        let expected = format!("microraiden: 1000 units of the channel contract's token to {payee}: would ");
        assert!(ran.code == 0 && ran.out.contains(&expected), "{ran:?}");
        let ran = run(&["inspect", &free, "--config", text(&config)]).await;
        assert!(ran.code == 0 && ran.out.contains("200\nthe response asks for no payment\n"), "{ran:?}");
    }
    let alice = Alice::ruled(&fair.market, &format!("{pay}1000\n")).await;
    let config = alice.config_path();
    assert_eq!(run(&["freeze", "--config", text(&config)]).await.code, 0);
    let ran = run(&["inspect", &paid, "--config", text(&config)]).await;
    assert!(
        ran.code == 0 && ran.out.contains("would not pay: tollpass is frozen and signs nothing"),
        "{ran:?}"
    );
    // The same restrictions on addresses as for requests through the proxy.
    let pays = format!("{pay}1000\n[upstream]\ndeny = [\"127.0.0.0/8\"]\n");
    let alice = Alice::ruled(&fair.market, &pays).await;
    let ran = run(&["inspect", &paid, "--config", text(&alice.config_path())]).await;
    ran.expect_failure(&["cannot inspect", "deny"]);
    run(&["inspect", "ftp://a/", "--config", text(&alice.config_path())])
        .await
        .expect_failure(&["not a valid"]);
    assert_eq!(fair.market.openings().await, 0);
}

#[tokio::test]
async fn a_dry_run_signs_nothing_and_reports_what_it_would_have_cost() {
    let fair = Fair::open().await;
    // What is counted in other tokens is not known without the node.
    let budgets = "[[budget]]\nname = \"two\"\nwallet = true\ntotal = 2999\n\
                   [[budget]]\nname = \"dollars\"\nwallet = true\ntotal = \"$1\"\n";
    let rules = format!(
        "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 1000\n[deposit]\non_exit = \"cooperative\"\n{budgets}"
    );
    let rules = rules.as_str();
    let alice = Alice::ruled(&fair.market, rules).await;
    // The key is not needed.
    std::fs::remove_file(alice.directory.path().join("key")).unwrap();
    let mut command = program(["serve", "--dry-run", "--config"]);
    command.arg(alice.config_path());
    let serving = Program::start(command).await;
    let url = format!("{}/paid", fair.origin.url());
    for _ in 0..2 {
        let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
        let expected = "dry run: would pay 1000 units of the channel contract's token";
        assert!(reason(&got).contains(expected), "{got:?}");
    }
    let got = ask(serving.address, Request::get(&url).body(empty()).unwrap()).await;
    assert!(reason(&got).contains("what is left of the budget two: 999 of total = 2999"), "{got:?}");
    let free = Request::get(format!("{}/free", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(serving.address, free).await.status, StatusCode::OK);
    let receiver = fair.origin.receiver().to_string();
    let config = alice.config_path();
    let opened = run(&["channels", "--config", text(&config), "open", &receiver, "1000", "--yes"]).await;
    opened.expect_failure(&["not ready"]);
    serving.terminate();
    let (status, log) = serving.ended().await;
    assert!(status.success(), "{log}");
    let summary = "dry run: would have paid 2000 units of the channel contract's token for 2 requests";
    assert!(log.contains(summary), "{log}");
    assert_eq!(fair.market.openings().await, 0);
}

#[tokio::test]
async fn a_dry_run_asks_for_approval_first() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, ASK).await;
    let mut command = program(["serve", "--dry-run", "--config"]);
    command.arg(alice.config_path());
    let serving = Program::start(command).await;
    let url = format!("{}/paid", fair.origin.url());
    for (is_approved, expected) in [(true, "dry run: would pay 1000"), (false, "denied")] {
        let request = Request::get(&url).body(empty()).unwrap();
        let waiting = tokio::spawn(ask(serving.address, request));
        let socket = admin::socket(&alice.state_dir());
        let asked = async {
            loop {
                if let Some(asked) = admin::pending(&socket).await.unwrap().unwrap().pop() {
                    return asked;
                }
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asked).await.expect("it does not ask");
        admin::decide(&socket, asked.id, is_approved, None).await.unwrap().unwrap();
        let got = waiting.await.unwrap();
        assert!(reason(&got).contains(expected), "{got:?}");
    }
    serving.terminate();
    let (_, log) = serving.ended().await;
    assert!(log.contains("for 1 request"), "{log}");
    assert_eq!(fair.market.openings().await, 0);
}

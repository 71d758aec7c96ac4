//! A host that takes payments without delivering is paused until `tollpass resume`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, Method, Request, StatusCode};
use serde_json::Value;
use tollpass::protocol::{Address, Amount};

use super::{QUICK, Scene};
use crate::program::{Ran, run, text};
use crate::support::cheats::{once_paid, takes_and};
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Content, Demand, Mallory};
use crate::support::market::Market;
use crate::support::payer::Alice;
use crate::support::raw::{Raw, soon};
use crate::support::wire::{Got, ask};

/// The host of every seller here.
const HOST: &str = "127.0.0.1";

impl Scene {
    /// Asks for a resource whose seller takes the payment and fails.
    async fn pay_for_nothing(&self) {
        let got = self.get("/status/500").await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR, "{got:?}");
    }

    /// The seller's own 402 comes, with the remedy, and no payment was presented.
    async fn expect_paused(&self) {
        let before = self.fair.origin.total_registered();
        for path in ["/paid", "/size"] {
            let got = self.get(path).await;
            expect_paused(&got);
            let direct = ask(self.fair.origin.address(), Request::get(path).body(empty()).unwrap()).await;
            assert_eq!(got.body, direct.body);
        }
        assert_eq!(self.fair.origin.total_registered(), before);
    }

    async fn resume(&self, arguments: &[&str]) -> Ran {
        run(&[&["resume", "--config", text(&self.alice.config_path())], arguments].concat()).await
    }

    async fn restarted(self) -> Self {
        let Self { fair, alice, proxy } = self;
        proxy.stop().await;
        let proxy = alice.start().await;
        Self { fair, alice, proxy }
    }
}

fn is_paused(got: &Got) -> bool {
    let reason = got.header(&HeaderName::from_static("proxy-status")).unwrap_or_default();
    reason.contains("127.0.0.1 is paused") && reason.contains("`tollpass resume 127.0.0.1`")
}

fn expect_paused(got: &Got) {
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    assert!(is_paused(got), "{got:?}");
}

#[tokio::test]
async fn a_host_that_takes_payments_without_delivering_is_paused_until_it_is_resumed() {
    let scene = Scene::open().await;
    // From now on, this price is known and goes with the first request.
    scene.buy().await;
    scene.pay_for_nothing().await;
    scene.pay_for_nothing().await;
    // Not in a row.
    scene.buy().await;
    scene.pay_for_nothing().await;
    scene.pay_for_nothing().await;
    assert_eq!(scene.resume(&[]).await.out, "no paused hosts\n");
    scene.pay_for_nothing().await;
    scene.expect_paused().await;
    // Unpaid requests still pass.
    assert_eq!(scene.get("/free").await.status, StatusCode::OK);
    let listed = scene.resume(&[]).await.out;
    assert!(listed.starts_with("HOST       SINCE                 REASON\n127.0.0.1  20"), "{listed}");

    let scene = scene.restarted().await;
    scene.expect_paused().await;
    scene.resume(&["elsewhere.example"]).await.expect_failure(&["elsewhere.example is not paused"]);
    let resumed = scene.resume(&[HOST]).await;
    assert_eq!((resumed.code, &*resumed.out), (0, "resumed: 127.0.0.1 is paid again\n"), "{resumed:?}");
    scene.resume(&[HOST]).await.expect_failure(&["127.0.0.1 is not paused"]);
    scene.buy().await;

    // It counts from 0 again, and the operator can resume it without a proxy.
    for _ in 0..3 {
        scene.pay_for_nothing().await;
    }
    scene.expect_paused().await;
    let Scene { fair, alice, proxy } = scene;
    proxy.stop().await;
    let config = alice.config_path();
    let config = text(&config);
    let json: Value =
        serde_json::from_str(&run(&["resume", "--json", "--config", config]).await.out).unwrap();
    assert_eq!(json[0]["host"], HOST);
    // Another spelling of the same host.
    assert_eq!(run(&["resume", "--config", config, "127.1"]).await.code, 0);
    assert_eq!(run(&["resume", "--config", config]).await.out, "no paused hosts\n");
    run(&["resume", "--config", config, HOST]).await.expect_failure(&["127.0.0.1 is not paused"]);
    let proxy = alice.start().await;
    let scene = Scene { fair, alice, proxy };
    scene.buy().await;
    scene.proxy.stop().await;
}

#[tokio::test]
async fn only_failures_of_the_seller_count() {
    let market = Market::open().await;
    let limits = "[limits]\nanswer_timeout = \"300ms\"\n";
    let status = |status| Answer::new(StatusCode::from_u16(status).unwrap(), "so it is");
    // Each case has a channel of its own: Alice's state directory is new, and would not know what is signed on it.
    let demand =
        |case| Demand { contract: market.manager, receiver: Address([case; 20]), token: market.token };
    for (case, (name, answer, is_counted)) in (1..).zip([
        ("503", status(503), true),
        ("cut", Answer::CutBeforeHead, true),
        ("silent", Answer::Never, true),
        ("402 again", demand(4).base(PRICE), true),
        ("402 without an offer", status(402), true),
        ("404", status(404), false),
        ("409", status(409), false),
        ("200", status(200), false),
        ("304", status(304), false),
        ("502, but never pausing", status(502), false),
    ]) {
        let seller = Mallory::spawn(takes_and(demand(case), PRICE, answer)).await;
        let never = if name.contains("never") { "undelivered_payments = 0\n" } else { "" };
        let alice = Alice::with(&market, &format!("{limits}{never}")).await;
        let proxy = alice.start().await;
        proxy.ready().await;
        let get = |number: u32| {
            let request = Request::get(format!("{}/{number}", seller.url())).body(empty()).unwrap();
            ask(proxy.address, request)
        };
        for number in 0..3 {
            let got = get(number).await;
            assert!(!is_paused(&got), "{name}: {got:?}");
        }
        let paid = seller.highest();
        assert!(paid > Amount::ZERO, "{name}");
        let got = get(3).await;
        assert_eq!(is_paused(&got), is_counted, "{name}: {got:?}");
        assert_eq!(proxy.payments.paused_hosts().len(), usize::from(is_counted), "{name}");
        assert!(!is_counted || seller.highest() == paid, "{name}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_counts_although_it_began_well() {
    let market = Market::open().await;
    let demand = Demand { contract: market.manager, receiver: Address([0x51; 20]), token: market.token };
    let cut = Answer::new(StatusCode::OK, "").with_content(Content::Cut);
    let seller = Mallory::spawn(takes_and(demand, PRICE, cut)).await;
    let alice = Alice::with(&market, "").await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let (address, url) = (seller.address(), seller.url());
    for _ in 0..3 {
        let head = format!("GET {url}/goods HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let mut client = Raw::asking(proxy.address, head).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        client.rest().await;
    }
    let got = ask(proxy.address, Request::get(format!("{url}/goods")).body(empty()).unwrap()).await;
    expect_paused(&got);
    proxy.stop().await;
}

/// The same total pays once, however often it is presented: a kept connection that the seller has closed is no failure.
#[tokio::test]
async fn a_payment_whose_connection_is_lost_is_presented_once_more_if_that_is_safe() {
    let market = Market::open().await;
    for (case, method, status, presented) in
        [(0x61, Method::GET, StatusCode::OK, 2), (0x62, Method::POST, StatusCode::BAD_GATEWAY, 1)]
    {
        let demand = Demand { contract: market.manager, receiver: Address([case; 20]), token: market.token };
        let totals = Arc::<Mutex<Vec<Amount>>>::default();
        let seen = Arc::clone(&totals);
        let seller = Mallory::spawn(once_paid(demand, PRICE, move |payment| {
            let mut seen = seen.lock().unwrap();
            seen.push(payment.total);
            if seen.len() == 1 { Answer::CutBeforeHead } else { Answer::new(StatusCode::OK, "goods") }
        }))
        .await;
        let alice = Alice::with(&market, "").await;
        let proxy = alice.start().await;
        proxy.ready().await;
        let request = Request::builder().method(&method).uri(format!("{}/goods", seller.url()));
        let got = ask(proxy.address, request.body(empty()).unwrap()).await;
        assert_eq!(got.status, status, "{method}: {got:?}");
        assert_eq!(*totals.lock().unwrap(), vec![Amount::from(PRICE); presented], "{method}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn requests_that_wait_for_the_channel_meanwhile_are_not_paid_either() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    let scene = std::sync::Arc::new(Scene { fair, alice, proxy });
    // The channel is open, and one request at a time uses it.
    scene.buy().await;
    let asking = (0..40).map(|_| {
        let scene = std::sync::Arc::clone(&scene);
        tokio::spawn(async move { scene.get("/status/500").await })
    });
    let mut failed = 0;
    for asked in asking.collect::<Vec<_>>() {
        let got = soon("the answer", asked).await.unwrap();
        match got.status {
            StatusCode::INTERNAL_SERVER_ERROR => failed += 1,
            _ => expect_paused(&got),
        }
    }
    assert_eq!(failed, 3);
    assert_eq!(scene.fair.origin.total_registered(), Amount::from(4 * PRICE));
}

#[tokio::test]
async fn clients_that_leave_do_not_count_against_the_host() {
    let scene = Scene::open().await;
    scene.buy().await;
    let before = scene.proxy.shutdown.running();
    let address = scene.fair.origin.address();
    let head = format!(
        "POST http://{address}/paid/echo HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    );
    for _ in 0..4 {
        let mut client = Raw::asking(scene.proxy.address, &head).await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        // The seller has the payment, and gets half of the body.
        client.send("half").await;
        drop(client);
        scene.await_idle(before).await;
    }
    assert!(scene.proxy.promised().await > Amount::from(PRICE), "nothing was signed");
    scene.buy().await;

    // Others leave while the seller rejects their payment for the time being.
    let market = &scene.fair.market;
    let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
    let again =
        demand.base(PRICE).complain(&tollpass::protocol::schemes::microraiden::headers::NONEXISTING_CHANNEL);
    let seller = Mallory::spawn(takes_and(demand, PRICE, again)).await;
    for number in 1..=4 {
        let url = format!("{}/{number}", seller.url());
        let client =
            Raw::asking(scene.proxy.address, format!("GET {url} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let presented = async {
            while seller
                .presented()
                .iter()
                .all(|one| one.payment.is_none() || one.target != format!("/{number}"))
            {
                // The seller only keeps a list of what it was presented.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon("the payment", presented).await;
        drop(client);
        scene.await_idle(before).await;
    }
    assert_eq!(scene.proxy.payments.paused_hosts(), []);
    scene.buy().await;
    scene.proxy.stop().await;
}

#[tokio::test]
async fn a_host_that_raises_a_price_by_too_much_is_paused_until_it_is_resumed() {
    let scene = Scene::with(|_| {}, &format!("{QUICK}[limits]\nprice_rise_percent = 50\n")).await;
    let price = |path: &str, price: u64| scene.fair.origin.set_price(path, price.into()).unwrap();
    let get = async |path: &str| scene.get(path).await;
    scene.buy().await;
    // As far as it may rise; another path and another method have prices of their own, and a query has none.
    price("/paid", PRICE + PRICE / 2);
    scene.buy().await;
    price("/paid", PRICE);
    assert_eq!(get("/size?5").await.status, StatusCode::OK);
    price("/paid", PRICE * 3);
    let post = scene.request("/paid").method("POST").body(empty()).unwrap();
    let posted = ask(scene.proxy.address, post).await;
    assert_ne!(posted.status, StatusCode::PAYMENT_REQUIRED, "{posted:?}");
    assert_eq!(scene.proxy.payments.paused_hosts(), []);

    let before = scene.fair.origin.total_registered();
    for path in ["/paid", "/paid?another=query", "/size"] {
        let got = get(path).await;
        expect_paused(&got);
        let reason = got.header(&HeaderName::from_static("proxy-status")).unwrap_or_default();
        assert!(reason.contains("raised a price by more than limits.price_rise_percent"), "{reason}");
    }
    assert_eq!(scene.fair.origin.total_registered(), before);

    let scene = scene.restarted().await;
    scene.expect_paused().await;
    let listed = scene.resume(&[]).await.out;
    assert!(listed.contains("it raised a price by more than limits.price_rise_percent"), "{listed}");
    // Resumed, the host may have this price; that it rises further is noticed after another restart, too.
    assert_eq!(scene.resume(&[HOST]).await.code, 0);
    scene.buy().await;
    let scene = scene.restarted().await;
    scene.fair.origin.set_price("/paid", Amount::from(PRICE * 5)).unwrap();
    expect_paused(&scene.get("/paid").await);
    scene.proxy.stop().await;
}

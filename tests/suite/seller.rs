//! The demo's seller, driven like a payer would, against every row of the protocol's table of responses.
//!
//! Signatures are made by the payer's code, and the seller verifies them with its own.

use std::time::Duration;

use bytes::Bytes;
use ethers_core::abi::Token;
use ethers_core::utils::{hex, keccak256};
use http::header::{ACCEPT, ALLOW, COOKIE, EXPECT, SET_COOKIE};
use http::{HeaderName, Method, Request, StatusCode};
use serde_json::Value;
use tollpass::chain::signer::Signer;
use tollpass::devnet::origin::{Lose, Origin, Resource, SellerSettings, SellerStartError};
use tollpass::protocol::schemes::microraiden::{headers as rdn, proof};
use tollpass::protocol::{Address, Amount, ChannelId, Signature};

use crate::support::fair::{Buyer, Fair, PRICE, SELLER_KEY, empty};
use crate::support::market;
use crate::support::market::account;
use crate::support::wire::{Got, Wire, ask, chunked, whole};

const BASE: [&str; 5] = ["contract-address", "gateway-path", "price", "receiver-address", "token-address"];
const STATE: [&str; 3] = ["balance-signature", "sender-address", "sender-balance"];

/// Checks a 402: its complaint, and its state if it has one.
#[track_caller]
fn assert_refused(got: &Got, complaint: Option<&HeaderName>, state: Option<(u64, Option<Signature>)>) {
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let mut names = BASE.to_vec();
    names.extend(complaint.map(|name| name.as_str().trim_start_matches("rdn-")));
    if let Some((_, signature)) = state {
        names.extend(&STATE[usize::from(signature.is_none())..]);
    }
    names.sort_unstable();
    assert_eq!(got.rdn(), names);
    if let Some(complaint) = complaint {
        assert_eq!(got.header(complaint), Some("1"));
    }
    if let Some((balance, signature)) = state {
        assert_eq!(got.header(&rdn::SENDER_BALANCE), Some(&*balance.to_string()));
        assert_eq!(got.header(&rdn::SENDER_ADDRESS), Some(&*account(0).address().to_string()));
        assert_eq!(got.header(&rdn::BALANCE_SIGNATURE), signature.map(|s| s.to_hex()).as_deref());
    }
}

#[track_caller]
fn assert_paid(got: &Got, before: u64) {
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(got.header(&rdn::SENDER_BALANCE), Some(&*before.to_string()), "the state before the payment");
}

#[tokio::test]
async fn without_a_payment_the_price_is_shown_and_nothing_else() {
    let fair = Fair::open().await;
    let mut wire = Wire::connect(fair.origin.address()).await;
    let got = wire.ask(Request::get("/paid").body(empty()).unwrap()).await.unwrap();
    assert_refused(&got, None, None);
    assert_eq!(got.header(&rdn::PRICE), Some("1000"));
    assert_eq!(got.header(&rdn::GATEWAY_PATH), Some("/api/1"));
    assert_eq!(got.header(&rdn::RECEIVER_ADDRESS), Some(&*fair.origin.receiver().to_string()));
    assert_eq!(got.header(&rdn::CONTRACT_ADDRESS), Some(&*fair.market.manager.to_string()));
    assert_eq!(got.header(&rdn::TOKEN_ADDRESS), Some(&*fair.market.token.to_string()));
    assert!(!got.body.is_empty() && got.headers.get(SET_COOKIE).is_none());

    let got =
        wire.ask(Request::get("/paid?q=1").header(ACCEPT, "text/html,*/*;q=0.8").body(empty()).unwrap());
    let got = got.await.unwrap();
    assert_refused(&got, None, None);
    assert!(got.text().starts_with("<!doctype html>"));
    let mut cookies = got.headers.get_all(SET_COOKIE).iter().map(|c| c.to_str().unwrap()).collect::<Vec<_>>();
    cookies.sort_unstable();
    assert_eq!(cookies.len(), BASE.len());
    assert_eq!(cookies[2], "RDN-Price=1000; Path=/");

    let big = wire.ask(Request::post("/paid/echo").body(whole(vec![7; 3_000_000])).unwrap()).await.unwrap();
    assert_refused(&big, None, None);
    assert!(!wire.is_closed(), "the connection is kept");
    assert_eq!((fair.origin.exchanges(), fair.origin.payments()), (3, 0));
    let front = wire.ask(Request::get("/").body(empty()).unwrap()).await.unwrap();
    assert!(front.status == 200 && front.text().contains("/paid/echo  1000  (POST, PUT)"));
    assert_eq!(fair.origin.exchanges(), 3, "the front page is not for sale");
}

#[tokio::test]
async fn each_total_gets_its_answer() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(2 * PRICE).await;
    let first = Some(buyer.sign(PRICE));

    assert_refused(&buyer.pay(0).await, None, Some((0, None)));
    assert_refused(&buyer.pay(1).await, Some(&rdn::INVALID_AMOUNT), Some((0, None)));
    let got = buyer.pay(PRICE).await;
    assert_paid(&got, 0);
    assert_eq!(got.rdn().len(), BASE.len() + 2);
    assert!(got.text().contains("was paid for"));
    assert_refused(&buyer.pay(PRICE).await, None, Some((PRICE, first)));
    for wrong in [0, PRICE - 1, PRICE + 1, 2 * PRICE - 1, 2 * PRICE + 1, 3 * PRICE] {
        assert_refused(&buyer.pay(wrong).await, Some(&rdn::INVALID_AMOUNT), Some((PRICE, first)));
    }
    assert_paid(&buyer.pay(2 * PRICE).await, PRICE);
    let second = Some(buyer.sign(2 * PRICE));
    assert_eq!(
        fair.origin.registered(buyer.signer.address(), buyer.channel.open_block),
        Some(Amount::from(2000))
    );
    assert_eq!((fair.origin.payments(), fair.origin.total_registered()), (2, Amount::from(2000)));

    // The third is valid, but the seller knows of no deposit for it; the same proof pays after a top-up.
    assert_refused(&buyer.pay(3 * PRICE).await, None, Some((2 * PRICE, second)));
    fair.market.top_up(0, buyer.channel.receiver, buyer.channel.open_block, 7 * PRICE).await;
    fair.origin.await_poll().await;
    assert_paid(&buyer.pay(3 * PRICE).await, 2 * PRICE);

    // A new price applies at once.
    assert_eq!(fair.origin.set_price("/paid", Amount::from(300)), Some(Amount::from(PRICE)));
    assert_eq!(fair.origin.set_price("/nothing", Amount::from(300)), None);
    let got = buyer.pay(4 * PRICE).await;
    assert_refused(&got, Some(&rdn::INVALID_AMOUNT), Some((3 * PRICE, Some(buyer.sign(3 * PRICE)))));
    assert_eq!(got.header(&rdn::PRICE), Some("300"));
    // The recovery ID may also be 0 or 1.
    let mut signature = buyer.sign(3300);
    signature.0[64] -= 27;
    let block = buyer.channel.open_block.to_string();
    assert_paid(
        &buyer.ask(buyer.request_with("/paid", &block, "3300", &signature.to_hex())).await,
        3 * PRICE,
    );

    // A resource that became free takes no payment.
    fair.origin.set_price("/paid", Amount::ZERO);
    let got = buyer.pay(3600).await;
    assert!(got.status == 200 && got.rdn().is_empty());
    assert_eq!(fair.origin.total_registered(), Amount::from(3300));
}

#[tokio::test]
async fn each_complaint_has_its_cause() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(5 * PRICE).await;
    let block = buyer.channel.open_block.to_string();
    let hex = buyer.sign(PRICE).to_hex();

    let stranger =
        Buyer { signer: Signer::new(&[9; 32]).unwrap(), ..fair.buyer_of(buyer.channel.open_block) };
    assert_refused(&stranger.pay(PRICE).await, Some(&rdn::NONEXISTING_CHANNEL), None);
    for other in ["0", "99", "4294967296", "99999999999999999999999999"] {
        let got = buyer.ask(buyer.request_with("/paid", other, "1000", &hex)).await;
        assert_refused(&got, Some(&rdn::NONEXISTING_CHANNEL), None);
    }
    // Another total, another receiver, a changed byte of the signature, another key.
    let elsewhere = buyer.sign_on(ChannelId { receiver: fair.market.manager, ..buyer.channel }, PRICE);
    let mut torn = buyer.sign(PRICE);
    torn.0[64] = 29;
    let digest = proof::balance_digest(buyer.channel, Amount::from(PRICE), buyer.contract);
    let forged = stranger.signer.sign(digest).unwrap();
    for wrong in [buyer.sign(PRICE + 1), elsewhere, torn, forged, Signature([0; 65])] {
        let got = buyer.ask(buyer.request_with("/paid", &block, "1000", &wrong.to_hex())).await;
        assert_refused(&got, Some(&rdn::INVALID_BALANCE_PROOF), None);
    }
    // A refusal includes a page and cookies, too.
    let got = buyer.ask(buyer.request("/paid", 7).header(ACCEPT, "text/html")).await;
    assert_refused(&got, Some(&rdn::INVALID_AMOUNT), Some((0, None)));
    assert_eq!(got.headers.get_all(SET_COOKIE).iter().count(), got.rdn().len());
    assert_eq!(fair.origin.payments(), 0);
}

#[tokio::test]
async fn unreadable_requests_get_409_or_500() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(5 * PRICE).await;
    let block = buyer.channel.open_block.to_string();
    let hex = buyer.sign(PRICE).to_hex();
    let good = || buyer.request("/paid", PRICE);

    for (name, value) in [
        (&rdn::PAYMENT, "1000"),
        (&rdn::CONTRACT_ADDRESS, "0x12"),
        (&rdn::RECEIVER_ADDRESS, "nobody"),
        (&rdn::SENDER_ADDRESS, "0x8bf640A099fE945DA46F354d3B49c48a125F48B6"),
        (&rdn::SENDER_BALANCE, "-1"),
        (&rdn::PRICE, "1e3"),
        (&rdn::OPEN_BLOCK, &block),
        (&rdn::BALANCE, "1000"),
    ] {
        let got = buyer.ask(good().header(name, value)).await;
        assert_eq!(got.status, StatusCode::CONFLICT, "{name}: {value}");
        assert!(!got.body.is_empty() && got.rdn().is_empty(), "{got:?}");
    }
    for (open_block, total) in
        [("-1", "1000"), ("0x1", "1000"), (&*block, "-1000"), (&block, "1000.0"), (&block, "0x3e8")]
    {
        let got = buyer.ask(buyer.request_with("/paid", open_block, total, &hex)).await;
        assert_eq!(got.status, StatusCode::CONFLICT, "{open_block} {total}");
    }
    let huge = "6277101735386680763835789423207666416102355444464034512896";
    for (total, signature) in
        [(huge, &*hex), ("1000", "0x"), ("1000", "zz"), ("1000", &hex[..130]), ("", &hex)]
    {
        let got = buyer.ask(buyer.request_with("/paid", &block, total, signature)).await;
        assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR, "{total} {signature}");
    }
    let twice = buyer.ask(good().header(&rdn::BALANCE_SIGNATURE, &hex)).await;
    assert_eq!(twice.status, StatusCode::INTERNAL_SERVER_ERROR);
    // Without the sender there is no channel to look up.
    let got = buyer
        .ask(Request::get("/paid").header(&rdn::BALANCE, "1000").header(&rdn::BALANCE_SIGNATURE, &hex))
        .await;
    assert_refused(&got, Some(&rdn::NONEXISTING_CHANNEL), None);
    // Without the signature there is no payment.
    let got = buyer.ask(Request::get("/paid").header(&rdn::BALANCE, "1000")).await;
    assert_refused(&got, None, None);
    assert_eq!(fair.origin.payments(), 0);
}

#[tokio::test]
async fn channels_and_top_ups_count_when_they_are_noticed_and_deep_enough() {
    let fair = Fair::with(|settings| settings.confirmations = 2).await;
    let (sender, receiver) = (account(0).address(), fair.origin.receiver());
    fair.origin.stop_noticing();
    let open_block = fair.market.open_channel(0, receiver, PRICE).await;
    let buyer = fair.buyer_of(open_block);
    let path = format!("/api/1/channels/{sender}/{open_block}");
    let show = || buyer.ask(Request::get(&path));

    assert_refused(&buyer.pay(PRICE).await, Some(&rdn::NONEXISTING_CHANNEL), None);
    fair.origin.resume_noticing();
    fair.origin.await_poll().await;
    assert_refused(&buyer.pay(PRICE).await, Some(&rdn::INSUFFICIENT_CONFIRMATIONS), None);
    assert_eq!(show().await.status, StatusCode::NOT_FOUND);
    fair.market.mine(1).await;
    fair.origin.await_poll().await;
    assert_refused(&buyer.pay(PRICE).await, Some(&rdn::INSUFFICIENT_CONFIRMATIONS), None);
    assert_eq!(fair.origin.registered(sender, open_block), None);
    fair.market.mine(1).await;
    fair.origin.await_channels(1).await;
    assert_paid(&buyer.pay(PRICE).await, 0);
    assert_eq!(show().await.status, StatusCode::OK);

    fair.market.top_up(0, receiver, open_block, PRICE).await;
    fair.origin.await_poll().await;
    assert_refused(&buyer.pay(2 * PRICE).await, None, Some((PRICE, Some(buyer.sign(PRICE)))));
    assert_eq!(show().await.status, StatusCode::INTERNAL_SERVER_ERROR);
    fair.market.mine(2).await;
    fair.origin.await_poll().await;
    assert_eq!(show().await.status, StatusCode::OK);
    assert_paid(&buyer.pay(2 * PRICE).await, PRICE);
}

#[tokio::test]
async fn the_money_is_taken_before_the_resource_runs() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    let mut total = 0;
    for status in [402, 404, 409, 500] {
        total += PRICE;
        let got = buyer.ask(buyer.request(&format!("/status/{status}"), total)).await;
        assert_eq!((got.status.as_u16(), got.rdn().len()), (status, 0));
        assert_eq!(
            fair.origin.total_registered(),
            Amount::from(total),
            "a resource's own {status} is charged"
        );
    }
    total += PRICE;
    let got = buyer.ask(buyer.request("/paid", total).method(Method::HEAD)).await;
    assert!(got.status == 200 && got.body.is_empty());
    assert_eq!(fair.origin.total_registered(), Amount::from(total), "HEAD is charged like GET");
    total += PRICE;
    assert_eq!(buyer.ask(buyer.request("/size", total)).await.body.len(), 200_001);
    total += PRICE;
    assert_paid(&buyer.ask(buyer.request("/paid/slow?ms=1", total)).await, total - PRICE);
    total += PRICE;
    assert!(buyer.ask(buyer.request("/paid/html", total)).await.text().starts_with("<!doctype html>"));

    // A body of known length arrives, a chunked one is read as empty.
    let content = Bytes::from(vec![b'x'; 1_000_000]);
    let expected = |content: &[u8]| {
        format!("{} bytes, keccak-256 {}\n", content.len(), hex::encode_prefixed(keccak256(content)))
    };
    total += PRICE;
    let known = buyer.request("/paid/echo", total).method(Method::POST).body(whole(content.clone())).unwrap();
    assert_eq!(ask(buyer.address, known).await.text(), expected(&content));
    total += PRICE;
    let unknown =
        buyer.request("/paid/echo", total).method(Method::POST).body(chunked(vec![content])).unwrap();
    assert_eq!(ask(buyer.address, unknown).await.text(), expected(b""));
    assert_eq!(fair.origin.total_registered(), Amount::from(total));
}

#[tokio::test]
async fn free_resources_take_no_payment() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    let absolute = format!("{}/paid", fair.origin.url());
    for (method, path, status) in [
        (Method::GET, "/nothing", 404),
        (Method::GET, "/paid/", 404),
        (Method::GET, &absolute, 404),
        (Method::POST, "/paid", 405),
        (Method::GET, "/paid/echo", 405),
        (Method::OPTIONS, "/paid", 200),
        (Method::GET, "/free", 200),
        (Method::GET, "/", 200),
    ] {
        let got = buyer.ask(buyer.request(path, PRICE).method(method.clone())).await;
        assert_eq!((got.status.as_u16(), got.rdn().len()), (status, 0), "{method} {path}");
        assert_eq!(got.headers.contains_key(ALLOW), status == 405 || method == Method::OPTIONS);
    }
    fair.origin.set_out_of_gas_money(true);
    assert_eq!(buyer.pay(PRICE).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(fair.origin.payments(), 0);
    fair.origin.set_out_of_gas_money(false);
    assert_paid(&buyer.pay(PRICE).await, 0);
}

#[tokio::test]
async fn cookies_win_over_headers() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    assert_paid(&buyer.pay(PRICE).await, 0);
    let old = buyer.sign(PRICE);
    // A browser that was sent the state returns the old signature, and its new total fails.
    let cookie = format!("theme=dark; RDN-Balance-Signature={}", old.to_hex());
    let got = buyer.ask(buyer.request("/paid", 2 * PRICE).header(COOKIE, &cookie)).await;
    assert_refused(&got, Some(&rdn::INVALID_BALANCE_PROOF), None);
    // Conversely, cookies alone can pay.
    let cookie = format!(
        "RDN-Sender-Address={}; RDN-Open-Block={}; RDN-Balance=2000; RDN-Balance-Signature={}",
        buyer.signer.address(),
        buyer.channel.open_block,
        buyer.sign(2 * PRICE).to_hex(),
    );
    let got = buyer.ask(buyer.request("/paid", 7).header(COOKIE, cookie)).await;
    assert_paid(&got, PRICE);
}

#[tokio::test]
async fn of_four_at_once_one_pays() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    let beside = fair.buyer(100 * PRICE).await;
    // Held, so that all are in flight before the first response. The two channels do not affect each other.
    fair.origin.hold_answers();
    let race = futures_util::future::join_all([4, 1, 3, 5].map(|times| buyer.pay(times * PRICE)));
    let release = async {
        fair.origin.await_exchanges(5).await;
        fair.origin.release();
    };
    let (got, other, ()) = tokio::join!(race, beside.pay(PRICE), release);
    assert_paid(&other, 0);
    assert_paid(&got[1], 0);
    for refused in [&got[0], &got[2], &got[3]] {
        assert!(refused.header(&rdn::INVALID_AMOUNT).is_some(), "{refused:?}");
    }
    // Of four copies of one proof one pays; for the others it is already the last proof.
    let same = futures_util::future::join_all([(); 4].map(|()| buyer.pay(2 * PRICE))).await;
    let (paid, shown): (Vec<_>, Vec<_>) = same.iter().partition(|got| got.status == 200);
    assert_eq!((paid.len(), shown.len()), (1, 3));
    shown.iter().for_each(|got| assert_refused(got, None, Some((2 * PRICE, Some(buyer.sign(2 * PRICE))))));
    assert_eq!(fair.origin.total_registered(), Amount::from(3 * PRICE));
}

fn fair_total(fair: &Fair, buyer: &Buyer) -> u64 {
    let total = fair.origin.registered(buyer.signer.address(), buyer.channel.open_block).unwrap();
    total.to_string().parse().unwrap()
}

#[tokio::test]
async fn a_lost_answer_leaves_the_payment_registered_or_not() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    for (lose, registered) in [(Lose::BeforeRegistering, 0), (Lose::AfterRegistering, PRICE)] {
        fair.origin.lose_next_answer(lose);
        let mut wire = Wire::connect(buyer.address).await;
        wire.ask(Request::get("/paid").body(empty()).unwrap())
            .await
            .expect("without a payment nothing is lost");
        wire.ask(buyer.request("/paid", PRICE).body(empty()).unwrap())
            .await
            .expect_err("the answer was lost");
        assert_eq!(fair_total(&fair, &buyer), registered);
    }
    // A seller restored from a backup holds less, and continues from there.
    assert_paid(&buyer.pay(2 * PRICE).await, PRICE);
    let old = buyer.sign(PRICE);
    assert!(fair.origin.restore(
        buyer.signer.address(),
        buyer.channel.open_block,
        Amount::from(PRICE),
        Some(old.0)
    ));
    assert!(!fair.origin.restore(buyer.signer.address(), 0, Amount::ZERO, None));
    assert_refused(&buyer.pay(3 * PRICE).await, Some(&rdn::INVALID_AMOUNT), Some((PRICE, Some(old))));
    assert_paid(&buyer.pay(2 * PRICE).await, PRICE);
}

#[tokio::test]
async fn a_client_that_leaves_has_paid_and_a_stopped_seller_is_gone() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(100 * PRICE).await;
    fair.origin.hold_answers();
    let (mut wire, mut beside) = (Wire::connect(buyer.address).await, Wire::connect(buyer.address).await);
    let unpaid = async {
        fair.origin.await_payments(1).await;
        for _ in 0..10 {
            beside.ask(Request::get("/paid").body(empty()).unwrap()).await.expect("only payments are held");
        }
    };
    tokio::select! {
        got = wire.ask(buyer.request("/paid", PRICE).body(empty()).unwrap()) => panic!("not held: {got:?}"),
        () = unpaid => {}
    }
    drop(wire);
    fair.origin.release();
    assert_refused(&buyer.pay(PRICE).await, None, Some((PRICE, Some(buyer.sign(PRICE)))));

    let mut wire = Wire::connect(buyer.address).await;
    wire.ask(Request::get("/").body(empty()).unwrap()).await.unwrap();
    fair.origin.stop().await;
    wire.ask(Request::get("/").body(empty()).unwrap()).await.expect_err("connections are cut");
    tokio::net::TcpStream::connect(buyer.address).await.expect_err("nobody listens");
}

#[tokio::test]
async fn a_body_behind_expect_is_not_requested() {
    let fair = Fair::open().await;
    let request = Request::post("/paid/echo").header(EXPECT, "100-continue").body(empty()).unwrap();
    let mut wire = Wire::connect(fair.origin.address()).await;
    let got = wire.ask(request).await.unwrap();
    assert_refused(&got, None, None);
    assert_eq!(got.headers["connection"], "close");
}

#[tokio::test]
async fn a_channel_closes_with_the_seller() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(10 * PRICE).await;
    let (sender, open_block) = (buyer.signer.address(), buyer.channel.open_block);
    let path = format!("/api/1/channels/{sender}/{open_block}");
    let delete = |query: &str, body: &str| {
        let request = Request::delete(format!("{path}{query}")).body(whole(body.to_owned())).unwrap();
        ask(buyer.address, request)
    };
    let show = async |path: &str| buyer.ask(Request::get(path)).await;

    // With a total of zero there is nothing to agree on.
    assert_eq!(delete("", "balance=0").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_paid(&buyer.pay(PRICE).await, 0);
    let shown: Value = serde_json::from_slice(&show(&path).await.body).unwrap();
    assert_eq!(shown["sender"], sender.to_string());
    assert_eq!(shown["receiver"], fair.origin.receiver().to_string());
    assert_eq!(
        (&shown["open_block_number"], &shown["deposit"], &shown["balance"]),
        (&open_block.into(), &(10 * PRICE).into(), &PRICE.into())
    );
    assert_eq!(shown["last_signature"], buyer.sign(PRICE).to_hex());
    let listed: Value = serde_json::from_slice(&show("/api/1/channels").await.body).unwrap();
    assert_eq!(listed, Value::Array(vec![shown]));
    let stats: Value = serde_json::from_slice(&show("/api/1/stats").await.body).unwrap();
    assert_eq!((&stats["open_channels"], &stats["balance_sum"]), (&1.into(), &PRICE.into()));
    assert_eq!(stats["contract_address"], fair.market.manager.to_string());

    for body in ["", "balance=999", "balance=-1", "{\"balance\": 1001}"] {
        let got = delete("", body).await;
        assert!(got.status == 400 && !got.body.is_empty(), "{body}: {got:?}");
    }
    let unknown = Request::delete(format!("/api/1/channels/{sender}/1?balance=0")).body(empty()).unwrap();
    assert_eq!(ask(buyer.address, unknown).await.status, StatusCode::BAD_REQUEST);
    assert_paid(&buyer.pay(2 * PRICE).await, PRICE);

    let agreed: Value = serde_json::from_slice(&delete("", "balance=2000").await.body).unwrap();
    let closing = Signature::parse(agreed["close_signature"].as_str().unwrap()).unwrap();
    let digest = proof::closing_digest(sender, open_block, Amount::from(2 * PRICE), fair.market.manager);
    assert_eq!(proof::recover(digest, &closing), Some(fair.origin.receiver()));
    assert_eq!(delete("?balance=2000", "").await.status, StatusCode::BAD_REQUEST, "once is enough");
    assert_refused(&buyer.pay(3 * PRICE).await, Some(&rdn::NONEXISTING_CHANNEL), None);

    let arguments = [
        market::address(buyer.channel.receiver),
        Token::Uint(open_block.into()),
        market::units(Amount::from(2 * PRICE)),
        Token::Bytes(buyer.sign(2 * PRICE).0.to_vec()),
        Token::Bytes(closing.0.to_vec()),
    ];
    fair.market.on_channel(1, "cooperativeClose", &arguments).await;
    fair.origin.await_poll().await;
    assert_eq!(show(&path).await.status, StatusCode::NOT_FOUND);
    assert_refused(&buyer.pay(3 * PRICE).await, Some(&rdn::NONEXISTING_CHANNEL), None);
}

#[tokio::test]
async fn closing_takes_its_total_from_the_query_and_from_json() {
    let fair = Fair::open().await;
    for (query, body) in [("?balance=1000", ""), ("", "{\"balance\": 1000}"), ("", "{\"balance\": \"1000\"}")]
    {
        let buyer = fair.buyer(PRICE).await;
        assert_paid(&buyer.pay(PRICE).await, 0);
        let uri = format!("/api/1/channels/{}/{}{query}", buyer.signer.address(), buyer.channel.open_block);
        let got = ask(buyer.address, Request::delete(uri).body(whole(body.to_owned())).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{query} {body}: {got:?}");
    }
}

#[tokio::test]
async fn the_gateway_speaks_of_amounts_beyond_64_bits() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(PRICE).await;
    let (sender, open_block) = (buyer.signer.address(), buyer.channel.open_block);
    let total: Amount = "99999999999999999999".parse().unwrap();
    assert!(fair.origin.restore(sender, open_block, total, Some([1; 65])));
    let path = format!("/api/1/channels/{sender}/{open_block}");
    let shown = buyer.ask(Request::get(&path)).await;
    assert!(shown.text().contains(r#""balance": 99999999999999999999,"#), "a bare number: {}", shown.text());
    assert!(buyer.ask(Request::get("/api/1/stats")).await.text().contains(": 99999999999999999999,"));
    let body = whole(r#"{"balance": 99999999999999999999}"#);
    let closed = ask(buyer.address, Request::delete(&path).body(body).unwrap()).await;
    assert_eq!(closed.status, StatusCode::OK, "{closed:?}");
}

#[tokio::test]
async fn a_closing_channel_takes_no_payment() {
    let fair = Fair::open().await;
    let buyer = fair.buyer(10 * PRICE).await;
    assert_paid(&buyer.pay(PRICE).await, 0);
    let open_block = buyer.channel.open_block;
    let arguments = [
        market::address(buyer.channel.receiver),
        Token::Uint(open_block.into()),
        market::units(Amount::from(PRICE)),
    ];
    fair.market.on_channel(0, "uncooperativeClose", &arguments).await;
    fair.origin.await_poll().await;
    assert_refused(&buyer.pay(2 * PRICE).await, Some(&rdn::NONEXISTING_CHANNEL), None);
    let uri = format!("/api/1/channels/{}/{open_block}?balance=1000", buyer.signer.address());
    assert_eq!(buyer.ask(Request::delete(uri)).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let nowhere = || SellerSettings {
        secure: None,
        authorized: None,
        listen: ([127, 0, 0, 1], 0).into(),
        rpc_url: "http://127.0.0.1:1".to_owned(),
        channel_manager: Address::default(),
        token: Address::default(),
        key: SELLER_KEY,
        confirmations: 0,
        poll_every: Duration::from_millis(5),
        resources: Resource::assortment(Amount::from(PRICE)),
    };
    let failure = async |change: fn(&mut SellerSettings)| {
        let mut settings = nowhere();
        change(&mut settings);
        Origin::spawn(settings).await.err().unwrap()
    };
    assert!(matches!(
        failure(|s| s.listen = ([0, 0, 0, 0], 0).into()).await,
        SellerStartError::NotLoopback(_)
    ));
    assert!(matches!(failure(|s| s.key = [0; 32]).await, SellerStartError::Key));
    assert!(matches!(failure(|s| s.rpc_url = "nowhere".to_owned()).await, SellerStartError::Node { .. }));
    assert!(matches!(
        failure(|s| s.resources[0].path = "/api/1/x".to_owned()).await,
        SellerStartError::Path(_)
    ));
    assert!(matches!(
        failure(|s| s.resources[0].path = "/paid/html".to_owned()).await,
        SellerStartError::Path(_)
    ));
    // Prices are visible while the node is down.
    let origin = Origin::spawn(nowhere()).await.unwrap();
    let taken = origin.address();
    let second = Origin::spawn(SellerSettings { listen: taken, ..nowhere() }).await;
    assert!(matches!(second.err().unwrap(), SellerStartError::Listen { address, .. } if address == taken));
    assert_refused(&ask(taken, Request::get("/paid").body(empty()).unwrap()).await, None, None);
}

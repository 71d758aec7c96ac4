//! x402 over real sockets: Bob's facilitator takes each authorization once, and fails in every way that was seen in the
//! field. Nothing here shares code with the scheme: digests come from typed data.

mod ahead;
mod compressed;
mod crowd;
mod embedded;
mod expects;
mod faults;
mod offers;
mod pages;
mod permit2;
mod recorded;
mod restarts;
mod sign_in;
mod signers;
mod undelivered;
mod usage;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ethers_core::types::Signature as EthersSignature;
use ethers_core::types::transaction::eip712::{Eip712 as _, TypedData};
use http::{HeaderMap, HeaderName, Method, Request, StatusCode};
use serde_json::{Value, json};
use tollpass::payments::ledger::{LedgerRow, LedgerState};

use crate::ledger;
use crate::support::fair::empty;
use crate::support::mallory::{Answer, Content, Mallory, Presented};
use crate::support::payer::{Alice, PATIENCE, Running};
use crate::support::wire::{Got, ask, ask_or_leave};

const TOKEN: &str = "0x70ab1e0000000000000000000000000000004020";
const BOB: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// In base units of the token, which has six decimals.
const PRICE: u64 = 1000;
const RULE: &str = "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\n\
    token = \"0x70ab1e0000000000000000000000000000004020\"\ndecimals = 6\n\
    eip712_name = \"Toy Dollar\"\neip712_version = \"2\"\n\
    [[pay]]\nhost = \"localhost\"\nmax_price = \"0.002 TOY\"\n";
/// Payments that are unclear are presented again at once, and soon.
const QUICK: &str = "[limits]\nanswer_timeout = \"600ms\"\nunclear_repeats = 2\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}
use Version::{V1, V2};

/// What the chain knows: the amount of each authorization that was redeemed.
#[derive(Clone, Default)]
struct Chain(Arc<Mutex<BTreeMap<String, u64>>>);

impl Chain {
    fn transfers(&self) -> Vec<u64> {
        self.0.lock().unwrap().values().copied().collect()
    }

    /// Redeems a payment; false if that was done before.
    fn settle(&self, payment: &Authorized) -> bool {
        let value = payment.value.parse().unwrap();
        self.0.lock().unwrap().insert(payment.nonce.clone(), value).is_none()
    }
}

/// The authorization in a payment whose signature is good.
#[derive(Clone, Debug)]
struct Authorized {
    value: String,
    nonce: String,
    /// How long it is valid, in seconds.
    lasts: u64,
}

impl Version {
    fn header(self) -> HeaderName {
        HeaderName::from_static(if self == V1 { "x-payment" } else { "payment-signature" })
    }

    fn receipt(self) -> HeaderName {
        HeaderName::from_static(if self == V1 { "x-payment-response" } else { "payment-response" })
    }

    fn entry(self, price: u64) -> Value {
        let (amount, network) = match self {
            V1 => ("maxAmountRequired", "eip155:31337"),
            V2 => ("amount", "eip155:31337"),
        };
        json!({
            "scheme": "exact", "network": network, amount: price.to_string(), "asset": TOKEN, "payTo": BOB,
            "maxTimeoutSeconds": 60, "extra": {"name": "Toy Dollar", "version": "2"},
        })
    }

    /// A 402 with these offers.
    fn asks(self, error: &str, accepts: &[Value]) -> Answer {
        let version = if self == V1 { 1 } else { 2 };
        let offers = json!({"x402Version": version, "error": error, "accepts": accepts}).to_string();
        let answer = Answer::new(StatusCode::PAYMENT_REQUIRED, "{}");
        match self {
            V2 => answer.header(&HeaderName::from_static("payment-required"), STANDARD.encode(offers)),
            V1 => answer
                .header(&http::header::CONTENT_TYPE, "application/json; charset=utf-8")
                .with_content(Content::Text(offers.leak())),
        }
    }

    fn offer(self, error: &str) -> Answer {
        self.asks(error, &[self.entry(PRICE)])
    }

    /// The payment of a request, after its signature was checked against typed data.
    fn payment(self, presented: &Presented) -> Option<Authorized> {
        let value = presented.headers.get(self.header())?;
        let payment: Value = serde_json::from_slice(&STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
        assert_eq!(payment["x402Version"], if self == V1 { 1 } else { 2 });
        match self {
            V1 => assert_eq!(
                (&payment["scheme"], &payment["network"]),
                (&json!("exact"), &json!("eip155:31337"))
            ),
            V2 => assert_eq!(payment["accepted"]["payTo"], BOB),
        }
        let authorization = payment["payload"]["authorization"].clone();
        assert_eq!((&authorization["to"], &authorization["validAfter"]), (&json!(BOB), &json!("0")));
        let field = |name: &str, kind: &str| json!({"name": name, "type": kind});
        let typed = json!({
            "domain": {"name": "Toy Dollar", "version": "2", "chainId": 31337, "verifyingContract": TOKEN},
            "primaryType": "TransferWithAuthorization",
            "types": {
                "EIP712Domain": [
                    field("name", "string"), field("version", "string"), field("chainId", "uint256"),
                    field("verifyingContract", "address"),
                ],
                "TransferWithAuthorization": [
                    field("from", "address"), field("to", "address"), field("value", "uint256"),
                    field("validAfter", "uint256"), field("validBefore", "uint256"), field("nonce", "bytes32"),
                ],
            },
            "message": authorization,
        });
        let typed: TypedData = serde_json::from_value(typed).unwrap();
        let signature = payment["payload"]["signature"].as_str().unwrap();
        let signature: EthersSignature = signature.parse().unwrap();
        assert!([27, 28].contains(&signature.v));
        let signer = signature.recover(typed.encode_eip712().unwrap()).unwrap();
        let text = |name: &str| authorization[name].as_str().unwrap().to_owned();
        assert_eq!(ethers_core::utils::to_checksum(&signer, None), text("from"));
        let valid_before: u64 = text("validBefore").parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((now..=now + 60).contains(&valid_before), "{valid_before} at {now}");
        Some(Authorized { value: text("value"), nonce: text("nonce"), lasts: valid_before - now })
    }

    /// The answer of an honest seller to a payment.
    fn serve(self, chain: &Chain, payment: &Authorized) -> Answer {
        if payment.value != PRICE.to_string() {
            return self.offer("invalid_exact_evm_payload_authorization_value_mismatch");
        }
        if !chain.settle(payment) {
            return self.offer("invalid_exact_evm_nonce_already_used");
        }
        self.served()
    }

    fn served(self) -> Answer {
        Answer::new(StatusCode::OK, "goods\n").header(&self.receipt(), self.stated(true, None))
    }

    fn stated(self, success: bool, reason: Option<&str>) -> String {
        let receipt = json!({
            "success": success, "errorReason": reason, "transaction": "0x33", "network": "eip155:31337",
        });
        STANDARD.encode(receipt.to_string())
    }
}

/// A 402 of version 2 as bytes, for sellers that tests operate by hand.
fn raw_offer() -> String {
    let offers = json!({"x402Version": 2, "error": "Payment required", "accepts": [V2.entry(PRICE)]});
    let offers = STANDARD.encode(offers.to_string());
    format!(
        "HTTP/1.1 402 Payment Required\r\nConnection: close\r\nContent-Length: 0\r\nPAYMENT-REQUIRED: {offers}\r\n\r\n"
    )
}

/// Sells honestly in one version.
fn honest(version: Version, chain: &Chain) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    move |presented| match version.payment(presented) {
        Some(payment) => version.serve(&chain, &payment),
        None => version.offer("Payment required"),
    }
}

async fn alice(more: &str) -> (Alice, Running) {
    let alice = Alice::without_chain(&format!("{RULE}{more}"));
    let proxy = alice.start().await;
    (alice, proxy)
}

async fn send(proxy: &Running, seller: &Mallory, method: Method, headers: HeaderMap) -> Got {
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let mut request = Request::builder().method(method).uri(url).body(empty()).unwrap();
    request.headers_mut().extend(headers);
    tokio::time::timeout(PATIENCE, ask(proxy.address, request)).await.expect("no answer")
}

async fn get(proxy: &Running, seller: &Mallory) -> Got {
    send(proxy, seller, Method::GET, HeaderMap::new()).await
}

fn reason(got: &Got) -> &str {
    got.header(&HeaderName::from_static("proxy-status")).unwrap_or_default()
}

/// The nonces of all payments that the seller was presented, each once.
fn nonces(version: Version, seller: &Mallory) -> Vec<String> {
    let payments = seller.presented();
    let mut nonces: Vec<String> = payments
        .iter()
        .filter(|presented| presented.headers.contains_key(version.header()))
        .filter_map(|presented| Some(version.payment(presented)?.nonce))
        .collect();
    nonces.sort();
    nonces.dedup();
    nonces
}

/// The last state of each payment in the ledger.
fn last_states(rows: &[LedgerRow]) -> Vec<LedgerState> {
    let mut last = BTreeMap::new();
    for row in rows {
        last.insert(row.payment, row.state);
    }
    last.into_values().collect()
}

#[tokio::test]
async fn an_offer_is_paid_in_both_versions_without_a_chain() {
    for version in [V1, V2] {
        let chain = Chain::default();
        let seller = Mallory::spawn(honest(version, &chain)).await;
        let (alice, proxy) = alice("").await;
        for count in 1..=2 {
            let got = get(&proxy, &seller).await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{version:?}: {got:?}");
            assert_eq!(chain.transfers(), vec![PRICE; count]);
        }
        proxy.stop().await;
        let rows = ledger::rows(&alice);
        assert_eq!(last_states(&rows), [LedgerState::Paid; 2], "{rows:?}");
        assert_eq!(rows[0].price, PRICE.into());
        let stated = rows
            .iter()
            .filter(|row| row.receipt == r#"{"success":true,"transaction":"0x33","network":"eip155:31337"}"#);
        assert!(
            stated.clone().count() == 2 && stated.clone().all(|row| row.state == LedgerState::Paid),
            "{rows:?}"
        );
    }
}

#[tokio::test]
async fn a_ledger_of_authorizations_is_shortened_while_the_proxy_runs() {
    let chain = Chain::default();
    let seller = Mallory::spawn(honest(V2, &chain)).await;
    let alice = Alice::without_chain(RULE);
    let proxy = alice.start_with(|config| config.ledger.max_size = 8192).await;
    for _ in 0..40 {
        assert_eq!(get(&proxy, &seller).await.status, StatusCode::OK);
    }
    ledger::await_rows(&alice, |rows| rows.first().is_some_and(|first| first.seq > 20)).await;
    proxy.stop().await;
    assert!(ledger::shown::printed(&alice, &["verify"]).await.contains("is unchanged"));
}

#[tokio::test]
async fn a_signed_offer_is_a_claim_in_the_first_row_of_its_payment() {
    let signed = json!({"format": "jws", "acceptIndex": 0, "signature": "e30.e30.aa"});
    let extensions = json!({"offer-receipt": {"info": {"offers": [signed]}}});
    let offers = json!({"x402Version": 2, "accepts": [V2.entry(PRICE)], "extensions": extensions});
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(_) => V2.served(),
        None => Answer::new(StatusCode::PAYMENT_REQUIRED, "{}")
            .header(&HeaderName::from_static("payment-required"), STANDARD.encode(offers.to_string())),
    })
    .await;
    let (alice, proxy) = alice("send_ahead = false\n").await;
    for query in ["", "?key=hush"] {
        let url = format!("http://localhost:{}/goods{query}", seller.address().port());
        let got = ask(proxy.address, Request::get(url).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
    }
    proxy.stop().await;
    let rows = ledger::rows(&alice);
    let offers: Vec<(LedgerState, &str)> = rows.iter().map(|row| (row.state, row.offer.as_str())).collect();
    // What is signed names the URL: with a query, it is not kept.
    let (held, paid) = (LedgerState::Held, LedgerState::Paid);
    assert_eq!(
        offers[0],
        (held, r#"{"acceptIndex":0,"format":"jws","signature":"e30.e30.aa"}"#),
        "{rows:#?}"
    );
    assert!(offers[1..].iter().all(|(_, offer)| offer.is_empty()), "{rows:#?}");
    assert_eq!(offers.iter().filter(|(state, _)| *state == paid).count(), 2, "{rows:#?}");
    let shown = ledger::shown::printed(&alice, &["--csv"]).await;
    assert!(shown.lines().nth(1).unwrap().contains(r#""{""acceptIndex"":0,"#), "{shown}");
    let shown = ledger::shown::printed(&alice, &[]).await;
    assert!(shown.lines().nth(1).unwrap().contains("  held   signed offer  "), "{shown}");
    assert!(ledger::shown::printed(&alice, &["verify"]).await.contains("is unchanged"));
}

#[tokio::test]
async fn identical_requests_at_once_are_separate_purchases() {
    let chain = Chain::default();
    let seller = Mallory::spawn(honest(V2, &chain)).await;
    let (_alice, proxy) = alice("").await;
    let got = futures_util::future::join_all((0..20).map(|_| get(&proxy, &seller))).await;
    assert!(got.iter().all(|got| got.status == StatusCode::OK), "{got:?}");
    assert_eq!(chain.transfers(), [PRICE; 20]);
    proxy.stop().await;
}

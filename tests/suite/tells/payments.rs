//! What stops an x402 payment once it is to be signed, or after the seller has it; and payments that would leave this machine
//! unencrypted.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tollpass::protocol::ReasonCode as Code;

use super::sellers::serve;
use super::{PROXY_STATUS, Proxy, Retry, is_problem, is_told, tables};
use crate::outbound::unencrypted::relayed;
use crate::support::notary::{AUTHORIZATIONS, Does, Notary};
use crate::support::own::own_address;
use crate::support::payer::Alice;
use crate::support::secure;
use crate::support::ways::{Asked, Entrances, WAYS_IN, WayIn};

/// What the client is told here.
pub const TOLD: &[Code] = &[
    Code::SellerRefused,
    Code::ClockSkew,
    Code::ReceiverChanged,
    Code::PaidNotDelivered,
    Code::PaymentInDoubt,
    Code::NoAllowance,
    Code::TooManyOpen,
    Code::SignerRefused,
    Code::SignerUnavailable,
    Code::SignerUnclear,
    Code::PlainHttp,
];

/// Each way has a path of its own: the same one would be the same purchase.
const PATHS: [&str; 6] = ["/plain", "/tunnel", "/http1", "/http2", "/route", "/socket"];

/// The seller's response to a payment, and what the client is told then.
struct Case {
    reason: Code,
    limits: &'static str,
    offer: Value,
    answer: Response<Full<Bytes>>,
    /// What an external signer does with the payment.
    signer: Option<Does>,
    retry: Retry,
}

fn rule(host: &str, more: &str) -> String {
    format!(
        "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\n\
         token = \"0x70ab1e0000000000000000000000000000004020\"\ndecimals = 6\n\
         eip712_name = \"Toy Dollar\"\neip712_version = \"2\"\n\
         [[pay]]\nhost = \"{host}\"\nmax_price = \"0.002 TOY\"\nsend_ahead = false\n{more}"
    )
}

fn offer(payee: &str, extra: Value) -> Value {
    json!({
        "scheme": "exact", "network": "eip155:31337", "amount": "1000",
        "asset": "0x70ab1e0000000000000000000000000000004020", "payTo": payee, "maxTimeoutSeconds": 60, "extra": extra,
    })
}

fn asks(status: u16, error: &str, offer: &Value) -> Response<Full<Bytes>> {
    let offers = json!({"x402Version": 2, "error": error, "accepts": [offer]}).to_string();
    let asks = Response::builder().status(status).header("payment-required", STANDARD.encode(offers));
    asks.body(Full::from("{}")).unwrap()
}

fn cases() -> Vec<Case> {
    let (bob, eve) =
        ("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "0x90F79bf6EB2c4f870365E785982E1f101E93b906");
    let named = json!({"name": "Toy Dollar", "version": "2"});
    let good = offer(bob, named.clone());
    let case =
        |reason, answer| Case { reason, limits: "", offer: good.clone(), answer, signer: None, retry: None };
    let again = |error: &str| asks(402, error, &good);
    let mut late = again("invalid_exact_evm_payload_authorization_valid_before");
    late.headers_mut().insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
    let by_permit2 = offer(bob, json!({"assetTransferMethod": "permit2"}));
    let soon = Some((1, 60));
    let unclear = "unexpected_settle_error";
    let signer = |reason, does, retry| Case { signer: Some(does), retry, ..case(reason, again("")) };
    vec![
        case(Code::SellerRefused, again("invalid_exact_evm_insufficient_balance")),
        case(Code::ClockSkew, late),
        case(Code::ReceiverChanged, asks(402, unclear, &offer(eve, named))),
        case(Code::PaidNotDelivered, again("invalid_exact_evm_nonce_already_used")),
        Case { limits: "unclear_repeats = 0\n", retry: soon, ..case(Code::PaymentInDoubt, again(unclear)) },
        Case {
            limits: "unclear_repeats = 0\nopen_authorizations = 1\n",
            retry: soon,
            ..case(Code::TooManyOpen, again(unclear))
        },
        Case {
            answer: asks(412, "permit2_allowance_required", &by_permit2),
            offer: by_permit2.clone(),
            ..case(Code::NoAllowance, again(""))
        },
        signer(Code::SignerRefused, Does::Refuse, None),
        signer(Code::SignerUnclear, Does::Garbage, None),
        signer(Code::SignerUnavailable, Does::Sign, soon),
    ]
}

/// Asks by each way, and checks what the client is told.
async fn tells_in_all_ways(proxy: &Proxy, case: &Case, signer: &Notary) {
    for (way, path) in WAYS_IN.into_iter().zip(PATHS) {
        if let Some(does) = case.signer {
            signer.does(AUTHORIZATIONS, does);
        }
        let row = format!("{} by {way:?}", case.reason);
        let got = proxy.entrances.ask(way, &Asked { path, ..Asked::default() }).await;
        let (status, reason, retry) = match way {
            // They are never paid, so that the seller asks for the first time.
            WayIn::Tunnel | WayIn::WebSocket => (StatusCode::PAYMENT_REQUIRED, Code::OtherProtocol, None),
            _ if case.signer.is_some() => (StatusCode::PAYMENT_REQUIRED, case.reason, case.retry),
            _ => (case.answer.status(), case.reason, case.retry),
        };
        if reason == Code::PaidNotDelivered {
            is_problem(&got, 502, "http_protocol_error", reason, &row);
            assert!(got.headers.contains_key("retry-after"), "{row}: {got:?}");
            continue;
        }
        assert_eq!((got.status, &got.body[..]), (status, &b"{}"[..]), "{row}: {got:?}");
        assert!(got.headers.contains_key("payment-required"), "{row}: {got:?}");
        if way == WayIn::Tunnel {
            assert_eq!(got.headers.get(PROXY_STATUS), None, "{row}");
        } else {
            is_told(&got, reason, retry, &row);
        }
    }
}

#[tokio::test]
async fn what_stops_an_x402_payment_is_told_in_all_six_ways() {
    let mut told = BTreeSet::from([Code::PlainHttp]);
    for case in cases() {
        told.insert(case.reason);
        let (offer, answer) = (case.offer.clone(), case.answer.clone());
        let (seller, _notary) =
            serve(move |request| match request.headers().contains_key("payment-signature") {
                true => answer.clone(),
                false => asks(402, "Payment required", &offer),
            })
            .await;
        let signer = Notary::new();
        // Else the host would soon be paused.
        let limits = format!("[limits]\nundelivered_payments = 0\n{}", case.limits);
        let rest = format!("{}{}", rule("127.0.0.1", &limits), tables(&seller, "", ""));
        let mut alice = Alice::without_chain(&rest);
        if case.signer.is_some() {
            signer.serves(&mut alice, "");
        }
        if case.reason == Code::SignerUnavailable {
            alice.change("signer = \"sh ", "signer = \"/nowhere/sh ");
        }
        let proxy = Proxy::start(&alice, seller, |_| {}, false).await;
        if case.reason == Code::TooManyOpen {
            let asked = Asked { path: "/first", ..Asked::default() };
            let first = proxy.entrances.ask(WayIn::Plain, &asked).await;
            is_told(&first, Code::PaymentInDoubt, Some((1, 60)), "the first one");
        }
        tells_in_all_ways(&proxy, &case, &signer).await;
        proxy.stop().await;
    }
    assert_eq!(told, TOLD.iter().copied().collect());
}

/// Two ways are encrypted, so that they pay; two never pay.
#[tokio::test]
async fn payments_over_plain_http_are_told_in_the_ways_that_can_make_them() {
    let Some(own) = own_address() else { return };
    let bob = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
    let good = offer(bob, json!({"name": "Toy Dollar", "version": "2"}));
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        if !request.headers().contains_key("payment-signature") {
            return asks(402, "Payment required", &good);
        }
        let receipt = STANDARD.encode(r#"{"success":true,"transaction":"0x33","network":"eip155:31337"}"#);
        Response::builder().header("payment-response", receipt).body(Full::from("goods")).unwrap()
    };
    let (local, _notary) = serve(answer.clone()).await;
    let notary = secure::Notary::new();
    let config = notary.certify(&own.to_string(), &["h2", "http/1.1"]).await;
    let served = secure::Secure::serve(config, move |request| std::future::ready(answer(request))).await;
    let seller = Entrances {
        plain: relayed(own, local.plain).await,
        secure: relayed(own, served.address).await,
        seller_ca: notary.ca_file(),
        ..local.clone()
    };
    let rest = format!("{}{}", rule(&own.to_string(), ""), tables(&seller, "", ""));
    let alice = Alice::without_chain(&rest);
    let mut proxy = Proxy::start(&alice, seller.clone(), |_| {}, false).await;
    for (way, path) in WAYS_IN.into_iter().zip(PATHS) {
        // A blind tunnel leads to localhost here, where nothing leaves the machine.
        proxy.entrances.plain = if way == WayIn::Tunnel { local.plain } else { seller.plain };
        let got = proxy.entrances.ask(way, &Asked { path, ..Asked::default() }).await;
        let row = format!("{way:?}");
        match way {
            WayIn::Plain | WayIn::Route => {
                assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{row}: {got:?}");
                let told = is_told(&got, Code::PlainHttp, None, &row);
                assert!(told.contains("allow_plain_http = true"), "{told}");
            }
            WayIn::Http1 | WayIn::Http2 => {
                assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"goods"[..]), "{row}: {got:?}");
            }
            WayIn::Tunnel => assert_eq!(got.headers.get(PROXY_STATUS), None, "{row}: {got:?}"),
            WayIn::WebSocket => {
                is_told(&got, Code::OtherProtocol, None, &row);
            }
        }
    }
    proxy.stop().await;
}

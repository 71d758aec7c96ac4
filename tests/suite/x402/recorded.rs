//! Digests, headers and answers as recorded from the published packages (`vectors/x402.json`).

use http::HeaderValue;
use tollpass::chain::signer::Signer;
use tollpass::protocol::policy::well_known;
use tollpass::protocol::schemes::{Assessment, DrawContext, Payer, Reply};
use tollpass::protocol::{Answer as Seen, Draft, Offer, Refusal, schemes};

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/x402.json")).unwrap()
}

fn header<'a>(vectors: &'a Value, name: &str) -> &'a Value {
    vectors["headers"].as_array().unwrap().iter().find(|header| header["name"] == name).unwrap()
}

/// The kinds of recorded payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ByToken(Version),
    ByPermit2,
}

impl Kind {
    /// The kind of a recorded answer.
    fn of(case: &str) -> Self {
        match case {
            _ if case.starts_with("v1") => Self::ByToken(V1),
            _ if case.starts_with("permit2") => Self::ByPermit2,
            _ => Self::ByToken(V2),
        }
    }

    fn version(self) -> Version {
        match self {
            Self::ByToken(version) => version,
            Self::ByPermit2 => V2,
        }
    }
}

/// The recorded offers, with this error.
fn asked(vectors: &Value, kind: Kind, error: &Value) -> Value {
    let name = if kind.version() == V1 { "v1 offer (body)" } else { "v2 offer" };
    let mut offers = header(vectors, name)["json"].clone();
    offers["error"] = error.clone();
    if kind == Kind::ByPermit2 {
        offers["accepts"][0] = header(vectors, "v2 payment, exact Permit2")["json"]["accepted"].clone();
    }
    offers
}

/// The recorded offer of this kind, and the recorded payment of it.
fn drawn(vectors: &Value, kind: Kind) -> (Offer, Draft) {
    let mut headers = HeaderMap::new();
    let mut body = None;
    let offers = asked(vectors, kind, &Value::Null).to_string();
    match kind.version() {
        V1 => body = Some(offers.as_bytes()),
        V2 => {
            headers.insert("payment-required", HeaderValue::from_str(&STANDARD.encode(offers)).unwrap());
        }
    }
    let answer = Seen { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body };
    let [offer] = &schemes::read(&answer).unwrap()[..] else { panic!("one offer") };
    let known = well_known().into_iter().find(|known| known.network == "eip155:84532").unwrap();
    let now = 1_900_000_000 - 60;
    let mut nonce = [0x11; 32];
    if kind == Kind::ByPermit2 {
        nonce = [0; 32];
        nonce[30..].copy_from_slice(&12345_u16.to_be_bytes());
    }
    let context = DrawContext { nonce, now, max_validity: 600, asset: Some(&known) };
    (offer.clone(), offer.draw_one_shot(&context).unwrap())
}

#[test]
fn payments_are_those_that_were_accepted() {
    let vectors = vectors();
    let key = vectors["private_key"].as_str().unwrap();
    let key: [u8; 32] = ethers_core::utils::hex::decode(key).unwrap().try_into().unwrap();
    let signer = Signer::new(&key).unwrap();
    let payer = Payer { address: vectors["address"].as_str().unwrap().parse().unwrap(), account: None };
    for (kind, vector, name) in [
        (Kind::ByToken(V1), "authorization", "v1 payment"),
        (Kind::ByToken(V2), "authorization", "v2 payment, exact EIP-3009"),
        (Kind::ByPermit2, "permit2", "v2 payment, exact Permit2"),
    ] {
        let (_, draft) = drawn(&vectors, kind);
        let digest = draft.digest(&payer).unwrap();
        let expected = vectors[vector]["digest"].as_str().unwrap();
        assert_eq!(ethers_core::utils::hex::encode_prefixed(digest), expected);
        let signature = signer.sign(digest).unwrap();
        assert_eq!(signature.to_hex(), vectors[vector]["signature"].as_str().unwrap());
        let mut headers = HeaderMap::new();
        draft.attach(&payer, &signature, &mut headers);
        let value = STANDARD.decode(headers[kind.version().header()].as_bytes()).unwrap();
        let payment: Value = serde_json::from_slice(&value).unwrap();
        let mut expected = header(&vectors, name)["json"].clone();
        // It may be left out.
        expected.as_object_mut().unwrap().remove("resource");
        assert_eq!(payment, expected);
    }
}

/// Of each recorded answer to a payment that moved money, none counts as a refusal.
#[test]
fn no_answer_after_which_money_moved_counts_as_a_refusal() {
    let vectors = vectors();
    let mut counts = BTreeMap::new();
    for recorded in vectors["answers"].as_array().unwrap() {
        let case = recorded["case"].as_str().unwrap();
        let kind = Kind::of(case);
        let Some(status) = recorded["status"].as_u64() else { continue };
        let status = StatusCode::from_u16(status.try_into().unwrap()).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in recorded["headers"].as_object().unwrap() {
            let name = HeaderName::try_from(name.as_str()).unwrap();
            headers.insert(name, HeaderValue::from_str(value.as_str().unwrap()).unwrap());
        }
        let mut body = recorded["body"].as_str().unwrap_or_default().to_owned();
        if recorded["offer"] == true {
            // They have been left out of the recording, except for their error.
            let offers = asked(&vectors, kind, &recorded["error"]);
            match kind.version() {
                V1 => {
                    body = offers.to_string();
                    headers.insert("content-type", HeaderValue::from_static("application/json"));
                }
                V2 => {
                    let value = STANDARD.encode(offers.to_string());
                    headers.insert("payment-required", HeaderValue::from_str(&value).unwrap());
                }
            }
        }
        let (_, draft) = drawn(&vectors, kind);
        let head = Seen { status, headers: &headers, body: None };
        let outcome = match draft.assess(&head) {
            Assessment::Paid(_) => "paid",
            Assessment::Taken => "taken",
            Assessment::Unclear => "unclear",
            Assessment::InDoubt => "in doubt",
            Assessment::Asked => {
                let whole = Seen { body: Some(body.as_bytes()), ..head };
                match schemes::read(&whole) {
                    Ok(offers) => match offers[0].judge_one_shot(&draft, 0) {
                        Reply::Taken => "taken",
                        Reply::Unclear => "unclear",
                        Reply::Stop(Refusal::NoAllowance { .. }) => "no allowance",
                        Reply::Stop(Refusal::SellerRefused { .. } | Refusal::ClockSkew { .. }) => "refused",
                        other => panic!("{case}: {other:?}"),
                    },
                    Err(_) => "unclear",
                }
            }
        };
        *counts.entry(outcome).or_insert(0) += 1;
        let is_moved = recorded["moved"] == 1;
        assert!(!is_moved || outcome != "refused", "{case}: {outcome}");
        let lacks_allowance = recorded["error"] == "permit2_allowance_required";
        assert_eq!((status == 412, outcome == "no allowance"), (lacks_allowance, lacks_allowance), "{case}");
        let is_failed = recorded["error"] == "permit2_simulation_failed";
        assert!(!is_failed || outcome == "unclear", "{case}: {outcome}");
        assert!(recorded["error"] != "invalid_exact_evm_nonce_already_used" || outcome == "taken", "{case}");
        let is_served = status.is_success();
        assert!(!is_served || outcome == "paid", "{case}: {outcome}");
    }
    let least = [("paid", 15), ("unclear", 20), ("taken", 10), ("refused", 22), ("no allowance", 1)];
    assert!(least.iter().all(|(outcome, least)| counts[outcome] >= *least), "{counts:?}");
}

use base64::Engine as _;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::encoding::decode;
use super::offer::X402Version;
use super::*;
use crate::protocol::policy::{KnownAsset, well_known};
use crate::protocol::{Account, Address, Amount, Draft};

const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const NONCE: [u8; 32] = [0x11; 32];

fn offer() -> Value {
    json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "1000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "maxTimeoutSeconds": 60, "extra": {"name": "USDC", "version": "2"},
    })
}

/// The same with some members replaced; `null` removes one.
fn with(members: Value) -> Value {
    let mut offer = offer();
    for (key, value) in members.as_object().unwrap() {
        let offer = offer.as_object_mut().unwrap();
        if value.is_null() {
            offer.remove(key)
        } else {
            offer.insert(key.clone(), value.clone())
        };
    }
    offer
}

/// What makes an offer one of Permit2, with more members of `extra`.
fn permit2(more: Value) -> Value {
    let mut extra = json!({"assetTransferMethod": "permit2"});
    extra.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "extra": extra })
}

fn in_header(offers: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = base64::engine::general_purpose::STANDARD.encode(offers.to_string());
    headers.insert(&headers::PAYMENT_REQUIRED, HeaderValue::try_from(value).unwrap());
    headers
}

fn read(headers: &HeaderMap, body: Option<&[u8]>) -> Option<Result<Vec<ExactOffer>, MalformedExactOffer>> {
    Exact::read(&Answer { status: StatusCode::PAYMENT_REQUIRED, headers, body })
}

fn read_v2(accepts: &[Value]) -> Result<Vec<ExactOffer>, MalformedExactOffer> {
    read(&in_header(&json!({"x402Version": 2, "accepts": accepts})), None).unwrap()
}

fn known(symbol: &str, network: &str) -> KnownAsset {
    well_known().into_iter().find(|known| known.symbol == symbol && known.network == network).unwrap()
}

#[test]
fn a_signed_offer_is_kept_as_it_came_and_only_if_it_is_that_of_the_offer() {
    let other = with(json!({"amount": "2000"}));
    let long = "x".repeat(2048);
    let jws = |more: Value| {
        let mut signed = json!({"format": "jws", "signature": "e30.e30.aa"});
        signed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signed
    };
    let first = r#"{"acceptIndex":0,"format":"jws","signature":"e30.e30.aa"}"#;
    let second = r#"{"acceptIndex":1,"format":"jws","signature":"e30.e30.aa"}"#;
    let alone = r#"{"format":"jws","signature":"e30.e30.aa"}"#;
    for (signed, expected) in [
        (
            json!([jws(json!({"acceptIndex": 1})), jws(json!({"acceptIndex": 0}))]),
            [Some(first), Some(second)],
        ),
        (json!([jws(json!({"acceptIndex": 1}))]), [None, Some(second)]),
        (json!([jws(json!({}))]), [Some(alone); 2]),
        (json!([jws(json!({})), jws(json!({}))]), [None; 2]),
        (json!([jws(json!({"acceptIndex": "0"})), jws(json!({"acceptIndex": 1}))]), [None, Some(second)]),
        (json!([jws(json!({"acceptIndex": 0, "more": long}))]), [None; 2]),
        (json!([jws(json!({"acceptIndex": 100}))]), [None; 2]),
        (json!("many"), [None; 2]),
    ] {
        let extensions = json!({"offer-receipt": {"info": {"offers": signed}}});
        let asked = json!({"x402Version": 2, "accepts": [offer(), other], "extensions": extensions});
        let offers = read(&in_header(&asked), None).unwrap().unwrap();
        let kept: Vec<_> = offers.iter().map(ExactOffer::statement).collect();
        assert_eq!(kept, expected.map(|kept| kept.map(str::to_owned)), "{signed}");
        assert_eq!(offers[0].as_quote().statement(), None, "it is that of one request");
    }
    let hidden = json!([{"signature": "\u{1b}[2J\u{202e}"}]);
    let extensions = json!({"offer-receipt": {"info": {"offers": hidden}}});
    let asked = json!({"x402Version": 2, "accepts": [offer()], "extensions": extensions});
    let offers = read(&in_header(&asked), None).unwrap().unwrap();
    let shown = offers[0].statement().unwrap();
    assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{shown}");
}

/// The selector and the layout of `authorizationState(address,bytes32)` are those of EIP-3009.
#[test]
fn the_token_tells_whether_a_payment_was_used() {
    let draft = draw(&read_v2(&[offer()]).unwrap()[0], 1000).unwrap();
    let query = draft.use_query(PAYER.parse().unwrap());
    let call = format!("e94a0102{:0>64}{}", &PAYER[2..].to_lowercase(), "11".repeat(32));
    assert_eq!(ethers_core::utils::hex::encode(&query.call), call);
    assert_eq!(query.contract.to_string(), "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
    assert_eq!(query.chain_id, 84532);
    let mut word = [0; 32];
    assert!(!query.is_used(&word));
    word[31] = 1;
    assert!(query.is_used(&word));
    // The bit 0x91 of the word that the other bytes number.
    let nonce = std::array::from_fn(|place| if place == 31 { 0x91 } else { 0x11 });
    let query = ExactDraft { verifier: Verifier::Permit2, nonce, ..draft }.use_query(PAYER.parse().unwrap());
    let call = format!("4fe02b44{:0>64}00{}", &PAYER[2..].to_lowercase(), "11".repeat(31));
    assert_eq!(ethers_core::utils::hex::encode(&query.call), call);
    assert_eq!(query.contract, PERMIT2);
    let bit = |place: usize| {
        let mut word = [0; 32];
        word[31 - place / 8] = 1 << (place % 8);
        word
    };
    assert!(query.is_used(&bit(0x91)) && query.is_used(&[0xff; 32]));
    assert!([0x90, 0x92, 0x11, 0].iter().all(|place| !query.is_used(&bit(*place))));
}

fn draw(offer: &ExactOffer, now: u64) -> Result<ExactDraft, Refusal> {
    let known = known("USDC", "eip155:84532");
    Exact::draw(offer, &DrawContext { nonce: NONCE, now, max_validity: 600, asset: Some(&known) })
}

fn payer() -> Payer {
    Payer { address: PAYER.parse().unwrap(), account: None::<Account> }
}

#[test]
fn both_versions_are_read() {
    let [v2] = &read_v2(&[offer()]).unwrap()[..] else { panic!() };
    let terms = Exact::terms(v2);
    assert_eq!(terms.price.to_string(), "1000 of 0x036CbD53842c5426634e7929541eC2318f3dCF7e on eip155:84532");
    assert_eq!(terms.payee, "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".parse::<Address>().unwrap());
    assert_eq!(v2.error, StatedError::NoPayment);

    let entry = with(json!({"amount": null, "maxAmountRequired": "1000", "network": "base-sepolia"}));
    let body = json!({"x402Version": 1, "error": "X-PAYMENT header is required", "accepts": [entry]});
    let body = body.to_string();
    let [v1] = &read(&HeaderMap::new(), Some(body.as_bytes())).unwrap().unwrap()[..] else { panic!() };
    assert_eq!((Exact::terms(v1), v1.requirement.version), (terms, X402Version::V1));
    // While the body has not been read, and if it is another scheme's.
    assert_eq!(read(&HeaderMap::new(), None), None);
    for other in [r#"{"accepts": []}"#, "[]", "<html>", "", "{"] {
        assert_eq!(read(&HeaderMap::new(), Some(other.as_bytes())), None, "{other}");
    }
    // A header wins, whatever the body says.
    let headers = in_header(&json!({"x402Version": 2, "accepts": [with(json!({"amount": "7"}))]}));
    let [first] = &read(&headers, Some(body.as_bytes())).unwrap().unwrap()[..] else { panic!() };
    assert_eq!(first.requirement.amount, Amount::from(7));
}

#[test]
fn offers_that_cannot_be_paid_are_named() {
    for (changed, why) in [
        (json!({"scheme": "upto"}), "upto on eip155:84532"),
        (json!({"scheme": "\u{1b}[2J".repeat(100)}), "?[2J?[2J"),
        (json!({"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}), "not an EVM network"),
        (json!({"network": "base-sepolia-2"}), "exact on base-sepolia-2 (not an EVM network)"),
        (json!({"extra": {"assetTransferMethod": "permit3"}}), "by permit3"),
        (permit2(json!({"spender": PAYER})), "redeemed by another contract"),
        (permit2(json!({"spender": "Permit2"})), "redeemed by another contract"),
        (permit2(json!({"verifyingContract": PAYER})), "another contract than Permit2"),
        // Permit2 takes the signature, not the token.
        (permit2(json!({"verifyingContract": offer()["asset"]})), "another contract than Permit2"),
        (permit2(json!({"name": "GatewayWalletBatched"})), "another contract"),
        (json!({"extra": {"name": "GatewayWalletBatched"}}), "another contract"),
        (
            json!({"extra": {"verifyingContract": "0x77777777Dcc4d5A8B6E418Fd04D8997ef11000eE"}}),
            "another contract",
        ),
        (json!({"asset": "USDC"}), "without a valid token"),
        (json!({"payTo": null}), "without a valid payee"),
        (json!({"payTo": Address::default()}), "to the token or the zero address"),
        (json!({"payTo": offer()["asset"]}), "to the token or the zero address"),
        (json!({"amount": null}), "without a price"),
        (json!({"amount": "1e3"}), "cannot be read"),
        (json!({"amount": "-1"}), "cannot be read"),
        (json!({"amount": 1.5}), "cannot be read"),
        (json!({"amount": "9".repeat(60)}), "cannot be read"),
        (json!({"maxTimeoutSeconds": 5}), "too short"),
        (json!({"maxTimeoutSeconds": -1}), "cannot be read"),
        (json!({"maxTimeoutSeconds": null}), "without maxTimeoutSeconds"),
        (json!({"extra": {"more": "x".repeat(7000)}}), "too large"),
    ] {
        let error = read_v2(&[with(changed.clone())]).unwrap_err();
        assert!(matches!(error, MalformedExactOffer::NoneSupported(_)), "{changed}: {error}");
        let text = error.to_string();
        assert!(text.contains(why) && text.len() < 400, "{changed}: {text}");
        // It hides no other offer.
        assert_eq!(read_v2(&[with(changed), offer()]).unwrap().len(), 1);
    }
    // The token's own contract is no other one, however it is written.
    let own = json!({"extra": {"verifyingContract": "0x036cbd53842c5426634e7929541ec2318f3dcf7e"}});
    assert!(read_v2(&[with(own)]).is_ok());
}

/// A payment in version 1 does not repeat the offer, which may describe the resource at length.
#[test]
fn a_large_offer_of_version_1_can_be_paid_and_only_what_matters_is_kept() {
    let terms = json!({"amount": null, "maxAmountRequired": "1000", "network": "base-sepolia"});
    let mut entry = with(terms);
    entry["outputSchema"] = "x".repeat(20_000).into();
    let body = |entry: &Value| json!({"x402Version": 1, "accepts": [entry]}).to_string();
    let offers = read(&HeaderMap::new(), Some(body(&entry).as_bytes())).unwrap().unwrap();
    let draft = draw(&offers[0], 1000).unwrap();
    let stored = draft.to_stored().unwrap();
    assert!(stored.len() < 1000, "{stored}");
    assert_eq!(ExactDraft::from_stored(NONCE, &stored), Some(draft));
    // What matters is bounded.
    entry["extra"]["name"] = "x".repeat(7000).into();
    let error = read(&HeaderMap::new(), Some(body(&entry).as_bytes())).unwrap().unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn hostile_answers_are_bounded_and_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let accepts = format!(r#"{{"x402Version": 2, "accepts": {deep}}}"#);
    let encode = |json: &str| base64::engine::general_purpose::STANDARD.encode(json);
    for (value, expected) in [
        (encode(&accepts), "cannot be read"),
        (encode("{}"), "missing field"),
        (encode(r#"{"x402Version": 1, "accepts": []}"#), "version 1"),
        (encode(r#"{"x402Version": 3, "accepts": []}"#), "version 3"),
        (encode(r#"{"x402Version": 2, "accepts": []}"#), "there is none"),
        (encode(r#"{"x402Version": 2, "accepts": {}}"#), "invalid type"),
        (encode(r#"{"x402Version": 2, "x402Version": 2, "accepts": []}"#), "duplicate field"),
        (encode("{"), "EOF"),
        ("%%%".to_owned(), "not JSON in base64"),
        (String::new(), "EOF"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(&headers::PAYMENT_REQUIRED, HeaderValue::try_from(value).unwrap());
        let error = read(&headers, None).unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let many: Vec<Value> = (0..1000).map(|_| offer()).collect();
    assert_eq!(read_v2(&many), Err(MalformedExactOffer::TooMany { count: 1000, most: 100 }));
    let mut headers = in_header(&json!({"x402Version": 2, "accepts": [offer()]}));
    let again = headers[&headers::PAYMENT_REQUIRED].clone();
    headers.append(&headers::PAYMENT_REQUIRED, again);
    assert!(matches!(read(&headers, None), Some(Err(MalformedExactOffer::Doubled(_)))));
}

#[test]
fn extensions_of_any_form_are_no_obstacle() {
    for extensions in
        [json!([]), json!("x"), json!({"other": {"info": {}}}), json!({"payment-identifier": 1})]
    {
        let offers = json!({"x402Version": 2, "accepts": [offer()], "extensions": extensions});
        let [offer] = &read(&in_header(&offers), None).unwrap().unwrap()[..] else { panic!() };
        assert!(draw(offer, 0).is_ok(), "{extensions}");
    }
}

#[test]
fn each_version_has_its_own_price() {
    let both = with(json!({"amount": "1000", "maxAmountRequired": "900", "network": "eip155:84532"}));
    let [offer] = &read_v2(std::slice::from_ref(&both)).unwrap()[..] else { panic!() };
    assert_eq!(offer.requirement.amount, 1000.into());
    let v1 = serde_json::to_vec(&json!({"x402Version": 1, "accepts": [both]})).unwrap();
    let headers = HeaderMap::new();
    let answer = Answer { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body: Some(&v1) };
    let [offer] = &Exact::read(&answer).unwrap().unwrap()[..] else { panic!() };
    assert_eq!(offer.requirement.amount, 900.into());
    for (kind, expected) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("application/problem+json", true),
        ("text/plain", false),
        ("text/html", false),
        ("", false),
    ] {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        assert_eq!(Exact::wants_body(StatusCode::PAYMENT_REQUIRED, &headers), expected, "{kind}");
    }
}

#[test]
fn the_validity_is_bounded_and_the_token_is_named_as_it_is_known() {
    let drawn = |changed: Value| {
        let offers = read_v2(&[with(changed)]).unwrap();
        draw(&offers[0], 1000)
    };
    for (seconds, expected) in [(60_u64, 1060), (6, 1006), (600, 1600), (601, 1600), (u64::MAX, 1600)] {
        assert_eq!(drawn(json!({"maxTimeoutSeconds": seconds})).unwrap().valid_before, expected);
    }
    let draft = drawn(json!({"extra": null})).unwrap();
    let Verifier::Token(domain) = &draft.verifier else { panic!("{draft:?}") };
    assert_eq!((&*domain.name, &*domain.version), ("USDC", "2"));
    assert!(draft.is_usable(1054) && !draft.is_usable(1055));
    for (claimed, told) in [
        (json!({"name": "USD Coin"}), "the name USD Coin, but it is USDC:"),
        (json!({"name": "USDC", "version": "1"}), "the version 1, but it is 2:"),
        (json!({"version": 1}), "the version 1, but it is 2:"),
    ] {
        let wrong = drawn(json!({"extra": claimed})).unwrap_err();
        assert!(matches!(wrong, Refusal::TokenNamedWrongly { .. }), "{wrong}");
        assert!(wrong.to_string().contains(told), "{wrong}");
    }
    for claimed in [json!({"version": 2}), json!({"name": "USDC", "version": "2"}), json!({"version": null})]
    {
        assert!(drawn(json!({"extra": claimed})).is_ok(), "{claimed}");
    }
    let offers = read_v2(&[offer()]).unwrap();
    let unnamed = known("USDC", "eip155:84532").with_domain(None);
    for asset in [None, Some(&unnamed)] {
        let context = DrawContext { nonce: NONCE, now: 0, max_validity: 600, asset };
        assert!(matches!(Exact::draw(&offers[0], &context), Err(Refusal::NoTokenDomain { .. })));
    }
}

#[test]
fn what_the_journal_keeps_presents_the_same_payment() {
    let identified = json!({
        "x402Version": 2, "accepts": [offer()],
        "extensions": {"payment-identifier": {"info": {"required": true}, "schema": {}}},
    });
    let v1 = with(json!({"amount": null, "maxAmountRequired": "1000", "network": "base-sepolia"}));
    let v1 = json!({"x402Version": 1, "accepts": [v1]}).to_string();
    let offers = [
        read_v2(&[offer()]).unwrap(),
        read_v2(&[with(permit2(json!({})))]).unwrap(),
        read(&in_header(&identified), None).unwrap().unwrap(),
        read(&HeaderMap::new(), Some(v1.as_bytes())).unwrap().unwrap(),
    ];
    for offer in offers.iter().flatten() {
        let draft = draw(offer, 1000).unwrap();
        let again = ExactDraft::from_stored(NONCE, &draft.to_stored().unwrap()).unwrap();
        assert_eq!(again, draft);
        let attach = |draft: &ExactDraft| {
            let mut headers = HeaderMap::new();
            Exact::attach(draft, &payer(), &Signature([7; 65]), &mut headers);
            assert_eq!(headers.len(), 1);
            headers
        };
        assert_eq!(attach(&again), attach(&draft));
    }
    assert_eq!(ExactDraft::from_stored(NONCE, "{}"), None);
}

/// Only a payment with an ID may be presented again with any request.
#[test]
fn a_payment_counts_as_identified_only_if_it_carries_an_id() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let v1 = with(json!({"amount": null, "maxAmountRequired": "1000", "network": "base-sepolia"}));
    for (declared, expected) in [
        (r#"{"info": {"required": true}}"#.to_owned(), true),
        (r#"{"schema": {}}"#.to_owned(), false),
        (r#"{"info": []}"#.to_owned(), false),
        (format!(r#"{{"info": {{}}, "schema": {deep}}}"#), false),
    ] {
        let asked = |version: u8, entry: &Value| {
            let extensions = format!(r#"{{"payment-identifier": {declared}}}"#);
            format!(r#"{{"x402Version": {version}, "accepts": [{entry}], "extensions": {extensions}}}"#)
        };
        let mut headers = HeaderMap::new();
        let in_header = base64::engine::general_purpose::STANDARD.encode(asked(2, &offer()));
        headers.insert(&headers::PAYMENT_REQUIRED, HeaderValue::try_from(in_header).unwrap());
        let is_identified = |offers: Option<Result<Vec<ExactOffer>, _>>| {
            let draft = draw(&offers.unwrap().unwrap()[0], 1000).unwrap();
            let mut headers = HeaderMap::new();
            Exact::attach(&draft, &payer(), &Signature([7; 65]), &mut headers);
            let value = headers.values().next().unwrap();
            let payment: Value = serde_json::from_slice(&decode(value.as_bytes()).unwrap()).unwrap();
            let carries = payment["extensions"]["payment-identifier"]["info"]["id"].is_string();
            let is_identified = Draft::X402(draft).is_identified();
            assert_eq!(is_identified, carries, "{declared}");
            is_identified
        };
        assert_eq!(is_identified(read(&headers, None)), expected, "{declared}");
        let body = asked(1, &v1);
        assert!(!is_identified(read(&HeaderMap::new(), Some(body.as_bytes()))), "{declared}");
    }
}

#[test]
fn a_payment_identifier_is_added_to_what_the_seller_declared() {
    let declared = json!({"info": {"required": false}, "schema": {"a": 1}});
    let offers = json!({
        "x402Version": 2, "accepts": [offer()], "extensions": {"payment-identifier": declared, "bazaar": {}},
    });
    let offers = read(&in_header(&offers), None).unwrap().unwrap();
    let mut headers = HeaderMap::new();
    let draft = draw(&offers[0], 1000).unwrap();
    Exact::attach(&draft, &payer(), &Signature([7; 65]), &mut headers);
    let value = &headers[&headers::PAYMENT_SIGNATURE];
    assert!(value.is_sensitive());
    let payment: Value = serde_json::from_slice(&decode(value.as_bytes()).unwrap()).unwrap();
    assert_eq!(
        payment["extensions"],
        json!({"payment-identifier": {"info": {"required": false, "id": "11".repeat(32)}, "schema": {"a": 1}}})
    );
    assert_eq!(payment["accepted"], offer());
    assert!(payment["payload"]["signature"].as_str().unwrap().ends_with("22"), "v is 27 or 28");
}

#[test]
fn a_refusal_about_time_says_that_the_clocks_differ() {
    let text = "invalid_exact_evm_payload_authorization_valid_before";
    let offers = json!({"x402Version": 2, "error": text, "accepts": [offer()]});
    let mut headers = in_header(&offers);
    headers.insert("date", HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"));
    let offers = read(&headers, None).unwrap().unwrap();
    let draft = draw(&offers[0], 784_111_777).unwrap();
    let judge = |now| Exact::judge(&offers[0], &draft, now);
    assert_eq!(judge(784_111_777 - 31), Reply::Stop(Refusal::ClockSkew { seconds: 31 }));
    assert!(matches!(judge(784_111_777 + 30), Reply::Stop(Refusal::SellerRefused { .. })));
}

#[test]
fn permit2_needs_no_name_of_the_token_and_comes_after_what_needs_no_allowance() {
    let by_permit2 = with(permit2(json!({
        "name": "any", "spender": "0x402085C248EEA27D92E8B30B2C58ED07F9E20001",
        "verifyingContract": "0x000000000022d473030f116ddee9f6b43ac78ba3",
    })));
    let offers = read_v2(&[by_permit2.clone(), offer()]).unwrap();
    let methods = offers.iter().map(|offer| offer.requirement.method);
    assert!(methods.eq([TransferMethod::Eip3009, TransferMethod::Permit2]));
    let conditions: Vec<Option<String>> = offers.iter().map(ExactOffer::condition).collect();
    assert_eq!(conditions[0], None);
    assert!(
        conditions[1].as_ref().unwrap().contains(
            "`tollpass approve-token 0x036CbD53842c5426634e7929541eC2318f3dCF7e --network eip155:84532 1000`"
        ),
        "{conditions:?}"
    );
    for asset in [None, Some(&known("USDC", "eip155:84532").with_domain(None))] {
        let context = DrawContext { nonce: NONCE, now: 1000, max_validity: 600, asset };
        let draft = Exact::draw(&offers[1], &context).unwrap();
        assert_eq!((&draft.verifier, draft.valid_before), (&Verifier::Permit2, 1060));
    }
    let in_v1 = with(json!({"extra": by_permit2["extra"]}));
    let in_v1 = json!({"x402Version": 1, "accepts": [in_v1]}).to_string();
    let error = read(&HeaderMap::new(), Some(in_v1.as_bytes())).unwrap().unwrap_err();
    assert!(error.to_string().contains("by permit2, which x402 has since version 2"), "{error}");
}

#[test]
fn a_missing_allowance_leaves_the_payment_open_and_names_the_command() {
    let error = |error: &str, accepts: Value| {
        in_header(&json!({"x402Version": 2, "error": error, "accepts": [accepts]}))
    };
    let by_permit2 = with(permit2(json!({})));
    let [asked] = &read_v2(std::slice::from_ref(&by_permit2)).unwrap()[..] else { panic!() };
    let draft = draw(asked, 1000).unwrap();
    let headers = error("permit2_allowance_required", by_permit2.clone());
    let answer = Answer { status: StatusCode::PRECONDITION_FAILED, headers: &headers, body: None };
    assert_eq!(Exact::assess(&answer), Assessment::Asked);
    let [again] = &Exact::read(&answer).unwrap().unwrap()[..] else { panic!() };
    let Reply::Stop(refusal) = Exact::judge(again, &draft, 1000) else { panic!() };
    let command =
        "`tollpass approve-token 0x036CbD53842c5426634e7929541eC2318f3dCF7e --network eip155:84532 1000`";
    assert!(matches!(refusal, Refusal::NoAllowance { .. }) && refusal.to_string().contains(command));
    assert!(!refusal.is_failure_of_seller() && !refusal.leaves_other_offers());
    // It says nothing about a payment that needs no allowance.
    let other = draw(&read_v2(&[offer()]).unwrap()[0], 1000).unwrap();
    assert_eq!(Exact::judge(again, &other, 1000), Reply::Unclear);
    // A 412 without offers is the request's own, and so is one before a payment, whose body is not even read.
    let headers = HeaderMap::new();
    let bare = Answer { status: StatusCode::PRECONDITION_FAILED, headers: &headers, body: Some(b"{}") };
    assert_eq!((Exact::assess(&bare), Exact::read(&bare)), (Assessment::InDoubt, None));
    assert!(!Exact::wants_body(StatusCode::PRECONDITION_FAILED, &headers));
}

#[test]
fn a_payment_that_was_sent_ahead_is_outdated_only_by_what_shows_another_wish() {
    const TIME: &str = "invalid_exact_evm_payload_authorization_valid_before";
    let draft = draw(&read_v2(&[offer()]).unwrap()[0], 1000).unwrap();
    for (changed, error, expected) in [
        // The same offer: the same payment again, whatever became of it.
        (json!({}), "Payment required", false),
        (json!({}), "fetch failed", false),
        (json!({}), "invalid_exact_evm_insufficient_balance", false),
        (json!({}), "invalid_exact_evm_nonce_already_used", false),
        // It may want one that is valid for longer.
        (json!({}), TIME, true),
        // Another offer on the same terms.
        (json!({"maxTimeoutSeconds": 61}), "Payment required", false),
        (json!({"maxTimeoutSeconds": 61}), "No matching payment requirements", true),
        (json!({"maxTimeoutSeconds": 61}), "fetch failed", false),
        // Other terms.
        (json!({"amount": "900"}), "Payment required", true),
        (json!({"amount": "900"}), "No matching payment requirements", true),
        (json!({"amount": "900"}), "fetch failed", true),
        (json!({"payTo": PAYER}), "fetch failed", true),
        (json!({"amount": "900"}), "invalid_exact_evm_nonce_already_used", false),
    ] {
        let asked = json!({"x402Version": 2, "error": error, "accepts": [with(changed.clone())]});
        let asked = read(&in_header(&asked), None).unwrap().unwrap().remove(0);
        assert_eq!(outdates(&asked, &draft), expected, "{changed} {error}");
    }
}

//! Sellers that serve again what a payer has bought before, if it signs in.

use ethers_core::types::Address as EthersAddress;

use super::*;
use crate::support::notary::{Does, MESSAGES, Notary};

const PROOF: HeaderName = HeaderName::from_static("sign-in-with-x");

/// A 402 with an offer at this price, and a challenge for this domain.
fn asks(presented: &Presented, price: u64, domain: Option<&str>) -> Answer {
    asks_with(presented, &json!([V2.entry(price)]), domain)
}

/// A 402 with these offers, and a challenge for this domain.
fn asks_with(presented: &Presented, offers: &Value, domain: Option<&str>) -> Answer {
    let host = presented.headers["host"].to_str().unwrap();
    let url = format!("http://{host}/goods");
    let info = json!({
        "domain": domain.unwrap_or(host), "uri": url, "version": "1", "nonce": "0123456789abcdef",
        "issuedAt": "2026-11-29T22:00:00.000Z", "statement": "Show what you bought.", "resources": [url],
    });
    let chains = json!([{"chainId": "eip155:31337", "type": "eip191"}]);
    let offer = json!({
        "x402Version": 2, "error": "Payment required", "accepts": offers, "resource": {"url": format!("{url}?token=secret"), "description": "words"},
        "extensions": {"sign-in-with-x": {"info": info, "supportedChains": chains, "schema": {}}},
    });
    Answer::new(StatusCode::PAYMENT_REQUIRED, "{}")
        .header(&HeaderName::from_static("payment-required"), STANDARD.encode(offer.to_string()))
}

/// Who has proven to be there.
fn signed_in(presented: &Presented) -> Option<EthersAddress> {
    let proof = STANDARD.decode(presented.headers.get(&PROOF)?.as_bytes()).unwrap();
    let proof: Value = serde_json::from_slice(&proof).unwrap();
    let text = |name: &str| proof[name].as_str().unwrap().to_owned();
    assert_eq!((proof["chainId"].as_str(), proof["type"].as_str()), (Some("eip155:31337"), Some("eip191")));
    let message = format!(
        "{} wants you to sign in with your Ethereum account:\n{}\n\n{}\n\nURI: {}\nVersion: 1\nChain ID: 31337\n\
         Nonce: {}\nIssued At: {}\nResources:\n- {}",
        text("domain"),
        text("address"),
        text("statement"),
        text("uri"),
        text("nonce"),
        text("issuedAt"),
        proof["resources"][0].as_str().unwrap(),
    );
    let signer = text("signature").parse::<EthersSignature>().unwrap().recover(message).unwrap();
    assert_eq!(ethers_core::utils::to_checksum(&signer, None), text("address"));
    Some(signer)
}

/// Serves who has bought, and sells to the others; counts the requests that carried a proof.
fn remembers(chain: &Chain, proofs: &Arc<Mutex<usize>>) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let (chain, proofs) = (chain.clone(), Arc::clone(proofs));
    let mut has_bought = false;
    move |presented| {
        *proofs.lock().unwrap() += usize::from(signed_in(presented).is_some());
        if let Some(payment) = V2.payment(presented) {
            let value = STANDARD.decode(presented.headers[V2.header()].as_bytes()).unwrap();
            let payload: Value = serde_json::from_slice(&value).unwrap();
            let host = presented.headers["host"].to_str().unwrap();
            assert_eq!(payload["resource"], json!({"url": format!("http://{host}/goods")}));
            has_bought = true;
            return V2.serve(&chain, &payment);
        }
        match has_bought && signed_in(presented).is_some() {
            true => Answer::new(StatusCode::OK, "again\n"),
            false => asks(presented, PRICE, None),
        }
    }
}

#[tokio::test]
async fn what_was_bought_before_is_not_bought_again() {
    for method in [Method::GET, Method::POST] {
        let (chain, proofs) = (Chain::default(), Arc::default());
        let seller = Mallory::spawn(remembers(&chain, &proofs)).await;
        let (alice, proxy) = alice("").await;
        let got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
        let got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "again\n"), "{got:?}");
        proxy.stop().await;
        assert_eq!((chain.transfers(), *proofs.lock().unwrap()), (vec![PRICE], 2));
        assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid]);
    }
}

#[tokio::test]
async fn nothing_is_proven_to_others_or_where_nothing_would_be_paid() {
    let above = |presented: &Presented| asks(presented, 2001, None);
    let elsewhere = |presented: &Presented| match V2.payment(presented) {
        Some(_) => V2.served(),
        None => asks(presented, PRICE, Some("bank.example")),
    };
    let own = |presented: &Presented| match presented.headers.get(&PROOF) {
        Some(proof) if proof != "mine" => panic!("the program's own proof was replaced"),
        _ if V2.payment(presented).is_some() => V2.served(),
        _ => asks(presented, PRICE, None),
    };
    type Script = fn(&Presented) -> Answer;
    let cases: [(&str, Script, StatusCode, Option<&str>); 3] = [
        ("above the limit", above, StatusCode::PAYMENT_REQUIRED, None),
        ("for another domain", elsewhere, StatusCode::OK, None),
        ("by the program itself", own, StatusCode::OK, Some("mine")),
    ];
    for (name, script, status, own) in cases {
        let seller = Mallory::spawn(script).await;
        let (_alice, proxy) = alice("").await;
        let headers = own.map(|proof| (PROOF, proof.parse().unwrap()));
        let got = send(&proxy, &seller, Method::GET, headers.into_iter().collect()).await;
        assert_eq!(got.status, status, "{name}: {got:?}");
        proxy.stop().await;
        let ours = seller
            .presented()
            .iter()
            .filter(|seen| seen.headers.get(&PROOF).is_some_and(|proof| proof != "mine"))
            .count();
        assert_eq!(ours, 0, "{name}");
    }
}

/// A seller that sells nothing, and wants to know who is there.
#[tokio::test]
async fn a_seller_without_offers_is_shown_who_pays_if_the_rule_allows_its_network() {
    let asks_alone = |presented: &Presented, domain| asks_with(presented, &json!([]), domain);
    let toys = "0.002 TOY\"\nnetworks = [\"eip155:31337\"]";
    let aborts = "0.002 TOY\"\n[hooks]\npayment_requested = { action = \"abort\" }";
    let withholds = "0.002 TOY\"\n[hooks]\nhttp_response = { action = \"abort\", status = [402] }";
    let dollars = "$0.01\"\nnetworks = [\"eip155:8453\"]";
    for (limit, domain, is_shown) in [
        ("0.002 TOY\"", None, true),
        (toys, None, true),
        (dollars, None, false),
        // Dollars, but none on this network.
        ("$0.01\"", None, false),
        (aborts, None, false),
        (withholds, None, false),
        ("0.002 TOY\"", Some("bank.example"), false),
    ] {
        let seller = Mallory::spawn(move |presented| match signed_in(presented) {
            Some(_) => Answer::new(StatusCode::OK, "yours\n"),
            None => asks_alone(presented, domain),
        })
        .await;
        let alice = Alice::without_chain(&RULE.replace("0.002 TOY\"", limit));
        let proxy = alice.start().await;
        let got = get(&proxy, &seller).await;
        let expected = if is_shown { StatusCode::OK } else { StatusCode::PAYMENT_REQUIRED };
        assert_eq!(got.status, expected, "{limit:?} {domain:?}: {got:?}");
        proxy.stop().await;
        assert_eq!(seller.presented().len(), 1 + usize::from(is_shown), "{limit:?} {domain:?}");
        assert!(ledger::rows(&alice).is_empty());
        // It does not ask the hook about the response.
        if !limit.contains("http_response") {
            let shown = inspected(&alice, &seller, &["--json"]).await;
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let expected = is_shown.then(|| json!({"network": "eip155:31337", "address": null}));
            assert_eq!(shown["sign_in"], expected.unwrap_or_default(), "{limit:?} {domain:?}");
            assert_eq!(shown["reason"].is_null(), is_shown, "{limit:?} {domain:?}: {shown}");
        }
    }
    let seller = Mallory::spawn(move |presented| asks_alone(presented, None)).await;
    let (_alice, proxy) = alice("").await;
    let got = get(&proxy, &seller).await;
    assert_eq!((got.status, seller.presented().len()), (StatusCode::PAYMENT_REQUIRED, 2), "{got:?}");
    proxy.stop().await;
}

/// What `tollpass inspect` writes about the seller.
async fn inspected(alice: &Alice, seller: &Mallory, more: &[&str]) -> String {
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let config = alice.config_path();
    let arguments = ["inspect", "--config", crate::program::text(&config), &url];
    let ran = crate::program::run(&[&arguments, more].concat()).await;
    assert!(ran.errors.is_empty(), "{ran:?}");
    ran.out
}

#[tokio::test]
async fn inspect_says_which_address_a_seller_without_offers_is_shown() {
    let seller = Mallory::spawn(|presented| asks_with(presented, &json!([]), None)).await;
    let mut alice = Alice::without_chain(RULE);
    let shown = inspected(&alice, &seller, &[]).await;
    let line = "no offers: would sign in, and pay nothing: shows the address of the wallet on eip155:31337\n";
    assert!(shown.ends_with(line), "{shown}");
    let notary = Notary::new();
    notary.serves(&mut alice, "");
    let shown = inspected(&alice, &seller, &[]).await;
    assert!(shown.contains(&format!("shows {} on eip155:31337\n", alice.address)), "{shown}");
    assert!(notary.asked(MESSAGES).is_empty());
}

#[tokio::test]
async fn a_lost_response_to_a_proof_is_not_paid_for() {
    let seller = Mallory::spawn(|presented| match signed_in(presented) {
        Some(_) => Answer::CutBeforeHead,
        None => asks(presented, PRICE, None),
    })
    .await;
    let (alice, proxy) = alice("").await;
    let got = send(&proxy, &seller, Method::POST, HeaderMap::new()).await;
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    proxy.stop().await;
    assert_eq!(seller.presented().len(), 2, "a request and a proof");
    assert!(ledger::rows(&alice).is_empty());
}

#[tokio::test]
async fn an_external_signer_signs_a_text_and_without_its_signature_the_request_is_paid() {
    let (chain, proofs, notary) = (Chain::default(), Arc::default(), Notary::new());
    let seller = Mallory::spawn(remembers(&chain, &proofs)).await;
    let mut alice = Alice::without_chain(RULE);
    notary.serves(&mut alice, "");
    let proxy = alice.start().await;
    for (does, text, transfers) in
        [(Does::Refuse, "goods\n", 1), (Does::Sign, "again\n", 1), (Does::OtherKey, "goods\n", 2)]
    {
        notary.does(MESSAGES, does);
        let got = get(&proxy, &seller).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, text), "{does:?}: {got:?}");
        assert_eq!(chain.transfers().len(), transfers, "{does:?}");
    }
    assert_eq!((notary.asked(MESSAGES).len(), *proofs.lock().unwrap()), (3, 1));
    proxy.stop().await;
}

/// A seller, or what stands before it, that does not like the proof. It is not served by that, and still has its offer.
#[tokio::test]
async fn a_proof_that_is_refused_leaves_the_offer() {
    for (status, is_paid) in [(400, true), (401, true), (403, true), (431, true), (404, false), (500, false)]
    {
        let chain = Chain::default();
        let of_seller = chain.clone();
        let seller = Mallory::spawn(move |presented| match (V2.payment(presented), signed_in(presented)) {
            (Some(payment), _) => V2.serve(&of_seller, &payment),
            (None, Some(_)) => Answer::new(StatusCode::from_u16(status).unwrap(), "no"),
            (None, None) => asks(presented, PRICE, None),
        })
        .await;
        let (_alice, proxy) = alice("").await;
        let got = get(&proxy, &seller).await;
        let expected = if is_paid { (200, vec![PRICE]) } else { (status, vec![]) };
        assert_eq!((got.status.as_u16(), chain.transfers()), expected, "{got:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_seller_that_keeps_asking_is_paid_once_and_gets_one_proof() {
    let chain = Chain::default();
    let of_seller = chain.clone();
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(payment) => V2.serve(&of_seller, &payment),
        None => asks(presented, PRICE, None),
    })
    .await;
    let (_alice, proxy) = alice("").await;
    assert_eq!(get(&proxy, &seller).await.status, StatusCode::OK);
    proxy.stop().await;
    let kinds: Vec<bool> = seller.presented().iter().map(|seen| seen.headers.contains_key(&PROOF)).collect();
    assert_eq!(kinds, [false, true, false]);
    assert_eq!(chain.transfers(), [PRICE]);
}

//! Payments by Permit2, for tokens without EIP-3009.

use super::*;
use crate::support::notary::{AUTHORIZATIONS, Notary};

const PERMIT2: &str = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
const PROXY: &str = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001";
/// Of the token only symbol and decimals are known.
const PLAIN: &str = "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\n\
    token = \"0x70ab1e0000000000000000000000000000004020\"\ndecimals = 6\n\
    [[pay]]\nhost = \"localhost\"\nmax_price = \"0.002 TOY\"\n";

fn by_permit2() -> Value {
    let mut entry = V2.entry(PRICE);
    entry["extra"] = json!({"assetTransferMethod": "permit2"});
    entry
}

/// The payment of a request, after its signature was checked against typed data.
fn payment(presented: &Presented) -> Option<Authorized> {
    let value = presented.headers.get(V2.header())?;
    let payment: Value = serde_json::from_slice(&STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
    assert_eq!((&payment["x402Version"], &payment["accepted"]), (&json!(2), &by_permit2()));
    let permit = &payment["payload"]["permit2Authorization"];
    assert_eq!(permit["permitted"]["token"], ethers_core::utils::to_checksum(&TOKEN.parse().unwrap(), None));
    assert_eq!(
        (&permit["spender"], &permit["witness"]),
        (&json!(PROXY), &json!({"to": BOB, "validAfter": "0"}))
    );
    let mut message = permit.clone();
    let from = message.as_object_mut().unwrap().remove("from").unwrap();
    let field = |name: &str, kind: &str| json!({"name": name, "type": kind});
    let typed = json!({
        "domain": {"name": "Permit2", "chainId": 31337, "verifyingContract": PERMIT2},
        "primaryType": "PermitWitnessTransferFrom",
        "types": {
            "EIP712Domain": [
                field("name", "string"), field("chainId", "uint256"), field("verifyingContract", "address"),
            ],
            "PermitWitnessTransferFrom": [
                field("permitted", "TokenPermissions"), field("spender", "address"), field("nonce", "uint256"),
                field("deadline", "uint256"), field("witness", "Witness"),
            ],
            "TokenPermissions": [field("token", "address"), field("amount", "uint256")],
            "Witness": [field("to", "address"), field("validAfter", "uint256")],
        },
        "message": message,
    });
    let typed: TypedData = serde_json::from_value(typed).unwrap();
    let signature: EthersSignature = payment["payload"]["signature"].as_str().unwrap().parse().unwrap();
    let signer = signature.recover(typed.encode_eip712().unwrap()).unwrap();
    assert_eq!(from, ethers_core::utils::to_checksum(&signer, None));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let deadline: u64 = text(&permit["deadline"]).parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now..=now + 60).contains(&deadline), "{deadline} at {now}");
    let (value, nonce) = (text(&permit["permitted"]["amount"]), text(&permit["nonce"]));
    Some(Authorized { value, nonce, lasts: deadline - now })
}

/// Sells for payments by Permit2, whose allowance is this: a facilitator asks for one also after it was used up.
fn sells(chain: &Chain, allowance: &Arc<Mutex<u64>>) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let (chain, allowance) = (chain.clone(), Arc::clone(allowance));
    move |presented| {
        let Some(payment) = payment(presented) else { return V2.asks("Payment required", &[by_permit2()]) };
        let mut left = allowance.lock().unwrap();
        if *left < PRICE {
            return V2
                .asks("permit2_allowance_required", &[by_permit2()])
                .with_status(StatusCode::PRECONDITION_FAILED);
        }
        if !chain.settle(&payment) {
            return V2.asks("permit2_simulation_failed", &[by_permit2()]);
        }
        *left -= PRICE;
        V2.served()
    }
}

fn seen(seller: &Mallory) -> Vec<Vec<u8>> {
    let presented = seller.presented();
    let payments = presented.iter().filter_map(|presented| presented.headers.get(V2.header()));
    payments.map(|value| value.as_bytes().to_vec()).collect()
}

#[tokio::test]
async fn a_token_without_a_name_is_paid_by_permit2() {
    let (chain, allowance) = (Chain::default(), Arc::new(Mutex::new(10 * PRICE)));
    let seller = Mallory::spawn(sells(&chain, &allowance)).await;
    let alice = Alice::without_chain(PLAIN);
    let proxy = alice.start().await;
    for count in 1..=2 {
        let got = get(&proxy, &seller).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
        assert_eq!(chain.transfers(), vec![PRICE; count]);
    }
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid; 2]);
}

/// Also across restarts and a change of the signature's owner: with an external signer, the bytes come from the journal.
#[tokio::test]
async fn without_an_allowance_the_same_payment_waits_for_one() {
    for is_external in [false, true] {
        let (chain, allowance, notary) = (Chain::default(), Arc::new(Mutex::new(0)), Notary::new());
        let seller = Mallory::spawn(sells(&chain, &allowance)).await;
        let mut alice = Alice::without_chain(PLAIN);
        if is_external {
            notary.serves(&mut alice, "");
        }
        let mut proxy = alice.start().await;
        for _ in 0..3 {
            let got = get(&proxy, &seller).await;
            assert_eq!((got.status, got.text()), (StatusCode::PRECONDITION_FAILED, "{}"), "{got:?}");
            let token = ethers_core::utils::to_checksum(&TOKEN.parse().unwrap(), None);
            let command = format!("tollpass approve-token {token} --network eip155:31337 {PRICE}");
            assert!(
                reason(&got).contains("reason=no-allowance;") && reason(&got).contains(&command),
                "{got:?}"
            );
            proxy.stop().await;
            proxy = alice.start().await;
        }
        *allowance.lock().unwrap() = PRICE;
        let got = get(&proxy, &seller).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
        let mut seen = seen(&seller);
        assert_eq!(seen.len(), 4);
        seen.dedup();
        assert_eq!((seen.len(), chain.transfers()), (1, vec![PRICE]));
        assert_eq!(notary.asked(AUTHORIZATIONS).len(), usize::from(is_external));
        proxy.stop().await;
        assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid]);
    }
}

/// What was settled and lost is not told from what cannot be settled: nothing else is signed for it.
#[tokio::test]
async fn a_settled_payment_that_was_lost_stays_in_doubt() {
    for allowance in [PRICE, 2 * PRICE] {
        let (chain, left) = (Chain::default(), Arc::new(Mutex::new(allowance)));
        let mut sells = sells(&chain, &left);
        let mut is_first = true;
        let seller = Mallory::spawn(move |presented| {
            let answer = sells(presented);
            if presented.headers.contains_key(V2.header()) && std::mem::replace(&mut is_first, false) {
                return Answer::new(StatusCode::GATEWAY_TIMEOUT, "late");
            }
            answer
        })
        .await;
        let alice = Alice::without_chain(&format!("{PLAIN}{QUICK}"));
        let proxy = alice.start().await;
        let code = if allowance == PRICE { "no-allowance" } else { "payment-in-doubt" };
        for _ in 0..2 {
            let got = get(&proxy, &seller).await;
            assert!(reason(&got).contains(&format!("reason={code};")), "{got:?}");
        }
        let mut seen = seen(&seller);
        assert!(seen.len() >= 3, "{}", seen.len());
        seen.dedup();
        assert_eq!((seen.len(), chain.transfers()), (1, vec![PRICE]));
        proxy.stop().await;
        let rows = ledger::rows(&alice);
        let sum = ledger::sum(&rows);
        assert_eq!((last_states(&rows).len(), sum.payments), (1, 1), "{rows:?}");
    }
}

#[tokio::test]
async fn what_needs_no_allowance_comes_first_if_it_can_be_signed() {
    for (rule, expected) in [(RULE, "authorization"), (PLAIN, "permit2Authorization")] {
        let paid = Arc::new(Mutex::new(None));
        let of_seller = Arc::clone(&paid);
        let seller = Mallory::spawn(move |presented| {
            let Some(value) = presented.headers.get(V2.header()) else {
                return V2.asks("Payment required", &[by_permit2(), V2.entry(PRICE)]);
            };
            let payment: Value = serde_json::from_slice(&STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
            *of_seller.lock().unwrap() = Some(payment["payload"].clone());
            V2.served()
        })
        .await;
        let alice = Alice::without_chain(rule);
        let proxy = alice.start().await;
        let got = get(&proxy, &seller).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        let paid = paid.lock().unwrap().take().unwrap();
        assert!(paid.get(expected).is_some(), "{paid}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn inspect_says_that_an_allowance_is_needed() {
    let seller = Mallory::spawn(|_| V2.asks("Payment required", &[by_permit2()])).await;
    let alice = Alice::without_chain(PLAIN);
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let config = alice.config_path();
    let ran = crate::program::run(&["inspect", "--config", crate::program::text(&config), &url]).await;
    assert!(ran.out.contains("approve-token"), "{ran:?}");
}

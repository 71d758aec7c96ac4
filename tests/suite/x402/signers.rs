//! An external signer signs the authorizations, which are typed data as in EIP-712.

use super::*;
use crate::support::notary::{AUTHORIZATIONS, Does, Notary};

/// Allows two payments.
const BUDGET: &str = "[[budget]]\nname = \"all\"\nwallet = true\npayments = 2\n";

#[tokio::test]
async fn an_authorization_without_a_clear_answer_is_asked_for_again_and_costs_one_price() {
    for version in [V1, V2] {
        let (chain, notary) = (Chain::default(), Notary::new());
        let seller = Mallory::spawn(honest(version, &chain)).await;
        let mut alice = Alice::without_chain(&format!("{RULE}{BUDGET}"));
        notary.serves(&mut alice, "");
        let mut proxy = alice.start().await;
        let counted = |proxy: &Running| proxy.payments.budgets()[0].payments;
        notary.does(AUTHORIZATIONS, Does::Refuse);
        let got = get(&proxy, &seller).await;
        assert!(reason(&got).contains("reason=signer-refused"), "{got:?}");
        assert_eq!(counted(&proxy), 0);
        for does in [Does::Garbage, Does::Kill] {
            notary.does(AUTHORIZATIONS, does);
            let got = get(&proxy, &seller).await;
            assert!(reason(&got).contains("reason=signer-unclear"), "{got:?}");
            assert_eq!(counted(&proxy), 1, "{does:?}");
        }
        proxy.stop().await;
        proxy = alice.start().await;
        assert_eq!(counted(&proxy), 1, "after a restart");
        // It was in doubt, so that a refusal now says nothing about what was signed before.
        notary.does(AUTHORIZATIONS, Does::Refuse);
        let got = get(&proxy, &seller).await;
        assert!(reason(&got).contains("reason=signer-refused"), "{got:?}");
        assert_eq!((counted(&proxy), chain.transfers()), (1, vec![]));
        notary.does(AUTHORIZATIONS, Does::Sign);
        for count in 1..=2 {
            let got = get(&proxy, &seller).await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{version:?}: {got:?}");
            assert_eq!((counted(&proxy), chain.transfers()), (count, vec![PRICE; count as usize]));
        }
        let got = get(&proxy, &seller).await;
        assert!(reason(&got).contains("reason=over-budget"), "{got:?}");
        let asked = notary.asked(AUTHORIZATIONS);
        let asked: Vec<&Value> =
            asked.iter().map(|asked| &asked["request"]["params"][1]["message"]["nonce"]).collect();
        assert!(asked.len() == 6 && asked[1..5].iter().all(|nonce| *nonce == asked[1]), "{asked:?}");
        assert!(asked[0] != asked[1] && asked[5] != asked[1], "{asked:?}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_payment_in_doubt_is_presented_again_as_it_was_signed_also_after_a_restart() {
    let (chain, notary) = (Chain::default(), Notary::new());
    let mut sells = honest(V2, &chain);
    let failed = Arc::new(Mutex::new(true));
    let script = {
        let failed = Arc::clone(&failed);
        move |presented: &Presented| match presented.headers.contains_key(V2.header()) {
            true if *failed.lock().unwrap() => Answer::new(StatusCode::BAD_GATEWAY, "sorry\n"),
            _ => sells(presented),
        }
    };
    let seller = Mallory::spawn(script).await;
    let mut alice = Alice::without_chain(&format!("{RULE}{QUICK}"));
    notary.serves(&mut alice, "");
    let proxy = alice.start().await;
    for _ in 0..2 {
        assert_ne!(get(&proxy, &seller).await.status, StatusCode::OK);
    }
    proxy.stop().await;
    let proxy = alice.start().await;
    *failed.lock().unwrap() = false;
    let got = get(&proxy, &seller).await;
    assert_eq!((got.status, chain.transfers()), (StatusCode::OK, vec![PRICE]), "{got:?}");
    assert_eq!(notary.asked(AUTHORIZATIONS).len(), 1, "the signature was kept");
    let got = get(&proxy, &seller).await;
    assert_eq!((got.status, chain.transfers()), (StatusCode::OK, vec![PRICE; 2]), "{got:?}");
    assert_eq!(notary.asked(AUTHORIZATIONS).len(), 2, "another purchase");
    proxy.stop().await;
    let journal =
        rusqlite::Connection::open(alice.state_dir().join(tollpass::payments::journal::FILE)).unwrap();
    let left: i64 = journal.query_row("SELECT count(*) FROM authorization", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "with its signature");
}

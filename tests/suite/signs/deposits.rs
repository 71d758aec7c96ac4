//! Transactions that a signer gave no clear answer about: the same one is asked for again, and no second deposit is made.

use ethers_core::types::Bytes;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use jsonrpsee::core::client::ClientT as _;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use serde_json::Value;
use tollpass::chain::signer::Signer;

use super::Scene;
use crate::support::fair::PRICE;
use crate::support::notary::{Does, TRANSACTIONS};
use crate::support::payer::KEY;

/// Tries again soon.
const SOON: &str = "[deposit]\nretry_after = \"1s\"\nmax_count = 100\n";

/// The transactions that the signer was asked for.
fn asked(scene: &Scene) -> Vec<Value> {
    let asked = scene.notary.asked(TRANSACTIONS);
    asked.into_iter().map(|mut one| one["request"]["params"][0].take()).collect()
}

async fn until_paid(scene: &Scene, proxy: &crate::support::payer::Running) {
    let paid = async { while scene.buy(proxy).await.status != http::StatusCode::OK {} };
    tokio::time::timeout(crate::support::payer::PATIENCE, paid).await.expect("it is never paid");
}

#[tokio::test]
async fn a_refused_deposit_is_not_made_and_a_later_one_is() {
    let scene = Scene::with("", SOON).await;
    let proxy = scene.alice.start().await;
    scene.notary.does(TRANSACTIONS, Does::Refuse);
    let why = scene.refused(&proxy, "funding-failed").await;
    assert!(why.contains("the signer refused"), "{why}");
    scene.notary.does(TRANSACTIONS, Does::Sign);
    until_paid(&scene, &proxy).await;
    assert_eq!((scene.fair.market.openings().await, scene.registered()), (1, PRICE.into()));
    proxy.stop().await;
}

#[tokio::test]
async fn an_unclear_deposit_is_asked_for_again_unchanged_also_after_a_restart() {
    let scene = Scene::with("signer_timeout = \"2s\"\n", SOON).await;
    let mut proxy = scene.alice.start().await;
    for (round, does) in (1..).zip([Does::Hang, Does::Kill, Does::Garbage, Does::OtherKey, Does::Fail]) {
        scene.notary.does(TRANSACTIONS, does);
        let unclear = async {
            while asked(&scene).len() < round {
                let why = scene.refused(&proxy, "funding-failed").await;
                assert!(why.contains("counts as signed"), "{why}");
            }
        };
        tokio::time::timeout(crate::support::payer::PATIENCE, unclear).await.expect("it is not asked again");
        // Other fees from now on.
        scene.fair.market.mine(5).await;
        if round % 2 == 0 {
            proxy.stop().await;
            proxy = scene.alice.start().await;
        }
    }
    assert_eq!(scene.fair.market.openings().await, 0);
    scene.notary.does(TRANSACTIONS, Does::Sign);
    until_paid(&scene, &proxy).await;
    let asked = asked(&scene);
    assert!(asked.len() >= 6 && asked.iter().all(|one| *one == asked[0]), "{asked:#?}");
    assert_eq!((scene.fair.market.openings().await, scene.registered()), (1, PRICE.into()));
    assert_eq!(scene.fair.market.sent_by(scene.alice.address).await, 1);
    proxy.stop().await;
}

#[tokio::test]
async fn a_signer_that_sends_the_transaction_itself_and_says_nothing_causes_no_second_deposit() {
    for is_restarted in [false, true] {
        let scene = Scene::with("", SOON).await;
        let proxy = scene.alice.start().await;
        scene.notary.does(TRANSACTIONS, Does::Nothing);
        scene.refused(&proxy, "funding-failed").await;
        let mut running = Some(proxy);
        if is_restarted && let Some(proxy) = running.take() {
            proxy.stop().await;
        }
        let transaction: TypedTransaction = serde_json::from_value(asked(&scene).remove(0)).unwrap();
        let raw: Bytes = Signer::new(&KEY).unwrap().sign_transaction(&transaction).unwrap();
        let node = HttpClient::builder().build(scene.fair.market.chain.url()).unwrap();
        let _: Value = node.request("eth_sendRawTransaction", rpc_params![raw]).await.unwrap();
        scene.notary.does(TRANSACTIONS, Does::Sign);
        let proxy = match running {
            Some(proxy) => proxy,
            None => scene.alice.start().await,
        };
        scene.fair.market.mine(20).await;
        until_paid(&scene, &proxy).await;
        assert_eq!((scene.fair.market.openings().await, scene.registered()), (1, PRICE.into()));
        assert_eq!(asked(&scene).len(), 1, "its nonce is used: {:#?}", asked(&scene));
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_after_an_unclear_answer_ends_that_deposit_and_the_next_has_its_nonce() {
    let scene = Scene::with("", SOON).await;
    let proxy = scene.alice.start().await;
    scene.notary.does(TRANSACTIONS, Does::Kill);
    scene.refused(&proxy, "funding-failed").await;
    scene.notary.does(TRANSACTIONS, Does::Refuse);
    let refused = async {
        while asked(&scene).len() < 2 {
            scene.refused(&proxy, "funding-failed").await;
        }
    };
    tokio::time::timeout(crate::support::payer::PATIENCE, refused).await.expect("it is not asked again");
    scene.notary.does(TRANSACTIONS, Does::Sign);
    until_paid(&scene, &proxy).await;
    let nonces: Vec<_> = asked(&scene).iter().map(|one| one["nonce"].clone()).collect();
    assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "only one of them can be mined: {nonces:?}");
    assert_eq!(scene.fair.market.openings().await, 1);
    proxy.stop().await;
}

//! Stopping and starting again, with and without the journal.

use std::path::Path;

use ethers_core::utils::hex;
use http::{Request, StatusCode};
use tollpass::devnet::origin::Origin;
use tollpass::payments::journal;
use tollpass::protocol::Amount;

use super::{QUICK, Scene};
use crate::support::fair::{empty, settings_at};
use crate::support::market::Market;
use crate::support::payer::Alice;
use crate::support::wire::ask;

/// The journal, its write-ahead log and the key that an earlier version of `tollpass demo` left behind. It had paid for
/// three requests when it was killed.
const EARLIER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/journal-crash");
/// The key of the seller in a demo.
const DEMO_SELLER: [u8; 32] = [0xb0; 32];

#[tokio::test]
async fn after_a_restart_the_same_channel_goes_on() {
    let mut scene = Scene::open().await;
    for _ in 0..2 {
        scene.buy().await;
    }
    let before = scene.fair.origin.exchanges();
    scene.proxy.stop().await;
    scene.proxy = scene.alice.start().await;
    scene.proxy.ready().await;
    scene.buy().await;
    scene.expect_paid(3).await;
    // The price was stored. The seller is queried once, since the journal may be an old copy.
    assert_eq!(scene.fair.origin.exchanges() - before, 2, "a payment had to be corrected");
    scene.buy().await;
    scene.expect_paid(4).await;
    assert_eq!(scene.fair.origin.exchanges() - before, 3);
    scene.close().await;
}

#[tokio::test]
async fn without_its_store_it_finds_the_channel_on_the_chain_and_the_total_at_the_seller() {
    let mut scene = Scene::with(|_| {}, QUICK).await;
    for _ in 0..3 {
        scene.buy().await;
    }
    scene.proxy.stop().await;
    std::fs::remove_dir_all(scene.alice.state_dir()).unwrap();
    scene.proxy = scene.alice.start().await;
    scene.buy().await;
    scene.expect_paid(4).await;
    scene.buy().await;
    scene.expect_paid(5).await;
    scene.close().await;
}

#[tokio::test]
async fn what_was_asked_for_is_remembered_without_its_query_in_any_file() {
    let mut scene = Scene::open().await;
    let path = "/paid?token=hunter2";
    let state = scene.alice.state_dir();
    let assert_unwritten = |when: &str| {
        let mut looked_at = 0;
        for file in std::fs::read_dir(&state).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                // SQLite removes its own files at any time.
                let bytes = match std::fs::read(file.path()) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => panic!("{when}: {}: {error}", file.path().display()),
                };
                let is_there = bytes.windows(7).any(|part| part == b"hunter2");
                assert!(!is_there, "{when}: {}", file.path().display());
                looked_at += 1;
            }
        }
        assert!(looked_at > 1, "{when}");
    };
    for _ in 0..2 {
        let got = scene.get(path).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
    }
    assert_unwritten("while it runs");
    let before = scene.fair.origin.exchanges();
    scene.proxy.stop().await;
    assert_unwritten("after its end");
    scene.proxy = scene.alice.start().await;
    scene.proxy.ready().await;
    let got = scene.get(path).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    // The price was stored: only the seller's total is queried.
    assert_eq!(scene.fair.origin.exchanges() - before, 2);
    scene.expect_paid(3).await;
    assert_unwritten("after a restart");
    scene.close().await;
}

#[tokio::test]
async fn a_journal_that_an_earlier_version_left_in_a_crash_opens_and_pays_on() {
    // The same transactions as in the demo, so that the journal's channel exists on this chain, too.
    let market = Market::without_tokens().await;
    let mut settings = settings_at(&market.chain.url(), market.manager, market.token);
    settings.key = DEMO_SELLER;
    let origin = Origin::spawn(settings).await.unwrap();
    let mut key = [0; 32];
    hex::decode_to_slice(std::fs::read(Path::new(EARLIER).join("key")).unwrap(), &mut key).unwrap();
    let rest = format!("[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n{QUICK}");
    let alice = Alice::with_key(&key, &market.chain.url(), market.manager, market.token, &rest).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", origin.url());
    let buy = async |address| {
        let request = Request::get(&url).body(empty()).unwrap();
        let got = ask(address, request).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
    };
    for _ in 0..3 {
        buy(proxy.address).await;
    }
    let mut channels = proxy.channels().await;
    let now = channels.remove(0).id();
    proxy.stop().await;

    let state = alice.state_dir();
    std::fs::remove_file(state.join(journal::FILE)).unwrap();
    for name in [journal::FILE, "tollpass.db-wal"] {
        std::fs::copy(Path::new(EARLIER).join(name), state.join(name)).unwrap();
    }
    let proxy = alice.start().await;
    proxy.ready().await;
    let earlier = proxy.channels().await;
    assert_eq!(earlier.len(), 1, "{earlier:?}");
    assert_eq!((earlier[0].id(), earlier[0].acknowledged), (now, Amount::from(3000)));
    assert!(earlier[0].in_doubt && earlier[0].promised > Amount::from(3000), "{earlier:?}");
    for total in [4000, 5000] {
        buy(proxy.address).await;
        assert_eq!(proxy.channels().await[0].acknowledged, Amount::from(total));
    }
    assert_eq!(market.openings().await, 1);
    proxy.stop().await;
    origin.stop().await;
}

//! Stopping and starting again, with and without what was written down.

use super::{QUICK, Scene};

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
    // The price survived. The seller is asked what it holds, once: the journal may be an old copy.
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
        assert_eq!(got.status, http::StatusCode::OK, "{got:?}");
    }
    assert_unwritten("while it runs");
    let before = scene.fair.origin.exchanges();
    scene.proxy.stop().await;
    assert_unwritten("after its end");
    scene.proxy = scene.alice.start().await;
    scene.proxy.ready().await;
    let got = scene.get(path).await;
    assert_eq!(got.status, http::StatusCode::OK, "{got:?}");
    // The price survived: the seller is asked what it holds, and for nothing else.
    assert_eq!(scene.fair.origin.exchanges() - before, 2);
    scene.expect_paid(3).await;
    assert_unwritten("after a restart");
    scene.close().await;
}

//! Request bodies: sent again completely with the payment, or not paid at all.

use std::io::Write as _;

use bytes::Bytes;
use ethers_core::utils::{hex, keccak256};
use http::{Request, StatusCode, header};
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount};

use super::{QUICK, Scene};
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE};
use crate::support::mallory::{Demand, Mallory};
use crate::support::payer::Alice;
use crate::support::wire::{Body, Wire, ask, chunked, whole};

/// Well above what is kept in memory.
const LARGE: usize = 10_000_000;

/// Bytes without repetition.
fn bytes(length: usize) -> Bytes {
    let words = (0..length.div_ceil(8) as u64)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}

fn in_pieces(all: &Bytes) -> Body {
    chunked((0..all.len()).step_by(50_000).map(|at| all.slice(at..all.len().min(at + 50_000))).collect())
}

/// The seller's echo of a complete body with Content-Length: it reads a chunked body as empty.
fn echo(all: &[u8]) -> String {
    format!("{} bytes, keccak-256 {}\n", all.len(), hex::encode_prefixed(keccak256(all)))
}

#[tokio::test]
async fn a_large_body_from_curl_arrives_whole_with_the_payment() {
    let scene = Scene::open().await;
    let all = bytes(LARGE);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&all).unwrap();
    let data = format!("@{}", file.path().display());
    let url = format!("{}/paid/echo", scene.fair.origin.url());
    for (paid, more) in [(1, "X-Framing: length"), (2, "Transfer-Encoding: chunked")] {
        let fetched = curl(Some(scene.proxy.address), &["--data-binary", &data, "-H", more, &url]).await;
        assert_eq!(fetched.got.status, StatusCode::OK, "{more}: {:?}", fetched.got);
        assert_eq!(fetched.got.text(), echo(&all), "{more}");
        // curl waits for this before it sends a large body.
        assert!(fetched.told.contains("> Expect: 100-continue"), "{}", fetched.told);
        assert!(fetched.told.contains("< HTTP/1.1 100 Continue"), "{}", fetched.told);
        scene.expect_paid(paid).await;
    }
    scene.close().await;
}

#[tokio::test]
async fn bodies_of_every_size_are_sent_again() {
    let limits = format!("{QUICK}[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"1MB\"\n");
    let scene = Scene::with(|_| {}, &limits).await;
    let mut wire = Wire::connect(scene.proxy.address).await;
    let mut paid = 0;
    // Empty, in memory, at the memory limit, and in the file up to its limit.
    for length in [0, 1, 4_096, 4_097, 300_000, 1_004_096] {
        let all = bytes(length);
        for body in [whole(all.clone()), in_pieces(&all)] {
            let request = Request::post(format!("{}/paid/echo", scene.fair.origin.url())).body(body).unwrap();
            let got = wire.ask(request).await.unwrap();
            assert_eq!(got.status, StatusCode::OK, "{length}: {got:?}");
            assert_eq!(got.text(), echo(&all), "{length}");
            paid += 1;
        }
    }
    scene.expect_paid(paid).await;
    scene.close().await;
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_passes_once_and_is_not_paid() {
    let fair = Fair::open().await;
    let demand =
        Demand { contract: fair.market.manager, receiver: Address([9; 20]), token: fair.market.token };
    let mallory = Mallory::spawn(move |_| demand.base(PRICE)).await;
    let limits = "[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"60KiB\"\n";
    let alice = Alice::with(&fair.market, limits).await;
    let proxy = alice.start().await;
    let all = bytes(65_537);
    for (number, body) in [whole(all.clone()), in_pieces(&all)].into_iter().enumerate() {
        let request = Request::post(format!("{}/{number}", mallory.url())).body(body).unwrap();
        let got = ask(proxy.address, request).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        let reason = got.header(&"proxy-status".parse().unwrap()).unwrap();
        assert!(reason.contains("larger than 65536 bytes, the most that is kept"), "{reason}");
        assert_eq!((got.text(), got.header(&rdn::PRICE)), ("pay\n", Some("1000")));
        let presented = mallory.presented();
        assert_eq!(presented.len(), number + 1);
        assert_eq!(presented[number].body, all);
        assert_eq!(presented[number].headers.contains_key(header::TRANSFER_ENCODING), number == 1);
        assert_eq!(presented[number].payment, None);
    }
    assert!(proxy.channels().await.is_empty());
    proxy.stop().await;
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_is_paid_at_once_the_next_time() {
    let limits = format!("{QUICK}[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"60KiB\"\n");
    let scene = Scene::with(|_| {}, &limits).await;
    // The seller knows the channel.
    scene.buy().await;
    let all = bytes(100_000);
    let post = async |body| {
        let request = Request::post(format!("{}/paid/echo", scene.fair.origin.url())).body(body).unwrap();
        let got = ask(scene.proxy.address, request).await;
        let told = got.headers.get("proxy-status").map(|told| told.to_str().unwrap().to_owned());
        (got.status, told.unwrap_or_default())
    };
    for price in [PRICE, 2 * PRICE, PRICE / 2] {
        scene.fair.origin.set_price("/paid/echo", Amount::from(price)).unwrap();
        let before = scene.fair.origin.total_registered();
        let (status, told) = post(whole(all.clone())).await;
        assert!(status == StatusCode::PAYMENT_REQUIRED && told.contains("65536 bytes"), "{status} {told}");
        assert_eq!(scene.fair.origin.total_registered(), before);
        assert_eq!(post(whole(all.clone())).await, (StatusCode::OK, String::new()));
        let after = scene.fair.origin.total_registered();
        assert_eq!(after.checked_sub(before), Some(Amount::from(price)));
    }
    // A body of unknown length would have to be read to its end first: reported, and the next one streams.
    let (status, told) = post(in_pieces(&all)).await;
    assert!(status == StatusCode::BAD_REQUEST && told.contains("65536 bytes"), "{status} {told}");
    for _ in 0..2 {
        let (status, told) = post(in_pieces(&all)).await;
        assert!(status == StatusCode::PAYMENT_REQUIRED && told.contains("65536 bytes"), "{status} {told}");
    }
    scene.close().await;
}

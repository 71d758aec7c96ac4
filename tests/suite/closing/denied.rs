//! Sellers that refuse to sign a close: the policy decides.

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use tollpass::chain::signer::Signer;
use tollpass::channels::Operation;
use tollpass::protocol::schemes::microraiden::proof;
use tollpass::protocol::{Address, ChannelId};

use super::{CHALLENGE_PERIOD, done, leaked, on_each, text, together};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Presented};
use crate::support::payer::{Alice, KEY, PATIENCE, WEALTH};
use crate::support::town::{Town, only};
use crate::support::wire::ask;

/// A seller that accepts payments but denies each close, with its payee and a paid URL.
async fn denier(fair: &Fair) -> (Mallory, Address, String) {
    let receiver = Signer::new(&[0x3a; 32]).unwrap().address();
    let demand = Demand { contract: fair.market.manager, receiver, token: fair.market.token };
    let mallory = Mallory::spawn(move |presented: &Presented| match presented.target.as_str() {
        target if target.starts_with("/api/1/channels") => text(400, "not today"),
        _ if presented.payment.is_some() => text(200, "paid"),
        _ => demand.base(PRICE),
    });
    let mallory = mallory.await;
    let url = format!("{}/x", mallory.url());
    (mallory, receiver, url)
}

/// How many requests for its closing signature a seller received.
fn closes(mallory: &Mallory) -> usize {
    mallory.presented().iter().filter(|presented| presented.method == Method::DELETE).count()
}

#[tokio::test]
async fn if_the_policy_allows_a_denied_close_continues_unilaterally_on_the_promised_total() {
    on_each("cooperative_close_denied = { action = \"close_alone\" }\n", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        let channel = only(&proxy).await.id();
        let Town { rig, origin, alice } = town;
        let seller = origin.receiver();
        origin.stop().await;
        done(&proxy, together(channel)).await;
        rig.mine(CHALLENGE_PERIOD + 1).await;
        done(&proxy, Operation::Settle { channel }).await;
        let held = (rig.tokens_of(alice.address).await, rig.tokens_of(seller).await);
        assert_eq!(held, (WEALTH - 2 * PRICE, 2 * PRICE));
        proxy.stop().await;
    })
    .await;
}

/// An outdated journal, as restored from a backup: the seller proves that more was promised, and does not sign.
#[tokio::test]
async fn a_unilateral_close_uses_the_total_that_the_denying_seller_proved() {
    on_each("cooperative_close_denied = { action = \"close_alone\" }\n", async |town| {
        let Town { rig, alice, .. } = town;
        let proxy = alice.start().await;
        let (contract, signer) = (rig.manager, Signer::new(&KEY).unwrap());
        let receiver = Signer::new(&[0x3a; 32]).unwrap().address();
        let demand = Demand { contract, receiver, token: rig.token };
        let proven = 3 * PRICE;
        let mallory = Mallory::spawn(move |presented: &Presented| {
            let Some(place) = presented.target.strip_prefix("/api/1/channels/") else {
                return if presented.payment.is_some() { text(200, "paid") } else { demand.base(PRICE) };
            };
            if presented.method == Method::DELETE {
                return text(400, "not today");
            }
            let open_block = place.rsplit('/').next().unwrap().parse().unwrap();
            let digest = proof::balance_digest(ChannelId { receiver, open_block }, proven.into(), contract);
            let signature = signer.sign(digest).unwrap().to_hex();
            text(200, leaked(format!("{{\"balance\": {proven}, \"last_signature\": \"{signature}\"}}")))
        });
        let mallory = mallory.await;
        let url = format!("{}/x", mallory.url());
        let got = ask(proxy.address, Request::get(&url).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        let listed = only(&proxy).await;
        assert_eq!(listed.promised, PRICE.into());
        let channel = listed.id();
        done(&proxy, together(channel)).await;
        rig.mine(CHALLENGE_PERIOD + 1).await;
        done(&proxy, Operation::Settle { channel }).await;
        let held = (rig.tokens_of(alice.address).await, rig.tokens_of(receiver).await);
        assert_eq!(held, (WEALTH - proven, proven));
        proxy.stop().await;
    })
    .await;
}

/// Two channels to a seller that denies each close: the policy's effect, and how often the seller is asked.
#[tokio::test]
async fn a_denied_close_is_left_ends_the_others_or_goes_on_alone_as_the_policy_says() {
    let oracle = async |text: &'static str| Mallory::spawn(move |_| Answer::new(StatusCode::OK, text)).await;
    let asks = |oracle: &Mallory| format!("{{ action = \"close_alone\", webhook = \"{}/\" }}", oracle.url());
    let does = |word: &str| format!("{{ action = \"{word}\" }}");
    let (yes, no) = (r#"{"do": "close_alone"}"#, r#"{"do": "abort", "reason": "wait for Bob"}"#);
    let (yes, no, odd) = (oracle(yes).await, oracle(no).await, oracle(r#"{"do": "pay"}"#).await);
    let keep = oracle(r#"{"do": "keep"}"#).await;
    for (policy, asked, phase, denied) in [
        (does("keep"), 2, "open", None),
        (does("abort"), 1, "open", Some("refused (400): not today")),
        (does("close_alone"), 2, "closing", None),
        (asks(&yes), 2, "closing", None),
        (asks(&keep), 2, "open", None),
        (asks(&no), 1, "open", Some("wait for Bob")),
        (asks(&odd), 1, "open", Some("must be keep, close_alone or abort")),
    ] {
        let fair = Fair::open().await;
        let more = format!("{QUICK}cooperative_close_denied = {policy}\n[deposit]\ninitial = 1\n");
        let alice = Alice::with(&fair.market, &more).await;
        let proxy = alice.start().await;
        let (mallory, receiver, url) = denier(&fair).await;
        for _ in 0..2 {
            let got = ask(proxy.address, Request::get(&url).body(empty()).unwrap()).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
            // The first channel is used up: the next payment uses another one.
            done(&proxy, Operation::Open { receiver, deposit: (2 * PRICE).into() }).await;
        }
        let closed = proxy.channels.close_all().await.err().map(|trouble| trouble.to_string());
        let of = |proxy: &[tollpass::payments::ListedChannel], phase: &str| {
            proxy.iter().filter(|listed| !listed.promised.is_zero() && listed.phase == phase).count()
        };
        let channels = proxy.channels().await;
        assert_eq!((closes(&mallory), of(&channels, phase)), (asked, 2), "{policy}: {channels:?}");
        match (denied, closed) {
            (None, None) => {}
            (Some(words), Some(trouble)) => {
                assert!(trouble.contains(words) && trouble.contains("no further channel"), "{trouble}");
            }
            (_, closed) => panic!("{policy}: {closed:?}"),
        }
        proxy.stop().await;
    }
    let question: serde_json::Value = serde_json::from_slice(&yes.presented()[0].body).unwrap();
    assert_eq!((&question["hook"], &question["status"]), (&"cooperative_close_denied".into(), &400.into()));
    assert!(question["channel"].is_object() && question["price"].is_null(), "{question}");
}

#[tokio::test]
async fn a_denied_close_at_the_end_is_an_error_where_the_policy_says_abort() {
    for (word, ends_well) in [("keep", true), ("abort", false)] {
        let Fair { origin, market } = Fair::open().await;
        let hook = format!("{QUICK}cooperative_close_denied = {{ action = \"{word}\" }}\n");
        let alice = Alice::with(&market, &format!("{hook}[deposit]\non_exit = \"cooperative\"\n")).await;
        let program = alice.serve(&[]).await;
        let paid = Request::get(format!("{}/paid", origin.url())).body(empty()).unwrap();
        assert_eq!(ask(program.address, paid).await.status, StatusCode::OK);
        origin.stop().await;
        program.terminate();
        let (status, log) = program.ended().await;
        assert_eq!(status.success(), ends_well, "{word}: {log}");
        assert!(log.contains("closing a channel failed"), "{log}");
        assert_eq!(log.contains("no further channel of this seller is closed"), !ends_well, "{log}");
    }
}

#[tokio::test]
async fn a_seller_that_denies_closing_a_surplus_channel_is_not_asked_again_for_a_while() {
    for (policy, asked) in [("keep", 2), ("abort", 1)] {
        let fair = Fair::open().await;
        let hook = format!("{QUICK}cooperative_close_denied = {{ action = \"{policy}\" }}\n");
        let mut alice = Alice::with(&fair.market, &format!("{hook}[deposit]\ninitial = 1\n")).await;
        let proxy = alice.start().await;
        let (mallory, receiver, url) = denier(&fair).await;
        // Two channels that are used up, and one that was never paid from.
        for _ in 0..2 {
            let got = ask(proxy.address, Request::get(&url).body(empty()).unwrap()).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
            done(&proxy, Operation::Open { receiver, deposit: PRICE.into() }).await;
        }
        proxy.stop().await;
        alice.change("initial = 1\n", "initial = 1\nclose_idle_after = \"1s\"\n");
        let proxy = alice.start().await;
        let asked_for = async |enough: usize| {
            let asking = async {
                let mut looks = tokio::time::interval(Duration::from_millis(5));
                while closes(&mallory) < enough {
                    looks.tick().await;
                }
                Instant::now()
            };
            tokio::time::timeout(PATIENCE, asking).await.expect("the seller is not asked")
        };
        let first_round = asked_for(asked).await;
        let again = asked_for(asked + 1).await.duration_since(first_round);
        assert!(again >= Duration::from_secs(1), "{policy}: asked again after {again:?}");
        let channels = proxy.channels().await;
        assert!(channels.len() == 3 && channels.iter().all(|listed| listed.phase == "open"), "{channels:?}");
        proxy.stop().await;
    }
}

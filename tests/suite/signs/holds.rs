//! What stays held after each outcome, in the budget and on the channel, also after a restart.

use std::collections::BTreeSet;

use http::{Request, StatusCode};
use serde_json::Value;
use tollpass::config::Config;
use tollpass::payments::journal;
use tollpass::protocol::policy::Allow;
use tollpass::protocol::schemes::test_token::{OFFER, PAYMENT, RECEIPT, at_most};
use tollpass::protocol::{Address, Amount};

use super::Scene;
use crate::support::fair::{PRICE, empty};
use crate::support::mallory::{Answer, Mallory, Presented};
use crate::support::notary::{Does, Notary, PAYMENTS};
use crate::support::payer::{Alice, PATIENCE, Running};
use crate::support::wire::{Got, Wire, ask};

/// Allows this many payments in all.
fn budget(payments: u64) -> String {
    format!(
        "[[budget]]\nname = \"all\"\nwallet = true\ntotal = {}\n[limits]\nsign_ahead = 0\n",
        payments * PRICE
    )
}

/// What is spent of the only budget.
fn spent(proxy: &Running) -> String {
    proxy.payments.budgets()[0].windows[0].spent.clone()
}

/// Does what ends in doubt.
const UNCLEAR: [Does; 6] =
    [Does::Kill, Does::Garbage, Does::Fail, Does::OtherKey, Does::RefuseKilled, Does::Nothing];

#[tokio::test]
async fn a_refusal_releases_everything_and_later_the_whole_budget_is_paid() {
    let scene = Scene::with("", &budget(2)).await;
    let proxy = scene.alice.start().await;
    scene.notary.does(PAYMENTS, Does::Refuse);
    for _ in 0..3 {
        let why = scene.refused(&proxy, "signer-refused").await;
        assert!(why.contains("sh: too much"), "{why}");
        assert_eq!((spent(&proxy).as_str(), proxy.payments.holds().len()), ("0", 0));
    }
    assert_eq!(scene.registered(), Amount::ZERO);
    assert_eq!(proxy.payments.report().total(), Default::default());
    scene.notary.does(PAYMENTS, Does::Sign);
    for _ in 0..2 {
        scene.paid(&proxy).await;
    }
    scene.refused(&proxy, "over-budget").await;
    assert_eq!((scene.registered(), scene.highest()), ((2 * PRICE).into(), 2 * PRICE));
    proxy.stop().await;
}

#[tokio::test]
async fn an_unclear_answer_counts_as_signed_and_costs_no_second_price() {
    let scene = Scene::with("", &budget(2 + UNCLEAR.len() as u64)).await;
    let mut proxy = scene.alice.start().await;
    scene.paid(&proxy).await;
    for (round, does) in (2..).zip(UNCLEAR) {
        scene.notary.does(PAYMENTS, does);
        let why = scene.refused(&proxy, "signer-unclear").await;
        assert!(why.contains("counts as signed"), "{why}");
        assert_eq!(spent(&proxy), format!("{}", round * PRICE), "{does:?}");
        assert_eq!(
            (proxy.promised().await, scene.registered()),
            ((round * PRICE).into(), ((round - 1) * PRICE).into())
        );
        assert_eq!(proxy.payments.holds().len(), 1, "in doubt");
        let report = proxy.payments.report().total();
        assert_eq!(report.unclear.amount, PRICE.into(), "{does:?}: {report:?}");
        if round % 3 == 0 {
            proxy.stop().await;
            proxy = scene.alice.start().await;
            proxy.ready().await;
            assert_eq!(spent(&proxy), format!("{}", round * PRICE), "after a restart");
        }
        // The same total again: if the signature had got to the seller, it would be no new one.
        scene.notary.does(PAYMENTS, Does::Sign);
        scene.paid(&proxy).await;
        assert_eq!(
            (scene.registered(), scene.highest()),
            ((round * PRICE).into(), round * PRICE),
            "{does:?}"
        );
        assert_eq!(spent(&proxy), format!("{}", round * PRICE), "{does:?}");
    }
    scene.paid(&proxy).await;
    scene.refused(&proxy, "over-budget").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_signer_that_takes_too_long_leaves_the_payment_in_doubt() {
    let scene = Scene::with("signer_timeout = \"2s\"\n", &budget(2)).await;
    let proxy = scene.alice.start().await;
    scene.paid(&proxy).await;
    scene.notary.does(PAYMENTS, Does::Hang);
    let why = scene.refused(&proxy, "signer-unclear").await;
    assert!(why.contains("wallet.signer_timeout"), "{why}");
    assert_eq!((spent(&proxy), scene.registered()), ("2000".to_owned(), PRICE.into()));
    scene.notary.does(PAYMENTS, Does::Sign);
    scene.paid(&proxy).await;
    assert_eq!(scene.highest(), 2 * PRICE);
    scene.refused(&proxy, "over-budget").await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_signer_that_is_not_there_has_signed_nothing() {
    let scene = Scene::with("", &budget(1)).await;
    let proxy = scene.alice.start().await;
    let script = scene.notary.path("signer.sh");
    scene.notary.does(PAYMENTS, Does::Refuse);
    scene.refused(&proxy, "signer-refused").await;
    proxy.stop().await;
    let mut alice = scene.alice;
    alice.change("signer = \"sh ", "signer = \"/nowhere/sh ");
    let scene = Scene { alice, ..scene };
    let proxy = scene.alice.start().await;
    let why = scene.refused(&proxy, "signer-unavailable").await;
    assert!(why.contains("cannot be started") && why.contains("tollpass check"), "{why}");
    assert_eq!((spent(&proxy).as_str(), script.exists()), ("0", true));
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_does_not_change_what_the_signer_says() {
    for (says, then) in [(Does::Refuse, 0), (Does::Sign, PRICE), (Does::Kill, PRICE)] {
        let scene = Scene::with("", &budget(1)).await;
        let proxy = scene.alice.start().await;
        scene.notary.does(PAYMENTS, Does::Wait);
        let mut wire = Wire::connect(proxy.address).await;
        let url = format!("{}/paid", scene.fair.origin.url());
        let asking = wire.head(Request::get(url).body(empty()).unwrap());
        tokio::select! {
            answer = asking => panic!("{answer:?}"),
            () = scene.notary.await_asked(PAYMENTS, 1) => {}
        }
        drop(wire);
        assert_eq!(proxy.payments.holds().len(), 1, "{says:?}: while the signer works");
        scene.notary.does(PAYMENTS, says);
        // It holds the channel until the signer has answered.
        let ended = async {
            while proxy
                .payments
                .holds()
                .iter()
                .any(|hold| hold.reason == tollpass::protocol::engine::HoldReason::InFlight)
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("it never ends");
        assert_eq!(spent(&proxy), format!("{then}"), "{says:?}");
        assert_eq!(scene.registered(), Amount::ZERO, "{says:?}: nothing is sent for a client that left");
        scene.notary.does(PAYMENTS, Does::Sign);
        scene.paid(&proxy).await;
        assert_eq!((scene.registered(), scene.highest()), (PRICE.into(), PRICE), "{says:?}");
        scene.refused(&proxy, "over-budget").await;
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_the_signer_is_asked_costs_nothing() {
    let notary = Notary::new();
    let (seller, mut alice) =
        one_shot(&notary, "[[budget]]\nname = \"all\"\nwallet = true\npayments = 9\n").await;
    alice.change("[wallet]\n", "[wallet]\nsigner_requests = 1\n");
    let proxy = alice.start_with(permit).await;
    notary.does(PAYMENTS, Does::Wait);
    let buying = buy(&proxy, &seller);
    let leaving = async {
        notary.await_asked(PAYMENTS, 1).await;
        let mut wire = Wire::connect(proxy.address).await;
        let waits = async {
            while recorded(&alice) < 2 {
                tokio::task::yield_now().await;
            }
            // Now it waits for its turn.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = wire.head(Request::get(seller.url()).body(empty()).unwrap()) => panic!("{answer:?}"),
            () = waits => {}
        }
        drop(wire);
        let gone = async {
            while proxy.payments.budgets()[0].payments > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is still counted");
        notary.does(PAYMENTS, Does::Sign);
    };
    let (got, ()) = tokio::join!(buying, leaving);
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!((notary.asked(PAYMENTS).len(), proxy.payments.budgets()[0].payments), (1, 1));
    proxy.stop().await;
}

#[tokio::test]
async fn a_kill_while_the_signer_works_counts_as_signed() {
    let scene = Scene::with("", &budget(2)).await;
    let url = format!("{}/paid", scene.fair.origin.url());
    let request = || Request::get(&url).body(empty()).unwrap();
    let program = scene.alice.serve(&[]).await;
    assert_eq!(ask(program.address, request()).await.status, StatusCode::OK);
    let before = scene.notary.asked(PAYMENTS).len();
    scene.notary.does(PAYMENTS, Does::Wait);
    let mut wire = Wire::connect(program.address).await;
    tokio::select! {
        answer = wire.head(request()) => panic!("{answer:?}"),
        () = scene.notary.await_asked(PAYMENTS, before + 1) => {}
    }
    program.kill().await;
    scene.notary.does(PAYMENTS, Does::Sign);
    let proxy = scene.alice.start().await;
    proxy.ready().await;
    assert_eq!(spent(&proxy), "2000");
    scene.paid(&proxy).await;
    assert_eq!((scene.registered(), scene.highest()), ((2 * PRICE).into(), 2 * PRICE));
    scene.refused(&proxy, "over-budget").await;
    proxy.stop().await;
}

/// A seller in a scheme without channels, and Alice without a chain.
async fn one_shot(notary: &Notary, more: &str) -> (Mallory, Alice) {
    let script = |presented: &Presented| match presented.headers.contains_key(&PAYMENT) {
        true => Answer::new(StatusCode::OK, "goods\n").header(&RECEIPT, "0x00"),
        false => Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n")
            .header(&OFFER, format!("price=5, payee={}", Address([0xb0; 20]))),
    };
    let seller = Mallory::spawn(script).await;
    let mut alice = Alice::without_chain(&format!("[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10\n{more}"));
    notary.serves(&mut alice, "");
    (seller, alice)
}

/// How many authorizations the journal has.
fn recorded(alice: &Alice) -> i64 {
    let journal = rusqlite::Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    journal.query_row("SELECT count(*) FROM authorization", [], |row| row.get(0)).unwrap()
}

fn permit(config: &mut Config) {
    for rule in &mut config.policy.rules {
        if let Allow::Pay { max_price, .. } = &mut rule.allow {
            *max_price = at_most(10_u64);
        }
    }
}

async fn buy(proxy: &Running, seller: &Mallory) -> Got {
    let asked = ask(proxy.address, Request::get(seller.url()).body(empty()).unwrap());
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
}

#[tokio::test]
async fn one_shot_authorizations_are_spent_unless_the_signer_refuses() {
    let notary = Notary::new();
    let (seller, alice) =
        one_shot(&notary, "[[budget]]\nname = \"all\"\nwallet = true\npayments = 2\n").await;
    let proxy = alice.start_with(permit).await;
    let payments = |proxy: &Running| proxy.payments.budgets()[0].payments;
    let reason = |got: &Got| got.headers["proxy-status"].to_str().unwrap().to_owned();
    notary.does(PAYMENTS, Does::Refuse);
    let got = buy(&proxy, &seller).await;
    assert!(reason(&got).contains("signer-refused") && payments(&proxy) == 0, "{got:?}");
    notary.does(PAYMENTS, Does::Garbage);
    let got = buy(&proxy, &seller).await;
    assert!(reason(&got).contains("signer-unclear") && payments(&proxy) == 1, "{got:?}");
    proxy.stop().await;
    let proxy = alice.start_with(permit).await;
    assert_eq!(payments(&proxy), 1, "after a restart");
    notary.does(PAYMENTS, Does::Sign);
    let got = buy(&proxy, &seller).await;
    assert_eq!((got.status, payments(&proxy)), (StatusCode::OK, 2), "{got:?}");
    let got = buy(&proxy, &seller).await;
    assert!(reason(&got).contains("over-budget"), "{got:?}");
    let nonces: BTreeSet<String> = notary
        .asked(PAYMENTS)
        .iter()
        .map(|asked| asked["request"]["params"][0][3]["value"].as_str().map(str::to_owned).unwrap())
        .collect();
    assert_eq!(nonces.len(), 3, "each is another authorization: {nonces:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_same_payment_is_presented_again_without_asking_again() {
    let notary = Notary::new();
    let (_, alice) = one_shot(
        &notary,
        "[hooks.insufficient_confirmations]\naction = \"retry\"\nevery = \"10ms\"\ntimes = 5\ntimeout = \"20s\"\n",
    )
    .await;
    let script = |presented: &Presented| match (presented.number, presented.headers.contains_key(&PAYMENT)) {
        (4, true) => Answer::new(StatusCode::OK, "goods\n").header(&RECEIPT, "0x00"),
        _ => Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n")
            .header(&OFFER, format!("price=5, payee={}", Address([0xb0; 20])))
            .header(&tollpass::protocol::schemes::test_token::COMPLAINT, "later"),
    };
    let seller = Mallory::spawn(script).await;
    let proxy = alice.start_with(permit).await;
    assert_eq!(buy(&proxy, &seller).await.status, StatusCode::OK);
    let asked: Vec<Value> = notary.asked(PAYMENTS);
    let payments: BTreeSet<_> = seller
        .presented()
        .iter()
        .filter_map(|one| one.headers.get(&PAYMENT).cloned())
        .map(|one| one.as_bytes().to_vec())
        .collect();
    assert_eq!((asked.len(), payments.len(), seller.presented().len()), (1, 1, 5));
    proxy.stop().await;
}

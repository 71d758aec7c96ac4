//! External signers, as a program and as an HTTP endpoint: what they sign is paid, and only an explicit refusal means that
//! nothing was signed.

mod answers;
mod deposits;
mod holds;

use http::{Request, StatusCode};
use serde_json::Value;
use tollpass::channels::Operation;
use tollpass::protocol::Amount;

use crate::pays::QUICK;
use crate::program::{run, run_with, text};
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::notary::{Does, Notary, PAYMENTS, TRANSACTIONS};
use crate::support::payer::{Alice, PATIENCE, Running};
use crate::support::wire::{Got, ask};

/// A seller, a signer, and Alice, who has no key.
struct Scene {
    fair: Fair,
    notary: Notary,
    alice: Alice,
}

impl Scene {
    /// `wallet` goes below `[wallet]`, `more` to the end.
    async fn with(wallet: &str, more: &str) -> Self {
        let (fair, notary) = (Fair::open().await, Notary::new());
        let mut alice = Alice::with(&fair.market, &format!("{QUICK}{more}")).await;
        notary.serves(&mut alice, wallet);
        Self { fair, notary, alice }
    }

    async fn buy(&self, proxy: &Running) -> Got {
        let url = format!("{}/paid", self.fair.origin.url());
        let asked = ask(proxy.address, Request::get(url).body(empty()).unwrap());
        tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
    }

    /// A payment that must succeed.
    async fn paid(&self, proxy: &Running) {
        let got = self.buy(proxy).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
    }

    /// A payment that must fail for this reason.
    async fn refused(&self, proxy: &Running, reason: &str) -> String {
        let got = self.buy(proxy).await;
        assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
        let why = got.headers["proxy-status"].to_str().unwrap().to_owned();
        assert!(why.contains(&format!("reason={reason};")), "{why}");
        why
    }

    /// The total of the highest payment that the signer was asked for.
    fn highest(&self) -> u64 {
        let asked = self.notary.asked(PAYMENTS);
        let total = |asked: &Value| {
            asked["request"]["params"][0][3]["value"].as_str().unwrap().parse::<u64>().unwrap()
        };
        asked.iter().map(total).max().unwrap_or_default()
    }

    fn registered(&self) -> Amount {
        self.fair.origin.total_registered()
    }
}

#[tokio::test]
async fn a_program_opens_pays_and_closes_and_tollpass_has_no_key() {
    let scene = Scene::with("", "").await;
    let proxy = scene.alice.start().await;
    for paid in 1..=3 {
        scene.paid(&proxy).await;
        assert_eq!(scene.registered(), (paid * PRICE).into());
    }
    assert_eq!((scene.fair.market.openings().await, scene.notary.asked(TRANSACTIONS).len()), (1, 1));
    let requests = scene.notary.asked(PAYMENTS).len();
    assert!(requests <= 4, "one for each payment, and one for what the seller holds at first: {requests}");

    // The next start has a new process and the same account; the rows of the ledger are sealed with the same secret.
    proxy.stop().await;
    let proxy = scene.alice.start().await;
    scene.paid(&proxy).await;
    let channel = proxy.channels().await[0].id();
    let closed = Operation::CloseTogether { channel, seller: None };
    proxy.channels.operate(closed).await.unwrap();
    assert_eq!(scene.fair.market.settlements().await, 1);
    assert_eq!(scene.fair.market.tokens_of(scene.fair.origin.receiver()).await, 4 * PRICE);
    proxy.stop().await;
    let config = scene.alice.config_path();
    let verified = run(&["ledger", "--config", text(&config), "verify"]).await;
    assert!(verified.code == 0 && verified.out.contains("is unchanged, from row 1"), "{verified:?}");
}

#[tokio::test]
async fn an_endpoint_does_the_same_and_returns_whole_transactions() {
    let (fair, notary) = (Fair::open().await, Notary::new());
    notary.does(TRANSACTIONS, Does::SignWhole);
    let endpoint = notary.endpoint().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    notary.serves_at(&mut alice, &endpoint.url(), "");
    let scene = Scene { fair, notary, alice };
    let proxy = scene.alice.start().await;
    scene.paid(&proxy).await;
    scene.paid(&proxy).await;
    assert_eq!((scene.registered(), scene.fair.market.openings().await), ((2 * PRICE).into(), 1));
    proxy.stop().await;
}

#[tokio::test]
async fn the_program_gets_none_of_our_secrets() {
    let scene = Scene::with("", "").await;
    let secrets = [("TOLLPASS_WALLET_PASSWORD", "hunter2"), ("TOLLPASS_LOG", "debug"), ("OTHER", "1")];
    let program = scene.alice.serve(&secrets).await;
    let url = format!("{}/paid", scene.fair.origin.url());
    let got = ask(program.address, Request::get(url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    program.terminate();
    let (_, log) = program.ended().await;
    let asked = scene.notary.asked(PAYMENTS);
    let variables: Vec<&str> =
        asked[0]["variables"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(variables.contains(&"OTHER") && variables.contains(&"PATH"), "{variables:?}");
    assert!(!variables.iter().any(|name| name.starts_with("TOLLPASS_")), "{variables:?}");
    // What it writes to standard error is in the log, and no signature is.
    assert!(log.contains("output of the signer: a word of the notary"), "{log}");
    assert!(!log.contains("\"result\""), "{log}");
}

#[tokio::test]
async fn one_account_is_paid_from_by_one_tollpass() {
    let scene = Scene::with("", "").await;
    let runtime = tempfile::tempdir().unwrap();
    let environment = [("XDG_RUNTIME_DIR", text(runtime.path()))];
    let first = scene.alice.serve(&environment).await;
    let url = format!("{}/paid", scene.fair.origin.url());
    let got = ask(first.address, Request::get(url).body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let mut other = Alice::with(&scene.fair.market, "").await;
    scene.notary.serves(&mut other, "");
    let second = run_with(&["serve", "--config", text(&other.config_path())], &environment).await;
    second.expect_failure(&["another tollpass pays with the key of"]);
    assert_eq!(second.out, "", "it never listened");
    first.terminate();
    first.ended().await;
}

#[tokio::test]
async fn check_says_who_signs_and_whether_it_answers() {
    let scene = Scene::with("", "").await;
    let config = scene.alice.config_path();
    let check = async || run(&["check", "--config", text(&config)]).await;
    let ran = check().await;
    let well = format!("ok     wallet    {}, signed for by sh, which has the key", scene.alice.address);
    assert!(ran.code == 0 && ran.out.contains(&well), "{ran:?}");
    assert!(!scene.alice.state_dir().exists(), "it changes nothing");
    std::fs::write(scene.notary.path("eth_accounts"), "0x0000000000000000000000000000000000000001").unwrap();
    check().await.expect_failure(&["FAIL   wallet", "does not have the account", "wallet.address"]);
    assert_eq!((scene.notary.asked(PAYMENTS).len(), scene.notary.asked(TRANSACTIONS).len()), (0, 0));
    std::fs::remove_file(scene.notary.path("signer.sh")).unwrap();
    check().await.expect_failure(&["FAIL   wallet", "does not answer", "it ended without an answer"]);

    let closed = crate::support::ports::ReservedPort::new();
    let mut alice = Alice::with(&scene.fair.market, "").await;
    scene.notary.serves_at(&mut alice, &format!("http://{}", closed.address()), "");
    let ran = run(&["check", "--config", text(&alice.config_path())]).await;
    ran.expect_failure(&["FAIL   wallet", "does not answer", "it cannot be reached"]);
}

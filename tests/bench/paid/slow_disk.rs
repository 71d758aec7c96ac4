//! Payments on a channel beside a stream of one-shot payments, with a disk that takes 20 ms for each write. Each one-shot
//! payment waits for its record; a payment within its channel's durable limit must not wait for theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use http::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tollpass::config::Config;
use tollpass::payments::{PaidRequest, Payments, journal};
use tollpass::protocol::budget::BudgetSet;
use tollpass::protocol::policy::{DepositSize, HostPattern, SpendLimit};
use tollpass::protocol::schemes::Receipt;
use tollpass::protocol::schemes::test_token::{TokenOffer, at_most};
use tollpass::protocol::{Address, Amount, Offer};
use tollpass::{Body, ForwardError, PayLayer, Sandbox, StandalonePayments};
use tower::{Layer as _, ServiceExt as _};

/// How long each write of the journal takes.
const WRITE: Duration = Duration::from_millis(20);
/// How many rounds of each kind.
const ROUNDS: usize = 5;
/// Payments on the channel in one round: a round takes longer than several writes.
const PAYMENTS: u32 = 2000;
/// The channel's deposit, in base units: enough for all rounds.
const DEPOSIT: u64 = 50_000_000;
/// How many one-shot payments are under way at any time.
const STREAMS: usize = 16;

/// Measures both kinds in alternating rounds and prints the medians.
pub async fn report() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let sandbox = Sandbox::start(directory.path()).await?;
    let mut config = Config::load(Some(sandbox.config()))?;
    config.policy.deposit.initial = DepositSize::Units(Amount::from(DEPOSIT));
    // The first payment records a limit that covers all others.
    config.policy.sign_ahead = DEPOSIT;
    journal::before_writes(&config.state_dir, || std::thread::sleep(WRITE));
    let payments = StandalonePayments::open(config).await?;
    let (layer, url) = (payments.layer(None), sandbox.paid_url());
    pay(&layer, &url, 1).await?;
    let (mut alone, mut beside, mut one_shots) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        alone.push(pay(&layer, &url, PAYMENTS).await?);
        let mut streams = JoinSet::new();
        let before = one_shot_payments(&payments);
        for _ in 0..STREAMS {
            streams.spawn(stream(payments.payments().clone()));
        }
        while one_shot_payments(&payments) == before {
            ensure!(streams.try_join_next().is_none(), "a stream of one-shot payments failed");
            tokio::time::sleep(WRITE).await;
        }
        let running = one_shot_payments(&payments);
        beside.push(pay(&layer, &url, PAYMENTS).await?);
        one_shots += one_shot_payments(&payments) - running;
        streams.shutdown().await;
    }
    let (alone, beside) = (super::median(&alone), super::median(&beside));
    println!("\na disk of {} ms per write                         a payment on a channel", WRITE.as_millis());
    println!("alone                                         {alone:>8.1} µs");
    println!(
        "beside {STREAMS} streams of one-shot payments ({one_shots}) {beside:>8.1} µs   {:.2} ×",
        beside / alone
    );
    payments.close().await;
    sandbox.stop().await;
    Ok(())
}

fn one_shot_payments(payments: &StandalonePayments) -> u64 {
    payments.payments().report().other_assets.iter().map(|asset| asset.total().paid.requests).sum()
}

/// Pays this often on the channel, one payment after the other; the time for each, in microseconds.
async fn pay(layer: &PayLayer, url: &str, times: u32) -> anyhow::Result<f64> {
    let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http::<Body>();
    let client = client
        .map_response(|answer| answer.map(Body::from))
        .map_err(|error| ForwardError::Lost(error.to_string()));
    let service = layer.layer(client);
    let began = Instant::now();
    for _ in 0..times {
        let answer = service.clone().oneshot(Request::get(url).body(Body::Empty)?).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.status());
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(times))
}

/// Makes one one-shot payment after the other.
async fn stream(payments: Payments) -> anyhow::Result<()> {
    let payee = Address([0xb0; 20]);
    let limit = SpendLimit {
        host: "seller.example".into(),
        max_price: at_most(1),
        receivers: Vec::new(),
        preference: Arc::default(),
        hooks: Default::default(),
        budgets: Arc::default(),
        origin: Default::default(),
    };
    let (method, url) = (Method::GET, "http://seller.example/".parse()?);
    let request = PaidRequest::new((method, &url), (None, HostPattern::Any), BudgetSet::default());
    loop {
        let offer = Offer::TestToken(TokenOffer { price: 1.into(), payee, is_later: false });
        let (request, deadline) = (request.clone(), Instant::now() + Duration::from_secs(60));
        let mut lease = payments.pay(request, offer, limit.clone(), deadline, &()).await?;
        lease.begin();
        lease.accept(Receipt::Stated, None);
    }
}

//! An ordinary hyper client that pays by itself: the payment layer of this library around it, without a proxy.
//!
//! `cargo run --example paying_client` brings its own chain, contracts, seller and wallet of play money, all on this
//! machine, buys three times, and stops.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ethers_core::types::U256;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tollpass::chain;
use tollpass::chain::Chain;
use tollpass::chain::signer::Signer;
use tollpass::devnet::chain as devchain;
use tollpass::devnet::chain::DevChain;
use tollpass::devnet::deploy;
use tollpass::devnet::deploy::Deployed;
use tollpass::devnet::origin;
use tollpass::devnet::origin::{Origin, Resource};
use tollpass::limits::Limits;
use tollpass::payments::journal::Journal;
use tollpass::payments::{Payments, Startup};
use tollpass::protocol::policy::{Allow, Deposit, Hooks, HostPattern, Missing, Policy, Requested, Rule};
use tollpass::protocol::{Amount, Refusal, Wei};
use tollpass::proxy::pay;
use tollpass::proxy::pay::PayLayer;
use tollpass::proxy::pay::webhook::{Advice, Advisor, Question};
use tollpass::proxy::{Body, ForwardError};
use tollpass::shutdown::Shutdown;
use tower::{Layer as _, Service as _, ServiceExt as _};

/// What the seller asks for one request.
const PRICE: u64 = 1000;

/// Says yes to every payment, and shows what it was asked.
#[derive(Debug)]
struct Agreeable;

impl Advisor for Agreeable {
    fn advise<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Advice> {
        Box::pin(async move {
            println!("{}: {:?} for {}? yes", question.hook, question.price, question.url);
            Advice::Pay
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let chain = DevChain::spawn(devchain::Settings::default()).await?;
    let deployed = deploy::deploy(&chain.url(), deploy::Options::default()).await?;
    let seller = Origin::spawn(seller_settings(&chain, &deployed)).await?;
    // Play money on a chain that ends with this program.
    let wallet = Arc::new(Signer::new(&[0xa1; 32])?);
    let tokens = [(deployed.token, Amount::from(1_000_000))];
    deploy::fund(&chain.url(), wallet.address(), U256::exp10(18), &tokens).await?;

    let folder = tempfile::tempdir()?;
    let policy = Arc::new(policy(seller.address().port()));
    let journal = Journal::open(folder.path())?;
    let (payments, task) = Payments::spawn(Arc::clone(&policy), journal, &Limits::default());
    let settings = chain_settings(&chain, &deployed);
    let startup = Startup {
        chain: Chain::new(settings, Arc::clone(&wallet))?,
        signer: wallet,
        contract: deployed.channel_manager,
        retry_every: Duration::from_secs(1),
    };
    payments.start(startup).await;

    let shutdown = Shutdown::new();
    let layer = PayLayer::new(pay_settings(policy, &payments, &shutdown));
    // A client may never send a paid request again by itself.
    let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http::<Body>();
    let plain = tower::service_fn(move |request: Request<Body>| -> BoxFuture<'static, _> {
        let client = client.clone();
        Box::pin(async move {
            // Nobody can tell whether a failed request arrived, so that it counts as lost.
            let answer =
                client.request(request).await.map_err(|error| ForwardError::Lost(error.to_string()))?;
            Ok::<Response<Body>, ForwardError>(answer.map(Body::from))
        })
    });
    let mut paying = layer.layer(plain);
    for _ in 0..3 {
        let request = Request::get(format!("{}/paid", seller.url())).body(Body::Empty)?;
        let answer = paying.ready().await?.call(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        println!("{status}: {}", String::from_utf8_lossy(&body).trim_end());
        anyhow::ensure!(status.is_success(), "it was not paid");
    }
    let Some(listing) = payments.list().await else { return Err(Refusal::ShuttingDown.into()) };
    for channel in listing.channels {
        println!("promised {} of {} to {}", channel.promised, channel.deposit, channel.receiver);
        anyhow::ensure!(channel.promised == Amount::from(3 * PRICE), "it promised something else");
    }

    shutdown.drain(Duration::from_secs(10)).await;
    payments.stop().await;
    task.await?;
    seller.stop().await;
    chain.stop().await;
    Ok(())
}

fn seller_settings(chain: &DevChain, deployed: &Deployed) -> origin::Settings {
    origin::Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        secure: None,
        rpc_url: chain.url(),
        channel_manager: deployed.channel_manager,
        token: deployed.token,
        key: [0xb0; 32],
        confirmations: 0,
        poll_every: Duration::from_millis(100),
        resources: Resource::assortment(Amount::from(PRICE)),
    }
}

/// At most 10,000 base units for a request to the seller, after asking.
fn policy(port: u16) -> Policy {
    let (every, times, within) = (Duration::from_millis(100), 100, Duration::from_secs(20));
    let hooks = Arc::new(Hooks {
        payment_requested: Requested::Ask.into(),
        // The seller sees a new channel a moment after us.
        nonexisting_channel: Missing::Retry { every, times, within }.into(),
        ..Hooks::default()
    });
    let allow = Allow::Pay {
        max_price: Amount::from(10_000),
        receivers: Vec::new(),
        send_ahead: true,
        browsers: None,
        hooks: Arc::clone(&hooks),
    };
    Policy {
        rules: vec![Rule { host: HostPattern::Any, port: Some(port), allow }],
        deposit: Deposit::default(),
        hooks,
        max_attempts: 8,
        sign_ahead: 64,
        ready_timeout: Duration::from_secs(30),
        pay_timeout: Duration::from_secs(60),
    }
}

fn chain_settings(chain: &DevChain, deployed: &Deployed) -> chain::Settings {
    chain::Settings {
        rpc_url: chain.url(),
        channel_manager: deployed.channel_manager,
        confirmations: 1,
        start_block: deployed.start_block,
        request_timeout: Duration::from_secs(5),
        poll_every: Duration::from_millis(50),
        confirm_timeout: Duration::from_secs(30),
        log_range: 1000,
        retry_timeout: Duration::from_secs(5),
        chain_id: None,
        max_fee_per_gas: Wei(500_000_000_000),
        max_fee: Wei(100_000_000_000_000_000),
    }
}

fn pay_settings(policy: Arc<Policy>, payments: &Payments, shutdown: &Shutdown) -> pay::Settings {
    pay::Settings {
        policy,
        payments: Some(payments.clone()),
        limits: Limits::default(),
        replay_directory: std::env::temp_dir(),
        shutdown: shutdown.clone(),
        advisor: Some(Arc::new(Agreeable)),
    }
}

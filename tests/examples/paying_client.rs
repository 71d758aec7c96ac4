//! A hyper client that pays by itself, without a proxy. `cargo run --example paying_client` brings its own chain, seller
//! and play money, buys three times, and stops.

use http::Request;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tollpass::{Body, Config, ForwardError, Sandbox, StandalonePayments};
use tower::{Layer as _, Service as _, ServiceExt as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let sandbox = Sandbox::start(directory.path()).await?;
    let payments = StandalonePayments::open(Config::load(Some(sandbox.config()))?).await?;

    // The pool must never send a paid request again by itself.
    let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http::<Body>();
    let client = client.map_response(|answer| answer.map(Body::from));
    // Whether a failed request arrived is unknown, so it counts as lost.
    let client = client.map_err(|error| ForwardError::Lost(error.to_string()));
    let mut paying = payments.layer(None).layer(client);
    for _ in 0..3 {
        let request = Request::get(sandbox.paid_url()).body(Body::Empty)?;
        let answer = paying.ready().await?.call(request).await?;
        anyhow::ensure!(answer.status().is_success(), "not paid: {}", answer.status());
        println!("{}", String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes()));
    }
    println!("paid {} base units", payments.payments().report().total().paid.amount);

    payments.close().await;
    sandbox.stop().await;
    Ok(())
}

//! `tollpass healthcheck`: asks a proxy on this machine whether it serves, or can pay, as containers do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::config_args::ConfigArgs;
use super::output::print;
use super::parse::duration;
use crate::admin;
use crate::admin::Status;
use crate::config::{Config, listen_address};
use crate::tls;
use crate::tls::{PinnedCertificate, ServerTrust};

/// The largest response, in bytes.
const MAX_ANSWER: usize = 16 << 10;

/// What `tollpass healthcheck --help` shows below the options.
const AFTER_HELP: &str = "\
Asks the proxy that is running on the state directory or, if none is found there, the
one at `listen` of the configuration, for /health or, with --ready, /ready. A proxy is
ready if it can pay what its [[pay]] entries promise: the key is unlocked, nothing is
frozen, the journal can be written and, if an entry can pay from channels, the node of
[chain] responds. If no entry can pay from channels, it is also not ready while the nodes of
[[network]] show that the wallet has none of the tokens that the entries allow. It prints
the reasons, which are also the response to http://ADDRESS/ready.

The exit code is 0 if it is healthy or ready, else 1. With tls_cert, the proxy must show
that certificate.";

/// Ask a proxy on this machine whether it serves, or is ready to pay
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct HealthcheckArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The IP address and port of the proxy, or its port on 127.0.0.1, instead of the one that is found
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Ask whether it can pay, instead of whether it serves
    #[arg(long)]
    pub ready: bool,
    /// How long the response may take
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// Asks the proxy.
///
/// # Errors
/// It does not respond, or is not healthy or ready.
pub async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let deadline = Instant::now() + args.timeout;
    let ProbedProxy { listen, certificate } = ProbedProxy::find(&args).await?;
    let address = local(listen);
    let path = if args.ready { "/ready" } else { "/health" };
    let asked = timeout_at(deadline, ask(address, certificate.as_deref(), path)).await;
    let asked = asked.with_context(|| format!("{address} has not responded within {:?}", args.timeout))?;
    let (status, text) = asked.with_context(|| format!("{address} does not respond"))?;
    let text = String::from_utf8_lossy(&text);
    match status {
        StatusCode::OK => print(text.as_bytes()),
        StatusCode::SERVICE_UNAVAILABLE => bail!("not ready: {}", text.trim_end()),
        other => bail!("{address} responds with {other}: is it tollpass?"),
    }
}

/// The proxy to ask.
struct ProbedProxy {
    listen: SocketAddr,
    /// What it shows if it speaks TLS.
    certificate: Option<PathBuf>,
}

impl ProbedProxy {
    /// The one that runs on the state directory, whatever the configuration says by now; else that of the configuration. An
    /// address on the command line needs neither.
    async fn find(args: &HealthcheckArgs) -> anyhow::Result<Self> {
        let running = Self::running(args).await;
        let running = running.filter(|running| args.listen.is_none_or(|listen| listen == running.listen));
        let configured = || args.config.load().map(Self::from);
        Ok(match (running, args.listen) {
            (Some(running), _) => running,
            (None, None) => configured()?,
            (None, Some(listen)) => {
                Self { listen, certificate: configured().ok().and_then(|one| one.certificate) }
            }
        })
    }

    /// The one that runs on the state directory, if it answers.
    async fn running(args: &HealthcheckArgs) -> Option<Self> {
        let socket = args.config.socket().ok()?;
        // The rest of the time is for the response.
        let status = tokio::time::timeout(args.timeout / 2, admin::status(&socket)).await.ok()?.ok()??;
        let Status { listen, certificate, .. } = status;
        Some(Self { listen, certificate })
    }
}

impl From<Config> for ProbedProxy {
    fn from(config: Config) -> Self {
        let files = config.tls.filter(|_| config.is_tls);
        Self { listen: config.listen, certificate: files.map(|files| files.certificate) }
    }
}

/// Where a program on the same machine reaches a proxy that listens on this address.
fn local(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

async fn ask(
    address: SocketAddr,
    certificate: Option<&Path>,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let Some(certificate) = certificate else {
        return exchange(stream, address, path).await;
    };
    let pinned = ServerTrust::Exactly(Arc::new(PinnedCertificate::first(certificate)?));
    let connector = TlsConnector::from(Arc::new(tls::client_config(&pinned, None, &[b"http/1.1"])));
    let stream = connector.connect(address.ip().into(), stream).await?;
    exchange(stream, address, path).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    let asking = async {
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?;
        Ok((head.status, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        ended = &mut connection => {
            ended?;
            // What was read before the end.
            asking.await
        }
    }
}

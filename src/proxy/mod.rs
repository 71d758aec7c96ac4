//! The HTTP shell: takes requests in, passes them on, hands answers back. It decides nothing about money and never
//! sees the chain.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tower::Service;

use crate::shutdown::Shutdown;

mod descriptors;
mod downstream;
#[doc(hidden)]
pub mod dry;
pub mod forward;
pub mod frontend;
pub mod intercept;
pub mod message;
pub mod pay;
pub mod replay;
pub mod rescue;
pub mod seller;
mod tunnel;
pub mod upstream;

pub use descriptors::Resting;
pub use forward::{Forward, ForwardError};
pub use frontend::Front;
pub use message::body::{Body, BodyError};
pub use rescue::Rescue;
pub use upstream::dial::DialError;
pub use upstream::tls::OriginTls;

/// Request extension: this request carries a payment, so nothing below may send it twice, unless the origin says that it
/// did not process it.
#[derive(Clone, Copy, Debug)]
pub struct Paying;

/// Every limit of the HTTP shell.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections of clients (tunnels included) at one time; more wait in the system's backlog.
    pub max_connections: usize,
    /// Requests under way at one time on one connection of HTTP/2; a client waits before it begins more.
    pub streams: usize,
    /// Bytes of a head, of a request or an answer, the first line included; more is a 431 or a 502.
    pub head_bytes: usize,
    /// Fields of a head, in requests and in answers; more is a 431 or a 502.
    pub head_fields: usize,
    /// Time for a client to send a whole request head, counted from its first byte.
    pub head_timeout: Duration,
    /// How long a client's connection is kept on which no request is begun.
    pub keepalive_timeout: Duration,
    /// How long an exchange is kept up in which no byte passes on the client's side, and a tunnel in which none passes.
    pub stream_idle_timeout: Duration,
    /// How long one exchange may take altogether; over HTTP/2 counted from when no new request has come for
    /// `keepalive_timeout`.
    pub exchange_timeout: Duration,
    /// How long what a client still sends after the last answer is read and dropped.
    pub linger_timeout: Duration,
    /// Time to resolve a name and to connect, together.
    pub connect_timeout: Duration,
    /// Time for an origin to ask for a body that the client holds back until it is asked for.
    pub expect_continue_timeout: Duration,
    /// How long an idle connection to an origin is kept for another request.
    pub pool_idle_timeout: Duration,
    /// PEM certificates that origins over TLS may prove themselves by, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Origins with which TLS is other than usual; the first one that matches counts.
    pub tls: Vec<OriginTls>,
    /// Idle connections kept for each origin.
    pub pool_idle_per_host: usize,
    /// Requests at one time on one connection of HTTP/2 to an origin; more get another.
    pub origin_streams: usize,
    /// How long a connection of HTTP/2 to an origin is silent before the origin is asked whether it is there.
    pub ping_every: Duration,
    /// How long the origin has to answer that.
    pub ping_timeout: Duration,
    /// Bytes that each direction of a tunnel moves at a time; held only while there is something to move.
    pub tunnel_buffer: usize,
    /// How much of a request body is kept so that it can be sent again.
    pub replay: replay::Limits,
    /// Who knows the addresses of hosts.
    pub resolver: Arc<dyn upstream::egress::Resolve>,
    /// What goes out over which proxy.
    pub outbound: upstream::egress::Outbound,
    /// The connections to origins that make room for others; shared by all that are to make room for each other.
    pub resting: Resting,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            streams: 200,
            head_bytes: 256 * 1024,
            head_fields: 100,
            head_timeout: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(60),
            stream_idle_timeout: Duration::from_secs(3600),
            exchange_timeout: Duration::from_secs(24 * 3600),
            linger_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(10),
            expect_continue_timeout: Duration::from_secs(1),
            pool_idle_timeout: Duration::from_secs(60),
            ca_file: None,
            tls: Vec::new(),
            pool_idle_per_host: 256,
            origin_streams: 32,
            ping_every: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
            tunnel_buffer: 64 * 1024,
            replay: replay::Limits {
                memory: 256 * 1024,
                file: 1024 * 1024 * 1024,
                directory: std::env::temp_dir(),
            },
            resolver: Arc::new(upstream::egress::SystemResolver),
            outbound: upstream::egress::Outbound::default(),
            resting: Resting::default(),
        }
    }
}

/// Accepts clients on `listener` and answers them with `service` until the shutdown begins.
///
/// Returns when it no longer accepts. Connections that are still open finish as tasks of `shutdown`, whose
/// [`drain`](Shutdown::drain) waits for them.
pub async fn serve<S>(listener: TcpListener, service: S, settings: Settings, shutdown: Shutdown)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    downstream::server::accept(listener, service, settings, shutdown).await;
}

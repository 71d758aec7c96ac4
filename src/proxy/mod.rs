//! The HTTP shell: takes requests in, passes them on, hands answers back. It decides nothing about money and never
//! sees the chain.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, Response};
use tokio::net::TcpListener;
use tower::Service;

use crate::limits::Limits;
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

/// What the HTTP shell works by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Every limit; the HTTP shell applies those on connections, heads and bodies.
    pub limits: Limits,
    /// PEM certificates that origins over TLS may prove themselves by, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Origins with which TLS is other than usual; the first one that matches counts.
    pub tls: Vec<OriginTls>,
    /// Bytes that each direction of a tunnel moves at a time; held only while there is something to move.
    pub tunnel_buffer: usize,
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
            limits: Limits::default(),
            ca_file: None,
            tls: Vec::new(),
            tunnel_buffer: 64 * 1024,
            resolver: Arc::new(upstream::egress::SystemResolver),
            outbound: upstream::egress::Outbound::default(),
            resting: Resting::default(),
        }
    }
}

/// A service that takes HTTP requests and answers them, or fails with `E`.
pub trait RequestService<E>: Service<Request<Body>, Response = Response<Body>, Error = E> {}

impl<S, E> RequestService<E> for S where S: Service<Request<Body>, Response = Response<Body>, Error = E> {}

/// Accepts clients on `listener` and answers them with `service` until the shutdown begins.
///
/// Returns when it no longer accepts. Connections that are still open finish as tasks of `shutdown`, whose
/// [`drain`](Shutdown::drain) waits for them.
pub async fn serve<S>(listener: TcpListener, service: S, settings: Settings, shutdown: Shutdown)
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    downstream::server::accept(listener, service, settings, shutdown).await;
}

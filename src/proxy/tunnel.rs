//! `CONNECT`: a blind tunnel. Dials before it answers, so that the client learns of a failure.

pub(crate) mod splice;
pub(crate) mod upgrade;

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use tracing::{Instrument as _, debug};

use super::access_log::TunnelRecord;
use super::downstream::server::ConnectionPermit;
use super::error::ForwardError;
use super::message::body::Body;
use super::message::target;
use super::tunnel::splice::{Traffic, TunnelEnd, TunnelLimits, splice};
use super::upstream::client::UpstreamClient;
use super::upstream::egress::Reach;
use crate::error_chain::with_causes;

/// Connects to the target, answers 200, and starts the tunnel.
pub(super) async fn open(
    mut request: Request<Body>,
    upstream: Arc<UpstreamClient>,
) -> Result<Response<Body>, ForwardError> {
    let (host, port) = target::tunnel(request.uri())?;
    if !upstream.settings.connect_ports.contains(port) {
        return Err(ForwardError::PortNotAllowed(port));
    }
    let reach = Reach::of(&request);
    let origin = upstream.egress.connect_for(host, port, reach, request.headers(), request.version()).await?;
    let origin = TunnelEnd::Tcp(origin, Bytes::new());
    let permit = request.extensions_mut().remove::<ConnectionPermit>();
    let record = request.extensions_mut().remove::<TunnelRecord>();
    let limits = TunnelLimits::new(&upstream.settings);
    start(permit, record, hyper::upgrade::on(&mut request), async { Ok(origin) }, limits);
    Ok(Response::new(Body::Empty))
}

/// Splices the connections of client and origin once both have left HTTP.
pub(super) fn start(
    permit: Option<ConnectionPermit>,
    record: Option<TunnelRecord>,
    client: OnUpgrade,
    origin: impl Future<Output = io::Result<TunnelEnd>> + Send + 'static,
    limits: TunnelLimits,
) {
    let shutdown = permit.as_ref().map(|permit| permit.shutdown.clone()).unwrap_or_default();
    if let Some(record) = &record {
        record.open(false);
    }
    let spliced = async move {
        let uncounted = Traffic::default();
        let traffic = record.as_ref().map_or(&uncounted, TunnelRecord::traffic);
        let client = match client.await {
            Ok(client) => TunnelEnd::client(client),
            Err(error) => {
                return debug!(error = %with_causes(&error), "client left before its tunnel was set up");
            }
        };
        let ended = match origin.await {
            Ok(origin) => splice(client, origin, limits, traffic, &shutdown).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            debug!(%error, "tunnel failed");
        }
    };
    let spliced = spliced.in_current_span();
    match permit {
        Some(permit) => permit.spawn(spliced),
        None => {
            tokio::spawn(spliced);
        }
    }
}

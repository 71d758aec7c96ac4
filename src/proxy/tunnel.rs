//! `CONNECT`: a blind tunnel. It dials first, so that a client is told the truth, and reads nothing of what passes.

pub(crate) mod splice;
pub(crate) mod upgrade;
use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::Body;
use super::downstream::server::Seat;
use super::forward::{ForwardError, Shared};
use super::message::target;
use super::tunnel::splice::{Bounds, End, join};
use crate::error_chain::with_causes;

/// Reaches the target, answers 200, and joins the two once the client has that answer.
pub(super) async fn open(
    mut request: Request<Body>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, ForwardError> {
    let (host, port) = target::tunnel(request.uri())?;
    let origin = shared.reach.connect_for(host, port, request.headers(), request.version()).await?;
    let origin = End::Tcp(origin, Bytes::new());
    let seat = request.extensions_mut().remove::<Seat>();
    let bounds = Bounds::new(&shared.settings);
    start(seat, hyper::upgrade::on(&mut request), async { Ok(origin) }, bounds);
    Ok(Response::new(Body::Empty))
}

/// Joins the client's connection and the origin's as soon as both are free of HTTP.
pub(super) fn start(
    seat: Option<Seat>,
    client: OnUpgrade,
    origin: impl Future<Output = io::Result<End>> + Send + 'static,
    bounds: Bounds,
) {
    let shutdown = seat.as_ref().map(|seat| seat.shutdown.clone()).unwrap_or_default();
    let joined = async move {
        let client = match client.await {
            Ok(client) => End::client(client),
            Err(error) => {
                return debug!(error = %with_causes(&error), "a client left before its tunnel stood");
            }
        };
        let ended = match origin.await {
            Ok(origin) => join(client, origin, bounds, &shutdown).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            debug!(%error, "a tunnel broke");
        }
    };
    match seat {
        Some(seat) => seat.spawn(joined),
        None => {
            tokio::spawn(joined);
        }
    }
}

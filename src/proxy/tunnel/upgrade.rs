//! `Upgrade` (WebSocket and others): asked of the origin for the client, and joined if the origin agrees.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::splice::{Bounds, End};
use crate::proxy::downstream::server::Seat;
use crate::proxy::forward::{ForwardError, Shared};
use crate::proxy::{Body, tunnel};

/// Whether the client wants to change the protocol, and its connection can.
pub(crate) fn is_asked(request: &Request<Body>) -> bool {
    request.headers().contains_key(header::UPGRADE) && request.extensions().get::<OnUpgrade>().is_some()
}

/// Whether all it wants is HTTP/2 in place of HTTP/1.1, which may be left unheard: the same request and answer.
pub(crate) fn is_mere_http2(fields: &HeaderMap) -> bool {
    let mut wishes =
        fields.get_all(header::UPGRADE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    wishes.all(|wish| wish.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// Passes the wish on. A 101 joins both sides; any other answer goes back as it is.
pub(crate) async fn pass(
    mut request: Request<Body>,
    shared: Arc<Shared>,
) -> Result<Response<Body>, ForwardError> {
    let client = hyper::upgrade::on(&mut request);
    let seat = request.extensions_mut().remove::<Seat>();
    let wish = request.headers().get(header::UPGRADE).cloned();
    let mut asking = shared.send(request, wish)?;
    let mut received = poll_fn(|cx| asking.poll_received(cx)).await?;
    if received.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(asking.answer(received));
    }

    let origin = hyper::upgrade::on(&mut received);
    let protocol = received.headers().get(header::UPGRADE).cloned();
    let mut response = shared.answer(received.map(|_| Body::Empty));
    let fields = response.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        fields.insert(header::UPGRADE, protocol);
    }
    let origin = async { origin.await.map_err(std::io::Error::other).map(End::origin) };
    tunnel::start(seat, client, origin, Bounds::new(&shared.settings));
    Ok(response)
}

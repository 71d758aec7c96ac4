//! `Upgrade` (WebSocket and others): requested from the origin on behalf of the client, and tunnelled if the origin agrees.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::splice::{TunnelEnd, TunnelLimits};
use crate::proxy::access_log::TunnelRecord;
use crate::proxy::downstream::server::ConnectionPermit;
use crate::proxy::error::ForwardError;
use crate::proxy::message::body::Body;
use crate::proxy::message::headers;
use crate::proxy::message::headers::Present;
use crate::proxy::tunnel;
use crate::proxy::upstream::client::UpstreamClient;

/// Whether the client requests another protocol and its connection allows that. Without the option `upgrade` in
/// `Connection`, the header was meant for another hop. RFC 9110 section 7.8.
pub(crate) fn is_requested(request: &Request<Body>) -> bool {
    let headers = request.headers();
    headers.contains_key(header::UPGRADE)
        && headers::nominates(headers, &header::UPGRADE)
        && request.extensions().get::<OnUpgrade>().is_some()
}

/// Whether it requests nothing but HTTP/2 over cleartext, which a server may ignore.
pub(crate) fn is_h2c(headers: &HeaderMap) -> bool {
    let mut protocols =
        headers.get_all(header::UPGRADE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    protocols.all(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// Requests the protocol from the origin. A 101 starts the tunnel; any other response goes back to the client.
pub(crate) async fn pass(
    mut request: Request<Body>,
    upstream: Arc<UpstreamClient>,
) -> Result<Response<Body>, ForwardError> {
    let client = hyper::upgrade::on(&mut request);
    let permit = request.extensions_mut().remove::<ConnectionPermit>();
    let record = request.extensions_mut().remove::<TunnelRecord>();
    let protocol = request.headers().get(header::UPGRADE).cloned();
    let present = Present::among(request.headers());
    let mut pending = upstream.send(request, present, protocol)?;
    let mut received = poll_fn(|cx| pending.poll_received(cx)).await?;
    if received.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pending.answer(received));
    }

    let origin = hyper::upgrade::on(&mut received);
    let protocol = received.headers().get(header::UPGRADE).cloned();
    let mut response = upstream.answer(received.map(|_| Body::Empty));
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
    let origin = async { origin.await.map_err(std::io::Error::other).map(TunnelEnd::origin) };
    tunnel::start(permit, record, client, origin, TunnelLimits::new(&upstream.settings));
    Ok(response)
}

//! Request extensions by which one layer tells another what it knows of a request.

use http::uri::Authority;

/// The request carries a payment: nothing below sends it twice, unless the origin states that it did not process it.
#[derive(Clone, Copy, Debug)]
pub struct CarriesPayment;

/// The client is on another machine, so what it sends unencrypted can be read on the way.
#[derive(Clone, Copy, Debug)]
pub struct RemoteClient;

/// The client requested this authority over plain HTTP, if it named one; the target has changed since.
#[derive(Clone, Debug)]
pub struct RequestedAuthority(pub Option<Authority>);

//! The bound of the services that answer requests.

use http::{Request, Response};
use tower::Service;

use super::message::body::Body;

/// A service that takes HTTP requests and answers them, or fails with `E`. It is always ready, so it can be called without
/// being polled for that.
pub trait RequestService<E>: Service<Request<Body>, Response = Response<Body>, Error = E> {}

impl<S, E> RequestService<E> for S where S: Service<Request<Body>, Response = Response<Body>, Error = E> {}

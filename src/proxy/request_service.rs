//! The bound of the services that answer requests.

use http::{Request, Response};
use tower::Service;

use super::message::body::Body;

/// An HTTP service with error `E` that is always ready: callers need not poll it first.
pub trait RequestService<E>: Service<Request<Body>, Response = Response<Body>, Error = E> {}

impl<S, E> RequestService<E> for S where S: Service<Request<Body>, Response = Response<Body>, Error = E> {}

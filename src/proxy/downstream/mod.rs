//! The side towards clients: accepting connections, serving HTTP/1 and HTTP/2 on them, and their timeouts.

pub(crate) mod acceptor;
pub(crate) mod client_io;
pub(crate) mod client_stream;
pub(crate) mod server;

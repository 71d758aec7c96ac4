//! The HTTP shell: accepts requests, forwards them, returns responses. It decides nothing about money and never sees the
//! chain.

pub mod access_log;
pub mod authenticate;
pub mod authenticator;
mod client_connection;
mod client_warnings;
mod descriptors;
mod downstream;
#[cfg(feature = "testing")]
pub mod dry_run;
mod error;
pub mod error_response;
mod extensions;
mod forward;
pub mod frontend;
mod handling;
pub mod intercept;
pub mod interception;
pub mod message;
// Elsewhere, the owner of a client's socket is not known anyway.
#[cfg(target_os = "linux")]
mod own_sockets;
pub mod pay;
pub mod replay;
pub mod request_counts;
mod request_service;
mod request_span;
pub mod rulebook;
mod settings;
pub mod stack;
mod tunnel;
pub mod upstream;

#[cfg(feature = "testing")]
pub use descriptors::IdleConnections;
pub use downstream::acceptor::Acceptor;
pub use downstream::server::serve;
pub use error::ForwardError;
#[cfg(feature = "testing")]
pub use error_response::ErrorResponder;
pub use extensions::CarriesPayment;
#[cfg(feature = "testing")]
pub use extensions::{RemoteClient, RequestedAuthority};
pub use forward::Forward;
#[cfg(feature = "testing")]
pub use frontend::Frontend;
pub use message::body::Body;
#[cfg(feature = "testing")]
pub use message::byte_body::BodyError;
pub use request_service::RequestService;
pub use settings::ProxySettings;
#[cfg(feature = "testing")]
pub use upstream::error::DialError;
pub use upstream::tls::OriginTlsSettings;

//! The HTTP shell: accepts requests, forwards them, returns responses. It decides nothing about money and never sees the
//! chain.

mod descriptors;
mod downstream;
#[cfg(feature = "testing")]
pub mod dry_run;
mod error;
pub mod error_response;
mod extensions;
mod forward;
pub mod frontend;
pub mod intercept;
pub mod message;
pub mod pay;
pub mod replay;
mod request_service;
mod settings;
pub mod stack;
mod tunnel;
pub mod upstream;

pub use descriptors::IdleConnections;
pub use downstream::server::serve;
pub use error::ForwardError;
pub use error_response::ErrorResponder;
pub use extensions::{CarriesPayment, RemoteClient, RequestedAuthority};
pub use forward::Forward;
pub use frontend::Frontend;
pub use message::body::Body;
pub use message::byte_body::BodyError;
pub use request_service::RequestService;
pub use settings::Settings;
pub use upstream::error::DialError;
pub use upstream::tls::OriginTlsSettings;

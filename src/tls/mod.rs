//! TLS: the local CA, the certificates it signs, the certificate of the proxy's own ports, and the roots for verifying
//! others. Independent of HTTP, rules and money; opens no connections.

mod authority;
mod bundle;
mod certificate;
mod constraints;
mod encode;
mod error;
mod key_file;
mod leaf;
mod mint;
mod name;
mod origin;
mod pair;
mod provider;
mod roots;
mod server;
mod signer;

pub use authority::Authority;
pub use bundle::bundle;
pub use encode::pem;
pub use error::{AuthorityError, date};
pub use key_file::TlsFileError;
pub use leaf::{LeafError, Leaves};
pub use name::{Name, NotAName};
pub use origin::{ClientIdentity, PinnedCertificate, ServerTrust, client_config};
#[cfg(feature = "testing")]
pub use provider::provider;
#[cfg(feature = "testing")]
pub use roots::Roots;
pub use roots::{certificates, only, system};
pub use server::{Renewal, ServerTls, host_in};

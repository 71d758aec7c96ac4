//! The certificates that clients see instead of an origin's own: one per name, created on first use and cached. The
//! caller decides for which names.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hashlink::LruCache;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCertUsingSni};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio::sync::OnceCell;

use super::authority::Authority;
use super::name::{Name, NotAName};
use super::provider::provider;
use crate::mutex::lock;

/// How long before its expiry a certificate is replaced.
const RENEWED_BEFORE: Duration = Duration::from_secs(24 * 3600);
/// Server certificates signed by one CA, all with one key that is never stored.
pub struct Leaves {
    authority: Arc<Authority>,
    key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    /// The configuration without the certificate.
    template: ServerConfig,
    /// Clients choose the names, so the hasher is std's, which withstands chosen keys.
    cache: Mutex<LruCache<Name, LeafCell, RandomState>>,
    minted: AtomicU64,
}

/// Empty while a certificate is being created; concurrent requests wait for it.
type LeafCell = Arc<OnceCell<Leaf>>;

struct Leaf {
    config: Arc<ServerConfig>,
    /// When it may be used: not before its start, in case the clock was wrong, nor close to its expiry.
    fresh: Range<SystemTime>,
}

/// Why a certificate cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The name is invalid.
    #[error("cannot create a certificate: {0}")]
    NotAName(#[from] NotAName),
    /// The CA's name constraints do not permit the name.
    #[error(
        "the name constraints of the CA do not permit {0}; `tollpass ca renew` creates a CA that matches the configuration, which \
         clients must then trust"
    )]
    NotPermitted(Name),
    /// The CA has expired.
    #[error("the CA has expired; run `tollpass ca show`")]
    Expired,
    /// Signing failed.
    #[error("cannot create a certificate: {0}")]
    Signing(#[from] rcgen::Error),
    /// rustls rejected the certificate.
    #[error("cannot create a certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl Leaves {
    /// The ALPN protocols of our servers, in order of preference.
    pub const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

    /// Generates the key, with a cache for `capacity` certificates that evicts the least recently used.
    pub fn new(authority: Arc<Authority>, capacity: usize) -> Result<Self, LeafError> {
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialized_der()));
        let signing_key = any_ecdsa_type(&der)?;
        let cache = Mutex::new(LruCache::with_hasher(capacity.max(1), RandomState::new()));
        Ok(Self { authority, key, signing_key, template: template()?, cache, minted: AtomicU64::new(0) })
    }

    /// The configuration for a client that connects to `host`: a DNS name in any case, with or without a trailing dot,
    /// or an IP address without brackets. Concurrent calls for one name create one certificate.
    pub async fn config_for(&self, host: &str) -> Result<Arc<ServerConfig>, LeafError> {
        self.config_at(SystemTime::now(), host.parse()?).await
    }

    async fn config_at(&self, now: SystemTime, name: Name) -> Result<Arc<ServerConfig>, LeafError> {
        let slot = {
            let mut cache = lock(&self.cache);
            match cache.get(&name) {
                Some(slot) if slot.get().is_none_or(|leaf| leaf.fresh.contains(&now)) => Arc::clone(slot),
                _ => {
                    let slot = LeafCell::default();
                    cache.insert(name.clone(), Arc::clone(&slot));
                    slot
                }
            }
        };
        let leaf = slot.get_or_try_init(async || self.mint(&name, now)).await?;
        Ok(Arc::clone(&leaf.config))
    }

    /// The signing CA.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// How many certificates were created so far.
    #[cfg(feature = "testing")]
    pub fn minted(&self) -> u64 {
        self.minted.load(Ordering::Relaxed)
    }

    /// Takes well below a millisecond, so it need not run on another thread; a CA with an RSA key takes longer.
    fn mint(&self, name: &Name, now: SystemTime) -> Result<Leaf, LeafError> {
        if !self.authority.permits(name) {
            return Err(LeafError::NotPermitted(name.clone()));
        }
        if now >= self.authority.validity().end {
            return Err(LeafError::Expired);
        }
        let signed = self.authority.sign(name, &self.key, now)?;
        self.minted.fetch_add(1, Ordering::Relaxed);
        let certified = CertifiedKey::new(signed.chain, Arc::clone(&self.signing_key));
        let mut config = self.template.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        let left = signed.end.duration_since(now).unwrap_or_default();
        // If the CA expires first, halve the remaining time, so that the last day does not create one for each
        // connection.
        let fresh = signed.begin..signed.end - RENEWED_BEFORE.min(left / 2);
        Ok(Leaf { config: Arc::new(config), fresh })
    }
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = lock(&self.cache).len();
        f.debug_struct("Leaves")
            .field("authority", &self.authority)
            .field("held", &held)
            .finish_non_exhaustive()
    }
}

fn template() -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    config.alpn_protocols = Leaves::PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    // Clients resume by tickets, which take no memory here. Tickets contain the host, so all hosts can share one key.
    config.ticketer = Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[cfg(test)]
mod tests {
    use crate::tls::leaf::*;

    fn leaves(directory: &std::path::Path, capacity: usize) -> Leaves {
        Leaves::new(Arc::new(Authority::open(directory, &[]).unwrap()), capacity).unwrap()
    }

    #[tokio::test]
    async fn a_name_has_one_certificate_however_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let leaves = leaves(directory.path(), 10);
        let first = leaves.config_for("api.example.com").await.unwrap();
        for host in ["API.example.COM", "api.example.com."] {
            assert!(Arc::ptr_eq(&first, &leaves.config_for(host).await.unwrap()));
        }
        assert!(!Arc::ptr_eq(&first, &leaves.config_for("127.0.0.1").await.unwrap()));
        assert_eq!(leaves.minted(), 2);
        assert!(matches!(leaves.config_for("*.example.com").await, Err(LeafError::NotAName(_))));
    }

    #[tokio::test]
    async fn one_is_made_again_before_its_end_or_where_the_clock_went_back() {
        let directory = tempfile::tempdir().unwrap();
        let leaves = leaves(directory.path(), 10);
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        let name: Name = "api.example.com".parse().unwrap();
        let leaf = leaves.mint(&name, now).unwrap();
        for (time, is_fresh) in [
            (now, true),
            (now - day, true),
            (now - 3 * day, false),
            (now + 193 * day, true),
            (now + 195 * day, false),
        ] {
            assert_eq!(leaf.fresh.contains(&time), is_fresh);
        }
        let end = leaves.authority.validity().end;
        let last = leaves.mint(&name, end - day / 2).unwrap();
        assert!(last.fresh.contains(&(end - day / 3)) && !last.fresh.contains(&(end - day / 5)));
        assert!(matches!(leaves.mint(&name, end), Err(LeafError::Expired)));

        for (time, minted) in [(now, 3), (now + 193 * day, 3), (now + 196 * day, 4), (now, 5)] {
            leaves.config_at(time, name.clone()).await.unwrap();
            assert_eq!(leaves.minted(), minted);
        }
    }

    #[tokio::test]
    async fn a_full_cache_drops_the_least_recently_used_certificate() {
        let directory = tempfile::tempdir().unwrap();
        for (capacity, held, minted) in
            [(2, 2, ["a", "b", "c", "b"].as_slice()), (0, 1, &["a", "b", "a", "c", "a", "b"])]
        {
            let leaves = leaves(directory.path(), capacity);
            let mut made = Vec::new();
            for name in ["a", "b", "a", "c", "a", "b", "b"] {
                let before = leaves.minted();
                leaves.config_for(&format!("{name}.example.com")).await.unwrap();
                if leaves.minted() > before {
                    made.push(name);
                }
                assert!(leaves.cache.lock().unwrap().len() <= held);
            }
            assert_eq!(made, minted, "capacity {capacity}");
        }
    }
}

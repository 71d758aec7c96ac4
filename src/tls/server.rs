//! TLS on the proxy's own ports, with a certificate of the user that is loaded again when its files change.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::error::date;
use super::key_file::{LoadedPair, TlsFileError, load_pair, unreadable};
use super::provider::provider;
use super::roots;
use crate::mutex::lock;

/// The protocols that the proxy's own ports speak, with TLS or without.
const PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// TLS for the proxy's own ports. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    served: Arc<ServedCertificate>,
}

/// The certificate that clients see.
struct ServedCertificate {
    certificate: PathBuf,
    key: PathBuf,
    state: Mutex<ServedState>,
}

struct ServedState {
    certified: Arc<CertifiedKey>,
    validity: Range<SystemTime>,
    /// The files at the last attempt to load them.
    files: [Option<FileStamp>; 2],
    /// Whether that attempt has failed and is repeated once, because one of two files may have been written only.
    is_repeated: bool,
}

/// Changes whenever a file is written, replaced or given other permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The result of [`ServerTls::renew`].
#[derive(Debug)]
pub enum Renewal {
    /// The certificate is the same.
    Unchanged,
    /// There is another one.
    Renewed,
    /// The new files cannot be used; the earlier certificate stays. Reported once per change.
    Failed(TlsFileError),
}

impl ServerTls {
    /// Loads a certificate with intermediates, and its key, in PEM; the key must be unencrypted and private to this
    /// user. An expired certificate is loaded, too. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used, or the key belongs to another certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let files = [stamp(&certificate), stamp(&key)];
        let (certified, validity) = load(&certificate, &key)?;
        let state = ServedState { certified: Arc::new(certified), validity, files, is_repeated: false };
        let unusable = |error| TlsFileError::Unusable { path: certificate.clone(), error };
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(unusable)?.with_no_client_auth();
        // Clients resume by tickets, which take no memory here. Data before the handshake ends is not accepted: it could
        // be replayed.
        let (ticketer, storage) = (Ticketer::new().map_err(unusable)?, Arc::new(NoServerSessionStorage {}));
        let served = Arc::new(ServedCertificate { certificate, key, state: Mutex::new(state) });
        let mut config = builder.with_cert_resolver(Arc::<ServedCertificate>::clone(&served));
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        config.ticketer = ticketer;
        config.session_storage = storage;
        Ok(Self { config: Arc::new(config), served })
    }

    /// The configuration for a connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether the certificate is for this host, a name or an address without brackets.
    pub fn is_for(&self, host: &str) -> bool {
        let certified = lock(&self.served.state).certified.clone();
        is_for(&certified.cert, host)
    }

    /// Loads the files again if they have changed. Blocks on the disk.
    pub fn renew(&self) -> Renewal {
        let ServedCertificate { certificate, key, state } = &*self.served;
        let files = [stamp(certificate), stamp(key)];
        {
            let mut state = lock(state);
            if state.files == files && !state.is_repeated {
                return Renewal::Unchanged;
            }
            state.is_repeated = state.files != files;
            state.files = files;
        }
        let loaded = load(certificate, key);
        let mut state = lock(state);
        match loaded {
            Ok((certified, validity)) => {
                state.is_repeated = false;
                if certified.cert == state.certified.cert {
                    return Renewal::Unchanged;
                }
                (state.certified, state.validity) = (Arc::new(certified), validity);
                Renewal::Renewed
            }
            Err(_) if state.is_repeated => Renewal::Unchanged,
            Err(error) => Renewal::Failed(error),
        }
    }

    /// The file of the certificate, for display.
    pub fn path(&self) -> &Path {
        &self.served.certificate
    }

    /// The certificate for the user: its file, names and validity.
    pub fn description(&self) -> String {
        let state = lock(&self.served.state);
        let names = state.certified.cert.first().map(names_in).unwrap_or_default();
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
        format!("{}, for {names}, valid until {}", self.path().display(), date(state.validity.end))
    }

    /// Why clients reject the certificate at the time `now`, if they do.
    pub fn trouble(&self, now: SystemTime) -> Option<String> {
        let state = lock(&self.served.state);
        let path = self.path().display();
        if now > state.validity.end {
            return Some(format!(
                "clients reject the certificate {path}: it expired on {}; renew it",
                date(state.validity.end)
            ));
        }
        if now < state.validity.start {
            return Some(format!(
                "clients reject the certificate {path}: it is valid only from {}; is this machine's clock right?",
                date(state.validity.start)
            ));
        }
        let has_name = state.certified.cert.first().is_some_and(|first| !names_in(first).is_empty());
        (!has_name).then(|| {
            format!("clients reject the certificate {path}: it names no host (subjectAltName); create one that does")
        })
    }
}

/// The host by which clients on this machine can verify a proxy at `address` with this certificate: the address or, if
/// the certificate is not for it, the first host name in it. Blocks on the disk.
///
/// # Errors
/// The file does not contain a certificate.
pub fn host_in(certificate: &Path, address: IpAddr) -> Result<String, TlsFileError> {
    let chain = roots::certificates(certificate)?;
    if is_for(&chain, &address.to_string()) {
        return Ok(address.to_string());
    }
    let names = chain.first().map(names_in).unwrap_or_default();
    let name = names.into_iter().find(|name| !name.starts_with('*') && name.parse::<IpAddr>().is_err());
    Ok(name.unwrap_or_else(|| address.to_string()))
}

impl ResolvesServerCert for ServedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&lock(&self.state).certified))
    }
}

impl fmt::Debug for ServedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedCertificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Loads both files. Blocks on the disk.
fn load(certificate: &Path, key: &Path) -> Result<(CertifiedKey, Range<SystemTime>), TlsFileError> {
    let LoadedPair { certified, described } = load_pair(certificate, key)?;
    let first = certified.cert.first().ok_or_else(|| unreadable(certificate))?;
    let unusable = |error| TlsFileError::Unusable { path: certificate.to_owned(), error };
    // Clients would reject it.
    ParsedCertificate::try_from(first).map_err(unusable)?;
    Ok((certified, described.validity))
}

fn is_for(chain: &[CertificateDer<'_>], host: &str) -> bool {
    let Some(Ok(parsed)) = chain.first().map(ParsedCertificate::try_from) else { return false };
    ServerName::try_from(host).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
}

/// The names and addresses in a certificate.
fn names_in(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, read)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = read.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    });
    names.collect()
}

/// `None` if there is no such file.
fn stamp(path: &Path) -> Option<FileStamp> {
    let found = fs::metadata(path).ok()?;
    Some(FileStamp {
        device: found.dev(),
        inode: found.ino(),
        length: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn certificate(&self) -> PathBuf {
            self.directory.path().join("cert.pem")
        }

        fn key(&self) -> PathBuf {
            self.directory.path().join("key.pem")
        }

        /// A self-signed certificate and its key, PEM.
        fn made(names: &[&str], end: SystemTime) -> (String, String) {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = (end - 2 * DAY).into();
            params.not_after = end.into();
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        }

        fn write_key(&self, key: &str) {
            fs::write(self.key(), key).unwrap();
            fs::set_permissions(self.key(), fs::Permissions::from_mode(0o600)).unwrap();
        }

        fn write(&self, (certificate, key): &(String, String)) {
            fs::write(self.certificate(), certificate).unwrap();
            self.write_key(key);
        }

        fn load(&self) -> Result<ServerTls, TlsFileError> {
            ServerTls::load(&self.certificate(), &self.key())
        }
    }

    fn tomorrow() -> SystemTime {
        SystemTime::now() + DAY
    }

    #[test]
    fn a_new_pair_replaces_the_old_one_and_a_bad_one_does_not() {
        let files = Files::new();
        files.write(&Files::made(&["old.example"], tomorrow()));
        let tls = files.load().unwrap();
        assert!(tls.is_for("old.example"));
        assert!(matches!(tls.renew(), Renewal::Unchanged));

        // The certificate comes first, as with many tools: the pair is not complete yet.
        let (certificate, key) = Files::made(&["new.example"], tomorrow());
        fs::write(files.certificate(), &certificate).unwrap();
        assert!(matches!(tls.renew(), Renewal::Unchanged));
        assert!(tls.is_for("old.example"));
        files.write_key(&key);
        assert!(matches!(tls.renew(), Renewal::Renewed));
        assert!(tls.is_for("new.example") && !tls.is_for("old.example"));

        // What stays bad is reported once.
        fs::write(files.certificate(), "nothing").unwrap();
        assert!(matches!(tls.renew(), Renewal::Unchanged));
        let Renewal::Failed(error) = tls.renew() else { panic!("not reported") };
        assert!(error.to_string().contains("does not contain a PEM certificate"), "{error}");
        assert!(matches!(tls.renew(), Renewal::Unchanged));
        fs::remove_file(files.certificate()).unwrap();
        assert!(matches!(tls.renew(), Renewal::Unchanged));
        assert!(matches!(tls.renew(), Renewal::Failed(_)));
        assert!(tls.is_for("new.example"));

        // The same certificate is not news.
        fs::write(files.certificate(), &certificate).unwrap();
        assert!(matches!(tls.renew(), Renewal::Unchanged));

        // Permissions count as a change.
        fs::set_permissions(files.key(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(tls.renew(), Renewal::Unchanged));
        let Renewal::Failed(error) = tls.renew() else { panic!("not reported") };
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_certificate_that_clients_reject_is_told() {
        for (names, end, told) in [
            (&["a.example"][..], SystemTime::now() - DAY, "it expired on "),
            (&["a.example"], SystemTime::now() + 10 * DAY, "it is valid only from "),
            (&[], tomorrow(), "it names no host"),
            (&["a.example"], tomorrow(), ""),
        ] {
            let files = Files::new();
            files.write(&Files::made(names, end));
            let trouble = files.load().unwrap().trouble(SystemTime::now()).unwrap_or_default();
            assert!(if told.is_empty() { trouble.is_empty() } else { trouble.contains(told) }, "{trouble}");
        }
    }

    #[test]
    fn names_and_addresses_are_those_of_the_certificate() {
        let files = Files::new();
        files.write(&Files::made(&["*.a.example", "b.example", "192.0.2.1", "2001:db8::1"], tomorrow()));
        let tls = files.load().unwrap();
        for (host, expected) in [
            ("b.example", true),
            ("B.Example", true),
            ("x.a.example", true),
            ("a.example", false),
            ("x.y.a.example", false),
            ("evil.example", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8::1", true),
            ("", false),
        ] {
            assert_eq!(tls.is_for(host), expected, "{host}");
        }
        let described = tls.description();
        assert!(
            described.contains("for *.a.example, b.example, 192.0.2.1, 2001:db8::1, valid"),
            "{described}"
        );
        for (address, host) in
            [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("127.0.0.1", "b.example")]
        {
            assert_eq!(host_in(&files.certificate(), address.parse().unwrap()).unwrap(), host);
        }
        files.write(&Files::made(&["*.a.example"], tomorrow()));
        assert_eq!(host_in(&files.certificate(), IpAddr::from([127, 0, 0, 1])).unwrap(), "127.0.0.1");
    }
}

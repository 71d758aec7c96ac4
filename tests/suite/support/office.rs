//! Certificates for the proxy's own ports, and clients that speak TLS to it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

use super::secure::trusting;

/// A host name of the proxy.
pub const NAME: &str = "proxy.test";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A CA, and a directory with a certificate from it: `ca.pem`, `cert.pem` and `key.pem`.
pub struct Office {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Office {
    /// With a certificate for [`NAME`] and 127.0.0.1.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "An office");
        let key = KeyPair::generate().unwrap();
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let office = Self { directory, issuer: Issuer::new(params, key) };
        office.put(&office.issue(&[NAME, "127.0.0.1"]));
        office
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The certificate that clients of the proxy trust.
    pub fn ca_file(&self) -> PathBuf {
        self.at("ca.pem")
    }

    /// A certificate for these names until tomorrow.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, SystemTime::now() + DAY)
    }

    pub fn issue_until(&self, names: &[&str], end: SystemTime) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = ((end - 10 * DAY).into(), end.into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }

    /// Replaces certificate and key, each at once.
    pub fn put(&self, issued: &Issued) {
        self.write("key.pem", &issued.key, 0o600);
        self.write("cert.pem", &issued.certificate, 0o644);
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) {
        let new = self.at(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    /// The keys of the configuration for this certificate.
    pub fn keys(&self) -> String {
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| self.at(name));
        format!("tls_cert = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display())
    }

    /// The options of curl for a proxy at this address of 127.0.0.1.
    pub fn curl(&self, proxy: SocketAddr) -> Vec<String> {
        let ca = self.ca_file();
        vec![
            "--proxy".to_owned(),
            format!("https://{proxy}"),
            "--proxy-cacert".to_owned(),
            ca.display().to_string(),
        ]
    }

    /// Connects to a proxy whose certificate has expired, so that it fails.
    pub async fn connect_anyway(&self, proxy: SocketAddr) {
        let refused = connect(proxy, &self.ca_file(), NAME).await.unwrap_err();
        assert!(refused.to_string().contains("expired"), "{refused}");
    }

    /// Connects to the proxy.
    pub async fn connect(&self, proxy: SocketAddr) -> TlsStream<TcpStream> {
        connect(proxy, &self.ca_file(), NAME).await.unwrap()
    }
}

/// A TLS connection that trusts the certificates in `ca`.
pub async fn connect(proxy: SocketAddr, ca: &Path, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    trusting(ca, stream, name, &["http/1.1"]).await
}

/// A port without TLS that leads to a proxy with TLS, for clients that speak none.
pub struct Bridge {
    pub address: SocketAddr,
}

impl Bridge {
    /// Works while the runtime of the test lives.
    pub async fn to(proxy: SocketAddr, office: &Office) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ca = office.ca_file();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.set_nodelay(true).unwrap();
                let ca = ca.clone();
                tokio::spawn(async move {
                    let mut secure = connect(proxy, &ca, NAME).await.unwrap();
                    // The test checks the end at its own end.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut secure).await;
                });
            }
        });
        Self { address }
    }
}

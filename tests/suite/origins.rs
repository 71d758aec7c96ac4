//! `[[upstream.tls]]`: origins with a certificate or roots of their own, and origins that require client certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tollpass::devnet::origin;
use tollpass::protocol::Amount;
use tollpass::tls::provider;

use crate::pays::QUICK;
use crate::program::{run, text};
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE};
use crate::support::market::Market;
use crate::support::openssl::openssl;
use crate::support::payer::{Alice, Running};
use crate::support::raw::Raw;
use crate::support::secure::Secure;

const TLS_1_2: &[&SupportedProtocolVersion] = &[&version::TLS12];
const TLS_1_3: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A directory with `bob.pem` and `bob.key`, self-signed with openssl.
fn self_signed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"];
    openssl(directory.path(), &[&made[..], &["-keyout", "bob.key", "-out", "bob.pem"]].concat());
    directory
}

/// A directory with a CA (`ca.pem`), and `alice.pem` with `alice.key` signed by it, as in common how-tos.
fn client() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |arguments: &str| openssl(directory.path(), &arguments.split(' ').collect::<Vec<_>>());
    at("req -x509 -newkey rsa:2048 -nodes -subj /CN=Clients -days 2 -keyout ca.key -out ca.pem");
    at("req -new -newkey rsa:2048 -nodes -subj /CN=alice -keyout alice.key -out alice.csr");
    fs::write(directory.path().join("ext"), "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
        .unwrap();
    at(
        "x509 -req -in alice.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out alice.pem",
    );
    private(&directory.path().join("alice.key"));
    directory
}

fn private(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A server with the certificate in `bob`; with a CA of clients, it requires or requests client certificates.
fn server(
    bob: &Path,
    clients: Option<(&Path, bool)>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((ca, must)) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
            let verifier = if must { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_file(bob.join("bob.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(bob.join("bob.key")).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// Responds with whether it knows the client.
async fn greeter(config: Arc<ServerConfig>) -> Secure {
    Secure::accept(config, |mut stream: TlsStream<TcpStream>| async move {
        let is_known = stream.get_ref().1.peer_certificates().is_some();
        let said = if is_known { "I know you" } else { "who are you" };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let length = said.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{said}");
        // The client may have disconnected.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

async fn alice(market: &Market, upstream: &str) -> (Alice, Running) {
    let alice = Alice::with(market, &format!("{QUICK}{upstream}")).await;
    let proxy = alice.start().await;
    (alice, proxy)
}

/// The response to a plain request with an `https` target at a port of this machine.
async fn asked(proxy: &Running, bob: &Secure) -> String {
    let request = format!("GET https://{0}/ HTTP/1.1\r\nHost: {0}\r\nConnection: close\r\n\r\n", bob.address);
    let got = Raw::asking(proxy.address, request).await.rest().await;
    String::from_utf8(got).unwrap()
}

fn entry(port: u16, keys: &[(&str, &Path)]) -> String {
    let keys: String = keys.iter().map(|(key, path)| format!("{key} = \"{}\"\n", path.display())).collect();
    format!("[[upstream.tls]]\nhost = \"127.0.0.1\"\nport = {port}\n{keys}")
}

#[tokio::test]
async fn exactly_the_certificate_that_is_named_is_accepted() {
    let market = Market::open().await;
    let (bob, mallory) = (self_signed(), self_signed());
    for versions in [TLS_1_2, TLS_1_3] {
        let named = greeter(server(bob.path(), None, versions)).await;
        let other = greeter(server(mallory.path(), None, versions)).await;
        let unnamed = greeter(server(bob.path(), None, versions)).await;
        let rooted = greeter(server(bob.path(), None, versions)).await;
        let certificate = bob.path().join("bob.pem");
        let upstream =
            [&named, &other].map(|bob| entry(bob.address.port(), &[("certificate", &certificate)]));
        let as_root = entry(rooted.address.port(), &[("ca_file", &certificate)]);
        let (_alice, proxy) = alice(&market, &(upstream.concat() + &as_root)).await;
        let got = asked(&proxy, &named).await;
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("who are you"), "{got}");
        let got = asked(&proxy, &other).await;
        assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("tls_certificate_error"), "{got}");
        assert!(got.contains("not the certificate pinned in upstream.tls"), "{got}");
        // It applies to this origin only, and a root of that name would be unchanged.
        let got = asked(&proxy, &unnamed).await;
        assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("CaUsedAsEndEntity"), "{got}");
        let got = asked(&proxy, &rooted).await;
        assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("name it with certificate in"), "{got}");
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_named_counts_only_while_it_is_valid_and_its_key_is_there() {
    let market = Market::open().await;
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("bob.pem"), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let write = |params: &CertificateParams| {
        fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(directory.path().join("bob.key"), key.serialize_pem()).unwrap();
    };
    for (from, to, said) in
        [(2020, 2021, "expired"), (2090, 2091, "not valid yet"), (2020, 2091, "who are you")]
    {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        write(&params);
        let bob = greeter(server(directory.path(), None, TLS_1_3)).await;
        let upstream = entry(bob.address.port(), &[("certificate", &certificate)]);
        let (alice, proxy) = alice(&market, &upstream).await;
        let got = asked(&proxy, &bob).await;
        assert!(got.contains(said), "{got}");
        assert_eq!(got.starts_with("HTTP/1.1 502 "), said != "who are you", "{got}");
        proxy.stop().await;
        let checked = run(&["check", "--config", text(&alice.config_path())]).await;
        assert_eq!(checked.out.contains("FAIL   tls"), said != "who are you", "{checked:?}");
    }
    // The certificate proves nothing without its key.
    let theirs = KeyPair::generate().unwrap();
    let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
    let theirs =
        provider().key_provider.load_private_key(theirs.serialize_der().try_into().unwrap()).unwrap();
    let shown = Arc::new(CertifiedKey::new(chain, theirs));
    for versions in [TLS_1_2, TLS_1_3] {
        let config =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let shows = Arc::new(Shows(Arc::clone(&shown)));
        let mallory = greeter(Arc::new(config.with_no_client_auth().with_cert_resolver(shows))).await;
        let upstream = entry(mallory.address.port(), &[("certificate", &certificate)]);
        let (_alice, proxy) = alice(&market, &upstream).await;
        let got = asked(&proxy, &mallory).await;
        assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("BadSignature"), "{got}");
        proxy.stop().await;
    }
}

/// Presents a certificate with a key that may belong to another one.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn our_certificate_is_shown_to_the_origin_that_it_is_for_and_to_no_other() {
    let market = Market::open().await;
    let (bob, clients) = (self_signed(), client());
    let (certificate, ca) = (bob.path().join("bob.pem"), clients.path().join("ca.pem"));
    let identity = ["alice.pem", "alice.key"].map(|name| clients.path().join(name));
    for versions in [TLS_1_2, TLS_1_3] {
        let strict = greeter(server(bob.path(), Some((&ca, true)), versions)).await;
        let curious = greeter(server(bob.path(), Some((&ca, false)), versions)).await;
        let forbidding = greeter(server(bob.path(), Some((&ca, true)), versions)).await;
        let proof = ("certificate", certificate.as_path());
        // Over HTTP/2, the origin's alert arrives in other words.
        let mut config = ServerConfig::clone(&server(bob.path(), Some((&ca, true)), versions));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let forbidding_over_http_2 = greeter(Arc::new(config)).await;
        let known = [proof, ("client_cert", &identity[0]), ("client_key", &identity[1])];
        let upstream = entry(strict.address.port(), &known)
            + &entry(curious.address.port(), &[proof])
            + &entry(forbidding.address.port(), &[proof])
            + &entry(forbidding_over_http_2.address.port(), &[proof]);
        let (alice, proxy) = alice(&market, &upstream).await;
        let forth = [(&strict, "I know you"), (&curious, "who are you"), (&strict, "I know you")];
        for (bob, said) in forth {
            let got = asked(&proxy, bob).await;
            assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with(said), "{got}");
        }
        for bob in [&forbidding, &forbidding_over_http_2] {
            let got = asked(&proxy, bob).await;
            assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("client_cert"), "{got}");
        }
        // The same through an intercepted tunnel.
        let ca = alice.state_dir().join("ca.pem");
        for (bob, said) in forth {
            let url = format!("https://{}/", bob.address);
            let fetched = curl(Some(proxy.address), &["--cacert", text(&ca), &url]).await;
            assert_eq!(fetched.got.text(), said, "{fetched:?}");
        }
        proxy.stop().await;
    }
}

#[tokio::test]
async fn a_seller_that_wants_a_certificate_of_the_client_is_paid_on_every_way() {
    let (bob, clients) = (self_signed(), client());
    let ca = clients.path().join("ca.pem");
    for versions in [TLS_1_2, TLS_1_3] {
        let config = server(bob.path(), Some((&ca, true)), versions);
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let url = fair.origin.secure_url().unwrap() + "/paid";
        let port = url.parse::<http::Uri>().unwrap().port_u16().unwrap();
        let (certificate, identity) =
            (bob.path().join("bob.pem"), ["alice.pem", "alice.key"].map(|name| clients.path().join(name)));
        let keys = [
            ("certificate", certificate.as_path()),
            ("client_cert", &identity[0]),
            ("client_key", &identity[1]),
        ];
        let upstream = format!("{}[upstream]\nupgrade = [\"127.0.0.1\"]\n", entry(port, &keys));
        let (alice, proxy) = alice(&fair.market, &upstream).await;
        let ca = alice.state_dir().join("ca.pem");
        let fetched = curl(Some(proxy.address), &["--cacert", text(&ca), &url]).await;
        assert_eq!(fetched.got.status, StatusCode::OK, "{fetched:?}");
        let plain = url.replace("https://", "http://");
        let fetched = curl(Some(proxy.address), &[&plain]).await;
        assert_eq!(fetched.got.status, StatusCode::OK, "{fetched:?}");
        assert_eq!(proxy.promised().await, Amount::from(2 * PRICE));
        proxy.stop().await;
        fair.origin.stop().await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_all_named_before_anything_is_served() {
    let market = Market::open().await;
    let (bob, clients) = (self_signed(), client());
    let at = |name: &str| clients.path().join(name);
    fs::write(at("two.pem"), fs::read_to_string(at("ca.pem")).unwrap().repeat(2)).unwrap();
    fs::write(at("none.pem"), "no certificate\n").unwrap();
    fs::write(at("none.key"), "no key\n").unwrap();
    fs::copy(at("alice.key"), at("open.key")).unwrap();
    fs::set_permissions(at("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    openssl(
        clients.path(),
        &["pkey", "-in", "alice.key", "-aes128", "-passout", "pass:x", "-out", "new.key"],
    );
    openssl(
        clients.path(),
        &["rsa", "-in", "alice.key", "-traditional", "-aes128", "-passout", "pass:x", "-out", "old.key"],
    );
    fs::copy(bob.path().join("bob.key"), at("other.key")).unwrap();
    ["none.key", "new.key", "old.key", "other.key"].iter().for_each(|name| private(&at(name)));
    let (pem, mine) = (at("alice.pem"), at("alice.key"));
    let shown = |key: &str| entry(1, &[("client_cert", &pem), ("client_key", &at(key))]);
    let upstream = [
        entry(1, &[("ca_file", &at("missing.pem"))]),
        entry(1, &[("certificate", &at("none.pem"))]),
        entry(1, &[("certificate", &at("two.pem"))]),
        entry(1, &[("client_cert", &at("none.pem")), ("client_key", &mine)]),
        shown("open.key"),
        shown("new.key"),
        shown("old.key"),
        shown("none.key"),
        shown("other.key"),
        shown("missing.key"),
    ];
    let alice = Alice::with(&market, &upstream.concat()).await;
    let expected = [
        ("upstream.tls[0].ca_file: ", "missing.pem"),
        ("upstream.tls[1].certificate: ", "none.pem does not contain a PEM certificate"),
        ("upstream.tls[2].certificate: ", "two.pem contains 2 certificates"),
        ("upstream.tls[3].client_cert: ", "none.pem does not contain a PEM certificate"),
        ("upstream.tls[4].client_key: ", "open.key is readable by other users"),
        ("upstream.tls[5].client_key: ", "is encrypted"),
        ("upstream.tls[6].client_key: ", "is encrypted"),
        ("upstream.tls[7].client_key: ", "none.key does not contain a PEM private key"),
        ("upstream.tls[8].client_key: ", "does not belong to the certificate in"),
        ("upstream.tls[9].client_key: ", "missing.key"),
    ];
    for command in ["serve", "check"] {
        let ran = run(&[command, "--config", text(&alice.config_path())]).await;
        assert_ne!(ran.code, 0, "{ran:?}");
        for (key, said) in expected {
            let said_of_it = |line: &str| line.contains(key) && line.contains(said);
            let found = ran.out.lines().chain(ran.errors.lines()).any(said_of_it);
            assert!(found, "{command}: no {key}{said} in {ran:?}");
        }
    }
}

//! The local CA and the certificates it signs, checked with real TLS clients and openssl; and the user's own CA.

mod given;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use tollpass::tls::{Authority, Leaves, Name, pem};

use crate::support::handshake::{Greeter, client};
use crate::support::openssl::{openssl, try_openssl};

/// More than any test here needs.
const ROOM: usize = 1024;

fn made(directory: &Path, permitted: &[&str]) -> Arc<Authority> {
    let permitted: Vec<Name> = permitted.iter().map(|name| name.parse().unwrap()).collect();
    Arc::new(Authority::open(directory, &permitted).unwrap())
}

async fn greeter(authority: &Arc<Authority>) -> Greeter {
    Greeter::start(Leaves::new(Arc::clone(authority), ROOM).unwrap(), "127.0.0.1").await
}

/// Whether openssl accepts a chain for a name or an address, with `ca.pem` in the directory as root.
fn verifies(directory: &Path, certificates: &[CertificateDer<'static>], name: &str) -> bool {
    std::fs::write(directory.join("leaf.pem"), pem(&certificates[0])).unwrap();
    let option = if name.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
    let mut arguments =
        vec!["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", option, name];
    if certificates.len() > 1 {
        std::fs::write(
            directory.join("between.pem"),
            certificates[1..].iter().map(|one| pem(one)).collect::<String>(),
        )
        .unwrap();
        arguments.extend(["-untrusted", "between.pem"]);
    }
    arguments.push("leaf.pem");
    let (is_good, said) = try_openssl(directory, &arguments);
    assert!(is_good || said.contains("verification failed"), "{said}");
    is_good
}

#[tokio::test]
async fn only_clients_that_trust_the_ca_connect_by_name_or_address() {
    let directory = tempfile::tempdir().unwrap();
    let authority = made(directory.path(), &[]);
    let greeter = greeter(&authority).await;
    let trusted = [authority.certificate().clone()];
    for name in ["api.example.com", "API.Example.com", "localhost", "a_b.example", "127.0.0.1"] {
        let met = greeter.meet(&trusted, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(met.protocol.as_deref(), Some(&b"h2"[..]));
        assert_eq!(met.certificates.len(), 1, "the root itself is not sent");
        assert!(verifies(directory.path(), &met.certificates, name), "{name}");
        assert!(!verifies(directory.path(), &met.certificates, "other.example.com"));
    }
    // Without SNI the name is 127.0.0.1, which this client does not expect.
    let error = greeter.meet(&trusted, "127.0.0.2").await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let other = made(tempfile::tempdir().unwrap().path(), &[]);
    let error = greeter.meet(&[other.certificate().clone()], "api.example.com").await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(greeter.leaves.minted(), 4);
}

#[tokio::test]
async fn an_address_of_version_6_is_a_name_too() {
    let directory = tempfile::tempdir().unwrap();
    let authority = made(directory.path(), &[]);
    let greeter = Greeter::start(Leaves::new(Arc::clone(&authority), ROOM).unwrap(), "::1").await;
    let met = greeter.meet(&[authority.certificate().clone()], "::1").await.unwrap();
    assert!(verifies(directory.path(), &met.certificates, "::1"));
}

#[tokio::test]
async fn certificates_have_the_extensions_that_clients_require() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let authority = made(directory, &[]);
    let ca = openssl(directory, &["x509", "-in", "ca.pem", "-noout", "-text"]);
    for words in [
        "ASN1 OID: prime256v1",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(ca.contains(words), "no {words:?} in {ca}");
    }
    assert!(!ca.contains("Name Constraints"), "{ca}");
    // openssl reads the key file, too.
    openssl(directory, &["pkey", "-in", "ca-key.pem", "-noout"]);

    let greeter = greeter(&authority).await;
    let long = format!("{}.example.com", "a".repeat(60));
    let mut serials = Vec::new();
    for (name, subject, alternative) in [
        ("api.example.com", "CN = api.example.com", "DNS:api.example.com"),
        (&long, "O = tollpass", &format!("DNS:{long}")),
        ("127.0.0.1", "O = tollpass", "IP Address:127.0.0.1"),
    ] {
        let met = greeter.meet(&[authority.certificate().clone()], name).await.unwrap();
        assert!(verifies(directory, &met.certificates, name));
        let leaf = openssl(directory, &["x509", "-in", "leaf.pem", "-noout", "-text"]);
        for words in [
            subject,
            alternative,
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Key Usage: critical\n                Digital Signature",
            "TLS Web Server Authentication",
            "X509v3 Subject Key Identifier",
        ] {
            assert!(leaf.contains(words), "no {words:?} in {leaf}");
        }
        let identifier = |text: &str, extension: &str| {
            let rest = text.split(extension).nth(1).unwrap();
            rest.lines().nth(1).unwrap().trim().trim_start_matches("keyid:").to_owned()
        };
        assert_eq!(
            identifier(&leaf, "Authority Key Identifier:"),
            identifier(&ca, "Subject Key Identifier:"),
            "{leaf}"
        );
        serials.push(openssl(directory, &["x509", "-in", "leaf.pem", "-noout", "-serial"]));
        lasts_at_most_197_days(directory);
    }
    assert!(serials.iter().all(|serial| serial.trim().len() <= "serial=".len() + 40), "{serials:?}");
    serials.dedup();
    assert_eq!(serials.len(), 3);
}

fn lasts_at_most_197_days(directory: &Path) {
    let (_, leaf) =
        x509_parser::pem::parse_x509_pem(&std::fs::read(directory.join("leaf.pem")).unwrap()).unwrap();
    let leaf = leaf.parse_x509().unwrap();
    let (begin, end) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    // Both ends count: one second less.
    assert!(end - begin < 197 * 24 * 3600, "{}", end - begin);
    assert!(begin <= now - 24 * 3600, "a client's clock may be a day behind");
    assert!(end >= now + 190 * 24 * 3600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_at_once_are_served_with_one_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = made(directory.path(), &[]);
    let leaves = Arc::new(Leaves::new(authority, ROOM).unwrap());
    let start = Arc::new(tokio::sync::Barrier::new(64));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (leaves, start) = (Arc::clone(&leaves), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                leaves.config_for("api.example.com").await.unwrap()
            })
        })
        .collect();
    let mut configs = Vec::new();
    for task in tasks {
        configs.push(task.await.unwrap());
    }
    assert!(configs.iter().all(|config| Arc::ptr_eq(config, &configs[0])));
    assert_eq!(leaves.minted(), 1);
}

#[tokio::test]
async fn a_certificate_is_made_in_less_than_4_ms() {
    let directory = tempfile::tempdir().unwrap();
    let leaves = Leaves::new(made(directory.path(), &[]), ROOM).unwrap();
    let begun = Instant::now();
    for turn in 0..100 {
        leaves.config_for(&format!("{turn}.example.com")).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(leaves.minted(), 100);
}

#[tokio::test]
async fn a_client_that_comes_again_resumes_its_session() {
    let directory = tempfile::tempdir().unwrap();
    let authority = made(directory.path(), &[]);
    let greeter = greeter(&authority).await;
    let client = client(&[authority.certificate().clone()]);
    for (name, kind) in [
        ("a.example", HandshakeKind::Full),
        ("a.example", HandshakeKind::Resumed),
        ("b.example", HandshakeKind::Full),
    ] {
        let met = greeter.meet_as(&client, name).await.unwrap();
        assert!(
            met.kind == Some(kind) || met.kind == Some(HandshakeKind::FullWithHelloRetryRequest),
            "{name} {met:?}"
        );
    }
}

#[tokio::test]
async fn name_constraints_hold_for_clients_and_are_announced() {
    for (permitted, name, others) in [
        (["example.com", "127.0.0.1"].as_slice(), "api.example.com", ["example.org", "127.0.0.2"]),
        (&["example.com", "127.0.0.1"], "127.0.0.1", ["com", "::1"]),
        (&["127.0.0.1"], "127.0.0.1", ["localhost", "::1"]),
        (&["example.com"], "example.com", ["127.0.0.1", "::1"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let authority = made(directory.path(), permitted);
        let greeter = greeter(&authority).await;
        let met = greeter.meet(&[authority.certificate().clone()], name).await.unwrap();
        assert!(verifies(directory.path(), &met.certificates, name), "{permitted:?} {name}");
        let said = openssl(directory.path(), &["x509", "-in", "ca.pem", "-noout", "-text"]);
        assert!(said.contains("X509v3 Name Constraints: critical"), "{said}");
        for other in others {
            let error = greeter.leaves.config_for(other).await.unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("tollpass ca renew"), "{error}");
        }
    }
}

//! The files of the certificate: every kind of key, and what cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tollpass::tls::ServerTls;

use crate::program::{Ran, run, text};
use crate::support::office::{NAME, Office};
use crate::support::openssl::openssl;
use crate::support::payer::{Program, program};
use crate::support::secure::trusting;

#[tokio::test]
async fn every_kind_of_key_that_openssl_makes_serves() {
    for key in [
        // PKCS #8.
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"][..],
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"],
        &["genpkey", "-algorithm", "ED25519", "-out", "key.pem"],
        // SEC 1, preceded by the parameters, and without them.
        &["ecparam", "-name", "prime256v1", "-genkey", "-out", "key.pem"],
        &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem"],
        // PKCS #1.
        &["genrsa", "-traditional", "-out", "key.pem", "2048"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let make = |arguments: &[&str]| openssl(directory.path(), arguments);
        make(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca-key.pem",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=CA",
        ]);
        make(key);
        make(&["req", "-new", "-key", "key.pem", "-subj", "/CN=proxy", "-out", "request.pem"]);
        fs::write(at("names"), format!("subjectAltName=DNS:{NAME}\n")).unwrap();
        make(&[
            "x509",
            "-req",
            "-in",
            "request.pem",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca-key.pem",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            "own.pem",
        ]);
        // The chain: its own certificate first.
        let chain = ["own.pem", "ca.pem"].map(|name| fs::read_to_string(at(name)).unwrap()).concat();
        fs::write(at("cert.pem"), chain).unwrap();
        fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        let tls = ServerTls::load(&at("cert.pem"), &at("key.pem"))
            .unwrap_or_else(|error| panic!("{key:?}: {error}"));
        let (client, server) = tokio::io::duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(tls.config());
        let ca = at("ca.pem");
        let (client, server) = tokio::join!(trusting(&ca, client, NAME, &[]), acceptor.accept(server));
        let client = client.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        assert_eq!(client.get_ref().1.peer_certificates().unwrap().len(), 2, "{key:?}");
        server.unwrap();
    }
}

/// A configuration without a wallet, with these top keys.
fn configured(office: &Office, keys: &str) -> String {
    let path = office.at("proxy.toml");
    fs::write(
        &path,
        format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{keys}[intercept]\nhosts = []\n"),
    )
    .unwrap();
    text(&path).to_owned()
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_the_remedy() {
    let office = Office::new();
    let (good, other) = (office.issue(&[NAME]), office.issue(&[NAME]));
    let encrypted = {
        office.write("plain.pem", &good.key, 0o600);
        openssl(
            office.ca_file().parent().unwrap(),
            &["pkey", "-in", "plain.pem", "-aes256", "-passout", "pass:x", "-out", "encrypted.pem"],
        );
        fs::read_to_string(office.at("encrypted.pem")).unwrap()
    };
    let whole = format!("{}{}", good.certificate, good.key);
    for (certificate, key, mode, problem, remedy) in [
        (None, Some(&good.key), 0o600, "tls_cert: ", "cert.pem: No such file or directory"),
        (Some(&good.certificate), None, 0o600, "tls_key: ", "key.pem: No such file or directory"),
        (Some(&good.certificate), Some(&good.key), 0o644, "tls_key: ", "run: chmod 600 "),
        (Some(&good.certificate), Some(&good.key), 0o640, "tls_key: ", "run: chmod 600 "),
        (
            Some(&good.certificate),
            Some(&other.key),
            0o600,
            "tls_key: ",
            "does not belong to the certificate in ",
        ),
        (Some(&good.certificate), Some(&encrypted), 0o600, "tls_key: ", "is encrypted; `openssl pkey "),
        (
            Some(&good.certificate),
            Some(&good.certificate),
            0o600,
            "tls_key: ",
            "does not contain a PEM private key",
        ),
        (Some(&good.key), Some(&good.key), 0o600, "tls_cert: ", "does not contain a PEM certificate"),
        (Some(&good.certificate), Some(&good.key), 0o600, "", ""),
        // One file with both.
        (Some(&whole), Some(&whole), 0o600, "", ""),
    ] {
        for (name, text, mode) in [("cert.pem", certificate, 0o644), ("key.pem", key, mode)] {
            match text {
                Some(text) => office.write(name, text, mode),
                None => fs::remove_file(office.at(name)).unwrap(),
            }
        }
        let path = configured(&office, &office.keys());
        let ran: Ran = run(&["check", "--config", &path]).await;
        if problem.is_empty() {
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(
                ran.out.contains("ok     tls       ")
                    && ran.out.contains(&format!("for {NAME}, valid until 20")),
                "{ran:?}"
            );
            assert!(ran.out.contains("127.0.0.1:0 with TLS"), "{ran:?}");
            continue;
        }
        ran.expect_failure(&[&format!("FAIL   tls       {problem}"), remedy]);
        assert_eq!(ran.code, 1, "{ran:?}");
        let ran = run(&["serve", "--config", &path]).await;
        ran.expect_failure(&[problem, remedy, " -> name "]);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(!format!("{ran:?}").contains(&good.key[40..60]), "{ran:?}");
    }
    for (keys, lacks) in
        [("tls_cert = \"x\"\n", "tls_key: missing"), ("tls_key = \"x\"\n", "tls_cert: missing")]
    {
        run(&["serve", "--config", &configured(&office, keys)])
            .await
            .expect_failure(&[lacks, "each needs the other"]);
    }
}

#[tokio::test]
async fn an_expired_certificate_is_a_warning() {
    let office = Office::new();
    office.put(&office.issue_until(&[NAME], SystemTime::now() - Duration::from_secs(3600)));
    let path = configured(&office, &office.keys());
    let ran = run(&["check", "--config", &path]).await;
    let told = "clients reject the certificate ";
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains(&format!("note   tls       {told}")) && ran.out.contains("it expired on 20"),
        "{ran:?}"
    );
    let mut command = program(["serve", "--config"]);
    command.arg(&path);
    let proxy = Program::start(command).await;
    office.connect_anyway(proxy.address).await;
    proxy.terminate();
    let (status, log) = proxy.ended().await;
    assert!(status.success(), "{log}");
    assert!(log.contains(told) && log.contains("it expired on 20"), "{log}");
}

//! The user's own CA, created with openssl: every type of key, and the errors for unusable pairs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tollpass::tls::Authority;

use super::{greeter, verifies};
use crate::support::openssl::openssl;

/// A directory with a CA: `ca.pem`, and `key.pem` made by these arguments.
fn ca(key: &[&str], subject: &str, more: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    openssl(directory.path(), key);
    certify(directory.path(), subject, more);
    directory
}

/// Creates `ca.pem` for `key.pem`, and makes the key private.
fn certify(directory: &Path, subject: &str, more: &[&str]) {
    private(&directory.join("key.pem"), 0o600);
    let request = ["req", "-x509", "-new", "-key", "key.pem", "-out", "ca.pem", "-subj", subject];
    openssl(directory, &[&request[..], more].concat());
}

fn load(directory: &Path) -> Result<Authority, String> {
    Authority::load(&directory.join("ca.pem"), &directory.join("key.pem")).map_err(|error| error.to_string())
}

fn private(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const P256: [&str; 7] =
    ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem"];

/// Extensions that strict clients require of a CA, and that openssl omits by default.
const USAGE: [&str; 2] = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];

#[tokio::test]
async fn every_kind_of_key_that_openssl_makes_signs() {
    for key in [
        P256.as_slice(),
        // SEC 1, preceded by the parameters.
        &["ecparam", "-name", "prime256v1", "-genkey", "-out", "key.pem"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key.pem"],
        &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem"],
        &["genrsa", "-out", "key.pem", "2048"],
        // PKCS #1.
        &["genrsa", "-traditional", "-out", "key.pem", "2048"],
        &["genpkey", "-algorithm", "ED25519", "-out", "key.pem"],
    ] {
        let directory =
            ca(key, "/C=DE/O=Bücher & Co/OU=Test/CN=My own CA", &[&["-utf8"], &USAGE[..]].concat());
        let authority = Arc::new(load(directory.path()).unwrap_or_else(|error| panic!("{key:?}: {error}")));
        assert!(!authority.is_ours() && !authority.is_new());
        assert_eq!(authority.common_name(), "My own CA");
        let greeter = greeter(&authority).await;
        let met = greeter.meet(&[authority.certificate().clone()], "api.example.com").await.unwrap();
        assert!(verifies(directory.path(), &met.certificates, "api.example.com"), "{key:?}");
    }
}

#[tokio::test]
async fn a_ca_below_a_root_sends_the_certificates_between() {
    let directory = ca(&P256, "/CN=Root", &USAGE);
    let path = directory.path();
    let below = tempfile::tempdir().unwrap();
    openssl(below.path(), &P256);
    private(&below.path().join("key.pem"), 0o600);
    let key = below.path().join("key.pem");
    openssl(
        path,
        &["req", "-new", "-key", key.to_str().unwrap(), "-subj", "/CN=Below", "-out", "request.pem"],
    );
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    fs::write(path.join("extensions"), extensions).unwrap();
    let sign =
        ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "key.pem", "-CAcreateserial"];
    openssl(path, &[&sign[..], &["-extfile", "extensions", "-out", "below.pem"]].concat());
    fs::copy(path.join("below.pem"), below.path().join("ca.pem")).unwrap();

    let authority = Arc::new(load(below.path()).unwrap());
    let greeter = greeter(&authority).await;
    let root = CertificateDer::from_pem_file(path.join("ca.pem")).unwrap();
    let met = greeter.meet(&[root], "api.example.com").await.unwrap();
    assert_eq!(met.certificates.len(), 2);
    assert!(verifies(path, &met.certificates, "api.example.com"));
}

#[test]
fn a_pair_that_cannot_sign_is_refused_with_the_reason() {
    let refused = |directory: &Path, words: &[&str]| {
        let error = load(directory).unwrap_err();
        assert!(words.iter().all(|words| error.contains(words)), "{words:?}: {error}");
    };
    let no_ca = ca(&P256, "/CN=x", &["-addext", "basicConstraints=critical,CA:FALSE"]);
    refused(no_ca.path(), &["ca.pem", "lacks basicConstraints CA:TRUE", "CA:TRUE"]);
    let no_sign = ca(&P256, "/CN=x", &["-addext", "keyUsage=critical,digitalSignature"]);
    refused(no_sign.path(), &["keyCertSign"]);
    let curve = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", "key.pem"];
    refused(ca(&curve, "/CN=x", &[]).path(), &["P-256 or P-384"]);
    let twice = ca(&P256, "/DC=com/DC=example/CN=x", &[]);
    refused(twice.path(), &["subject of", "simple subject"]);

    let directory = ca(&P256, "/CN=x", &[]);
    let key = directory.path().join("key.pem");
    load(directory.path()).unwrap();
    private(&key, 0o640);
    refused(directory.path(), &["chmod 600"]);
    private(&key, 0o600);
    openssl(
        directory.path(),
        &["pkey", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem"],
    );
    fs::rename(directory.path().join("locked.pem"), &key).unwrap();
    private(&key, 0o600);
    refused(directory.path(), &["unencrypted", "openssl pkey"]);
    openssl(directory.path(), &P256);
    private(&key, 0o600);
    refused(directory.path(), &["does not belong to"]);
    for text in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(directory.path().join("ca.pem"), text).unwrap();
        refused(directory.path(), &["does not contain a PEM certificate", "ca.pem"]);
    }
    fs::remove_file(directory.path().join("ca.pem")).unwrap();
    refused(directory.path(), &["No such file", "ca.pem"]);
}

#[test]
fn one_whose_time_is_over_or_has_not_come_is_opened_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    for (from, until, words) in [(2001, 2002, "expired on 2002-01-01"), (4000, 4001, "clock")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        private(&directory.path().join("key.pem"), 0o600);
        let authority = load(directory.path()).unwrap();
        let error = authority.check_time(SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(authority.warnings(&[], SystemTime::now())[0], error);
        assert!(authority.check_time(authority.validity().start).is_ok());
    }
    // For a CA that tollpass created, the error says how to renew it.
    let made = tempfile::tempdir().unwrap();
    let whole = format!(
        "{}{}",
        fs::read_to_string(directory.path().join("key.pem")).unwrap(),
        fs::read_to_string(directory.path().join("ca.pem")).unwrap()
    );
    fs::write(made.path().join("ca-key.pem"), whole).unwrap();
    private(&made.path().join("ca-key.pem"), 0o600);
    let error = Authority::open(made.path(), &[]).unwrap().check_time(SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("clock"), "{error}");
    assert!(Authority::renew(made.path(), &[]).is_ok_and(|authority| authority.is_new()));
}

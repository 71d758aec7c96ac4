//! `tollpass ca`: show, export, renew, trust.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::{Ran, run, run_with, text};
use crate::support::openssl::openssl;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn ca(directory: &Path, arguments: &[&str]) -> Ran {
    run(&[&["ca", "--state-dir", text(directory)], arguments].concat()).await
}

/// The value of a line of `ca show`.
fn value<'a>(shown: &'a str, what: &str) -> &'a str {
    let line = shown.lines().find_map(|line| line.strip_prefix(what));
    line.unwrap_or_else(|| panic!("no {what} in {shown}")).trim()
}

#[tokio::test]
async fn the_ca_is_created_on_first_use_and_shown_as_openssl_sees_it() {
    let home = directory();
    let state = home.path().join("state");
    let first = ca(&state, &[]).await;
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.errors.contains("created a new CA: ") && first.errors.contains("ca.pem"), "{first:?}");
    let again = ca(&state, &["show"]).await;
    assert_eq!((again.code, &again.out, again.errors.as_str()), (0, &first.out, ""));
    let said = openssl(&state, &["x509", "-in", "ca.pem", "-noout", "-fingerprint", "-sha256", "-enddate"]);
    let fingerprint = value(&first.out, "fingerprint").strip_prefix("SHA-256 ").unwrap();
    assert!(said.contains(fingerprint), "{said} {}", first.out);
    let year = value(&first.out, "valid").split(" to ").nth(1).unwrap().get(..4).unwrap();
    assert!(said.contains(year), "{said}");
    assert_eq!(value(&first.out, "signs for"), "any name");
    assert!(!first.out.contains("replaced") && !first.out.contains("warning"), "{}", first.out);
}

#[tokio::test]
async fn it_is_exported_as_text_as_bytes_and_with_the_systems_roots() {
    let home = directory();
    let state = home.path().join("state");
    let pem = ca(&state, &["export"]).await;
    assert_eq!(pem.code, 0, "{pem:?}");
    let certificate = CertificateDer::from_pem_slice(pem.out.as_bytes()).unwrap();
    assert_eq!(pem.out, std::fs::read_to_string(state.join("ca.pem")).unwrap());

    let der = home.path().join("ca.der");
    let ran = ca(&state, &["export", "--format", "der", "--out", text(&der)]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    assert_eq!(std::fs::read(&der).unwrap(), certificate.to_vec());

    // Another CA serves as the system's roots.
    let other = home.path().join("other");
    ca(&other, &["show"]).await;
    let root = CertificateDer::from_pem_file(other.join("ca.pem")).unwrap();
    let path = other.join("ca.pem");
    let roots = |path| [("SSL_CERT_FILE", text(path)), ("SSL_CERT_DIR", "")];
    let bundle = home.path().join("bundle.pem");
    let export = ["ca", "--state-dir", text(&state), "export", "--format", "bundle", "--out", text(&bundle)];
    // Over itself, as when it is exported again.
    for source in [&path, &bundle] {
        let ran = run_with(&export, &roots(source)).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let all: Vec<_> = CertificateDer::pem_file_iter(&bundle).unwrap().map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert!(all.contains(&root) && all.contains(&certificate));
    }
    let show = ["ca", "--state-dir", text(&state)];
    let shown =
        run_with(&show, &[&roots(&bundle)[..], &[("NODE_EXTRA_CA_CERTS", text(&path))]].concat()).await.out;
    assert_eq!(value(&shown, "trusted by   the system's roots:"), "yes");
    assert_eq!(value(&shown, &format!("trusted by   NODE_EXTRA_CA_CERTS={}:", path.display())), "no");
    let shown = run_with(&show, &roots(&path)).await.out;
    assert_eq!(value(&shown, "trusted by   the system's roots:"), "no");

    // An earlier bundle contains the renewed CA; the next one does not.
    ca(&state, &["renew", "--yes"]).await;
    assert_eq!(run_with(&export, &roots(&bundle)).await.code, 0);
    let all: Vec<_> = CertificateDer::pem_file_iter(&bundle).unwrap().map(Result::unwrap).collect();
    assert!(all.len() == 2 && all.contains(&root) && !all.contains(&certificate));

    let none = [("SSL_CERT_FILE", "/nonexistent/roots.pem"), ("SSL_CERT_DIR", "")];
    run_with(&export, &none).await.expect_failure(&[
        "no root certificates",
        "/nonexistent",
        "ca-certificates",
    ]);

    let nowhere = home.path().join("none/ca.pem");
    ca(&state, &["export", "--out", text(&nowhere)]).await.expect_failure(&["cannot write", text(&nowhere)]);
}

#[tokio::test]
async fn bytes_are_not_written_to_a_terminal() {
    let home = directory();
    let command = format!(
        "{} ca --state-dir {} export --format der",
        env!("CARGO_BIN_EXE_tollpass"),
        home.path().join("state").display()
    );
    let mut script = tokio::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(std::process::Stdio::null());
    let ran = script.output().await.expect("these tests need the program script (util-linux) in PATH");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(!ran.status.success() && said.contains("add --out FILE"), "{said}");
}

#[tokio::test]
async fn a_new_one_takes_the_place_of_the_old_where_that_is_wanted() {
    let home = directory();
    let state = home.path();
    let old = ca(state, &["show"]).await.out;
    ca(state, &["renew"]).await.expect_failure(&["must then trust the new one", "pass --yes"]);
    assert_eq!(ca(state, &["show"]).await.out, old);
    let renewed = ca(state, &["renew", "--yes"]).await;
    assert_eq!(renewed.code, 0, "{renewed:?}");
    let new = ca(state, &["show"]).await.out;
    assert_eq!(renewed.out, new);
    let fingerprint = value(&old, "fingerprint");
    assert_ne!(value(&new, "fingerprint"), fingerprint);
    assert!(value(&new, "replaced").contains(fingerprint), "{new}");
}

#[tokio::test]
async fn the_configuration_chooses_the_ca_and_its_name_constraints() {
    let home = directory();
    let config = home.path().join("proxy.toml");
    let bound = "state_dir = \"state\"\n[intercept]\nhosts = [\"*.example.com\", \"127.0.0.1\"]\nname_constraints = true\n";
    std::fs::write(&config, bound).unwrap();
    let shown = run(&["ca", "--config", text(&config)]).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let names = value(&shown.out, "signs for");
    assert!(names.starts_with("example.com and subdomains, 127.0.0.1, except"), "{names}");

    // A new host is outside the constraints, which causes a warning; after renewal, it is inside.
    std::fs::write(&config, bound.replace("127.0.0.1", "127.0.0.2")).unwrap();
    let shown = run(&["ca", "--config", text(&config)]).await.out;
    assert!(value(&shown, "warning").contains("do not permit 127.0.0.2"), "{shown}");
    let renewed = run(&["ca", "renew", "--yes", "--config", text(&config)]).await.out;
    assert!(value(&renewed, "signs for").contains("127.0.0.2") && !renewed.contains("warning"), "{renewed}");

    let own = home.path().join("state").join("ca.pem");
    let key = home.path().join("state").join("ca-key.pem");
    let given = format!("[intercept]\nca_cert = \"{}\"\nca_key = \"{}\"\n", own.display(), key.display());
    std::fs::write(&config, given).unwrap();
    let shown = run(&["ca", "--config", text(&config)]).await;
    assert_eq!(value(&shown.out, "certificate"), text(&own), "{shown:?}");
    let refused = run(&["ca", "renew", "--yes", "--config", text(&config)]).await;
    refused.expect_failure(&["is your own CA", "intercept.ca_cert"]);
}

#[tokio::test]
async fn it_prints_the_commands_and_how_to_undo_them() {
    let home = directory();
    let config = home.path().join("proxy.toml");
    std::fs::write(&config, "state_dir = \"state\"\n").unwrap();
    let mut arguments = vec!["ca", "trust", "--config", text(&config)];
    let here = run(&arguments).await;
    assert_eq!(here.code, 0, "{here:?}");
    assert!(here.out.contains("--system NAME` supports:") && here.out.contains("firefox"), "{}", here.out);
    arguments.extend(["--system", "debian,node", "--system", "git"]);
    let told = run(&arguments).await.out;
    let again = format!("tollpass ca export --config {} --format bundle", config.display());
    for words in ["update-ca-certificates --fresh", "unset NODE_EXTRA_CA_CERTS", "http.sslCAInfo", &again] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    assert!(!told.contains("keytool"), "{told}");
    run(&["ca", "trust", "--system", "plan9"]).await.expect_failure(&["plan9", "debian"]);
}

#[tokio::test]
async fn many_processes_at_once_make_one() {
    let home = directory();
    let state = home.path().join("state");
    let all = futures_util::future::join_all((0..8).map(|_| ca(&state, &["export"]))).await;
    assert!(all.iter().all(|ran| ran.code == 0 && ran.out == all[0].out), "{all:?}");
    assert_eq!(all.iter().filter(|ran| ran.errors.contains("created a new CA")).count(), 1);
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let home = directory();
    ca(home.path(), &["show"]).await;
    let key = home.path().join("ca-key.pem");
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&key, mode(0o644)).unwrap();
    for command in [vec!["show"], vec!["export"], vec!["trust"]] {
        ca(home.path(), &command).await.expect_failure(&["chmod 600", text(&key)]);
    }
}

//! Maintains the certificate files for programs in the state directory, which are created on first use and rewritten
//! when the CA or the roots change.
//!
//! The bundle contains the CA and everything a program trusted before: the system's roots, or those named by variables
//! such as `SSL_CERT_FILE`. If the user sets such variables, they get a separate bundle, so that the roots of one shell
//! do not affect another.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use super::environment::{ADDITIONS, BUNDLES, TrustFiles, Variable, WGET, is_within};
use crate::admin::{CaLocation, Status};
use crate::app;
use crate::config;
use crate::config::Config;
use crate::error_chain::without_temporary_name;
use crate::tls;

/// Read by OpenSSL, and by tollpass to find the system's roots.
const FILE: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";
/// The system-wide settings of wget.
const SYSTEM_WGETRC: &str = "/etc/wgetrc";

/// Creates or refreshes the files; `None` if nothing is intercepted by the proxy that is `running` or, if there is none, by
/// one with this configuration. `present` looks up environment variables.
pub(super) fn files(
    config: &Config,
    running: Option<&Status>,
    present: impl Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Option<TrustFiles>> {
    let directory = &config.state_dir;
    let authority = match running {
        // The caller may have another configuration than the proxy.
        Some(Status { ca: Some(ca), .. }) => {
            let CaLocation { certificate, key } = ca.clone();
            app::authority_in(directory, &config::CaSource::Files { certificate, key })?
        }
        None if !config.intercept.hosts.is_empty() => app::authority(config)?,
        Some(Status { ca: None, .. }) | None => return Ok(None),
    };
    let foreign = foreign(directory, &present);
    let mark = mark(&foreign);
    let bundle = directory.join(format!("ca-bundle{mark}.pem"));
    let mut certificates = vec![authority.certificate().clone()];
    let before = roots(directory, &present).into_iter().chain(named(&foreign));
    for certificate in before {
        if !certificates.contains(&certificate) {
            certificates.push(certificate);
        }
    }
    let text: String = certificates.iter().map(tls::pem).collect();
    refresh(&bundle, text.as_bytes())?;

    let is_added = foreign.iter().any(|(name, _)| ADDITIONS.contains(name));
    let addition = if is_added { bundle.clone() } else { authority.path().to_owned() };
    let wgetrc = directory.join(format!("wgetrc{mark}"));
    let system = present(WGET).filter(|value| !is_within(value, directory));
    let system = system.map_or_else(|| PathBuf::from(SYSTEM_WGETRC), PathBuf::from);
    refresh(&wgetrc, &wget_settings(&system, &bundle))?;
    Ok(Some(TrustFiles { bundle, addition, wgetrc }))
}

/// The variables with which the user names certificate files.
fn foreign(directory: &Path, present: impl Fn(&str) -> Option<OsString>) -> Vec<Variable> {
    let names = BUNDLES.into_iter().chain(ADDITIONS).chain([DIRECTORIES]);
    let set = names.filter_map(|name| Some((name, present(name).filter(|value| !value.is_empty())?)));
    set.filter(|(_, value)| !is_within(value, directory)).collect()
}

/// A suffix that identifies the files for one such environment; empty without such variables.
fn mark(foreign: &[Variable]) -> String {
    if foreign.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for (name, value) in foreign {
        hash.update(name);
        hash.update(b"=");
        hash.update(value.as_bytes());
        hash.update(b"\0");
    }
    let digest = hash.finalize();
    digest.iter().take(4).fold("-".to_owned(), |mark, byte| format!("{mark}{byte:02x}"))
}

/// The system's roots, or those that replace them.
fn roots(directory: &Path, present: impl Fn(&str) -> Option<OsString>) -> Vec<CertificateDer<'static>> {
    if let Some(bundle) = present(FILE).filter(|value| is_within(value, directory)) {
        // A bundle of tollpass, in a shell that uses its environment: the CA comes first and may be outdated.
        return read(FILE, &bundle).into_iter().skip(1).collect();
    }
    match tls::system(None) {
        Ok(roots) => {
            for warning in &roots.warnings {
                tracing::debug!("{warning}");
            }
            roots.certificates
        }
        Err(error) => {
            tracing::warn!(%error, "programs get only tollpass's own CA as a root");
            Vec::new()
        }
    }
}

/// The certificates named by the variables of single programs.
fn named(foreign: &[Variable]) -> Vec<CertificateDer<'static>> {
    let named = foreign.iter().filter(|(name, _)| ![FILE, DIRECTORIES].contains(name));
    let mut paths: Vec<&Variable> = Vec::new();
    for variable in named {
        if !paths.iter().any(|(_, path)| *path == variable.1) {
            paths.push(variable);
        }
    }
    paths.into_iter().flat_map(|(name, path)| read(name, path)).collect()
}

/// Reads the certificates of a file that a variable names; empty if that fails.
fn read(name: &str, path: &OsStr) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "ignoring {}, named by {name}: its certificates cannot be read", path.display());
        Vec::new()
    })
}

/// The system-wide settings of wget with the bundle appended.
fn wget_settings(system: &Path, bundle: &Path) -> Vec<u8> {
    let mut text = fs::read(system).unwrap_or_default();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(b"ca_certificate = ");
    text.extend(bundle.as_os_str().to_owned().into_vec());
    text.push(b'\n');
    text
}

/// Writes a file readable by all users, atomically, unless it is up to date.
fn refresh(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|known| known == content) {
        return Ok(());
    }
    write(path, content).map_err(|error| {
        anyhow!(
            "cannot write {}: {}; let this user write to the directory, or name another one with --state-dir",
            path.display(),
            without_temporary_name(error)
        )
    })
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::cli::trust::*;

    /// A configuration with a CA in a directory with an unusual name, and roots of its own, so that tests do not depend
    /// on the system's.
    struct Place {
        _directory: tempfile::TempDir,
        state: PathBuf,
        roots: PathBuf,
        config: Config,
    }

    /// An unrelated certificate: the CA of another directory.
    fn certificate(directory: &Path) -> CertificateDer<'static> {
        tls::Authority::open(directory, &[]).unwrap().certificate().clone()
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path().join("it's a state");
            let roots = directory.path().join("roots.pem");
            fs::write(&roots, tls::pem(&certificate(&directory.path().join("root")))).unwrap();
            let text = "state_dir = \"it's a state\"\n[intercept]\nhosts = [\"a.example\"]\n";
            let config = Config::parse(text, directory.path(), &BTreeMap::new()).unwrap();
            Self { _directory: directory, state, roots, config }
        }

        fn files(&self, environment: &[(&str, &Path)]) -> TrustFiles {
            let present = |name: &str| {
                let (_, path) = environment.iter().find(|(known, _)| *known == name)?;
                Some(path.as_os_str().to_owned())
            };
            files(&self.config, None, present).unwrap().unwrap()
        }

        fn ours(&self) -> CertificateDer<'static> {
            app::authority(&self.config).unwrap().certificate().clone()
        }
    }

    fn held(path: &Path) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn without_interception_there_is_no_ca_to_trust() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::parse("state_dir = \"s\"\n", directory.path(), &BTreeMap::new()).unwrap();
        assert_eq!(files(&config, None, |_| None).unwrap(), None);
        assert!(!directory.path().join("s").exists());
    }

    #[test]
    fn the_bundle_holds_the_system_roots_and_the_ca() {
        let place = Place::new();
        let trust = place.files(&[]);
        assert_eq!(trust.bundle, place.state.join("ca-bundle.pem"));
        assert_eq!(held(&trust.addition), [place.ours()]);
        assert_eq!(held(&trust.bundle)[0], place.ours());
        let mode = fs::metadata(&trust.bundle).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        let wgetrc = fs::read_to_string(&trust.wgetrc).unwrap();
        assert!(wgetrc.ends_with(&format!("ca_certificate = {}\n", trust.bundle.display())), "{wgetrc}");

        // A bundle that the user set for one program stays trusted, separately from other shells.
        let own = place.files(&[("REQUESTS_CA_BUNDLE", &place.roots), ("PIP_CERT", &place.roots)]);
        assert_ne!(own.bundle, trust.bundle);
        assert!(held(&own.bundle).contains(&held(&place.roots)[0]));
        assert_eq!(own.addition, trust.addition);
        assert!(!held(&trust.bundle).contains(&held(&place.roots)[0]));
        // As does one that is added to Node's own.
        let added = place.files(&[("NODE_EXTRA_CA_CERTS", &place.roots)]);
        assert_eq!(added.addition, added.bundle);
        assert!(held(&added.addition).contains(&held(&place.roots)[0]));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_out() {
        let place = Place::new();
        let missing = place.state.with_file_name("missing.pem");
        assert_eq!(held(&place.files(&[("CURL_CA_BUNDLE", &missing)]).bundle)[0], place.ours());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told_without_a_temporary_name() {
        let told = refresh(Path::new("/proc/ca-bundle.pem"), b"x").unwrap_err();
        let told = format!("{told:#}");
        assert!(
            told.starts_with("cannot write /proc/ca-bundle.pem: ") && told.contains("--state-dir"),
            "{told}"
        );
        assert!(!told.contains(".tmp"), "{told}");
    }

    #[test]
    fn another_ca_takes_the_place_of_the_first_also_in_a_shell_that_knows_our_bundle() {
        let place = Place::new();
        let bundle = place.files(&[]).bundle;
        let (first, all) = (place.ours(), held(&bundle).len());
        tls::Authority::renew(&place.state, &[]).unwrap();
        let again = place.files(&[("SSL_CERT_FILE", &bundle), ("CURL_CA_BUNDLE", &bundle)]);
        assert_eq!(again.bundle, bundle);
        let now = held(&bundle);
        assert_eq!((now.len(), &now[0]), (all, &place.ours()));
        assert!(!now.contains(&first));
    }
}

//! The local CA, created on first use or provided by the user. It signs server certificates only, and never reveals its
//! key.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, PublicKeyData};
use rustls::pki_types::CertificateDer;

use super::certificate;
use super::certificate::Described;
use super::error::{AuthorityError, date, remedy};
use super::mint;
use super::name::Name;
use super::pair;
use super::pair::Pair;
use super::roots::certificates;
use super::signer::CaKey;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long before its expiry to warn about a CA.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A CA that can sign.
pub struct Authority {
    issuer: Issuer<'static, CaKey>,
    /// Its own certificate, then the intermediates up to a root.
    certificates: Vec<CertificateDer<'static>>,
    described: Described,
    path: PathBuf,
    key_path: PathBuf,
    is_new: bool,
    is_ours: bool,
}

impl Authority {
    /// Opens the CA in `directory`, or creates one, which may sign only for `permitted` (DNS names including
    /// subdomains), or for any name if that is empty. Blocks on the disk.
    pub fn open(directory: &Path, permitted: &[Name]) -> Result<Self, AuthorityError> {
        pair::directory(directory)?;
        if let Some(found) = Self::find(directory)? {
            return Ok(found);
        }
        let path = directory.join(pair::CERTIFICATE);
        let (key, certificate) = mint::authority(permitted)?;
        pair::create(directory, &key, &certificate)?;
        let opened = Self::reopen(directory, path)?;
        Ok(Self { is_new: opened.certificates[0] == certificate, ..opened })
    }

    /// Opens the CA in `directory`, if there is one. Blocks on the disk.
    pub fn find(directory: &Path) -> Result<Option<Self>, AuthorityError> {
        let (path, key_path) = (directory.join(pair::CERTIFICATE), directory.join(pair::KEY));
        pair::open(directory)?.map(|pair| Self::from_pair(pair, path, key_path, true)).transpose()
    }

    /// Loads the user's CA from PEM files; the key must be unencrypted and private to this user. The CA's certificate
    /// may be followed by intermediates up to a root. Blocks on the disk.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        Self::from_pair(pair::load(certificate, key)?, certificate.to_owned(), key.to_owned(), false)
    }

    /// Creates a new CA in `directory` that replaces the current one, whose certificate is kept as `ca.pem.old`.
    pub fn renew(directory: &Path, permitted: &[Name]) -> Result<Self, AuthorityError> {
        pair::directory(directory)?;
        let (key, certificate) = mint::authority(permitted)?;
        pair::replace(directory, &key, &certificate)?;
        let opened = Self::reopen(directory, directory.join(pair::CERTIFICATE))?;
        Ok(Self { is_new: true, ..opened })
    }

    /// Whether it was just created.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// True if tollpass created it, false if it is the user's.
    #[cfg(feature = "testing")]
    pub fn is_ours(&self) -> bool {
        self.is_ours
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificates[0]
    }

    /// The file of its certificate.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of its key.
    pub fn key_path(&self) -> &Path {
        &self.key_path
    }

    /// The common name in its subject, or the whole subject if there is none.
    pub fn common_name(&self) -> &str {
        self.described.common_name.as_deref().unwrap_or(&self.described.subject)
    }

    /// The names that it may sign for, for display.
    pub fn signs_for(&self) -> String {
        self.described.constraints.to_string()
    }

    /// Subject and SHA-256 of the CA that `renew` replaced with this one, if its certificate still exists.
    pub fn replaced(&self) -> Option<(String, [u8; 32])> {
        certificate::describe(&self.old()?).map(|old| (old.subject, old.fingerprint))
    }

    /// The certificate of the replaced CA.
    pub(super) fn old(&self) -> Option<CertificateDer<'static>> {
        let old = self.is_ours.then(|| certificates(&self.path.with_file_name(pair::OLD)).ok())?;
        old?.into_iter().next()
    }

    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.described.subject
    }

    /// The SHA-256 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.described.fingerprint
    }

    /// Its validity period.
    pub fn validity(&self) -> Range<SystemTime> {
        self.described.validity.clone()
    }

    /// Checks that clients accept its signatures at time `now`. A wrong clock may be corrected, and a CA may expire
    /// while the program runs, so the CA is opened anyway and this is checked before it signs.
    ///
    /// # Errors
    /// [`AuthorityError::Expired`] or [`AuthorityError::TooEarly`].
    pub fn check_time(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let Range { start, end } = self.described.validity;
        let path = || self.path.clone();
        if now >= end {
            return Err(AuthorityError::Expired { path: path(), end, is_ours: self.is_ours });
        }
        if now < start {
            return Err(AuthorityError::TooEarly { path: path(), begin: start });
        }
        Ok(())
    }

    /// Whether its name constraints permit a certificate for `name`.
    pub fn permits(&self, name: &Name) -> bool {
        self.described.constraints.permit(name)
    }

    /// Warnings for the user: the CA expires soon, or its name constraints differ from `permitted` (unconstrained if
    /// empty).
    pub fn warnings(&self, permitted: &[Name], now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        let end = self.described.validity.end;
        if let Err(error) = self.check_time(now) {
            warnings.push(error.to_string());
        } else if now + WARN_BEFORE > end {
            let days = end.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs();
            warnings.push(format!(
                "the CA expires in {days} days, on {}; {}",
                date(end),
                remedy(self.is_ours)
            ));
        }
        let left_out: Vec<_> =
            permitted.iter().filter(|name| !self.permits(name)).map(Name::to_string).collect();
        let renew = "`tollpass ca renew` creates a matching CA, which clients must then trust";
        if !left_out.is_empty() {
            warnings.push(format!(
                "the name constraints of the CA do not permit {}; {renew}",
                left_out.join(", ")
            ));
        } else if !permitted.is_empty() && self.described.constraints.is_empty() {
            warnings
                .push(format!("the CA was created without name constraints and signs for any name; {renew}"));
        } else if permitted.is_empty() && self.is_ours && !self.described.constraints.is_empty() {
            warnings.push(format!("the CA has name constraints, but name_constraints is now off; {renew}"));
        }
        warnings
    }

    /// Issues a server certificate.
    pub(super) fn sign(
        &self,
        name: &Name,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<Signed, rcgen::Error> {
        let (certificate, validity) = mint::leaf(name, key, &self.issuer, &self.described.validity, now)?;
        let mut chain = vec![certificate];
        if !self.described.is_root {
            chain.extend(self.certificates.iter().cloned());
        }
        Ok(Signed { chain, begin: validity.start, end: validity.end })
    }

    fn reopen(directory: &Path, path: PathBuf) -> Result<Self, AuthorityError> {
        let lost = || AuthorityError::NoCertificate(directory.join(pair::KEY));
        Self::from_pair(pair::open(directory)?.ok_or_else(lost)?, path, directory.join(pair::KEY), true)
    }

    fn from_pair(
        pair: Pair,
        path: PathBuf,
        key_path: PathBuf,
        is_ours: bool,
    ) -> Result<Self, AuthorityError> {
        let Pair { key, certificates } = pair;
        let key = CaKey::new(&key).ok_or_else(|| AuthorityError::KeyKind(path.clone()))?;
        let no_certificate = || AuthorityError::NoCertificate(path.clone());
        let described = certificates.first().and_then(certificate::describe).ok_or_else(no_certificate)?;
        check(&described, &key, &path)?;
        let issuer = Issuer::from_ca_cert_der(&certificates[0], key)
            .map_err(|_| AuthorityError::Subject(path.clone()))?;
        let authority = Self { issuer, certificates, described, path, key_path, is_new: false, is_ours };
        authority.test_signature()?;
        Ok(authority)
    }

    /// Signs once as a test: certificates that named a different issuer would be rejected.
    fn test_signature(&self) -> Result<(), AuthorityError> {
        let name = Name::Dns("localhost".to_owned());
        let signed = self.sign(&name, self.issuer.key(), SystemTime::now())?;
        match certificate::issuer(&signed.chain[0]) {
            Some(issuer) if issuer == self.described.name => Ok(()),
            _ => Err(AuthorityError::Subject(self.path.clone())),
        }
    }
}

/// A server certificate.
pub(super) struct Signed {
    /// The certificate and the intermediates up to a root.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The start of its validity.
    pub(super) begin: SystemTime,
    /// The end of its validity.
    pub(super) end: SystemTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.described.subject)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn check(described: &Described, key: &CaKey, path: &Path) -> Result<(), AuthorityError> {
    let path = || path.to_owned();
    if described.public != key.der_bytes() {
        return Err(AuthorityError::OtherKey(path()));
    }
    if !described.is_ca {
        return Err(AuthorityError::NotACa { path: path(), why: "it lacks basicConstraints CA:TRUE" });
    }
    if !described.signs {
        return Err(AuthorityError::NotACa { path: path(), why: "its key usage does not name keyCertSign" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use crate::tls::authority::*;

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_is_made_once() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("a/state");
        let first = Authority::open(&directory, &[]).unwrap();
        assert!(first.is_new() && first.is_ours());
        assert_eq!(first.path(), directory.join("ca.pem"));
        assert_eq!(
            [mode(&directory), mode(first.path()), mode(&directory.join("ca-key.pem"))],
            [0o700, 0o644, 0o600]
        );
        let again = Authority::open(&directory, &[]).unwrap();
        assert!(!again.is_new() && again.fingerprint() == first.fingerprint());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        let text = fs::read_to_string(directory.join("ca-key.pem")).unwrap();
        let secret = text.lines().nth(1).unwrap();
        assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"), "{secret}");
        assert!(!format!("{first:?} {:?}", first.issuer).contains(&secret[..20]));
        assert!(first.subject().starts_with("O=tollpass, CN=tollpass local CA "), "{first:?}");
    }

    #[test]
    fn many_at_once_make_one() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Authority::open(directory.path(), &[]).unwrap();
        let opened: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(opened.iter().all(|authority| authority.fingerprint() == opened[0].fingerprint()));
        assert_eq!(opened.iter().filter(|authority| authority.is_new()).count(), 1);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn files_left_by_a_crash_are_repaired() {
        let directory = tempfile::tempdir().unwrap();
        // Killed while writing the files: temporary files are ignored.
        fs::write(directory.path().join(".ca-a1B2c3"), "half").unwrap();
        let made = Authority::open(directory.path(), &[]).unwrap();
        assert!(made.is_new());
        // Killed between key and certificate, and during `renew` while the copy is still the old one.
        fs::remove_file(made.path()).unwrap();
        assert_eq!(Authority::open(directory.path(), &[]).unwrap().fingerprint(), made.fingerprint());
        let whole = fs::read(made.path()).unwrap();
        fs::write(made.path(), "old").unwrap();
        let again = Authority::open(directory.path(), &[]).unwrap();
        assert_eq!((fs::read(made.path()).unwrap(), mode(made.path())), (whole, 0o644));
        assert!(!again.is_new());
    }

    #[test]
    fn a_missing_or_readable_key_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        Authority::open(directory.path(), &[]).unwrap();
        let key = directory.path().join("ca-key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Authority::open(directory.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::remove_file(&key).unwrap();
        let error = Authority::open(directory.path(), &[]).unwrap_err();
        assert!(matches!(error, AuthorityError::KeyLost { .. }), "{error}");
        assert!(error.to_string().contains("tollpass ca renew"), "{error}");
        assert!(Authority::renew(directory.path(), &[]).unwrap().is_new());
        Authority::open(directory.path(), &[]).unwrap();
    }

    #[test]
    fn a_new_one_keeps_the_olds_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let old = Authority::open(directory.path(), &[]).unwrap();
        let new = Authority::renew(directory.path(), &[]).unwrap();
        assert!(new.is_new() && new.fingerprint() != old.fingerprint() && new.subject() != old.subject());
        let kept = fs::read_to_string(directory.path().join("ca.pem.old")).unwrap();
        assert_eq!(kept, crate::tls::pem(old.certificate()));
        assert_eq!(Authority::open(directory.path(), &[]).unwrap().fingerprint(), new.fingerprint());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn constraints_limit_the_names_it_signs() {
        for (permitted, good, bad) in [
            (
                vec!["example.com"],
                vec!["example.com", "a.b.example.com"],
                vec!["ample.com", "x-example.com", "::1"],
            ),
            (vec!["example.com", "127.0.0.1"], vec!["127.0.0.1"], vec!["127.0.0.2", "::1", "com"]),
            (vec!["::1"], vec!["::1"], vec!["::2", "127.0.0.1", "localhost"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let authority = Authority::open(directory.path(), &names(&permitted)).unwrap();
            for name in names(&good) {
                assert!(authority.permits(&name), "{permitted:?} {name}");
            }
            for name in names(&bad) {
                assert!(!authority.permits(&name), "{permitted:?} {name}");
            }
            let warnings = |permitted: &[&str]| authority.warnings(&names(permitted), SystemTime::now());
            assert_eq!(warnings(&permitted), Vec::<String>::new());
            assert!(warnings(&bad)[0].contains(bad[0]));
            assert!(warnings(&[])[0].contains("has name constraints"));
        }
    }

    #[test]
    fn the_user_is_warned_about_unusable_constraints() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), &[]).unwrap();
        let (now, end) = (SystemTime::now(), authority.validity().end);
        assert_eq!(authority.warnings(&[], now), Vec::<String>::new());
        assert_eq!(authority.warnings(&[], end - 31 * DAY), Vec::<String>::new());
        let soon = authority.warnings(&[], end - 29 * DAY);
        assert!(soon[0].contains("expires in 29 days") && soon[0].contains("tollpass ca renew"), "{soon:?}");
        assert!(authority.warnings(&names(&["a.example"]), now)[0].contains("signs for any name"));
    }
}

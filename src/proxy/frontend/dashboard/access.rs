//! Who may use the dashboard: secrets that are valid once and for a short time, and the tokens that pages get for them. Only
//! digests are kept, and compared in constant time. Nothing of it survives the process.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::limits::Limits;
use crate::mutex::lock;

/// The length of secrets and tokens, in bytes.
const LENGTH: usize = 32;

/// The secret of a link, or the token of a page. It is never shown by accident.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct DashboardSecret(Zeroizing<String>);

/// The links that can be opened, and the pages that are signed in; clones share them.
#[derive(Clone)]
pub struct DashboardAccess(Arc<AccessShared>);

struct AccessShared {
    limits: Limits,
    state: Mutex<AccessState>,
}

#[derive(Default)]
struct AccessState {
    /// The oldest first.
    links: VecDeque<Credential>,
    /// The oldest first.
    sessions: VecDeque<Credential>,
}

/// What is known of a secret or a token.
struct Credential {
    digest: [u8; 32],
    until: Instant,
    /// Cancelled when it ends.
    ended: CancellationToken,
}

/// A page that is signed in.
#[derive(Debug)]
pub(super) struct PageSession {
    digest: [u8; 32],
    until: Instant,
    ended: CancellationToken,
}

impl From<String> for DashboardSecret {
    fn from(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }
}

impl DashboardSecret {
    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        OsRng.fill_bytes(bytes.as_mut());
        Self(Zeroizing::new(hex::encode(bytes.as_ref())))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DashboardSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DashboardSecret")
    }
}

impl DashboardAccess {
    /// Admits none at first.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self(Arc::new(AccessShared { limits: limits.clone(), state: Mutex::default() }))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The secret of a new link.
    #[must_use]
    pub fn link(&self) -> DashboardSecret {
        self.link_at(Instant::now())
    }

    /// For how long a link can be opened.
    #[must_use]
    pub fn link_lasts(&self) -> Duration {
        self.limits().dashboard_link
    }

    fn link_at(&self, now: Instant) -> DashboardSecret {
        let limits = self.limits();
        let mut state = lock(&self.0.state);
        add(&mut state.links, limits.dashboard_sessions, now, now.checked_add(limits.dashboard_link))
    }

    /// The token of a page that shows the secret of a link, which is no longer valid then.
    pub(super) fn sign_in(&self, secret: &DashboardSecret, now: Instant) -> Option<DashboardSecret> {
        let limits = self.limits();
        let mut state = lock(&self.0.state);
        forget_old(&mut state.links, now);
        let at = find(&state.links, secret.expose())?;
        state.links.remove(at)?;
        let until = now.checked_add(limits.dashboard_session);
        Some(add(&mut state.sessions, limits.dashboard_sessions, now, until))
    }

    /// The session with this token.
    pub(super) fn session(&self, token: &str, now: Instant) -> Option<PageSession> {
        let mut state = lock(&self.0.state);
        forget_old(&mut state.sessions, now);
        let found = state.sessions.get(find(&state.sessions, token)?)?;
        Some(PageSession { digest: found.digest, until: found.until, ended: found.ended.clone() })
    }

    /// Ends a session.
    pub(super) fn sign_out(&self, session: &PageSession) {
        let mut state = lock(&self.0.state);
        state.sessions.retain(|known| known.digest != session.digest);
        session.ended.cancel();
    }
}

impl fmt::Debug for DashboardAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DashboardAccess")
    }
}

impl PageSession {
    /// Resolves when the session ends.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = tokio::time::sleep_until(self.until.into()) => {}
        }
    }
}

/// Adds a random secret that is valid until then; of more than `most`, the oldest ends.
fn add(
    known: &mut VecDeque<Credential>,
    most: usize,
    now: Instant,
    until: Option<Instant>,
) -> DashboardSecret {
    forget_old(known, now);
    while known.len() >= most.max(1) {
        if let Some(oldest) = known.pop_front() {
            oldest.ended.cancel();
        }
    }
    let secret = DashboardSecret::random();
    let digest = digest(secret.expose());
    known.push_back(Credential { digest, until: until.unwrap_or(now), ended: CancellationToken::new() });
    secret
}

fn forget_old(known: &mut VecDeque<Credential>, now: Instant) {
    known.retain(|credential| now < credential.until);
}

/// The place of a secret. How long this takes depends on the number of known ones only.
fn find(known: &VecDeque<Credential>, secret: &str) -> Option<usize> {
    let digest = digest(secret);
    let compared = known.iter().map(|credential| bool::from(credential.digest.ct_eq(&digest)));
    compared.enumerate().fold(None, |found, (at, is_same)| if is_same { Some(at) } else { found })
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> (DashboardAccess, Instant) {
        let limits = Limits {
            dashboard_link: Duration::from_secs(60),
            dashboard_session: Duration::from_secs(3600),
            dashboard_sessions: 2,
            ..Limits::default()
        };
        (DashboardAccess::new(&limits), Instant::now())
    }

    #[test]
    fn a_link_is_valid_once_and_for_its_time() {
        let (access, now) = access();
        let after = |seconds| now + Duration::from_secs(seconds);
        let secret = access.link_at(now);
        assert!(access.sign_in(&DashboardSecret(Zeroizing::new(String::new())), now).is_none());
        let token = access.sign_in(&secret, after(59)).unwrap();
        assert!(access.sign_in(&secret, after(59)).is_none(), "a second time");
        assert_ne!(token.expose(), secret.expose());
        assert!(access.session(secret.expose(), now).is_none(), "a secret is no token");
        assert!(access.sign_in(&token, now).is_none(), "a token is no secret");
        assert!(access.session(token.expose(), after(59 + 3599)).is_some());
        assert!(access.session(token.expose(), after(59 + 3600)).is_none());
        let late = access.link_at(now);
        assert!(access.sign_in(&late, after(60)).is_none());
        assert!(access.sign_in(&late, now).is_none(), "it was forgotten");
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_end_and_so_does_what_signs_out() {
        let (access, now) = access();
        let secrets = [(); 3].map(|()| access.link_at(now));
        assert!(access.sign_in(&secrets[0], now).is_none());
        let tokens = [1, 2].map(|at: usize| access.sign_in(&secrets[at], now).unwrap());
        let first = access.session(tokens[0].expose(), now).unwrap();
        access.sign_in(&access.link_at(now), now).unwrap();
        first.ended().await;
        assert!(access.session(tokens[0].expose(), now).is_none());
        let second = access.session(tokens[1].expose(), now).unwrap();
        access.sign_out(&second);
        second.ended().await;
        assert!(access.session(tokens[1].expose(), now).is_none());
    }

    #[test]
    fn no_secret_is_shown() {
        let (access, now) = access();
        let secret = access.link_at(now);
        let token = access.sign_in(&secret, now).unwrap();
        let session = access.session(token.expose(), now).unwrap();
        let shown = format!("{access:?} {secret:?} {token:?} {session:?}");
        assert!(!shown.contains(secret.expose()) && !shown.contains(token.expose()), "{shown}");
    }
}

//! Approval by the operator: requests wait here until `tollpass approve` or `tollpass deny` decides, within limits on
//! their number and time. A waiting request holds no payment, channel or lease.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ethers_core::rand::{Rng as _, rngs::OsRng};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::journal::JournalError;
use super::standing::{StandingApproval, StandingApprovals};
use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::policy::{KnownAsset, shown_price};
use crate::protocol::{Address, Amount, AssetId, Money, Refusal, Terms};

/// The first ID of a run is random within these bounds, so that an ID noted before a restart names no other request.
const FIRST_IDS: std::ops::Range<u64> = 1000..9000;
/// Longer URLs are cut, in characters.
const LONGEST_URL: usize = 200;

/// The requests that wait for the operator; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OperatorApprovals {
    waiting: Arc<Mutex<WaitingRequests>>,
    standing: Arc<Mutex<StandingApprovals>>,
    assets: Arc<Mutex<Arc<[KnownAsset]>>>,
    limit: usize,
    standing_limit: usize,
    within: Duration,
}

#[derive(Debug)]
struct WaitingRequests {
    next: u64,
    by_id: BTreeMap<u64, WaitingRequest>,
}

#[derive(Debug)]
struct WaitingRequest {
    wanted: WantedPayment,
    since: Instant,
    until: Instant,
    answer: oneshot::Sender<bool>,
}

/// The payment that the operator is asked about.
#[derive(Clone, Debug)]
pub(crate) struct WantedPayment {
    /// The method of the client's request.
    pub method: String,
    /// Its URL, without user info and query.
    pub url: String,
    /// Its host, without a port.
    pub host: String,
    /// The client's name, or its address if it has none.
    pub client: Option<String>,
    /// The seller's terms.
    pub terms: Terms,
    /// The asset of the price: the channel contract's token once it is known.
    pub asset: AssetId,
}

/// A payment that waits for the operator's approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// Names it; never reused within a run.
    pub id: u64,
    /// The price with its symbol, or in base units if the asset is unknown.
    pub shown: String,
    /// The price in base units.
    pub price: Amount,
    /// The asset.
    pub asset: String,
    /// The payee.
    pub payee: Address,
    /// The payment scheme.
    pub scheme: String,
    /// The method of the client's request.
    pub method: String,
    /// Its URL, without user info and query.
    pub url: String,
    /// Its host, without a port.
    pub host: String,
    /// The client's name, or its address if it has none.
    pub client: Option<String>,
    /// How long it has waited, in seconds.
    pub age: u64,
    /// How long it will still wait, in seconds.
    pub left: u64,
}

/// A standing approval with its price for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedApproval {
    /// The approval.
    #[serde(flatten)]
    pub approval: StandingApproval,
    /// The highest price with its symbol, or in base units if the asset is unknown.
    pub shown: String,
}

/// Why a decision of the operator has no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApprovalError {
    /// No request with this ID waits.
    #[error(
        "no request waits for approval {0}: it was decided, timed out, or its client left; see `tollpass pending`"
    )]
    NotPending(u64),
    /// There is no standing approval with this ID.
    #[error("standing approval {0} not found: see `tollpass approvals`")]
    NotStanding(u64),
    /// Too many standing approvals.
    #[error("there are already {limit} standing approvals (limits.standing_approvals): revoke some")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The asset has no name yet.
    #[error("the token of the channel contract is not known yet: try again when tollpass is ready to pay")]
    UnknownAsset,
    /// The journal cannot be written.
    #[error("not recorded: {0}")]
    Journal(#[from] JournalError),
    /// The service has stopped.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}

/// Removes a request when its client leaves.
struct PendingGuard<'a> {
    approvals: &'a OperatorApprovals,
    id: u64,
}

impl OperatorApprovals {
    pub(super) fn new(limits: &Limits, assets: Arc<[KnownAsset]>, standing: Vec<StandingApproval>) -> Self {
        let waiting = WaitingRequests { next: OsRng.gen_range(FIRST_IDS), by_id: BTreeMap::new() };
        let waiting = Arc::new(Mutex::new(waiting));
        Self {
            waiting,
            standing: Arc::new(Mutex::new(StandingApprovals::new(standing))),
            assets: Arc::new(Mutex::new(assets)),
            limit: limits.max_approvals,
            standing_limit: limits.standing_approvals,
            within: limits.approval_timeout,
        }
    }

    /// When a request that asks now times out.
    #[must_use]
    pub fn until(&self) -> Instant {
        Instant::now() + self.within
    }

    /// Waits until the operator approves. If the future is dropped, the question disappears.
    ///
    /// # Errors
    /// The operator denies it or does not decide by `until`, or too many requests wait.
    pub async fn ask(&self, wanted: WantedPayment, until: Instant) -> Result<(), Refusal> {
        let price = self.show(&Money { amount: wanted.terms.price.amount, asset: wanted.asset.clone() });
        let (host, client) = (wanted.host.clone(), wanted.client.clone());
        let (guard, mut answer) = self.add(wanted, until)?;
        let id = guard.id;
        tracing::info!(
            approval = id,
            price,
            host,
            client,
            "a payment waits for approval: `tollpass approve {id}` or `tollpass deny {id}`"
        );
        let is_approved = match timeout_at(until, &mut answer).await {
            Ok(decided) => decided.ok(),
            // The operator may decide in the same instant, and has then been told that the decision counts.
            Err(_) if guard.is_waiting() => {
                return Err(Refusal::ApprovalTimedOut { id, within: self.within });
            }
            Err(_) => answer.try_recv().ok(),
        };
        match is_approved {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::ApprovalDenied { id }),
            None => Err(Refusal::ShuttingDown),
        }
    }

    /// The waiting requests, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<PendingApproval> {
        let now = Instant::now();
        lock(&self.waiting).by_id.iter().map(|(id, waiting)| self.listed(*id, waiting, now)).collect()
    }

    /// Approves or denies the payment of one request, and returns it.
    ///
    /// # Errors
    /// It no longer waits.
    pub fn decide(&self, id: u64, is_approved: bool) -> Result<PendingApproval, ApprovalError> {
        let mut waiting = lock(&self.waiting);
        let request = waiting.by_id.remove(&id).ok_or(ApprovalError::NotPending(id))?;
        let listed = self.listed(id, &request, Instant::now());
        request.answer.send(is_approved).map_err(|_| ApprovalError::NotPending(id))?;
        Ok(listed)
    }

    /// Whether the operator has approved such payments in advance.
    #[must_use]
    pub fn is_covered(&self, host: &str, terms: &Terms, asset: &AssetId) -> bool {
        lock(&self.standing).cover(host, terms, asset)
    }

    /// The standing approvals that have not ended.
    #[must_use]
    pub fn standing(&self) -> Vec<ListedApproval> {
        listed_approvals(lock(&self.standing).current(), &self.assets())
    }

    /// A pending payment, and the standing approval for payments like it, not recorded yet.
    pub(super) fn draft(
        &self,
        id: u64,
        lasts: Duration,
    ) -> Result<(PendingApproval, StandingApproval), ApprovalError> {
        let waiting = lock(&self.waiting);
        let request = waiting.by_id.get(&id).ok_or(ApprovalError::NotPending(id))?;
        let wanted = &request.wanted;
        let AssetId::Token(token) = &wanted.asset else { return Err(ApprovalError::UnknownAsset) };
        let standing = lock(&self.standing);
        let since = standing.now();
        let approval = StandingApproval {
            id: 0,
            host: wanted.host.clone(),
            payee: wanted.terms.payee,
            network: token.network.clone(),
            token: token.token.clone(),
            max_price: wanted.terms.price.amount,
            since,
            until: since.saturating_add(lasts.as_secs()),
        };
        let kept = standing.current().iter().filter(|other| !approval.replaces(other)).count();
        if kept >= self.standing_limit {
            return Err(ApprovalError::TooMany { limit: self.standing_limit });
        }
        Ok((self.listed(id, request, Instant::now()), approval))
    }

    /// Applies a recorded standing approval, also to the requests that wait.
    pub(super) fn apply(&self, approval: StandingApproval) {
        let mut waiting = lock(&self.waiting);
        let mut standing = lock(&self.standing);
        standing.insert(approval);
        let is_covered = |_: &u64, request: &mut WaitingRequest| {
            let WantedPayment { host, terms, asset, .. } = &request.wanted;
            standing.cover(host, terms, asset)
        };
        for (_, request) in waiting.by_id.extract_if(.., is_covered) {
            // The client may be leaving.
            let _ = request.answer.send(true);
        }
    }

    /// Ends a standing approval in this process; false if there is none with this ID.
    pub(super) fn end(&self, id: u64) -> bool {
        lock(&self.standing).remove(id)
    }

    fn add(
        &self,
        wanted: WantedPayment,
        until: Instant,
    ) -> Result<(PendingGuard<'_>, oneshot::Receiver<bool>), Refusal> {
        let mut waiting = lock(&self.waiting);
        if waiting.by_id.len() >= self.limit {
            return Err(Refusal::TooManyApprovals { limit: self.limit });
        }
        let (answer, decided) = oneshot::channel();
        let id = waiting.next;
        waiting.next += 1;
        waiting.by_id.insert(id, WaitingRequest { wanted, since: Instant::now(), until, answer });
        Ok((PendingGuard { approvals: self, id }, decided))
    }

    fn listed(&self, id: u64, request: &WaitingRequest, now: Instant) -> PendingApproval {
        let WantedPayment { method, url, host, client, terms, asset } = &request.wanted;
        PendingApproval {
            id,
            shown: self.show(&Money { amount: terms.price.amount, asset: asset.clone() }),
            price: terms.price.amount,
            asset: asset.to_string(),
            payee: terms.payee,
            scheme: terms.scheme.to_string(),
            method: method.clone(),
            url: printable(url),
            host: printable(host),
            client: client.clone(),
            age: now.saturating_duration_since(request.since).as_secs(),
            left: request.until.saturating_duration_since(now).as_secs(),
        }
    }

    /// The price with its symbol, if its asset is known.
    pub(crate) fn show(&self, price: &Money) -> String {
        shown_price(price, &self.assets())
    }

    /// The tokens whose symbols are shown.
    pub(crate) fn assets(&self) -> Arc<[KnownAsset]> {
        Arc::clone(&lock(&self.assets))
    }

    /// Shows the symbols of these tokens from now on.
    pub(super) fn set_assets(&self, assets: Arc<[KnownAsset]>) {
        *lock(&self.assets) = assets;
    }
}

/// Standing approvals with their prices for people.
pub(crate) fn listed_approvals(
    standing: Vec<StandingApproval>,
    assets: &[KnownAsset],
) -> Vec<ListedApproval> {
    let listed = |approval: StandingApproval| {
        let shown = shown_price(&Money { amount: approval.max_price, asset: approval.asset() }, assets);
        ListedApproval { approval, shown }
    };
    standing.into_iter().map(listed).collect()
}

impl PendingGuard<'_> {
    fn is_waiting(&self) -> bool {
        lock(&self.approvals.waiting).by_id.contains_key(&self.id)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        lock(&self.approvals.waiting).by_id.remove(&self.id);
    }
}

/// A string of a request that is safe on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .take(LONGEST_URL)
        .map(|character| if character.is_ascii_graphic() { character } else { '?' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SchemeName;

    #[tokio::test]
    async fn at_the_limit_a_standing_approval_can_still_be_replaced() {
        let limits = Limits { standing_approvals: 1, ..Limits::default() };
        let approvals = OperatorApprovals::new(&limits, [].into(), Vec::new());
        let wanted = |host: &str, price: u64| {
            let asset = AssetId::token("eip155:1", "0x01");
            WantedPayment {
                method: "GET".to_owned(),
                url: format!("http://{host}/"),
                host: host.to_owned(),
                client: None,
                terms: Terms {
                    price: Money { amount: price.into(), asset: asset.clone() },
                    payee: Address([1; 20]),
                    scheme: SchemeName::MicroRaiden,
                },
                asset,
            }
        };
        let draft = |host, price, lasts| {
            let (waiting, _decided) = approvals.add(wanted(host, price), approvals.until()).unwrap();
            approvals.draft(waiting.id, Duration::from_secs(lasts)).map(|(_, approval)| approval)
        };
        approvals.apply(draft("a.example", 1, 600).unwrap());
        approvals.apply(draft("a.example", 2, 600).unwrap());
        assert_eq!(approvals.standing().len(), 1, "the second one has replaced the first");
        let others = [draft("b.example", 1, 600), draft("a.example", 3, 60)];
        assert!(others.iter().all(|other| matches!(other, Err(ApprovalError::TooMany { limit: 1 }))));
    }
}

//! The parties of recent rows, so that the journal has them once.

use std::collections::HashMap;
use std::sync::Arc;

use super::event::PaymentEvent;
use super::parties::LedgerParties;
use super::row::LedgerRow;
use super::tables::share_an_era;
use crate::protocol::policy::HostPattern;
use crate::protocol::schemes::SchemeName;
use crate::protocol::{Address, AssetId, ChannelId};

/// The longest method, host, client and rule in a row, in bytes.
const MAX_NAME: usize = 256;

/// The account that channels belong to.
#[derive(Clone, Debug)]
pub(super) struct LedgerAccount {
    pub(super) network: String,
    pub(super) token: String,
    /// Its row in the journal.
    pub(super) book: i64,
}

/// The parties of the rows of an era, which bounds it.
#[derive(Debug, Default)]
pub(super) struct PartiesCache {
    /// The number of the last row.
    last: u64,
    /// The parties by what an event tells about them: texts of addresses take long to make.
    known: HashMap<PartiesKey, Arc<LedgerParties>>,
    /// The row that introduced them, by their place in memory: hashing all their texts takes long. It keeps them there.
    first: HashMap<usize, (Arc<LedgerParties>, u64)>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PartiesKey {
    host: Arc<str>,
    client: Option<String>,
    rule: HostPattern,
    budgets: Vec<Arc<str>>,
    scheme: SchemeName,
    payee: Address,
    asset: AssetId,
    channel: Option<ChannelId>,
}

impl PartiesCache {
    /// The row that introduced the parties of `row`: itself if they are new.
    pub(super) fn first_row(&mut self, row: &LedgerRow) -> u64 {
        if !share_an_era(row.seq, self.last) {
            self.known.clear();
            self.first.clear();
        }
        self.last = row.seq;
        let place = Arc::as_ptr(&row.parties).addr();
        self.first.entry(place).or_insert_with(|| (Arc::clone(&row.parties), row.seq)).1
    }

    /// The parties of an event.
    pub(super) fn of(&mut self, event: &PaymentEvent, account: Option<&LedgerAccount>) -> Arc<LedgerParties> {
        let PaymentEvent { request, terms, channel, .. } = event;
        let key = PartiesKey {
            host: Arc::clone(&request.host),
            client: request.client.as_ref().map(|client| client.name.clone()),
            rule: request.rule.clone(),
            budgets: request.budgets.iter().map(|budget| Arc::clone(&budget.budget.name)).collect(),
            scheme: terms.scheme,
            payee: terms.payee,
            asset: terms.price.asset.clone(),
            channel: channel.map(|(id, _)| id),
        };
        if let Some(known) = self.known.get(&key) {
            return Arc::clone(known);
        }
        let (network, token) = match (&key.asset, account) {
            (AssetId::Token(token), _) => (token.network.clone(), token.token.clone()),
            (AssetId::ChannelToken, Some(account)) => (account.network.clone(), account.token.clone()),
            (AssetId::ChannelToken, None) => Default::default(),
        };
        let parties = Arc::new(LedgerParties {
            host: bounded(key.host.to_string()),
            client: bounded(key.client.clone().unwrap_or_default()),
            rule: bounded(key.rule.to_string()),
            budgets: key.budgets.iter().map(|name| name.to_string()).collect(),
            scheme: key.scheme.name().to_owned(),
            payee: key.payee.to_string(),
            network,
            token,
            channel: key.channel.map(|id| id.to_string()).unwrap_or_default(),
        });
        // Without the account, the token of its channels is not known yet.
        if account.is_some() {
            self.known.insert(key, Arc::clone(&parties));
        }
        parties
    }
}

/// Cuts a name to the most bytes that a row has for it.
pub(super) fn bounded(mut name: String) -> String {
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
        name.truncate(end);
    }
    name
}

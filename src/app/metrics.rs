//! What the proxy has counted and measured, in the text format of Prometheus. It is collected when it is read: only requests
//! and durations are counted as they happen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::amounts::{number, number_and_unit};
use crate::chain;
use crate::histogram::HistogramReading;
use crate::mutex::lock;
use crate::payments::journal;
use crate::payments::{BudgetView, ListedHold, Listing, Payments, Spending, SpendingReport};
use crate::protocol::policy::KnownAsset;
use crate::protocol::{Account, Amount, AssetId};
use crate::proxy::frontend::{MetricsSource, Readiness};
use crate::proxy::request_counts::{CountedRequests, RequestCounts};
use crate::telemetry;
use crate::workers::Workers;

/// How long what was read is given again, however often it is asked for.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// The host of all that have no label of their own.
const OTHER: &str = "other";

/// The metrics of a proxy; cheap to clone.
#[derive(Clone)]
pub(super) struct ProxyMetrics(Arc<MetricsState>);

struct MetricsState {
    requests: Vec<Arc<RequestCounts>>,
    workers: Workers<()>,
    payments: Option<Payments>,
    readiness: Readiness,
    since: SystemTime,
    /// The hosts of payees, and of budgets of which each host has its own, that have labels of their own.
    hosts: Mutex<[HostLabels; 2]>,
    kept: Arc<tokio::sync::Mutex<Option<(Instant, Bytes)>>>,
}

/// What a proxy measures.
pub(super) struct MetricsParts {
    /// Those of each worker.
    pub requests: Vec<Arc<RequestCounts>>,
    pub workers: Workers<()>,
    /// Absent without a wallet.
    pub payments: Option<Payments>,
    pub readiness: Readiness,
    /// How many hosts have labels of their own.
    pub most_hosts: usize,
}

/// The first hosts that were seen. They keep their labels, so that no counter ever falls.
#[derive(Debug)]
struct HostLabels {
    known: BTreeSet<String>,
    most: usize,
}

impl HostLabels {
    fn new(most: usize) -> Self {
        Self { known: BTreeSet::new(), most }
    }

    /// The label of a host; `None` for one beyond the limit.
    fn own(&mut self, host: &str) -> Option<String> {
        let is_own = self.known.contains(host) || (self.known.len() < self.most && host != OTHER);
        is_own.then(|| {
            self.known.insert(host.to_owned());
            host.to_owned()
        })
    }
}

impl ProxyMetrics {
    pub(super) fn new(parts: MetricsParts) -> Self {
        let MetricsParts { requests, workers, payments, readiness, most_hosts } = parts;
        let hosts = Mutex::new([HostLabels::new(most_hosts), HostLabels::new(most_hosts)]);
        let (since, kept) = (SystemTime::now(), Arc::default());
        Self(Arc::new(MetricsState { requests, workers, payments, readiness, since, hosts, kept }))
    }
}

impl MetricsSource for ProxyMetrics {
    fn read(&self) -> BoxFuture<'static, (HeaderValue, Bytes)> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let mut kept = Arc::clone(&state.kept).lock_owned().await;
            let text = match &*kept {
                Some((at, text)) if at.elapsed() < KEPT_FOR => text.clone(),
                _ => {
                    let text = state.text().await;
                    *kept = Some((Instant::now(), text.clone()));
                    text
                }
            };
            (HeaderValue::from_static(prometheus_text::CONTENT_TYPE), text)
        })
    }
}

impl MetricsState {
    async fn text(&self) -> Bytes {
        let listing = match &self.payments {
            Some(payments) => payments.list().await,
            None => None,
        };
        let mut registry = Registry::with_prefix("tollpass");
        registry.register_collector(Box::new(Families(self.families(listing))));
        let mut text = String::new();
        // Writing to a string cannot fail, and the collector adds no error of its own.
        let _ = prometheus_text::encode(&mut text, &registry);
        text.into()
    }

    fn families(&self, listing: Option<Listing>) -> Vec<Family> {
        let mut families = self.of_process();
        families.extend(of_requests(&RequestCounts::sum(self.requests.iter().map(|counts| &**counts))));
        if let Some(payments) = &self.payments {
            let [payees, budgets] = &mut *lock(&self.hosts);
            let report = payments.report();
            let assets = payments.approvals().assets();
            let names = AssetNames { assets: &assets, account: report.from };
            families.extend(of_spending(&report, &names, payees));
            families.extend(of_holds(&payments.holds(), &names));
            families.extend(of_budgets(&payments.budgets(), budgets));
            families.extend(of_channels(listing.as_ref(), &names));
            families.push(Family::gauge("frozen", "Whether nothing is signed").with(payments.is_frozen()));
            let pending = payments.approvals().list().len();
            families
                .push(Family::gauge("approvals_pending", "Payments that wait for approval").with(pending));
            let paused = payments.paused_hosts().len();
            families.push(
                Family::gauge("paused_hosts", "Hosts that are not paid until they are resumed").with(paused),
            );
        }
        families
    }

    fn of_process(&self) -> Vec<Family> {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let errors = chain::NODE_ERRORS.load(Ordering::Relaxed);
        vec![
            Family::gauge("build_info", "The version of tollpass")
                .labelled([("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0),
            Family::gauge("start_time_seconds", "When the proxy was started, in seconds since 1970")
                .with(since),
            Family::gauge("ready", "Whether the proxy can pay what its rules promise")
                .with(self.readiness.is_ready()),
            Family::gauge("connections", "Open connections of clients").with(self.workers.connections()),
            Family::counter("log_lines_lost", "Log lines that could not be written")
                .with(telemetry::lost_lines()),
            Family::histogram("node_request_duration_seconds", "How long nodes took to respond")
                .with(chain::NODE_LATENCY.read()),
            Family::counter("node_errors", "Requests to nodes without a usable response").with(errors),
            Family::histogram(
                "journal_write_duration_seconds",
                "How long durable writes to the journal took",
            )
            .with(journal::WRITE_LATENCY.read()),
        ]
    }
}

fn of_requests(counted: &CountedRequests) -> [Family; 2] {
    let mut requests =
        Family::counter("requests", "Requests by how they were handled and the class of the status");
    for (kind, status, count) in &counted.by_kind {
        requests.add([("kind", (*kind).to_owned()), ("status", (*status).to_owned())], *count);
    }
    let mut refusals =
        Family::counter("refusals", "Requests that were not paid or not forwarded, by the reason");
    for (reason, count) in &counted.by_reason {
        refusals.add([("reason", reason.as_str().to_owned())], *count);
    }
    [requests, refusals]
}

/// Payments by asset and host. What went to payees beyond `limits.report_payees` has no host.
fn of_spending(report: &SpendingReport, names: &AssetNames<'_>, hosts: &mut HostLabels) -> [Family; 4] {
    let mut payments = Family::counter("payments", "Payments that sellers took");
    let mut amounts = Family::counter("paid_amount", "What was paid, in whole tokens or base units");
    let mut unclear = Family::gauge("unclear_payments", "Payments whose outcome is unclear");
    let mut unclear_amounts = Family::gauge("unclear_amount", "Their amounts, in whole tokens or base units");
    let of_channels = (AssetId::ChannelToken, &report.payees, report.others);
    let others = report.other_assets.iter();
    let others =
        others.map(|other| (AssetId::token(&other.network, &other.token), &other.payees, other.others));
    // The token of channels may also have been paid without a channel.
    let mut by_asset: BTreeMap<AssetId, BTreeMap<String, Spending>> = BTreeMap::new();
    for (asset, payees, rest) in std::iter::once(of_channels).chain(others) {
        let by_host = by_asset.entry(names.token(&asset)).or_default();
        let mut add = |host: Option<String>, spent: &Spending| {
            let sum = by_host.entry(host.unwrap_or_else(|| OTHER.to_owned())).or_default();
            *sum = sum.plus(spent);
        };
        payees.iter().for_each(|payee| add(hosts.own(&payee.host), &payee.spent));
        if rest != Spending::default() {
            add(None, &rest);
        }
    }
    for (asset, by_host) in by_asset {
        for (host, Spending { paid, unclear: doubt, .. }) in by_host {
            let labels = |unit: Option<(&'static str, String)>| {
                names.labels(&asset).into_iter().chain(unit).chain([("host", host.clone())])
            };
            let unit = || Some(("unit", names.unit(&asset)));
            payments.add(labels(None), paid.requests);
            amounts.add(labels(unit()), names.number(&asset, paid.amount));
            unclear.add(labels(None), doubt.requests);
            unclear_amounts.add(labels(unit()), names.number(&asset, doubt.amount));
        }
    }
    [payments, amounts, unclear, unclear_amounts]
}

fn of_holds(holds: &[ListedHold], names: &AssetNames<'_>) -> [Family; 2] {
    let mut sums: BTreeMap<(&'static str, AssetId), (u64, f64)> = BTreeMap::new();
    for hold in holds {
        let asset = match (&hold.network, &hold.token) {
            (Some(network), Some(token)) => AssetId::token(network, token),
            _ => AssetId::ChannelToken,
        };
        let asset = names.token(&asset);
        let amount = names.number(&asset, hold.amount);
        let sum = sums.entry((hold.reason.name(), asset)).or_default();
        *sum = (sum.0 + 1, sum.1 + amount);
    }
    let mut counts = Family::gauge("holds", "Amounts that can be spent on nothing else now, by the reason");
    let mut amounts = Family::gauge("held_amount", "Their sum, in whole tokens or base units");
    for ((reason, asset), (count, amount)) in sums {
        let labels =
            |unit| names.labels(&asset).into_iter().chain(unit).chain([("reason", reason.to_owned())]);
        counts.add(labels(None), count);
        amounts.add(labels(Some(("unit", names.unit(&asset)))), amount);
    }
    [counts, amounts]
}

/// What is left of budgets. Of those of which each host has its own, only hosts with labels of their own have one.
fn of_budgets(budgets: &[BudgetView], hosts: &mut HostLabels) -> [Family; 2] {
    let mut limits = Family::gauge("budget_limit", "The limits of budgets, in their unit");
    let mut left = Family::gauge("budget_left", "What is left of them");
    for budget in budgets {
        let host = match &budget.host {
            None => String::new(),
            Some(host) => match hosts.own(host) {
                Some(host) => host,
                None => continue,
            },
        };
        let labels = |limit: &str, unit: &str| {
            [("budget", &*budget.name), ("host", &host), ("limit", limit), ("unit", unit)]
                .map(|(name, value)| (name, value.to_owned()))
        };
        for window in &budget.windows {
            let (Some((limit, unit)), Some((rest, _))) =
                (number_and_unit(&window.limit), number_and_unit(&window.left))
            else {
                continue;
            };
            limits.add(labels(&window.key, unit), limit);
            left.add(labels(&window.key, unit), rest);
        }
        if let Some(most) = budget.max_payments {
            limits.add(labels("payments", "payments"), most);
            left.add(labels("payments", "payments"), most.saturating_sub(budget.payments));
        }
    }
    [limits, left]
}

fn of_channels(listing: Option<&Listing>, names: &AssetNames<'_>) -> [Family; 3] {
    let mut counts = Family::gauge("channels", "Payment channels, by their phase");
    let mut deposits = Family::gauge("channel_deposits", "The deposits of channels that are not gone");
    let mut promised = Family::gauge("channel_promises", "What was promised on them, at most");
    let mut phases: BTreeMap<&str, u64> = ["open", "closing", "gone"].map(|phase| (phase, 0)).into();
    let (mut locked, mut signed) = (0.0, 0.0);
    let asset = AssetId::ChannelToken;
    for channel in listing.into_iter().flat_map(|listing| &listing.channels) {
        *phases.entry(&channel.phase).or_default() += 1;
        if channel.phase != "gone" {
            locked += names.number(&asset, channel.deposit);
            signed += names.number(&asset, channel.promised);
        }
    }
    for (phase, count) in phases {
        counts.add([("phase", phase.to_owned())], count);
    }
    let labels = || names.labels(&asset).into_iter().chain([("unit", names.unit(&asset))]);
    deposits.add(labels(), locked);
    promised.add(labels(), signed);
    [counts, deposits, promised]
}

/// The names of assets in labels.
struct AssetNames<'a> {
    assets: &'a [KnownAsset],
    /// Tells the token of channels, once it is known.
    account: Option<Account>,
}

impl AssetNames<'_> {
    /// The asset itself: for the token of channels, the token, once it is known.
    fn token(&self, asset: &AssetId) -> AssetId {
        match (asset, &self.account) {
            (AssetId::ChannelToken, Some(account)) => account.token_asset(),
            _ => asset.clone(),
        }
    }

    fn known(&self, asset: &AssetId) -> Option<&KnownAsset> {
        let token = self.token(asset);
        self.assets.iter().find(|known| known.asset == token)
    }

    /// Its symbol and network or, if it is not known, its address.
    fn labels(&self, asset: &AssetId) -> [(&'static str, String); 2] {
        let (name, network) = match (self.known(asset), self.token(asset)) {
            (Some(known), _) => (known.symbol.clone(), known.network.clone()),
            (None, AssetId::Token(token)) => (token.token.clone(), token.network.clone()),
            (None, AssetId::ChannelToken) => ("channel token".to_owned(), String::new()),
        };
        [("asset", name), ("network", network)]
    }

    /// Whether amounts are whole tokens.
    fn unit(&self, asset: &AssetId) -> String {
        if self.known(asset).is_some() { "tokens" } else { "base units" }.to_owned()
    }

    /// An amount in that unit, as exactly as a floating-point number can be.
    fn number(&self, asset: &AssetId, amount: Amount) -> f64 {
        number(amount, self.known(asset).map_or(0, |known| known.decimals))
    }
}

/// One metric with all its samples.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Vec<(&'static str, String)>, Sample)>,
}

/// One value.
#[derive(Debug)]
enum Sample {
    Whole(u64),
    Number(f64),
    Histogram(HistogramReading),
}

impl From<u64> for Sample {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Sample {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Sample {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<HistogramReading> for Sample {
    fn from(value: HistogramReading) -> Self {
        Self::Histogram(value)
    }
}

impl Family {
    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// `_total` follows the name.
    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Counter)
    }

    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Gauge)
    }

    fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::Histogram)
    }

    fn add(&mut self, labels: impl IntoIterator<Item = (&'static str, String)>, value: impl Into<Sample>) {
        self.samples.push((labels.into_iter().collect(), value.into()));
    }

    fn with(self, value: impl Into<Sample>) -> Self {
        self.labelled([], value)
    }

    fn labelled(
        mut self,
        labels: impl IntoIterator<Item = (&'static str, String)>,
        value: impl Into<Sample>,
    ) -> Self {
        self.add(labels, value);
        self
    }
}

/// Everything that is written.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, kind, samples } in &self.0 {
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            for (labels, value) in samples {
                write(family.encode_family(labels)?, *kind, value)?;
            }
        }
        Ok(())
    }
}

fn write(mut metric: MetricEncoder<'_>, kind: MetricType, value: &Sample) -> fmt::Result {
    match (value, kind) {
        (Sample::Whole(value), MetricType::Counter) => {
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)
        }
        (Sample::Number(value), MetricType::Counter) => {
            metric.encode_counter::<NoLabelSet, _, u64>(value, None)
        }
        (Sample::Whole(value), _) => metric.encode_gauge(value),
        (Sample::Number(value), _) => metric.encode_gauge(value),
        (Sample::Histogram(HistogramReading { sum, count, buckets }), _) => {
            metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payments::{AssetSpending, PayeeSpending, Tally};
    use crate::protocol::Address;
    use crate::protocol::engine::HoldReason;

    fn spent(amount: u64) -> Spending {
        Spending { paid: Tally { requests: 1, amount: amount.into() }, ..Spending::default() }
    }

    /// The amounts paid to each host.
    fn paid(report: &SpendingReport, hosts: &mut HostLabels) -> BTreeMap<String, f64> {
        let names = AssetNames { assets: &[], account: None };
        let [_, amounts, _, _] = of_spending(report, &names, hosts);
        let host = |labels: Vec<(&str, String)>| {
            labels.into_iter().find(|(name, _)| *name == "host").map(|(_, host)| host).unwrap()
        };
        let number = |value| match value {
            Sample::Number(number) => number,
            other => panic!("{other:?}"),
        };
        amounts.samples.into_iter().map(|(labels, value)| (host(labels), number(value))).collect()
    }

    #[test]
    fn ten_thousand_payees_have_no_more_labels_than_the_limit_and_none_changes() {
        let mut hosts = HostLabels::new(100);
        let payee = |number: u64| PayeeSpending {
            host: format!("h{number}.example"),
            receiver: Address::default(),
            spent: spent(1),
        };
        let mut report = SpendingReport { payees: (0..60).map(payee).collect(), ..SpendingReport::default() };
        let first = paid(&report, &mut hosts);
        assert_eq!(first.len(), 60);
        report.payees = (0..10_000).rev().map(payee).collect();
        report.others = spent(5);
        let all = paid(&report, &mut hosts);
        assert_eq!(all.len(), 101);
        assert!(first.keys().all(|host| all[host] == 1.0), "{all:?}");
        assert_eq!(all[OTHER], 9900.0 + 5.0);
        report.payees.reverse();
        assert_eq!(paid(&report, &mut hosts), all, "whatever the order");
        report.payees[0].host = OTHER.to_owned();
        let all = paid(&report, &mut HostLabels::new(1_000_000));
        assert_eq!((all.len(), all[OTHER]), (10_000, 6.0), "a host of that name is among the others");
    }

    #[test]
    fn the_token_of_channels_has_one_sample_however_it_was_paid() {
        let [contract, token, payer] = [Address::default(); 3];
        let account = Account { chain_id: 1, contract, token, payer };
        let names = AssetNames { assets: &[], account: Some(account) };
        let payees =
            |amount| vec![PayeeSpending { host: "a".to_owned(), receiver: payer, spent: spent(amount) }];
        let (network, token) = ("eip155:1".to_owned(), token.to_string());
        let other = AssetSpending {
            network: network.clone(),
            token: token.clone(),
            payees: payees(20),
            ..AssetSpending::default()
        };
        let report =
            SpendingReport { payees: payees(1), other_assets: vec![other], ..SpendingReport::default() };
        let hold = |asset: Option<(&str, &str)>| ListedHold {
            reason: HoldReason::InDoubt,
            amount: 5.into(),
            network: asset.map(|(network, _)| network.to_owned()),
            token: asset.map(|(_, token)| token.to_owned()),
            payee: payer,
            channel: None,
            host: None,
            budgets: Vec::new(),
            age_s: 0,
            free_in_s: None,
            until: String::new(),
        };
        let holds = [hold(None), hold(Some((&network, &token)))];
        let families = of_spending(&report, &names, &mut HostLabels::new(10));
        for (family, expected) in
            families.into_iter().chain(of_holds(&holds, &names)).zip([2.0, 21.0, 0.0, 0.0, 2.0, 10.0])
        {
            let values = family.samples.iter().map(|(_, value)| match value {
                Sample::Whole(value) => *value as f64,
                Sample::Number(value) => *value,
                Sample::Histogram(_) => panic!("{}", family.name),
            });
            assert_eq!(values.collect::<Vec<_>>(), [expected], "{}", family.name);
        }
    }

    #[test]
    fn amounts_are_whole_tokens_if_the_token_is_known() {
        let usdc = KnownAsset::new("USDC", "eip155:1", Address::default(), 6, None);
        let names = AssetNames { assets: std::slice::from_ref(&usdc), account: None };
        assert_eq!(names.number(&usdc.asset, 1_500_000.into()), 1.5);
        assert_eq!(names.labels(&usdc.asset).map(|(_, name)| name), ["USDC", "eip155:1"]);
        let unknown = AssetId::token("eip155:2", "0xabc");
        assert_eq!(names.number(&unknown, 1_500_000.into()), 1_500_000.0);
        assert_eq!(
            (names.unit(&usdc.asset).as_str(), names.unit(&unknown).as_str()),
            ("tokens", "base units")
        );
    }
}

//! What the dashboard shows of the ledger: its rows, the newest first, and what they add up to by day and host.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::app::amounts::{number, shown_amount};
use crate::mutex::lock;
use crate::payments::journal::{JournalError, LedgerPlace, LedgerReader, LedgerSums};
use crate::payments::ledger::{DAY, LedgerRow, LedgerState, LedgerSum, OnChainUse, SignedAmount, SumKey};
use crate::protocol::AssetId;
use crate::protocol::policy::KnownAsset;
use crate::proxy::frontend::DashboardError;

/// How many payments one response has, at most.
const MOST_ROWS: usize = 50;
/// How many payments one request looks at, at most; the page asks for more from there on.
const MOST_SEARCHED: usize = 20_000;
/// How many hosts have bars of their own.
const MOST_HOSTS: usize = 12;
/// How many days a chart has, by default and at most.
const DAYS: (u64, u64) = (30, 366);

/// Which payments are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LedgerQuery {
    /// What the request, client or payee contains, in lower case.
    text: String,
    states: Option<&'static [LedgerState]>,
    /// Where the last response has ended.
    before: Option<LedgerPlace>,
}

/// The groups of states.
const GROUPS: [(&str, &[LedgerState]); 3] = [
    ("paid", &[LedgerState::Paid, LedgerState::PaidNotDelivered]),
    ("open", &[LedgerState::Held, LedgerState::Sent, LedgerState::InDoubt]),
    ("refused", &[LedgerState::Refused, LedgerState::Expired, LedgerState::Unsent]),
];

impl LedgerQuery {
    /// Reads the query of a URL: `text`, `show` and `before`, each of which may be missing.
    pub(super) fn parse(query: &str) -> Result<Self, DashboardError> {
        let mut parsed = Self::default();
        for (name, value) in pairs(query) {
            match name.as_str() {
                "text" => parsed.text = value.to_lowercase(),
                "show" if value.is_empty() => {}
                "show" => {
                    let group = GROUPS.iter().find(|(name, _)| *name == value);
                    let unknown = || DashboardError::Invalid("show is paid, open or refused".to_owned());
                    parsed.states = Some(group.ok_or_else(unknown)?.1);
                }
                "before" if value.is_empty() => {}
                "before" => {
                    let place = value.split_once('.').and_then(|(chain, seq)| {
                        Some(LedgerPlace { chain: chain.parse().ok()?, seq: seq.parse().ok()? })
                    });
                    let invalid =
                        || DashboardError::Invalid("before is not a place in the ledger".to_owned());
                    parsed.before = Some(place.ok_or_else(invalid)?);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    fn selects(&self, row: &LedgerRow) -> bool {
        if self.states.is_some_and(|states| !states.contains(&row.state)) {
            return false;
        }
        let parties = &row.parties;
        self.text.is_empty()
            || [&row.method, &parties.host, &row.path, &parties.client, &parties.payee, &parties.channel]
                .iter()
                .any(|text| text.to_lowercase().contains(&self.text))
    }
}

/// The number of days in the query of a URL.
pub(super) fn days(query: &str) -> u64 {
    let days = pairs(query).find(|(name, _)| name == "days").and_then(|(_, days)| days.parse().ok());
    days.unwrap_or(DAYS.0).clamp(1, DAYS.1)
}

/// The decoded names and values of a query.
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query.split('&').map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

/// The newest payments that a query selects, each in its last state, and where the next ones begin.
pub(super) fn rows(
    reader: &LedgerReader,
    query: &LedgerQuery,
    assets: &[KnownAsset],
) -> Result<Value, JournalError> {
    let (mut found, mut searched, mut next) = (Vec::new(), 0, None);
    reader.newest_first(query.before, |place, one| {
        if found.len() == MOST_ROWS || searched == MOST_SEARCHED {
            // Before the row after this one.
            next = Some(LedgerPlace { seq: place.seq + 1, ..place });
            return ControlFlow::Break(());
        }
        searched += 1;
        if query.selects(&one) {
            found.push(row(&one, assets));
        }
        ControlFlow::Continue(())
    })?;
    let next = next.map(|LedgerPlace { chain, seq }| format!("{chain}.{seq}"));
    Ok(json!({ "rows": found, "next": next }))
}

/// A row for people.
pub(super) fn row(row: &LedgerRow, assets: &[KnownAsset]) -> Value {
    let parties = &row.parties;
    let amount = if row.state.is_payment() { row.price.into() } else { row.adjusts };
    json!({
        "seq": row.seq,
        "at": row.at,
        // A JSON number loses precision above 2^53.
        "payment": format!("{:x}", row.payment),
        "state": row.state,
        "amount": shown_amount(amount, &parties.network, &parties.token, assets),
        "method": row.method,
        "host": parties.host,
        "path": row.path,
        "client": parties.client,
        "rule": parties.rule,
        "budgets": parties.budgets,
        "payee": parties.payee,
        "network": parties.network,
        "channel": parties.channel,
        "claim": row.claim(),
        "chain": row.confirmation.map(OnChainUse::name),
    })
}

/// What was paid in one asset.
struct AssetHistory<'a> {
    total: PaidSum,
    days: Vec<LedgerSum>,
    hosts: BTreeMap<&'a str, PaidSum>,
}

/// What was paid in the time of a chart, and ever.
#[derive(Default)]
struct PaidSum {
    shown: LedgerSum,
    /// Tells what is unclear: the row that ends it may be of another day than the one that began it.
    ever: LedgerSum,
}

impl PaidSum {
    fn add(&mut self, sum: &LedgerSum, is_shown: bool) {
        self.ever.merge(sum);
        if is_shown {
            self.shown.merge(sum);
        }
    }

    fn is_shown(&self) -> bool {
        self.shown != LedgerSum::default()
    }

    /// What sellers may have taken, or may still take; `None` if that is nothing.
    fn unclear(&self) -> Option<SignedAmount> {
        let LedgerSum { in_flight, in_doubt, unknown, .. } = self.ever;
        let unclear = in_flight.plus(in_doubt).plus(unknown);
        let (amount, is_negative) = unclear.parts();
        (!is_negative && !amount.is_zero()).then_some(unclear)
    }
}

/// What was paid on each of the last days and to each host, by asset. Adds to `sums` what is new in the ledger.
pub(super) fn sums(
    reader: &mut LedgerReader,
    sums: &Mutex<LedgerSums>,
    days: u64,
    assets: &[KnownAsset],
) -> Result<Value, JournalError> {
    let mut sums = lock(sums);
    reader.add_up(&mut sums)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let today = u64::try_from(now).unwrap_or_default() / DAY;
    Ok(charts(sums.all(), (today, days), assets))
}

/// The charts of so many days up to `today`.
fn charts(sums: &BTreeMap<SumKey, LedgerSum>, (today, days): (u64, u64), assets: &[KnownAsset]) -> Value {
    let first = today.saturating_sub(days.saturating_sub(1));
    let length = usize::try_from(days).unwrap_or_default();
    let mut by_asset: BTreeMap<(&str, &str), AssetHistory<'_>> = BTreeMap::new();
    for (key, sum) in sums.iter().filter(|(key, _)| !key.token.is_empty()) {
        let history = by_asset.entry((&key.network, &key.token)).or_insert_with(|| AssetHistory {
            total: PaidSum::default(),
            days: vec![LedgerSum::default(); length],
            hosts: BTreeMap::new(),
        });
        let day = key.day.checked_sub(first);
        history.total.add(sum, day.is_some());
        history.hosts.entry(&key.host).or_default().add(sum, day.is_some());
        let day = day.and_then(|day| history.days.get_mut(usize::try_from(day).ok()?));
        if let Some(day) = day {
            day.merge(sum);
        }
    }
    by_asset.retain(|_, history| history.total.is_shown());
    let mut shown: Vec<(u64, Value)> = by_asset
        .into_iter()
        .map(|((network, token), history)| {
            (history.total.shown.payments, asset(history, (network, token), first, assets))
        })
        .collect();
    shown.sort_by_key(|(payments, _)| std::cmp::Reverse(*payments));
    let shown: Vec<Value> = shown.into_iter().map(|(_, asset)| asset).collect();
    // Too many sums lose their day, the oldest first.
    let is_cut = sums.keys().any(|key| key.day == 0 && !key.token.is_empty());
    json!({ "days": days, "assets": shown, "is_cut": is_cut })
}

fn asset(
    history: AssetHistory<'_>,
    (network, token): (&str, &str),
    first: u64,
    assets: &[KnownAsset],
) -> Value {
    let id = AssetId::token(network, token);
    let known = assets.iter().find(|known| known.asset == id);
    let decimals = known.map_or(0, |known| known.decimals);
    let show = |amount| shown_amount(amount, network, token, assets);
    let paid = |sum: &LedgerSum| match sum.paid.parts() {
        (_, true) => 0.0,
        (amount, false) => number(amount, decimals),
    };
    let bar =
        |sum: &LedgerSum| json!({ "value": paid(sum), "shown": show(sum.paid), "payments": sum.payments });
    let with = |mut bar: Value, name: &str, value: Value| {
        bar[name] = value;
        bar
    };
    // Null if there is nothing unclear.
    let with_unclear = |sum: &PaidSum| with(bar(&sum.shown), "unclear", sum.unclear().map(show).into());
    let days = (first..).zip(&history.days).map(|(day, sum)| with(bar(sum), "at", (day * DAY).into()));
    let mut hosts: Vec<(&str, PaidSum)> =
        history.hosts.into_iter().filter(|(_, sum)| sum.is_shown()).collect();
    hosts.sort_by(|(_, one), (_, other)| paid(&other.shown).total_cmp(&paid(&one.shown)));
    let others = hosts.split_off(hosts.len().min(MOST_HOSTS));
    let mut rest = LedgerSum::default();
    others.iter().for_each(|(_, sum)| rest.merge(&sum.shown));
    let hosts = hosts.iter().map(|(host, sum)| with(with_unclear(sum), "host", (*host).into()));
    json!({
        "symbol": known.map_or(token, |known| &known.symbol),
        "network": network,
        "token": token,
        "total": with_unclear(&history.total),
        "days": days.collect::<Vec<_>>(),
        "hosts": hosts.collect::<Vec<_>>(),
        "others": (!others.is_empty()).then(|| with(bar(&rest), "hosts", others.len().into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Amount;

    #[test]
    fn a_query_has_filters_and_a_place() {
        let parsed = LedgerQuery::parse("text=Api.Example+%2Fx&show=refused&before=1.20&other=1").unwrap();
        assert_eq!(parsed.text, "api.example /x");
        assert_eq!(parsed.before, Some(LedgerPlace { chain: 1, seq: 20 }));
        assert!(parsed.states.unwrap().contains(&LedgerState::Expired));
        assert_eq!(LedgerQuery::parse(""), Ok(LedgerQuery::default()));
        assert_eq!(LedgerQuery::parse("text=&show=&before="), Ok(LedgerQuery::default()));
        for wrong in ["show=x", "before=1", "before=x.1"] {
            assert!(matches!(LedgerQuery::parse(wrong), Err(DashboardError::Invalid(_))), "{wrong}");
        }
        assert_eq!([days(""), days("days=7"), days("days=0"), days("days=99999")], [30, 7, 1, 366]);
    }

    fn summed(day: u64, host: &str, sum: LedgerSum) -> (SumKey, LedgerSum) {
        let (network, token, host) = ("eip155:1".to_owned(), "0xabc".to_owned(), host.to_owned());
        (SumKey { day, network, token, host, ..SumKey::default() }, sum)
    }

    #[test]
    fn what_is_unclear_is_what_all_days_together_leave() {
        let (plus, minus) = (SignedAmount::from(Amount::from(5)), "-5".parse().unwrap());
        let began = LedgerSum { payments: 1, in_doubt: plus, ..LedgerSum::default() };
        let taken = LedgerSum { in_doubt: minus, paid: plus, ..LedgerSum::default() };
        let expired = LedgerSum { in_doubt: minus, ..LedgerSum::default() };
        let sums = BTreeMap::from([
            summed(90, "ended", began.clone()),
            summed(99, "ended", taken),
            summed(99, "open", began.clone()),
            summed(90, "long ago", began.clone()),
            summed(98, "expired", began),
            summed(100, "expired", expired),
        ]);
        let of = |days| {
            let told = charts(&sums, (100, days), &[]);
            let asset = &told["assets"][0];
            let hosts = asset["hosts"].as_array().unwrap().iter();
            let hosts =
                hosts.map(|host| (host["host"].as_str().unwrap().to_owned(), host["unclear"].clone()));
            (asset["total"]["unclear"].clone(), hosts.collect::<BTreeMap<_, _>>(), asset["days"].clone())
        };
        let unclear = Value::from("5 units");
        for days in [2, 3, 30] {
            let (total, hosts, of_days) = of(days);
            assert_eq!(total, "10 units", "{days} days");
            assert_eq!(hosts["ended"], Value::Null, "{days} days");
            assert_eq!(hosts["expired"], Value::Null, "{days} days");
            assert_eq!(hosts["open"], unclear, "{days} days");
            assert_eq!(hosts.get("long ago"), (days == 30).then_some(&unclear), "{days} days");
            assert!(of_days.as_array().unwrap().iter().all(|day| day.get("unclear").is_none()), "{of_days}");
        }
        assert_eq!(charts(&sums, (200, 7), &[])["assets"], json!([]), "nothing was paid in this time");
    }

    #[test]
    fn the_page_is_told_of_payments_without_a_day() {
        let paid = LedgerSum { payments: 1, paid: Amount::from(5).into(), ..LedgerSum::default() };
        let mut sums = BTreeMap::from([summed(100, "a", paid.clone())]);
        assert_eq!(charts(&sums, (100, 7), &[])["is_cut"], false);
        sums.extend([summed(0, "a", paid)]);
        let told = charts(&sums, (100, 7), &[]);
        assert_eq!(told["is_cut"], true);
        assert_eq!(told["assets"][0]["total"]["payments"], 1);
    }
}

//! `tollpass ledger`: every payment, sums, and whether rows were changed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output::{print, tell};
use super::table::{Column, table};
use crate::app::{shown_amount, unlock};
use crate::payments::LedgerKey;
use crate::payments::journal::LedgerReader;
use crate::payments::ledger::{DAY, LedgerRow, LedgerSum, OnChainUse, PaymentTimes, SignedAmount, SumKey};
use crate::protocol::AssetId;
use crate::protocol::policy::{HostPattern, KnownAsset};

/// What `tollpass ledger --help` shows below the options.
const AFTER_HELP: &str = "\
Reads the journal itself, while `serve` runs or not. Each change of a payment's state is
a row: held and sent while it is outstanding; then paid, paid-not-delivered (the seller
took it and withheld the response), refused (not accepted; the seller may still redeem
it), in-doubt, expired (provably unused) or unsent. CLAIM is what the seller states: a
receipt, or an offer that it has signed. CHAIN is what a confirmed block has shown: used,
or unused once the payment has expired, so that the seller never took the money, even if
it has served. A payment that ends within a second has one row. After a crash, recovered says how much more a channel may have paid for unknown requests;
settled corrects that by what the chain paid out. Per channel, all rows together are the
most that its seller can hold.

Paths are without query, with * for what may be a token. Amounts in --json and --csv are
base units. `ledger verify` opens the wallet, whose key the rows are sealed with.";

/// The newest rows that a table shows.
const SHOWN: usize = 100;

/// List payments, add them up, and verify that no row was changed
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct LedgerArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Write rows as CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Only rows since then: a duration such as 7d, a date, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since, allow_hyphen_values = true)]
    pub since: Option<SystemTime>,
    /// Only requests to this host, or to hosts that match a pattern such as *.example.com
    #[arg(long, value_name = "HOST")]
    pub host: Option<HostPattern>,
    /// Only requests of the client with this name
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Only the newest rows, this many; a table shows 100 by default
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
    /// Print sums instead of rows
    #[arg(long, value_enum, conflicts_with_all = ["csv", "limit"])]
    pub by: Option<SumBy>,
    /// The subcommand; rows or sums if omitted.
    #[command(subcommand)]
    pub command: Option<LedgerCommand>,
}

/// The subcommands of `ledger`.
#[derive(Clone, Debug, Subcommand)]
pub enum LedgerCommand {
    /// Verify that no row was changed, removed, moved or added
    Verify,
}

/// What to add up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SumBy {
    /// The host, with its port.
    Host,
    /// The day, in UTC.
    Day,
    /// The rule, by its host pattern.
    Rule,
    /// The client.
    Client,
    /// The asset.
    Asset,
}

/// Prints rows, sums or the result of the verification.
///
/// # Errors
/// There is no ledger, it cannot be read, or its rows were changed.
pub async fn run(args: LedgerArgs) -> anyhow::Result<()> {
    let state_dir = args.place.state_dir()?;
    let Some(mut reader) = LedgerReader::open(&state_dir)? else {
        bail!(
            "{} contains no ledger; give the state directory of your proxy with --state-dir, or its configuration with \
             --config",
            state_dir.display()
        );
    };
    match (&args.command, args.by) {
        (Some(LedgerCommand::Verify), _) => {
            let wallet = args.place.load()?.wallet;
            let wallet =
                wallet.context("only the wallet's key can verify the ledger: give its configuration")?;
            let signer = unlock(wallet, &state_dir).await?;
            let payer = signer.address();
            let verified = reader.verify(&LedgerKey::of(&signer), payer)?;
            let (first, last, has_copy) = (verified.first, verified.last, verified.has_copy);
            if args.json {
                return print(json!({"first": first, "last": last, "has_copy": has_copy}).to_string() + "\n");
            }
            let copy = match has_copy {
                true => "",
                false => "; without a copy of its head, rows that are missing at its end may go unnoticed",
            };
            print(match last < first {
                true => format!("the ledger of {payer} is empty{copy}\n"),
                false => {
                    format!("the ledger of {payer} is unchanged, from row {first} to row {last}{copy}\n")
                }
            })
        }
        (None, Some(by)) => sums(&args, by, &reader, &args.place.known_assets()),
        (None, None) => rows(&args, &reader, &args.place.known_assets()),
    }
}

/// Parses a time: a duration before now, a date or a time.
fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH));
    }
    let parsed = humantime::parse_rfc3339_weak(text);
    let parsed = parsed.or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")));
    parsed.map_err(|_| "not a duration such as 7d, a date or a time".to_owned())
}

impl LedgerArgs {
    /// In milliseconds since 1970.
    fn since(&self) -> u64 {
        self.since.map_or(0, |since| {
            let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn selects(&self, at: u64, host: &str, client: &str) -> bool {
        let is_host = |pattern: &HostPattern| pattern.matches(host) || pattern.matches(without_port(host));
        at >= self.since()
            && self.host.as_ref().is_none_or(is_host)
            && self.client.as_ref().is_none_or(|name| name == client)
    }
}

/// Whether removed payments of this day may have begun after a time, and are not counted as such. Those of many days together
/// have the day 0.
fn is_cut(day: u64, since: u64) -> bool {
    day * DAY < since && (day == 0 || since < (day + 1) * DAY)
}

/// A host without its port, and without brackets.
fn without_port(host: &str) -> &str {
    let end = host.rfind(':').filter(|at| !host[*at..].contains(']')).unwrap_or(host.len());
    host[..end].trim_start_matches('[').trim_end_matches(']')
}

fn rows(args: &LedgerArgs, reader: &LedgerReader, assets: &[KnownAsset]) -> anyhow::Result<()> {
    let most = args.limit.unwrap_or(if args.json || args.csv { usize::MAX } else { SHOWN });
    let mut rows = VecDeque::new();
    reader.rows(|row| {
        if args.selects(row.at, &row.parties.host, &row.parties.client) {
            rows.push_back(row);
            if rows.len() > most {
                rows.pop_front();
            }
        }
    })?;
    if args.json {
        return print(serde_json::to_string_pretty(&rows)? + "\n");
    }
    if args.csv {
        return print(csv(&rows)?);
    }
    let head = ["ROW", "TIME", "STATE", "CLAIM", "CHAIN", "AMOUNT", "REQUEST", "CLIENT", "RULE"];
    let cells = rows.iter().map(|row| {
        let (amount, request) = match row.state.is_payment() {
            true => (row.price.into(), format!("{} {}{}", row.method, row.parties.host, row.path)),
            false => (
                row.adjusts,
                [row.parties.host.as_str(), row.parties.channel.as_str()].join(" ").trim().to_owned(),
            ),
        };
        [
            row.seq.to_string(),
            time(row.at),
            row.state.to_string(),
            row.claim(),
            row.confirmation.map(OnChainUse::name).unwrap_or_default().to_owned(),
            shown_amount(amount, &row.parties.network, &row.parties.token, assets),
            request,
            row.parties.client.clone(),
            row.parties.rule.clone(),
        ]
    });
    let columns = [
        Column::Right,
        Column::Left,
        Column::Left,
        Column::Left,
        Column::Left,
        Column::Right,
        Column::Left,
        Column::Left,
        Column::Left,
    ];
    print(table(columns, &std::iter::once(head.map(str::to_owned)).chain(cells).collect::<Vec<_>>()))
}

fn csv(rows: &VecDeque<LedgerRow>) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "row",
        "time",
        "payment",
        "state",
        "method",
        "host",
        "path",
        "client",
        "rule",
        "budgets",
        "scheme",
        "payee",
        "network",
        "token",
        "price",
        "counts",
        "adjusts",
        "channel",
        "total",
        "nonce",
        "receipt",
        "confirmation",
        "offer",
    ])?;
    for row in rows {
        let total = row.total.map(|total| total.to_string()).unwrap_or_default();
        writer.write_record([
            &row.seq.to_string(),
            &time(row.at),
            &format!("{:x}", row.payment),
            row.state.name(),
            &row.method,
            &row.parties.host,
            &row.path,
            &row.parties.client,
            &row.parties.rule,
            &row.parties.budgets.join(" "),
            &row.parties.scheme,
            &row.parties.payee,
            &row.parties.network,
            &row.parties.token,
            &row.price.to_string(),
            &row.counts.to_string(),
            &row.adjusts.to_string(),
            &row.parties.channel,
            &total,
            &row.nonce,
            &row.receipt,
            row.confirmation.map(OnChainUse::name).unwrap_or_default(),
            &row.offer,
        ])?;
    }
    Ok(writer.into_inner()?)
}

fn sums(args: &LedgerArgs, by: SumBy, reader: &LedgerReader, assets: &[KnownAsset]) -> anyhow::Result<()> {
    let mut sums: BTreeMap<(String, String, String), LedgerSum> = BTreeMap::new();
    let group = |key: &SumKey| match by {
        SumBy::Host => key.host.clone(),
        SumBy::Day => time(key.day * DAY).split('T').next().unwrap_or_default().to_owned(),
        SumBy::Rule => key.rule.clone(),
        SumBy::Client => key.client.clone(),
        SumBy::Asset => String::new(),
    };
    let removed = reader.removed()?;
    // Payments whose first row was removed began by then.
    let last_removed = removed.keys().map(|key| key.day * DAY).max().unwrap_or_default();
    if args.since.is_some() && removed.keys().any(|key| is_cut(key.day, args.since())) {
        tell(
            "note: some rows of this time were removed (ledger.keep, ledger.max_size), and of their payments only the day is \
             known, or less: these payments are not in the sums",
        );
    }
    for (key, sum) in removed {
        if args.selects(key.day * DAY, &key.host, &key.client) {
            sums.entry((group(&key), key.network, key.token)).or_default().merge(&sum);
        }
    }
    let mut begun = PaymentTimes::default();
    reader.rows(|row| {
        let at = begun.of(&row).unwrap_or(last_removed);
        if args.selects(at, &row.parties.host, &row.parties.client) {
            let key = SumKey { day: at / DAY, ..SumKey::of(&row) };
            sums.entry((group(&key), key.network, key.token)).or_default().add(&row);
        }
    })?;
    // The row of a gap has no asset.
    sums.retain(|(_, _, token), _| !token.is_empty());
    if args.json {
        let name = by.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let all = sums.iter().map(|((group, network, token), sum)| {
            let mut entry = json!(sum);
            entry["network"] = json!(network);
            entry["token"] = json!(token);
            entry["total"] = json!(sum.total());
            if by != SumBy::Asset {
                entry[&name] = json!(group);
            }
            entry
        });
        return print(serde_json::to_string_pretty(&all.collect::<Vec<_>>())? + "\n");
    }
    let name = match by {
        SumBy::Host => "HOST",
        SumBy::Day => "DAY",
        SumBy::Rule => "RULE",
        SumBy::Client => "CLIENT",
        SumBy::Asset => "ASSET",
    };
    let head = [name, "PAYMENTS", "PAID", "IN FLIGHT", "IN DOUBT", "UNKNOWN", "AT MOST"].map(str::to_owned);
    let cells = sums.iter().map(|((group, network, token), sum)| {
        let amount = |amount: SignedAmount| shown_amount(amount, network, token, assets);
        let group = match by {
            SumBy::Asset => AssetId::token(network, token).to_string(),
            _ => group.clone(),
        };
        [
            group,
            sum.payments.to_string(),
            amount(sum.paid),
            amount(sum.in_flight),
            amount(sum.in_doubt),
            amount(sum.unknown),
            amount(sum.total()),
        ]
    });
    let columns = [
        Column::Left,
        Column::Right,
        Column::Right,
        Column::Right,
        Column::Right,
        Column::Right,
        Column::Right,
    ];
    print(table(columns, &std::iter::once(head).chain(cells).collect::<Vec<_>>()))
}

/// A time in UTC, in seconds.
fn time(at: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use crate::cli::ledger::*;
    use crate::protocol::Amount;
    use crate::protocol::policy::well_known;

    #[test]
    fn times_are_durations_dates_and_times() {
        let at = |text: &str| since(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(at("2026-01-31"), 1_769_817_600);
        assert_eq!(at("2026-01-31T00:00:01Z"), 1_769_817_601);
        assert_eq!(at("2026-01-31 00:00:01"), 1_769_817_601);
        let week = since("7d").unwrap().elapsed().unwrap().as_secs();
        assert!((604_800..604_860).contains(&week), "{week}");
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn a_time_within_a_removed_day_cuts_it() {
        for (day, since, expected) in [
            (20_000, 20_000 * DAY, false),
            (20_000, 20_000 * DAY + 1, true),
            (20_000, 20_001 * DAY, false),
            (0, 20_000 * DAY, true),
            (0, 0, false),
        ] {
            assert_eq!(is_cut(day, since), expected, "{day} {since}");
        }
    }

    #[test]
    fn hosts_lose_their_port() {
        for (host, without) in
            [("a.example:81", "a.example"), ("a.example", "a.example"), ("[::1]:81", "::1"), ("[::1]", "::1")]
        {
            assert_eq!(without_port(host), without);
        }
    }

    #[test]
    fn amounts_have_the_symbol_of_a_known_token() {
        let usdc = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
        let of = |units: u64, token: &str| {
            shown_amount(Amount::from(units).into(), "eip155:8453", token, &well_known())
        };
        assert_eq!(of(50_000, usdc), "0.05 USDC");
        assert_eq!(of(7, "0x0000000000000000000000000000000000000001"), "7 units");
        let minus = SignedAmount::difference(Amount::ZERO, 50_000.into());
        assert_eq!(shown_amount(minus, "eip155:8453", usdc, &well_known()), "-0.05 USDC");
    }
}

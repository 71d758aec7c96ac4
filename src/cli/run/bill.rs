//! The report at the end of `tollpass run`: what was paid to whom, in one line or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::payments::{AssetSpending, PayeeSpending, Spending, SpendingReport, Tally};
use crate::protocol::policy::{KnownAsset, shown_price};
use crate::protocol::{Account, Amount, AssetId, Money};

/// How many payees the line lists.
const NAMED: usize = 4;

/// The known cost of one command.
#[derive(Clone, Debug, Serialize)]
pub struct Statement {
    /// Whether the numbers are known.
    pub complete: bool,
    /// What was paid; `None` if the proxy has stopped.
    #[serde(flatten)]
    pub bill: Option<Billed>,
}

/// A report and its total.
#[derive(Clone, Debug, Serialize)]
pub struct Billed {
    #[serde(flatten)]
    total: Spending,
    #[serde(flatten)]
    bill: SpendingReport,
}

impl Statement {
    /// The statement of a run.
    pub(in crate::cli) fn complete(bill: SpendingReport) -> Self {
        Self { complete: true, bill: Some(Billed::new(bill)) }
    }

    /// The statement if the proxy has stopped.
    pub(super) fn unknown() -> Self {
        Self { complete: false, bill: None }
    }

    /// The statement in one line, without a line ending. Amounts of `known` tokens have their symbols and decimals.
    pub(in crate::cli) fn line(&self, known: &[KnownAsset]) -> String {
        let Some(Billed { total, bill }) = &self.bill else {
            return "the proxy stopped in the meantime: what it paid is unknown; see `tollpass ledger`"
                .to_owned();
        };
        let mut line = String::new();
        let has_spent = *total != Spending::default() || bill.under_way.requests > 0;
        if has_spent || bill.other_assets.is_empty() {
            let asset = bill.from.as_ref().map_or(AssetId::ChannelToken, Account::token_asset);
            let shown = ShownAsset { asset, known, is_usual: true };
            line = in_asset(&shown, *total, &bill.payees, bill.others, bill.under_way);
        }
        for spending in &bill.other_assets {
            let AssetSpending { network, token, payees, others, under_way } = spending;
            let total = spending.total();
            let shown = ShownAsset { asset: AssetId::token(network, token), known, is_usual: false };
            if !line.is_empty() {
                line += "; ";
            }
            line += &in_asset(&shown, total, payees, *others, *under_way);
        }
        line
    }
}

impl Billed {
    fn new(bill: SpendingReport) -> Self {
        Self { total: bill.total(), bill }
    }
}

/// How amounts of an asset are written.
struct ShownAsset<'a> {
    asset: AssetId,
    known: &'a [KnownAsset],
    /// Whether it is the token of the channels, whose base units need no name.
    is_usual: bool,
}

impl ShownAsset<'_> {
    fn known(&self) -> Option<&KnownAsset> {
        self.known.iter().find(|known| known.asset == self.asset)
    }

    /// An amount with what it is of.
    fn whole(&self, amount: Amount) -> String {
        match self.known() {
            None if self.is_usual => amount.to_string(),
            _ => shown_price(&Money { amount, asset: self.asset.clone() }, self.known),
        }
    }

    /// An amount after a sum that has said what it is of.
    fn part(&self, amount: Amount) -> String {
        self.known().map_or_else(|| amount.to_string(), |known| known.show(amount))
    }

    fn nothing(&self) -> String {
        match self.known() {
            _ if self.is_usual => "paid nothing".to_owned(),
            Some(known) => format!("paid no {}", known.symbol),
            None => format!("paid nothing of {}", self.asset),
        }
    }
}

/// What was paid in one asset.
fn in_asset(
    asset: &ShownAsset<'_>,
    total: Spending,
    payees: &[PayeeSpending],
    others: Spending,
    under_way: Tally,
) -> String {
    let mut line = match total.paid {
        Tally { requests: 0, .. } => asset.nothing(),
        paid => {
            format!("paid {}: {}", sum(paid, asset), by_payee(asset, payees, &others, |spent| spent.paid))
        }
    };
    if total.unclear.requests > 0 {
        let by_payee = by_payee(asset, payees, &others, |spent| spent.unclear);
        // Writing to a string cannot fail.
        let _ = write!(line, "; unclear {} (response lost or failed): {by_payee}", sum(total.unclear, asset));
    }
    if under_way.requests > 0 {
        let _ = write!(line, "; in flight {}", sum(under_way, asset));
    }
    line
}

fn sum(Tally { requests, amount }: Tally, asset: &ShownAsset<'_>) -> String {
    let noun = if requests == 1 { "request" } else { "requests" };
    format!("{} in {requests} {noun}", asset.whole(amount))
}

/// The amounts by payee, the first few by name.
fn by_payee(
    asset: &ShownAsset<'_>,
    payees: &[PayeeSpending],
    others: &Spending,
    of: impl Fn(&Spending) -> Tally,
) -> String {
    let mut paid: Vec<&PayeeSpending> = payees.iter().filter(|payee| of(&payee.spent).requests > 0).collect();
    paid.sort_by_key(|payee| std::cmp::Reverse(of(&payee.spent).amount));
    let (named, rest) = paid.split_at(paid.len().min(NAMED));
    let mut parts: Vec<String> = named
        .iter()
        .map(|PayeeSpending { host, receiver, spent }| {
            format!("{} to {host} ({receiver})", asset.part(of(spent).amount))
        })
        .collect();
    let others = of(others);
    if !rest.is_empty() || others.requests > 0 {
        let amount =
            rest.iter().fold(others.amount, |sum, payee| sum.saturating_add(of(&payee.spent).amount));
        parts.push(format!("{} to others", asset.part(amount)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::cli::run::bill::*;
    use crate::protocol::Address;

    fn some(requests: u64, amount: u64) -> Tally {
        Tally { requests, amount: amount.into() }
    }

    fn payee(host: &str, paid: Tally, unclear: Tally) -> PayeeSpending {
        PayeeSpending {
            host: host.to_owned(),
            receiver: Address([0x11; 20]),
            spent: Spending { paid, unclear, cleared: Tally::default() },
        }
    }

    fn bill(payees: Vec<PayeeSpending>) -> SpendingReport {
        SpendingReport { since: 7, payees, ..SpendingReport::default() }
    }

    #[test]
    fn the_line_names_the_amount_and_the_payees() {
        let none = Tally::default();
        assert_eq!(Statement::complete(bill(vec![])).line(&[]), "paid nothing");
        let one = bill(vec![payee("a.example", some(1, 1000), none)]);
        let address = Address([0x11; 20]);
        assert_eq!(
            Statement::complete(one.clone()).line(&[]),
            format!("paid 1000 in 1 request: 1000 to a.example ({address})")
        );
        let mut two = one;
        two.payees.push(payee("b.example:81", some(2, 20), some(1, 30)));
        two.under_way = some(1, 5);
        assert_eq!(
            Statement::complete(two).line(&[]),
            format!(
                "paid 1020 in 3 requests: 1000 to a.example ({address}), 20 to b.example:81 ({address}); unclear \
                 30 in 1 request (response lost or failed): 30 to b.example:81 ({address}); in flight 5 in 1 request"
            )
        );
    }

    #[test]
    fn amounts_in_doubt_are_shown_even_if_nothing_was_paid() {
        let line = Statement::complete(bill(vec![payee("a", Tally::default(), some(1, 9))])).line(&[]);
        assert!(line.starts_with("paid nothing; unclear 9 in 1 request ("), "{line}");
    }

    #[test]
    fn each_asset_has_sums_of_its_own() {
        let (none, address) = (Tally::default(), Address([0x11; 20]));
        let other = AssetSpending {
            network: "eip155:8453".into(),
            token: "0xcafe".into(),
            payees: vec![payee("b", some(2, 7), none)],
            under_way: some(1, 3),
            ..AssetSpending::default()
        };
        let mut two = bill(vec![]);
        two.other_assets.push(other);
        let paid = format!(
            "paid 7 units of 0xcafe on eip155:8453 in 2 requests: 7 to b ({address}); in flight 3 units of 0xcafe on \
             eip155:8453 in 1 request"
        );
        assert_eq!(Statement::complete(two.clone()).line(&[]), paid);
        two.payees.push(payee("a", none, some(1, 9)));
        let line = Statement::complete(two.clone()).line(&[]);
        assert!(
            line.starts_with("paid nothing; unclear 9 in 1 request (") && line.ends_with(&paid),
            "{line}"
        );
    }

    #[test]
    fn known_tokens_have_symbols_and_decimals() {
        let (none, address) = (Tally::default(), Address([0x11; 20]));
        let (own, other) = (Address([0x22; 20]), Address([0x33; 20]));
        let known = [
            KnownAsset::new("RDN", "eip155:5", own, 18, None),
            KnownAsset::new("USDC", "eip155:5", other, 6, None),
        ];
        let mut both = bill(vec![payee("a", some(1, 15_000_000_000_000_000), none)]);
        both.from = Some(Account { chain_id: 5, contract: address, token: own, payer: address });
        both.other_assets.push(AssetSpending {
            network: "eip155:5".into(),
            token: other.to_string(),
            payees: vec![payee("b", none, some(2, 50_000))],
            ..AssetSpending::default()
        });
        assert_eq!(
            Statement::complete(both.clone()).line(&known),
            format!(
                "paid 0.015 RDN in 1 request: 0.015 RDN to a ({address}); paid no USDC; unclear 0.05 USDC in 2 requests \
                 (response lost or failed): 0.05 USDC to b ({address})"
            )
        );
        let nothing = SpendingReport { from: both.from, ..bill(vec![]) };
        assert_eq!(Statement::complete(nothing).line(&known), "paid nothing");
        // Programs read base units.
        assert_eq!(
            serde_json::to_value(Statement::complete(both)).unwrap()["paid"]["amount"],
            "15000000000000000"
        );
    }

    #[test]
    fn many_payees_fit_in_a_line() {
        let payees = (0..9).map(|n| payee(&format!("{n}.example"), some(1, 10 - n), Tally::default()));
        let mut bill = bill(payees.collect());
        bill.others.paid = some(3, 100);
        let line = Statement::complete(bill).line(&[]);
        assert!(line.starts_with("paid 154 in 12 requests: 10 to 0.example (0x"), "{line}");
        assert!(line.ends_with(", 120 to others") && !line.contains("4.example"), "{line}");
    }

    #[test]
    fn of_a_proxy_that_has_stopped_nothing_is_known() {
        let gone = Statement::unknown();
        assert!(!gone.complete && gone.line(&[]).contains("is unknown"), "{gone:?}");
    }

    #[test]
    fn as_json_the_sums_come_with_the_payees() {
        let statement = Statement::complete(bill(vec![payee("a", some(2, 20), Tally::default())]));
        let json = serde_json::to_value(statement).unwrap();
        assert_eq!(json["paid"]["amount"], "20");
        assert_eq!(json["payees"][0]["host"], "a");
        assert_eq!(json["payees"][0]["paid"]["requests"], 2);
        assert_eq!(json["complete"], true);
    }
}

//! The report at the end of `tollpass run`: what was paid to whom, in one line or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::payments::{AssetSpending, PayeeSpending, Spending, SpendingReport, Tally};

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

    /// The statement in one line, without a line ending.
    pub(in crate::cli) fn line(&self) -> String {
        let Some(Billed { total, bill }) = &self.bill else {
            return "the proxy stopped in the meantime: what it paid is unknown; see `tollpass ledger`"
                .to_owned();
        };
        let mut line = String::new();
        let has_spent = *total != Spending::default() || bill.under_way.requests > 0;
        if has_spent || bill.other_assets.is_empty() {
            line = in_asset("", *total, &bill.payees, bill.others, bill.under_way);
        }
        for spending in &bill.other_assets {
            let AssetSpending { network, token, payees, others, under_way } = spending;
            let total = spending.total();
            let asset = format!(" {token} on {network}");
            if !line.is_empty() {
                line += "; ";
            }
            line += &in_asset(&asset, total, payees, *others, *under_way);
        }
        line
    }
}

impl Billed {
    fn new(bill: SpendingReport) -> Self {
        Self { total: bill.total(), bill }
    }
}

/// What was paid in one asset; `asset` follows each sum.
fn in_asset(
    asset: &str,
    total: Spending,
    payees: &[PayeeSpending],
    others: Spending,
    under_way: Tally,
) -> String {
    let mut line = match total.paid {
        Tally { requests: 0, .. } => format!("paid nothing{}", asset.replacen(' ', " of ", 1)),
        paid => format!("paid {}: {}", sum(paid, asset), by_payee(payees, &others, |spent| spent.paid)),
    };
    if total.unclear.requests > 0 {
        let by_payee = by_payee(payees, &others, |spent| spent.unclear);
        // Writing to a string cannot fail.
        let _ = write!(line, "; unclear {} (response lost or failed): {by_payee}", sum(total.unclear, asset));
    }
    if under_way.requests > 0 {
        let _ = write!(line, "; in flight {}", sum(under_way, asset));
    }
    line
}

fn sum(Tally { requests, amount }: Tally, asset: &str) -> String {
    let noun = if requests == 1 { "request" } else { "requests" };
    format!("{amount}{asset} in {requests} {noun}")
}

/// The amounts by payee, the first few by name.
fn by_payee(payees: &[PayeeSpending], others: &Spending, of: impl Fn(&Spending) -> Tally) -> String {
    let mut paid: Vec<&PayeeSpending> = payees.iter().filter(|payee| of(&payee.spent).requests > 0).collect();
    paid.sort_by_key(|payee| std::cmp::Reverse(of(&payee.spent).amount));
    let (named, rest) = paid.split_at(paid.len().min(NAMED));
    let mut parts: Vec<String> = named
        .iter()
        .map(|PayeeSpending { host, receiver, spent }| format!("{} to {host} ({receiver})", of(spent).amount))
        .collect();
    let others = of(others);
    if !rest.is_empty() || others.requests > 0 {
        let amount =
            rest.iter().fold(others.amount, |sum, payee| sum.saturating_add(of(&payee.spent).amount));
        parts.push(format!("{amount} to others"));
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
        assert_eq!(Statement::complete(bill(vec![])).line(), "paid nothing");
        let one = bill(vec![payee("a.example", some(1, 1000), none)]);
        let address = Address([0x11; 20]);
        assert_eq!(
            Statement::complete(one.clone()).line(),
            format!("paid 1000 in 1 request: 1000 to a.example ({address})")
        );
        let mut two = one;
        two.payees.push(payee("b.example:81", some(2, 20), some(1, 30)));
        two.under_way = some(1, 5);
        assert_eq!(
            Statement::complete(two).line(),
            format!(
                "paid 1020 in 3 requests: 1000 to a.example ({address}), 20 to b.example:81 ({address}); unclear \
                 30 in 1 request (response lost or failed): 30 to b.example:81 ({address}); in flight 5 in 1 request"
            )
        );
    }

    #[test]
    fn amounts_in_doubt_are_shown_even_if_nothing_was_paid() {
        let line = Statement::complete(bill(vec![payee("a", Tally::default(), some(1, 9))])).line();
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
            "paid 7 0xcafe on eip155:8453 in 2 requests: 7 to b ({address}); in flight 3 0xcafe on eip155:8453 in 1 \
             request"
        );
        assert_eq!(Statement::complete(two.clone()).line(), paid);
        two.payees.push(payee("a", none, some(1, 9)));
        let line = Statement::complete(two.clone()).line();
        assert!(
            line.starts_with("paid nothing; unclear 9 in 1 request (") && line.ends_with(&paid),
            "{line}"
        );
    }

    #[test]
    fn many_payees_fit_in_a_line() {
        let payees = (0..9).map(|n| payee(&format!("{n}.example"), some(1, 10 - n), Tally::default()));
        let mut bill = bill(payees.collect());
        bill.others.paid = some(3, 100);
        let line = Statement::complete(bill).line();
        assert!(line.starts_with("paid 154 in 12 requests: 10 to 0.example (0x"), "{line}");
        assert!(line.ends_with(", 120 to others") && !line.contains("4.example"), "{line}");
    }

    #[test]
    fn of_a_proxy_that_has_stopped_nothing_is_known() {
        let gone = Statement::unknown();
        assert!(!gone.complete && gone.line().contains("is unknown"), "{gone:?}");
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

//! The ledger of this life: what was paid to whom, in memory. The journal on disk knows channels and totals; only here
//! stands for which host a payment was made, so that a bill can be written.
//!
//! Filled by leases as they come back, so that it counts what the book counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::{Returned, lock};
use crate::protocol::{Address, Amount};

/// What was paid to whom since the proxy began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// When the proxy began, in milliseconds since 1970: two bills with the same beginning are of the same proxy.
    pub since: u64,
    /// Who pays, and in which token, once that is known.
    pub from: Option<PaidFrom>,
    /// One entry for each host and receiver, the most expensive first.
    pub payees: Vec<Payee>,
    /// What went to payees beyond `limits.payees`.
    pub others: Spent,
    /// Payments that are on their way: what they come to is not known yet.
    pub under_way: Sum,
}

/// Who pays, and in which token. The same for a whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidFrom {
    /// The id of the chain.
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// The token that amounts are base units of.
    pub token: Address,
    /// Who pays.
    pub payer: Address,
}

/// What one host, by one receiver, was paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payee {
    /// The host, with its port where that is not the scheme's own.
    pub host: String,
    /// Who got the money.
    pub receiver: Address,
    /// How much.
    #[serde(flatten)]
    pub spent: Spent,
}

/// Money that was signed away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// What the seller took.
    pub paid: Sum,
    /// What was promised, and nobody can tell whether the seller took it: the answer was lost, or was an error.
    pub unclear: Sum,
}

/// A number of requests and what they cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub requests: u64,
    /// How much, in base units.
    pub amount: Amount,
}

impl Bill {
    /// What this bill has more than an earlier one of the same proxy. What is under way now stays.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        let before: HashMap<_, _> =
            earlier.payees.iter().map(|payee| ((payee.host.as_str(), payee.receiver), payee.spent)).collect();
        for Payee { host, receiver, spent } in &mut self.payees {
            if let Some(before) = before.get(&(host.as_str(), *receiver)) {
                *spent = spent.minus(before);
            }
        }
        self.payees.retain(|payee| payee.spent != Spent::default());
        self.others = self.others.minus(&earlier.others);
        self.sorted()
    }

    /// All of it in one sum.
    #[must_use]
    pub fn total(&self) -> Spent {
        self.payees.iter().fold(self.others, |total, payee| total.plus(&payee.spent))
    }

    fn sorted(mut self) -> Self {
        self.payees.sort_by(|one, other| {
            let price = |payee: &Payee| (payee.spent.paid.amount, payee.spent.unclear.amount);
            let by_name = || (&one.host, one.receiver).cmp(&(&other.host, other.receiver));
            price(other).cmp(&price(one)).then_with(by_name)
        });
        self
    }
}

impl Spent {
    fn plus(&self, more: &Self) -> Self {
        Self { paid: self.paid.plus(&more.paid), unclear: self.unclear.plus(&more.unclear) }
    }

    fn minus(&self, less: &Self) -> Self {
        Self { paid: self.paid.minus(&less.paid), unclear: self.unclear.minus(&less.unclear) }
    }
}

impl Sum {
    fn of(price: Amount) -> Self {
        Self { requests: 1, amount: price }
    }

    fn plus(&self, more: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            amount: self.amount.saturating_add(more.amount),
        }
    }

    fn minus(&self, less: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(less.requests),
            amount: self.amount.saturating_sub(less.amount),
        }
    }
}

/// The counters, bounded in number.
#[derive(Debug)]
pub(super) struct Ledger {
    since: u64,
    most: usize,
    count: usize,
    hosts: HashMap<String, HashMap<Address, Spent>>,
    others: Spent,
    under_way: Sum,
}

impl Ledger {
    /// Tells at most `most` payees apart; `since` is in milliseconds since 1970.
    pub(super) fn new(most: usize, since: u64) -> Self {
        let (hosts, others, under_way) = (HashMap::new(), Spent::default(), Sum::default());
        Self { since, most, count: 0, hosts, others, under_way }
    }

    pub(super) fn bill(&self) -> Bill {
        let payees = self.hosts.iter().flat_map(|(host, receivers)| {
            let payee = |(receiver, spent): (&Address, &Spent)| Payee {
                host: host.clone(),
                receiver: *receiver,
                spent: *spent,
            };
            receivers.iter().map(payee)
        });
        let payees = payees.collect();
        Bill { since: self.since, from: None, payees, others: self.others, under_way: self.under_way }
            .sorted()
    }

    /// The counters of a payee; those of all others where there are too many.
    fn spent(&mut self, host: &str, receiver: Address) -> &mut Spent {
        let is_known = self.hosts.get(host).is_some_and(|receivers| receivers.contains_key(&receiver));
        if !is_known {
            if self.count >= self.most {
                return &mut self.others;
            }
            self.count += 1;
        }
        self.hosts.entry(host.to_owned()).or_default().entry(receiver).or_default()
    }
}

/// What a lease writes into the ledger when it comes back.
#[derive(Debug)]
pub(super) struct Tab {
    ledger: Arc<Mutex<Ledger>>,
    host: String,
    receiver: Address,
    /// The price of the payment that is on its way.
    under_way: Option<Amount>,
}

impl Tab {
    /// A tab for payments to `receiver` that are made for requests to the origin of `url`.
    pub(super) fn new(ledger: Arc<Mutex<Ledger>>, url: &Uri, receiver: Address) -> Self {
        Self { ledger, host: host(url), receiver, under_way: None }
    }

    /// A payment is about to be sent.
    pub(super) fn begin(&mut self, price: Amount) {
        if self.under_way.is_none() {
            self.under_way = Some(price);
            let mut ledger = lock(&self.ledger);
            ledger.under_way = ledger.under_way.plus(&Sum::of(price));
        }
    }

    /// It has come back. Says nothing where nothing was sent.
    pub(super) fn end(&mut self, how: Returned) {
        let Some(price) = self.under_way.take() else { return };
        let sum = Sum::of(price);
        let mut ledger = lock(&self.ledger);
        ledger.under_way = ledger.under_way.minus(&sum);
        let spent = match how {
            Returned::Unsent => return,
            Returned::Accepted | Returned::Unclear => ledger.spent(&self.host, self.receiver),
        };
        match how {
            Returned::Unclear => spent.unclear = spent.unclear.plus(&sum),
            _ => spent.paid = spent.paid.plus(&sum),
        }
    }
}

/// The host of a URL and, where it is not the scheme's own, its port; without a user name and password.
fn host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let own = if url.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
    match url.port_u16() {
        Some(port) if port != own => format!("{host}:{port}"),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Address = Address([1; 20]);
    const BOB: Address = Address([2; 20]);

    fn ledger(most: usize) -> Arc<Mutex<Ledger>> {
        Arc::new(Mutex::new(Ledger::new(most, 7)))
    }

    fn pay(ledger: &Arc<Mutex<Ledger>>, url: &str, receiver: Address, price: u64, how: Returned) {
        let mut tab = Tab::new(Arc::clone(ledger), &url.parse().unwrap(), receiver);
        tab.begin(price.into());
        tab.end(how);
    }

    fn sum(requests: u64, amount: u64) -> Sum {
        Sum { requests, amount: amount.into() }
    }

    #[test]
    fn each_payee_has_a_line_the_most_expensive_first() {
        let ledger = ledger(10);
        pay(&ledger, "http://a.example/x", ALICE, 5, Returned::Accepted);
        pay(&ledger, "http://me:hush@A.example:80/y", ALICE, 6, Returned::Accepted);
        pay(&ledger, "https://a.example:443/", ALICE, 7, Returned::Unclear);
        pay(&ledger, "http://a.example:8080/", ALICE, 100, Returned::Accepted);
        pay(&ledger, "http://a.example/", BOB, 1, Returned::Accepted);
        pay(&ledger, "http://never.example/", BOB, 1, Returned::Unsent);
        let bill = lock(&ledger).bill();
        let lines: Vec<_> = bill
            .payees
            .iter()
            .map(|payee| (payee.host.as_str(), payee.receiver, payee.spent.paid, payee.spent.unclear))
            .collect();
        let none = Sum::default();
        assert_eq!(
            lines,
            [
                ("a.example:8080", ALICE, sum(1, 100), none),
                ("a.example", ALICE, sum(2, 11), sum(1, 7)),
                ("a.example", BOB, sum(1, 1), none),
            ]
        );
        assert_eq!(bill.total(), Spent { paid: sum(4, 112), unclear: sum(1, 7) });
        assert_eq!((bill.since, bill.from, bill.others, bill.under_way), (7, None, Spent::default(), none));
    }

    #[test]
    fn beyond_the_limit_the_sums_stay_right() {
        let ledger = ledger(2);
        for host in 0..5 {
            pay(&ledger, &format!("http://{host}.example/"), ALICE, 10, Returned::Accepted);
        }
        // Who has a line keeps it.
        pay(&ledger, "http://0.example/", ALICE, 1, Returned::Accepted);
        pay(&ledger, "http://4.example/", ALICE, 2, Returned::Unclear);
        let bill = lock(&ledger).bill();
        assert_eq!(bill.payees.len(), 2);
        assert_eq!(bill.payees[0].spent.paid, sum(2, 11));
        assert_eq!(bill.others, Spent { paid: sum(3, 30), unclear: sum(1, 2) });
        assert_eq!(bill.total(), Spent { paid: sum(6, 51), unclear: sum(1, 2) });
    }

    #[test]
    fn a_payment_is_under_way_until_it_is_back_and_counts_once() {
        let ledger = ledger(10);
        let mut tab = Tab::new(Arc::clone(&ledger), &"http://a.example/".parse().unwrap(), ALICE);
        tab.end(Returned::Accepted);
        tab.begin(5.into());
        tab.begin(5.into());
        assert_eq!(lock(&ledger).bill().under_way, sum(1, 5));
        assert!(lock(&ledger).bill().payees.is_empty());
        tab.end(Returned::Accepted);
        tab.end(Returned::Accepted);
        let bill = lock(&ledger).bill();
        assert_eq!((bill.under_way, bill.total().paid), (Sum::default(), sum(1, 5)));
    }

    #[test]
    fn the_difference_of_two_bills_is_what_came_between() {
        let ledger = ledger(2);
        pay(&ledger, "http://a.example/", ALICE, 10, Returned::Accepted);
        pay(&ledger, "http://b.example/", ALICE, 10, Returned::Accepted);
        pay(&ledger, "http://c.example/", ALICE, 10, Returned::Accepted);
        let before = lock(&ledger).bill();
        pay(&ledger, "http://b.example/", ALICE, 3, Returned::Accepted);
        pay(&ledger, "http://c.example/", ALICE, 4, Returned::Unclear);
        let between = lock(&ledger).bill().since(&before);
        let [payee] = &between.payees[..] else { panic!("{between:?}") };
        assert_eq!((payee.host.as_str(), payee.spent.paid), ("b.example", sum(1, 3)));
        assert_eq!(between.others, Spent { paid: Sum::default(), unclear: sum(1, 4) });
        let again = lock(&ledger).bill();
        assert_eq!(again.clone().since(&again).total(), Spent::default());
    }

    #[test]
    fn a_bill_goes_through_json() {
        let ledger = ledger(10);
        pay(&ledger, "http://a.example:81/", ALICE, 5, Returned::Accepted);
        let bill = lock(&ledger).bill();
        let text = serde_json::to_string(&bill).unwrap();
        assert!(text.contains(r#""host":"a.example:81""#) && text.contains(r#""amount":"5""#), "{text}");
        assert_eq!(serde_json::from_str::<Bill>(&text).unwrap(), bill);
    }
}

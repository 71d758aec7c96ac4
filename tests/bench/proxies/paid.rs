//! The requirements of payments, from the output of `cargo bench --bench paid`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::report::Requirement;

/// What one run of that benchmark printed.
struct Paid {
    /// Requests/s of paid to free ones: one client, many.
    ratios: [f64; 2],
    /// The CPU time that a payment adds in the proxy, in microseconds: one client, many.
    costs: [f64; 2],
    /// The most that the ratio of many clients can be.
    most: f64,
    /// Exchanges for each payment.
    exchanges: f64,
}

/// The requirements; the cost of a payment is compared with that before.
pub fn requirements(file: &Path, before: Option<&Path>) -> anyhow::Result<Vec<Requirement>> {
    let paid = Paid::read(file)?;
    let before = before.map(Paid::read).transpose()?;
    let single = |text: &str, value| Requirement::new(text.to_owned(), vec![value]);
    let [alone, crowd] = paid.ratios;
    let mut list = vec![
        single("paid, 1 client: requests/s to free", alone).at_least(0.5),
        single("paid, 64 clients: requests/s to free, of the most there can be", crowd / paid.most)
            .at_least(0.8),
        single("paid: exchanges for each payment, at least", paid.exchanges).at_least(1.0),
        single("paid: exchanges for each payment, at most", paid.exchanges).at_most(1.0),
    ];
    for (at, clients) in ["1 client", "64 clients"].into_iter().enumerate() {
        let base = before.as_ref().map_or(f64::NAN, |before| before.costs[at]);
        let text = format!("paid, {clients}: CPU that a payment adds, to the program before");
        list.push(single(&text, paid.costs[at] / base).at_most(1.0));
    }
    Ok(list)
}

impl Paid {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::parse(&text).with_context(|| format!("{} is not its output", file.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let with = |begin: &str| text.lines().filter(|line| line.starts_with(begin)).collect::<Vec<_>>();
        // Each has a line for one client, then one for many.
        let pair = |begin: &str, at: usize| {
            let lines = with(begin);
            Some([number(lines.first()?, begin, at)?, number(lines.get(1)?, begin, at)?])
        };
        let ([paid, many_paid], [free, many_free]) =
            (pair("paid,         ", COST)?, pair("rule, free,   ", COST)?);
        let most = "  most there can be with all processors busy";
        let exchanges = text.lines().find(|line| line.starts_with("exchanges with the seller"))?;
        Some(Self {
            ratios: pair("  paid to free", 0)?,
            costs: [paid - free, many_paid - many_free],
            most: number(with(most).first()?, most, 0)?,
            exchanges: exchanges.rsplit(", ").next()?.split(' ').next()?.parse().ok()?,
        })
    }
}

/// Where in a line of [`number`] the proxy's CPU time is: clients, channels, requests/s, then this.
const COST: usize = 3;

/// The number at this place in what follows `begin`.
fn number(line: &str, begin: &str, at: usize) -> Option<f64> {
    line.strip_prefix(begin)?.split_whitespace().filter_map(|word| word.parse().ok()).nth(at)
}

//! The requirements of payments, from the output of `cargo bench --bench paid`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use crate::report::Requirement;

/// What one run of that benchmark printed.
struct Paid {
    /// Requests/s of paid to free ones: one client, many.
    ratios: [f64; 2],
    /// The CPU time of a request that is not paid, of one that is, and what a payment adds, each to that of the program
    /// before: one client, many. `None` if that was not measured.
    changes: Option<[[f64; 2]; 3]>,
    /// The most that the ratio of many clients can be.
    most: f64,
    /// Exchanges for each payment.
    exchanges: f64,
}

/// The requirements.
pub fn requirements(file: &Path) -> anyhow::Result<Vec<Requirement>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let paid = Paid::parse(&text).with_context(|| format!("{} is not its output", file.display()))?;
    let single = |text: &str, value| Requirement::new(text.to_owned(), vec![value]);
    let [alone, crowd] = paid.ratios;
    let mut list = vec![
        single("paid, 1 client: requests/s to free", alone).at_least(0.5),
        single("paid, 64 clients: requests/s to free, of the most there can be", crowd / paid.most)
            .at_least(0.8),
        single("paid: exchanges for each payment, at least", paid.exchanges).at_least(1.0),
        single("paid: exchanges for each payment, at most", paid.exchanges).at_most(1.0),
    ];
    let changes = paid.changes.unwrap_or([[f64::NAN; 2]; 3]);
    for (what, change, most) in [
        ("a request that is not paid", changes[0], 1.03),
        ("a paid request", changes[1], 1.1),
        ("what a payment adds", changes[2], 1.0),
    ] {
        for (clients, change) in ["1 client", "64 clients"].into_iter().zip(change) {
            list.push(
                single(&format!("{what}, {clients}: CPU, to the program before"), change).at_most(most),
            );
        }
    }
    Ok(list)
}

impl Paid {
    fn parse(text: &str) -> Option<Self> {
        let with = |begin: &str| text.lines().filter(|line| line.starts_with(begin)).collect::<Vec<_>>();
        // Each has a line for one client, then one for many.
        let pair = |begin: &str, at: usize| {
            let lines = with(begin);
            Some([number(lines.first()?, begin, at)?, number(lines.get(1)?, begin, at)?])
        };
        let change = |kind: &str| {
            let begin = format!("to before: {kind} ");
            let line = *with(&begin).first()?;
            Some([number(line, &begin, 0)?, number(line, &begin, 1)?])
        };
        let changes = [change("no rule"), change("paid"), change("what a payment adds")];
        let most = "  most there can be with all processors busy";
        let exchanges = text.lines().find(|line| line.starts_with("exchanges with the seller"))?;
        Some(Self {
            ratios: pair("  paid to free", 0)?,
            changes: match changes {
                [Some(free), Some(paid), Some(added)] => Some([free, paid, added]),
                _ => None,
            },
            most: number(with(most).first()?, most, 0)?,
            exchanges: exchanges.rsplit(", ").next()?.split(' ').next()?.parse().ok()?,
        })
    }
}

/// The number at this place in what follows `begin`.
fn number(line: &str, begin: &str, at: usize) -> Option<f64> {
    line.strip_prefix(begin)?.split_whitespace().filter_map(|word| word.parse().ok()).nth(at)
}

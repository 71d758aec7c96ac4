//! What paying costs: `cargo bench --bench paid`. Load, proxy and seller are separate processes on loopback; the proxy
//! is the real program. Everything compared is measured in one run, in alternating rounds; numbers are medians over the
//! rounds. It ends by itself within two minutes and makes no judgement of its own.
//!
//! The environment variable `PROXY` names another tollpass program to measure. `cargo bench --bench paid x402` measures only
//! payments by x402.

mod load;
mod micro;
mod proxy;
mod seller;
mod slow_disk;
mod x402;

use std::cell::Cell;
use std::time::Duration;

use anyhow::Context as _;

use load::Load;
use proxy::Proxy;
use seller::Seller;

/// How many rounds to measure.
const ROUNDS: usize = 9;
/// Requests of one client in one round.
const ALONE: u64 = 3_000;
/// Requests of all clients in one round.
const CROWD: u64 = 10_000;
/// The number of concurrent clients.
const CLIENTS: usize = 64;
/// How many channels the proxy of the concurrent clients may open.
const CHANNELS: u32 = 8;
/// Requests in one round to the seller that writes two segments, each of which may take 40 ms.
const SEGMENTED: u64 = 100;
/// The overall deadline.
const WITHIN: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if std::env::args().nth(1).as_deref() == Some(seller::ROLE) {
        return runtime.block_on(seller::serve());
    }
    if std::env::args().nth(1).as_deref() == Some(x402::ROLE) {
        return runtime.block_on(x402::serve());
    }
    if std::env::args().any(|argument| argument == x402::NAME) {
        return runtime.block_on(x402::report());
    }
    let signatures = micro::report()?;
    runtime.block_on(async {
        tokio::time::timeout(WITHIN, compare(signatures)).await.context("not done within two minutes")??;
        slow_disk::report().await?;
        x402::report().await
    })
}

/// The results of one kind of load over the rounds.
#[derive(Default)]
struct Series {
    rates: Vec<f64>,
    /// Of the proxy, the seller and this process.
    costs: [Vec<f64>; 3],
}

impl Series {
    fn add(&mut self, load: Load) {
        self.rates.push(load.requests as f64 / load.took.as_secs_f64());
        for (costs, cpu) in self.costs.iter_mut().zip(load.cpu) {
            costs.push(cpu.as_secs_f64() * 1e6 / load.requests as f64);
        }
    }

    /// Requests per second.
    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    /// The proxy's CPU time for one request, in microseconds.
    fn cost(&self) -> f64 {
        median(&self.costs[0])
    }

    /// The CPU time of all three processes for one request, in microseconds.
    fn whole_cost(&self) -> f64 {
        self.costs.iter().map(|costs| median(costs)).sum()
    }

    fn show(&self, what: &str) {
        let [proxy, seller, load] = self.costs.each_ref().map(|costs| median(costs));
        println!("{what:<44} {:>8.0} /s {proxy:>8.1} µs {seller:>8.1} µs {load:>8.1} µs", self.rate());
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Compares paid and free requests. `signatures`: see [`micro::report`].
async fn compare(signatures: f64) -> anyhow::Result<()> {
    let mut seller = Seller::start().await?;
    let (one, many) = (Proxy::start(&seller, 1).await?, Proxy::start(&seller, CHANNELS).await?);
    let (one, many) = ((&one, seller.id()?), (&many, seller.id()?));
    // `localhost` is the same seller under a name that no rule matches.
    let plain = format!("http://localhost:{}/free", seller.origin.port());
    let free = format!("http://{}/free", seller.origin);
    let paid = format!("http://{}/paid", seller.origin);
    let segmented = format!("http://{}/paid", seller.segmented);

    // Opens the channels and learns the price.
    load::run(one, &paid, 1, 10).await?;
    load::run(one, &segmented, 1, 10).await?;
    let are_open = Cell::new(false);
    let opening = async {
        // Further channels are opened only while requests wait for one.
        while !are_open.get() {
            load::run(many, &paid, CLIENTS, CROWD / 10).await?;
        }
        Ok(())
    };
    tokio::try_join!(seller.await_channels(1 + CHANNELS, &are_open), opening)?;

    let mut alone: [Series; 3] = Default::default();
    let mut crowd: [Series; 3] = Default::default();
    // Of concurrent clients, at most one payment per channel is in flight.
    let mut few = Series::default();
    let mut pieces = Series::default();
    let (mut asked, mut exchanged) = (0, 0);
    for _ in 0..ROUNDS {
        for (proxy, clients, requests, series) in
            [(one, 1, ALONE, &mut alone), (many, CLIENTS, CROWD, &mut crowd)]
        {
            for (url, series) in [&plain, &free].into_iter().zip(series.iter_mut()) {
                series.add(load::run(proxy, url, clients, requests).await?);
            }
            let before = seller.exchanges().await?;
            series[2].add(load::run(proxy, &paid, clients, requests).await?);
            exchanged += seller.exchanges().await? - before;
            asked += requests;
        }
        few.add(load::run(many, &free, CHANNELS as usize, CROWD).await?);
        pieces.add(load::run(one, &segmented, 1, SEGMENTED).await?);
    }

    println!(
        "\n{:<44} {:>11} {:>11} {:>11} {:>11}",
        "through the proxy", "requests", "proxy CPU", "seller CPU", "load CPU"
    );
    for (series, who) in [(&alone, "1 client, 1 channel"), (&crowd, "64 clients, 8 channels")] {
        let [plain, free, paid] = series;
        plain.show(&format!("no rule,      {who}"));
        free.show(&format!("rule, free,   {who}"));
        paid.show(&format!("paid,         {who}"));
        println!(
            "{:<44} {:>8.2} ×  {:>8.2} ×",
            "  paid to free",
            paid.rate() / free.rate(),
            paid.cost() / free.cost()
        );
        println!(
            "{:<44} {:>8.2} ×  {:>8.2} ×",
            "  paid to no rule",
            paid.rate() / plain.rate(),
            paid.cost() / plain.cost()
        );
    }
    let free = crowd[1].whole_cost();
    println!("{:<44} {:>8.2} ×", "  most there can be with all processors busy", free / (free + signatures));
    few.show("rule, free,   8 clients: as many at once");
    let paid = &crowd[2];
    println!(
        "{:<44} {:>8.2} ×  {:>8.2} ×",
        "  paid by 64 clients to that",
        paid.rate() / few.rate(),
        paid.cost() / few.cost()
    );
    println!("{:<44} {:>8.0} /s", "paid, head and body in two segments, 1 client", pieces.rate());
    println!(
        "exchanges with the seller: {exchanged} for {asked} paid requests, {:.4} each",
        exchanged as f64 / asked as f64
    );
    Ok(())
}

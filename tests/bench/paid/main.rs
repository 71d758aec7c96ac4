//! What paying costs: `cargo bench --bench paid`. Load, proxy and seller are separate processes on loopback; the proxy
//! is the real program. Everything compared is measured in one run, in alternating rounds; numbers are medians over the
//! rounds. It ends by itself within four minutes and makes no judgement of its own.
//!
//! The environment variable `PROXY` names another tollpass program to measure, and `BEFORE` one of an earlier commit, whose
//! CPU time is compared in the same run, in alternating rounds. `cargo bench --bench paid x402` measures only payments by x402.

mod load;
mod micro;
mod proxy;
mod seller;
mod slow_disk;
mod x402;

use std::cell::Cell;
use std::ffi::OsStr;
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
/// The kinds of requests that are compared with those of an earlier program.
const KINDS: [&str; 3] = ["no rule", "rule, free", "paid"];
/// The deadline of the comparison, with two programs.
const WITHIN: Duration = Duration::from_secs(240);

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
        tokio::time::timeout(WITHIN, compare(signatures)).await.context("not done within four minutes")??;
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

/// A program under test, with a seller of its own.
struct Contestant {
    seller: Seller,
    one: Proxy,
    many: Proxy,
    /// One client without a rule, with one and free, and paid.
    alone: [Series; 3],
    /// The same with many clients.
    crowd: [Series; 3],
    /// As many clients as payments of many clients can be in flight, at most: one on each channel.
    few: Series,
    pieces: Series,
    asked: u64,
    exchanged: u64,
}

impl Contestant {
    /// Starts everything, opens the channels and learns the price.
    async fn start(program: &OsStr) -> anyhow::Result<Self> {
        let mut seller = Seller::start().await?;
        let one = Proxy::start(program, &seller, 1).await?;
        let many = Proxy::start(program, &seller, CHANNELS).await?;
        let (paid, id) = (format!("http://{}/paid", seller.origin), seller.id()?);
        load::run((&one, id), &paid, 1, 10).await?;
        load::run((&one, id), &format!("http://{}/paid", seller.segmented), 1, 10).await?;
        let are_open = Cell::new(false);
        let opening = async {
            // Further channels are opened only while requests wait for one.
            while !are_open.get() {
                load::run((&many, id), &paid, CLIENTS, CROWD / 10).await?;
            }
            Ok(())
        };
        tokio::try_join!(seller.await_channels(1 + CHANNELS, &are_open), opening)?;
        let (alone, crowd, few, pieces) = Default::default();
        Ok(Self { seller, one, many, alone, crowd, few, pieces, asked: 0, exchanged: 0 })
    }

    async fn run_round(&mut self) -> anyhow::Result<()> {
        let id = self.seller.id()?;
        let (one, many) = ((&self.one, id), (&self.many, id));
        // `localhost` is the same seller under a name that no rule matches.
        let plain = format!("http://localhost:{}/free", self.seller.origin.port());
        let [free, paid] = ["free", "paid"].map(|path| format!("http://{}/{path}", self.seller.origin));
        for (proxy, clients, requests, series) in
            [(one, 1, ALONE, &mut self.alone), (many, CLIENTS, CROWD, &mut self.crowd)]
        {
            for (url, series) in [&plain, &free].into_iter().zip(series.iter_mut()) {
                series.add(load::run(proxy, url, clients, requests).await?);
            }
            let before = self.seller.exchanges().await?;
            series[2].add(load::run(proxy, &paid, clients, requests).await?);
            self.exchanged += self.seller.exchanges().await? - before;
            self.asked += requests;
        }
        self.few.add(load::run(many, &free, CHANNELS as usize, CROWD).await?);
        let segmented = format!("http://{}/paid", self.seller.segmented);
        self.pieces.add(load::run(one, &segmented, 1, SEGMENTED).await?);
        Ok(())
    }

    /// Prints what was measured. `signatures`: see [`micro::report`].
    fn show(&self, signatures: f64) {
        println!(
            "\n{:<44} {:>11} {:>11} {:>11} {:>11}",
            "through the proxy", "requests", "proxy CPU", "seller CPU", "load CPU"
        );
        for (series, who) in [(&self.alone, "1 client, 1 channel"), (&self.crowd, "64 clients, 8 channels")] {
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
        let free = self.crowd[1].whole_cost();
        println!(
            "{:<44} {:>8.2} ×",
            "  most there can be with all processors busy",
            free / (free + signatures)
        );
        self.few.show("rule, free,   8 clients: as many at once");
        let paid = &self.crowd[2];
        println!(
            "{:<44} {:>8.2} ×  {:>8.2} ×",
            "  paid by 64 clients to that",
            paid.rate() / self.few.rate(),
            paid.cost() / self.few.cost()
        );
        println!("{:<44} {:>8.0} /s", "paid, head and body in two segments, 1 client", self.pieces.rate());
        println!(
            "exchanges with the seller: {} for {} paid requests, {:.4} each",
            self.exchanged,
            self.asked,
            self.exchanged as f64 / self.asked as f64
        );
    }

    /// Prints the CPU time of a request, as a multiple of that of another program.
    fn show_change(&self, before: &Self) {
        println!(
            "\n{:<44} {:>11} {:>11}",
            "CPU of the proxy, to the program before", "1 client", "64 clients"
        );
        let pairs = self.alone.iter().zip(&before.alone).zip(self.crowd.iter().zip(&before.crowd));
        for (what, ((alone, alone_before), (crowd, crowd_before))) in KINDS.into_iter().zip(pairs) {
            let [alone, crowd] = [alone.cost() / alone_before.cost(), crowd.cost() / crowd_before.cost()];
            println!("to before: {what:<33} {alone:>8.2} ×  {crowd:>8.2} ×");
        }
        let added = |[_, free, paid]: &[Series; 3]| paid.cost() - free.cost();
        let [alone, crowd] =
            [added(&self.alone) / added(&before.alone), added(&self.crowd) / added(&before.crowd)];
        println!("to before: {:<33} {alone:>8.2} ×  {crowd:>8.2} ×", "what a payment adds");
    }
}

/// Compares paid and free requests. `signatures`: see [`micro::report`].
async fn compare(signatures: f64) -> anyhow::Result<()> {
    let mut new = Contestant::start(&proxy::program()).await?;
    let mut before = match std::env::var_os("BEFORE") {
        Some(program) => Some(Contestant::start(&program).await?),
        None => None,
    };
    for _ in 0..ROUNDS {
        new.run_round().await?;
        if let Some(before) = &mut before {
            before.run_round().await?;
        }
    }
    new.show(signatures);
    if let Some(before) = &before {
        new.show_change(before);
    }
    Ok(())
}

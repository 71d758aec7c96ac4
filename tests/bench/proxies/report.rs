//! Medians over the rounds, and which requirements hold.

use std::time::Duration;

use crate::cases::{Case, Line};
use crate::load::Tally;
use crate::program::{Program, Setup};

/// All that was measured.
#[derive(Default)]
pub struct Results {
    series: Vec<Series>,
    /// Proxies that do not start, and why.
    unavailable: Vec<(Setup, String)>,
    failures: Vec<String>,
}

struct Series {
    case: Case,
    setup: Setup,
    /// By round.
    samples: Vec<Sample>,
}

/// Times in microseconds, memory in MiB. What a case does not measure is not a number.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    cpu: f64,
    origin_cpu: f64,
    load_cpu: f64,
    median: f64,
    p99: f64,
    errors: f64,
    /// Downloads, in MB/s.
    downloads: f64,
    /// How far a worker's CPU time is from the mean of all workers, at most.
    imbalance: f64,
    /// From the start until it listens, in milliseconds.
    start: f64,
    idle: f64,
    held: f64,
}

impl Sample {
    const NONE: Self = Self {
        rate: f64::NAN,
        cpu: f64::NAN,
        origin_cpu: f64::NAN,
        load_cpu: f64::NAN,
        median: f64::NAN,
        p99: f64::NAN,
        errors: f64::NAN,
        downloads: f64::NAN,
        imbalance: f64::NAN,
        start: f64::NAN,
        idle: f64::NAN,
        held: f64::NAN,
    };
}

type Metric = fn(&Sample) -> f64;

impl Results {
    /// Adds the sample of one round; its downloads too, if there were any.
    pub fn add(&mut self, case: Case, setup: Setup, tally: Tally, downloads: Option<Tally>) {
        let each = |nanoseconds: u64| nanoseconds as f64 / 1000.0 / tally.requests as f64;
        let sample = Sample {
            rate: tally.requests as f64 / tally.seconds,
            cpu: each(crate::usage::sum(&tally.proxy)),
            origin_cpu: each(tally.origin),
            load_cpu: each(tally.load),
            median: tally.median,
            p99: tally.p99,
            errors: tally.errors as f64,
            downloads: downloads.map_or(f64::NAN, |tally| tally.bytes as f64 / 1e6 / tally.seconds),
            imbalance: imbalance(&tally),
            ..Sample::NONE
        };
        eprintln!(
            "{:<40} {:<28} {:>7.0} /s {:>7.1} µs of CPU {:>8.0} µs {:>8.0} µs",
            case.name(),
            setup.name(),
            sample.rate,
            sample.cpu,
            sample.median,
            sample.p99
        );
        if tally.requests == 0 {
            self.failures.push(format!("{}, {}: no request", case.name(), setup.name()));
        }
        if let Some(error) = tally.first_error {
            eprintln!("  {} errors: {error}", tally.errors);
        }
        self.push(case, setup, sample);
    }

    /// Adds the memory without and with connections.
    pub fn add_memory(&mut self, case: Case, setup: Setup, start: Duration, [idle, held]: [f64; 2]) {
        let start = start.as_secs_f64() * 1000.0;
        eprintln!(
            "{:<40} {:<28} {start:>7.1} ms {idle:>6.1} MiB {held:>6.1} MiB",
            case.name(),
            memory_name(setup)
        );
        self.push(case, setup, Sample { start, idle, held, ..Sample::NONE });
    }

    fn push(&mut self, case: Case, setup: Setup, sample: Sample) {
        match self.series.iter_mut().find(|series| (series.case, series.setup) == (case, setup)) {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series { case, setup, samples: vec![sample] }),
        }
    }

    /// Records that a load could not be measured.
    pub fn fail(&mut self, case: Case, setup: Setup, error: &anyhow::Error) {
        let failure = format!("{}, {}: {error:#}", case.name(), setup.name());
        eprintln!("{failure}");
        self.failures.push(failure);
    }

    /// Records that a proxy does not start; it is not tried again.
    pub fn skip(&mut self, setup: Setup, error: &anyhow::Error) {
        eprintln!("{} does not start: {error:#}", setup.name());
        self.unavailable.push((setup, format!("{error:#}")));
    }

    pub fn is_available(&self, setup: Setup) -> bool {
        self.unavailable.iter().all(|(other, _)| *other != setup)
    }

    /// Whether something that can be measured was not.
    pub fn has_failed(&self) -> bool {
        let may_be_missing = |(setup, error): &(Setup, String)| {
            let has_no_workers = setup.workers.is_some() && error.contains("workers: unknown key");
            has_no_workers || error.contains("is not installed")
        };
        !self.failures.is_empty() || !self.unavailable.iter().all(may_be_missing)
    }

    fn samples(&self, case: Case, setup: Setup) -> &[Sample] {
        let series = self.series.iter().find(|series| (series.case, series.setup) == (case, setup));
        series.map_or(&[], |series| &series.samples)
    }

    /// Prints the tables of these lines, and the requirements of payments.
    pub fn print(&self, lines: &[Line], paid: Vec<Requirement>) {
        self.print_loads();
        self.print_skew();
        self.print_memory();
        println!("\n| requirement | measured | in single rounds | limit | |\n|---|--:|--:|--:|---|");
        for requirement in self.requirements(lines).into_iter().chain(paid) {
            println!("{}", requirement.row());
        }
        for (setup, error) in &self.unavailable {
            println!("\nNot measured: {} does not start: {error}", setup.name());
        }
        for failure in &self.failures {
            println!("\nNot measured: {failure}");
        }
    }

    fn print_loads(&self) {
        let loads: Vec<&Series> =
            self.series.iter().filter(|series| series.case.line != Line::Memory).collect();
        if loads.is_empty() {
            return;
        }
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "\nMedians on {processors} processors. CPU is the time for one request; the proxy's is of all its threads.\n"
        );
        println!(
            "| load | proxy | requests/s | CPU µs | median µs | p99 µs | errors | origin CPU µs | load CPU µs |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|--:|--:|");
        for Series { case, setup, samples } in loads {
            let of = |metric: Metric| median(samples.iter().map(metric));
            let errors: f64 = samples.iter().map(|sample| sample.errors).sum();
            println!(
                "| {} | {} | {:.0} | {:.1} | {:.0} | {:.0} | {errors} | {:.1} | {:.1} |",
                case.name(),
                setup.name(),
                of(|sample| sample.rate),
                of(|sample| sample.cpu),
                of(|sample| sample.median),
                of(|sample| sample.p99),
                of(|sample| sample.origin_cpu),
                of(|sample| sample.load_cpu),
            );
        }
    }

    fn print_skew(&self) {
        let skewed = self.series.iter().filter(|series| series.case.line == Line::Skew);
        for (at, Series { setup, samples, .. }) in skewed.enumerate() {
            if at == 0 {
                println!(
                    "\n| beside small requests | downloads MB/s | a worker's CPU time from the mean |\n|---|--:|--:|"
                );
            }
            let imbalance = median(samples.iter().map(|sample| sample.imbalance));
            let downloads = median(samples.iter().map(|sample| sample.downloads));
            let imbalance = if imbalance.is_nan() {
                "no workers".to_owned()
            } else {
                format!("{:.0} %", imbalance * 100.0)
            };
            println!("| {} | {downloads:.0} | {imbalance} |", setup.name());
        }
    }

    fn print_memory(&self) {
        let memory = self.series.iter().filter(|series| series.case.line == Line::Memory);
        for (at, Series { case, setup, samples }) in memory.enumerate() {
            if at == 0 {
                println!(
                    "\n| memory | listens after ms | idle MiB | with {} connections MiB |\n|---|--:|--:|--:|",
                    case.clients
                );
            }
            let of = |metric: Metric| median(samples.iter().map(metric));
            let (start, idle, held) =
                (of(|sample| sample.start), of(|sample| sample.idle), of(|sample| sample.held));
            println!("| {} | {start:.1} | {idle:.1} | {held:.1} |", memory_name(*setup));
        }
    }

    fn requirements(&self, lines: &[Line]) -> Vec<Requirement> {
        lines.iter().flat_map(|line| self.requirements_of(*line)).collect()
    }

    fn requirements_of(&self, line: Line) -> Vec<Requirement> {
        let rate: Metric = |sample| sample.rate;
        let cpu: Metric = |sample| sample.cpu;
        let case = |clients| Case { line, clients };
        let [tollpass, per_core, shared, haproxy] =
            [Program::Tollpass, Program::PerCore, Program::Shared, Program::Haproxy].map(Program::plain);
        let intercepting = |setup| Setup { intercepts: true, ..setup };
        let mut list = Vec::new();
        match line {
            Line::Plain => {
                for clients in [1, 16, 64] {
                    list.push(self.ratio(case(clients), rate, [tollpass, per_core]).at_least(0.95));
                }
                list.push(self.ratio(case(64), rate, [tollpass, haproxy]).at_least(0.9));
                for clients in [1, 16, 64] {
                    list.push(self.ratio(case(clients), cpu, [tollpass, per_core]).of_cpu().at_most(1.15));
                }
                list.push(self.ratio(case(64), cpu, [tollpass, haproxy]).of_cpu().at_most(1.2));
            }
            Line::Tunnel => {
                for clients in [1, 16, 64] {
                    list.push(self.ratio(case(clients), rate, [tollpass, shared]).at_least(1.0));
                }
            }
            Line::NewTunnel | Line::NewIntercepted => {
                let least = if line == Line::NewTunnel { 0.95 } else { 1.0 };
                for (case, setups) in line.cases() {
                    let [tollpass, _, shared] = setups[..] else { continue };
                    list.push(self.ratio(case, rate, [tollpass, shared]).at_least(least));
                }
            }
            Line::Intercepted => {
                for (clients, least) in [(1, 0.95), (16, 1.15), (64, 1.15)] {
                    let setups = [tollpass, shared].map(intercepting);
                    list.push(self.ratio(case(clients), rate, setups).at_least(least));
                }
            }
            Line::Log => {
                let logging = Setup { access_log: true, ..tollpass };
                let mut requirement = self.ratio(case(64), rate, [logging, tollpass]);
                requirement.text = "access log on, 64 clients: requests/s to off".to_owned();
                list.push(requirement.at_least(0.95));
                let text = "allocations for spans whose level is off (a test has to count them)".to_owned();
                list.push(Requirement::new(text, Vec::new()).at_most(0.0));
            }
            Line::Memory => {
                let (case, plain) = (case(crate::IDLE), tollpass);
                let value = |text: &str, setup, metric: Metric| {
                    Requirement::new(text.to_owned(), self.samples(case, setup).iter().map(metric).collect())
                };
                list.push(value("listening, ms", plain, |sample| sample.start).at_most(30.0));
                list.push(value("idle process, MiB", plain, |sample| sample.idle).at_most(12.0));
                list.push(value("1,000 plain, MiB", plain, |sample| sample.held).at_most(25.0));
                let held: Metric = |sample| sample.held;
                list.push(value("1,000 intercepted, MiB", intercepting(tollpass), held).at_most(55.0));
            }
            Line::Skew => {
                for (case, _) in line.cases() {
                    let p99: Metric = |sample| sample.p99;
                    let mut requirement = self.ratio(case, p99, [tollpass, per_core]);
                    requirement.text = format!("p99 of {}: to floor, per core", case.name());
                    list.push(requirement.at_most(1.5));
                    let imbalances = self.samples(case, tollpass).iter().map(|sample| sample.imbalance);
                    let text = "a worker's CPU time from the mean".to_owned();
                    list.push(Requirement::new(text, imbalances.collect()).at_most(0.25));
                }
            }
            Line::Growth => {
                let cases: Vec<Case> = line.cases().into_iter().map(|(case, _)| case).collect();
                for pair in cases.windows(2) {
                    let text = format!("CPU of {} to {}", pair[1].name(), pair[0].clients);
                    let step = |setup| {
                        let samples = [pair[1], pair[0]].map(|case| self.samples(case, setup));
                        Requirement::ratio(text.clone(), samples, cpu)
                    };
                    list.push(step(tollpass).at_most(1.5));
                    list.push(step(per_core).of_other(per_core));
                }
            }
            Line::Workers => {
                let [pinned, one, two] = [(true, None), (false, Some(1)), (false, Some(2))]
                    .map(|(is_pinned, workers)| Setup { workers, is_pinned, ..tollpass });
                for [more, fewer] in [[two, one], [tollpass, pinned]] {
                    let text = format!("CPU of {} to {}", more.name(), fewer.name());
                    let step = |program| {
                        let setups = [more, fewer].map(|setup| Setup { program, ..setup });
                        let samples = setups.map(|setup| self.samples(case(64), setup));
                        Requirement::ratio(text.clone(), samples, cpu)
                    };
                    list.push(step(Program::Tollpass).at_most(1.5));
                    list.push(step(Program::PerCore).of_other(per_core));
                }
            }
        }
        list
    }

    /// One proxy to another.
    fn ratio(&self, case: Case, metric: Metric, setups: [Setup; 2]) -> Requirement {
        let text = format!("{}: requests/s to {}", case.name(), setups[1].name());
        Requirement::ratio(text, setups.map(|setup| self.samples(case, setup)), metric)
    }
}

/// A requirement, and what was measured.
pub struct Requirement {
    text: String,
    value: f64,
    /// The lowest and the highest of the rounds.
    range: [f64; 2],
    limit: f64,
    is_least: bool,
}

impl Requirement {
    /// The median of these.
    pub fn new(text: String, values: Vec<f64>) -> Self {
        let value = median(values.iter().copied());
        Self { text, value, range: range(values), limit: f64::NAN, is_least: false }
    }

    /// The ratio of two medians; its range is that of the ratios within the rounds.
    fn ratio(text: String, samples: [&[Sample]; 2], metric: Metric) -> Self {
        let [value, base] = samples.map(|samples| median(samples.iter().map(metric)));
        let ratios = samples[0].iter().zip(samples[1]).map(|(sample, base)| metric(sample) / metric(base));
        Self { text, value: value / base, range: range(ratios.collect()), limit: f64::NAN, is_least: false }
    }

    fn of_cpu(self) -> Self {
        Self { text: self.text.replace("requests/s", "CPU"), ..self }
    }

    /// The same of another proxy, which has no limit.
    fn of_other(self, setup: Setup) -> Self {
        Self { text: format!("  the same of {}", setup.name()), ..self }
    }

    pub fn at_least(self, limit: f64) -> Self {
        Self { limit, is_least: true, ..self }
    }

    pub fn at_most(self, limit: f64) -> Self {
        Self { limit, is_least: false, ..self }
    }

    fn row(&self) -> String {
        let Self { text, value, range: [low, high], limit, is_least } = self;
        let measured =
            if value.is_nan() { "| |".to_owned() } else { format!("{value:.3} | {low:.2} to {high:.2} |") };
        let limit_text = match (limit.is_nan(), is_least) {
            (true, _) => String::new(),
            (false, true) => format!("≥ {limit}"),
            (false, false) => format!("≤ {limit}"),
        };
        let holds = if *is_least { value >= limit } else { value <= limit };
        let verdict = match holds {
            _ if value.is_nan() => "not measured",
            _ if limit.is_nan() => "",
            true => "holds",
            false => "does not hold",
        };
        format!("| {text} | {measured} {limit_text} | {verdict} |")
    }
}

fn memory_name(setup: Setup) -> String {
    setup.name() + if setup.intercepts { ", intercepted" } else { ", plain" }
}

fn imbalance(tally: &Tally) -> f64 {
    let workers = tally.proxy.values().filter(|thread| thread.name.starts_with("worker-"));
    let times: Vec<f64> = workers.map(|thread| thread.nanoseconds as f64).collect();
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    times.iter().map(|time| (time - mean).abs() / mean).fold(f64::NAN, f64::max)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

fn range(values: Vec<f64>) -> [f64; 2] {
    let low = values.iter().copied().fold(f64::NAN, f64::min);
    let high = values.into_iter().fold(f64::NAN, f64::max);
    [low, high]
}

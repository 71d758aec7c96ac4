//! `tollpass run`: runs one command with the environment it needs and reports what it cost. Uses a port of its own at the
//! proxy running on the state directory, or runs one as long as the command runs.

mod bill;
mod child;
mod orphans;
mod proxy;
mod say;
mod signals;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::client_args::ClientArgs;
use super::config_args::ConfigArgs;
use super::environment::ProxyPlace;
use super::parse::duration;
use super::{environment, trust};
use crate::admin::RunRequest;
pub use bill::Statement;
pub use child::ProgramExit;
use proxy::Proxy;
use say::say;
use signals::SignalListener;

/// The exit code if tollpass itself fails, as in `env` and `timeout`.
pub(super) const FAILED: u8 = 125;

/// What `tollpass run --help` shows below the options.
const AFTER_HELP: &str = "\
If a proxy is running on the state_dir, it opens a port on loopback for COMMAND, until
COMMAND ends. If none is running, tollpass starts one in this process, which other
`tollpass run` commands can use, too. The report covers exactly the requests that came to
COMMAND's port, from COMMAND and every program that it starts. On Linux, it also covers
their requests to other ports of the proxy, such as the base URL of a [[route]].
limits.runs bounds the number of such ports.

With --budget, everything that these requests cost counts in a budget of their own, in
one token or in dollars; --for ends their permission to spend after that time, by a
clock that setting the time does not change. What goes beyond is not paid: COMMAND gets
the seller's 402 with the reason. All other limits apply, too, and what was signed stays
counted in [[budget]] when the run has ended. Deposits in channels have limits of their
own, in [deposit]. `tollpass budget` lists the budget of a run while it lasts. A `tollpass
run` within COMMAND takes a slice: what it spends counts in both, and neither its --budget
nor its --for exceeds the outer one.

If the proxy stops, COMMAND's port pays nothing any more, and a `tollpass run` within
COMMAND fails. A proxy that is started later does not know the run: what COMMAND sends to
ports of that one is paid as for any other program.

COMMAND and the programs that it starts can show and end the report of their run, with
`tollpass report`, but not operate tollpass: they cannot approve payments, freeze, thaw,
resume hosts, close channels, reset clocks, or read the reports of others. TOLLPASS_RUN
tells them, and on Linux the running proxy finds out by itself, by the processes that
the one at the other end of its socket descends from. This keeps ordinary programs and
accidents in bounds. It is not a sandbox: a program of the same user can read the same
files, such as your key, and can end tollpass. Run a program that you do not trust as
another user, or in a container.

COMMAND finds the proxy through http_proxy, https_proxy (and in upper case) and
NODE_USE_ENV_PROXY. Node obeys the latter from 22.21 and 24 on; an older Node reaches
sellers without the proxy, and nothing is paid. If HTTPS interception is on, SSL_CERT_FILE, CURL_CA_BUNDLE,
REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, GIT_SSL_CAINFO, SYSTEM_WGETRC and others make
it trust the local CA in addition to what it trusted before; `tollpass env` prints them
all. Java and browsers have trust stores of their own that no variable extends: see
`tollpass ca trust`. no_proxy stays as it is; some programs never use a proxy for
loopback. tollpass does not pass on the wallet's password.

COMMAND keeps its input, output, exit code and signals, whether you signal it or
tollpass. Exit codes of tollpass itself: 125 if it fails, 126 if COMMAND cannot be
executed, 127 if it is not found. After COMMAND has ended, tollpass waits for payments
in flight, for at most limits.drain_timeout; a further signal ends the wait.

\"unclear\" is what was signed but not confirmed as paid. \"paid\" plus \"unclear\" is what
sellers can redeem at most for this run; each amount counts once.";

/// Run a command through the proxy and print what it cost
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct RunArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Whose credentials COMMAND uses.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Hosts to reach without the proxy, in addition to those in no_proxy
    #[arg(long, value_name = "LIST")]
    pub no_proxy: Vec<OsString>,
    /// The most that COMMAND may cost, such as "1 USDC", "$1" or "1000 units of RDN", in addition to all other limits
    #[arg(long, value_name = "AMOUNT", allow_hyphen_values = true)]
    pub budget: Option<String>,
    /// How long COMMAND may spend, such as "1h"; after that, nothing is paid for it
    #[arg(long = "for", value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    pub lasts: Option<Duration>,
    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The old name of `--report`
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "report")]
    pub bill: Option<PathBuf>,
    /// Do not print the report
    #[arg(long, short)]
    pub quiet: bool,
    /// The command and its arguments
    // Without `allow_hyphen_values`, so that a misspelt option of tollpass is an error and not the command.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs the command and returns how it ended.
pub async fn run(args: RunArgs) -> anyhow::Result<ProgramExit> {
    let config = args.config.load()?;
    if args.bill.is_some() {
        say("--bill is now called --report; the old name still works");
    }
    // Before anything is paid, make sure that the report can be written.
    let file = args.report.as_deref().or(args.bill.as_deref()).map(|path| {
        File::create(path).with_context(|| format!("cannot write the report to {}", path.display()))
    });
    let mut file = file.transpose()?;
    // Before a proxy starts; one that runs may listen elsewhere.
    args.client.user(&config, (Ipv4Addr::LOCALHOST, 0).into())?;
    // Longer than any command can run.
    let lasts_ms = args.lasts.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let within = environment::surrounding_run()?;
    let request = RunRequest { budget: args.budget.clone(), lasts_ms, is_confined: false, within };
    let proxy = Proxy::find_or_start(config.clone(), &request).await?;
    let user = args.client.user(&config, proxy.address())?;
    let trust = trust::files(&config, proxy.running().await.as_ref(), |name| std::env::var_os(name))?;
    if !args.quiet && !proxy.can_pay() {
        say("no [wallet] is configured: this proxy never pays");
    }
    let present = |name: &str| std::env::var_os(name);
    let user = user.as_ref().map(|user| user.as_str());
    // The port of a run is on loopback and speaks no TLS.
    let place = ProxyPlace::plain(proxy.address());
    let mut variables = environment::variables(&place, user, trust.as_ref(), &args.no_proxy, present);
    if let Some(name) = proxy.name() {
        variables.push((environment::RUN, name.to_string().into()));
    }
    // Its own `tollpass` commands find the same proxy.
    if let Some(path) = args.config.file() {
        variables.push((environment::CONFIG, std::path::absolute(path)?.into()));
    }
    if args.config.state_dir.is_some() {
        variables.push((environment::STATE_DIR, config.state_dir.clone().into()));
    }

    let mut signals = SignalListener::listen().context("cannot listen for signals")?;
    let ran = child::run(&args.command, &variables, &mut signals).await;
    // Signals so far were meant for the command; further ones are for tollpass.
    signals.forget();
    let statement = proxy.end(&mut signals).await;
    if let Some(Err(error)) = file.as_mut().map(|file| write_bill(file, &statement)) {
        // The command's own exit code takes precedence.
        say(format_args!("cannot write the report: {error}"));
    }
    match ran {
        Ok(ending) => {
            if !args.quiet {
                say(statement.line(&config.assets));
            }
            Ok(ending)
        }
        Err(error) => {
            say(&error);
            Ok(ProgramExit::Code(error.code()))
        }
    }
}

fn write_bill(file: &mut File, statement: &Statement) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *file, statement)?;
    Ok(file.write_all(b"\n")?)
}

//! `tollpass resume`: lists paused hosts and pays them again, through the running proxy or, if none is running, in the
//! journal itself.

use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::Args;
use http::Uri;
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output::print;
use super::table::{Column, table};
use crate::payments::PausedHost;
use crate::payments::journal::{FILE, Journal};
use crate::protocol::engine::host_name;
use crate::{admin, app};

/// What `tollpass resume --help` shows below the options.
const AFTER_HELP: &str = "\
A host that takes several payments in a row without delivering, or raises a price by too
much, is paused, see limits.undelivered_payments and limits.price_rise_percent: its 402s
reach the client, and nothing is paid, also after a restart. Find out why before you resume it. Works with and without a running proxy.";

/// Pay a paused host again
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ResumeArgs {
    /// The host, without a port; lists the paused hosts if omitted
    pub host: Option<String>,
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON, with times in seconds since 1970
    #[arg(long)]
    pub json: bool,
}

/// Lists the paused hosts, or resumes one.
pub async fn run(args: ResumeArgs) -> anyhow::Result<()> {
    let state_dir = args.place.state_dir()?;
    let socket = admin::socket(&state_dir);
    if let Some(host) = &args.host {
        if let Some(meant) = within(host) {
            bail!("{host} is not a host name: write {meant}");
        }
        let host = host_name(host);
        if admin::resume(&socket, &host).await?.is_none() {
            let (mut journal, _lock) = app::open_journal(&state_dir)?;
            if !journal.resume_host(&host)? {
                bail!("the host {host} is not paused: see `tollpass resume`");
            }
        }
        return print(match args.json {
            true => json!({ "resumed": *host }).to_string() + "\n",
            false => format!("resumed: {host} is paid again\n"),
        });
    }
    let paused = match admin::paused(&socket).await? {
        Some(paused) => paused,
        None if state_dir.join(FILE).exists() => Journal::open(&state_dir)?.paused_hosts()?,
        None => Vec::new(),
    };
    if args.json {
        return print(serde_json::to_string_pretty(&paused)? + "\n");
    }
    print(if paused.is_empty() { "no paused hosts\n".to_owned() } else { rows(&paused) })
}

/// The host of a URL, or of a host with a port; `None` if the text is neither.
fn within(text: &str) -> Option<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url: Uri = url.parse().ok()?;
    let host = url.host()?;
    (host != text).then(|| host.to_owned())
}

fn rows(paused: &[PausedHost]) -> String {
    let head = ["HOST", "SINCE", "REASON"].map(str::to_owned);
    let rows = paused.iter().map(|PausedHost { host, since, reason }| {
        // The end of the year 9999 is the latest time that can be shown.
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs((*since).min(253_402_300_799));
        [host.clone(), humantime::format_rfc3339_seconds(since).to_string(), format!("it {reason}")]
    });
    table([Column::Left; 3], &std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

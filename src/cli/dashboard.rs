//! `tollpass dashboard`: a link to the dashboard of the running proxy.

use clap::Args;

use super::config_args::{ConfigArgs, not_running};
use super::output::{print, tell};
use crate::admin;

/// What `tollpass dashboard --help` shows below the options.
const AFTER_HELP: &str = "\
The dashboard is a page on the proxy's own port: it shows what is paid and what is left,
and decides payments that wait. The link has a secret and can be opened once, within
limits.dashboard_link; the page then stays signed in for limits.dashboard_session, until
its tab is closed or the proxy stops. Run the command again for another browser or tab.

The dashboard is open on this machine, and over TLS. Elsewhere, forward the port of the
proxy with ssh -L, and open the same link there.";

/// Print a link to the dashboard, on which you see payments and approve them
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct DashboardArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints a link.
///
/// # Errors
/// No proxy is running, or it never pays.
pub async fn run(args: DashboardArgs) -> anyhow::Result<()> {
    let socket = args.place.socket()?;
    let link = admin::dashboard(&socket).await?.ok_or_else(|| not_running(&socket))?;
    if args.json {
        return print(serde_json::to_string_pretty(&link)? + "\n");
    }
    tell(format_args!("open this within {} s; it can be opened once", link.valid_for_s));
    print(link.url + "\n")
}

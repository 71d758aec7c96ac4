//! `tollpass channels`: lists and operates on payment channels, through the running proxy or, if none is running, on
//! the journal itself.

pub(super) mod backend;
pub mod operate;

use std::path::Path;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::config_args::ConfigArgs;
use super::output::print;
use super::table::Column;
use crate::admin;
use crate::payments::journal::{AccountChannels, FILE, Journal};
use crate::payments::{AccountKey, ListedChannel, Listing};
use crate::protocol::Address;
use backend::Backend;
pub use operate::ChannelCommand;

/// What `tollpass channels --help` shows below the options.
const AFTER_HELP: &str = "\
Without a subcommand, lists the channels: from the running proxy, or from the journal.
PROMISED is the highest total that was ever signed (\"<=\" marks an upper bound: after a
crash, or for a channel known only from the chain), ACKNOWLEDGED what the seller is
known to hold. While `serve` runs, it executes the subcommands; otherwise the command
opens the wallet itself, with --config. It finishes transactions that a crash
interrupted first. Each transaction is shown with its highest fee and needs
confirmation. The exit code is 1 if anything failed.

To recover a deposit, `close` the channel: together with its seller, one transaction
pays out both sides at once. If the seller is gone or refuses, `close --unilateral`, and
`settle` after the challenge period (at least 500 blocks). A unilateral close claims
what was promised, or 0 if the channel never paid; if that is in doubt, give --total.
With a running proxy, payments in flight finish first, and new ones use another channel.";

/// List, open, top up, close and settle payment channels
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ChannelsArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Send transactions without asking for confirmation
    #[arg(long, global = true)]
    pub yes: bool,
    /// Only channels to this receiver
    #[arg(long)]
    pub receiver: Option<Address>,
    /// Only channels in this state
    #[arg(long, value_enum)]
    pub state: Option<StateFilter>,
    /// The subcommand; `list` if omitted.
    #[command(subcommand)]
    pub command: Option<ChannelCommand>,
}

/// The state of a channel, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StateFilter {
    /// It can pay.
    Open,
    /// A unilateral close was requested.
    Closing,
    /// It is no longer on the chain.
    Gone,
}

impl StateFilter {
    /// Its name in a list.
    fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Gone => "gone",
        }
    }
}

/// Lists channels, or operates on them.
pub async fn run(args: ChannelsArgs) -> anyhow::Result<()> {
    match args.command.clone().unwrap_or(ChannelCommand::List) {
        ChannelCommand::List => {
            let listings = listings(&args).await?;
            show(&args, &listings)
        }
        ChannelCommand::Show { channel } => {
            let mut listings = listings(&args).await?;
            for listing in &mut listings {
                listing.channels.retain(|listed| listed.id() == channel);
            }
            listings.retain(|listing| !listing.channels.is_empty());
            if listings.is_empty() {
                bail!("channel {channel} not found: see `tollpass channels`");
            }
            show(&args, &listings)
        }
        command => {
            let backend =
                Backend::open(args.place.state_dir()?, || args.place.load_unless_state_is_given()).await?;
            let done = operate::run(&backend, command, args.yes, args.json).await;
            backend.close().await;
            done
        }
    }
}

/// The channels that the running proxy or the journal knows, filtered by the arguments.
async fn listings(args: &ChannelsArgs) -> anyhow::Result<Vec<Listing>> {
    let state_dir = args.place.state_dir()?;
    let mut listings = match admin::channels(&admin::socket(&state_dir)).await? {
        Some(listing) => vec![listing],
        None => stored(&state_dir)?,
    };
    for listing in &mut listings {
        listing.channels.retain(|channel| {
            args.receiver.is_none_or(|receiver| receiver == channel.receiver)
                && args.state.is_none_or(|state| state.name() == channel.phase)
        });
    }
    Ok(listings)
}

fn show(args: &ChannelsArgs, listings: &[Listing]) -> anyhow::Result<()> {
    if args.json { print(serde_json::to_string_pretty(listings)? + "\n") } else { print(table(listings)) }
}

/// The channels in the journal, for every payer and contract.
fn stored(state_dir: &Path) -> anyhow::Result<Vec<Listing>> {
    if !state_dir.join(FILE).exists() {
        bail!(
            "{} contains no journal, and no proxy is running on it; give the state directory of your proxy with --state-dir, \
             or its configuration with --config",
            state_dir.display()
        );
    }
    let accounts = Journal::open(state_dir)?.accounts()?;
    let listing = |AccountChannels { account, channels }| Listing {
        owner: Some(account),
        has_no_chain: false,
        channels: channels
            .iter()
            .map(|(id, channel, host)| ListedChannel::new(id, &channel.recover(), host.as_deref()))
            .collect(),
    };
    Ok(accounts.into_iter().map(listing).collect())
}

fn table(listings: &[Listing]) -> String {
    let mut text = String::new();
    for listing in listings {
        match &listing.owner {
            Some(AccountKey { chain_id, contract, payer }) => {
                text += &format!("payer {payer}, contract {contract}, chain {chain_id}\n");
            }
            None if listing.has_no_chain => {
                text += "no [chain] is configured, so there are no channels\n";
                continue;
            }
            None => text += "the proxy is not ready to pay yet: see its log\n",
        }
        if listing.channels.is_empty() {
            text += "no channels\n";
            continue;
        }
        let head =
            ["RECEIVER", "OPENED", "STATE", "DEPOSIT", "PROMISED", "ACKNOWLEDGED", "HOST"].map(String::from);
        let rows = listing.channels.iter().map(|channel| {
            [
                channel.receiver.to_string(),
                channel.open_block.to_string(),
                channel.phase.clone(),
                channel.deposit.to_string(),
                format!("{}{}", if channel.in_doubt { "<=" } else { "" }, channel.promised),
                channel.acknowledged.to_string(),
                channel.host.clone().unwrap_or_default(),
            ]
        });
        let (left, right) = (Column::Left, Column::Right);
        let columns = [left, right, left, right, right, right, left];
        text += &super::table::table(columns, &std::iter::once(head).chain(rows).collect::<Vec<_>>());
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::cli::channels::*;
    use crate::protocol::Address;

    #[test]
    fn the_table_lines_up() {
        let channel = |open_block, phase: &str| ListedChannel {
            receiver: Address([0x11; 20]),
            open_block,
            deposit: 1000.into(),
            promised: 30.into(),
            acknowledged: 20.into(),
            phase: phase.to_owned(),
            host: (open_block == 7).then(|| "api.example.com".to_owned()),
            in_doubt: open_block == 7,
        };
        let listing = Listing {
            owner: None,
            has_no_chain: false,
            channels: vec![channel(7, "open"), channel(1234567, "closing")],
        };
        let text = table(&[listing]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("PROMISED  ACKNOWLEDGED  HOST"), "{text}");
        assert!(lines[1].ends_with("7  open        1000      <=30            20  api.example.com"), "{text}");
        assert!(lines[2].ends_with("1234567  closing     1000        30            20"), "{text}");
    }
}

//! `tollpass freeze` and `tollpass thaw`: end all signing, and allow it again.

use clap::Args;
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output::print;
use crate::protocol::engine::Record;
use crate::{admin, app};

/// What `tollpass freeze --help` shows below the options.
const AFTER_HELP: &str = "\
While tollpass is frozen, it forwards requests and pays none: it signs no payment, no
transaction and no closing of a channel. What was signed before may still be redeemed.
It stays frozen across restarts until `tollpass thaw`. Both commands work with and
without a running proxy.";

/// End all signing, or allow it again
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct FreezeArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Ends signing, or allows it again.
pub async fn run(args: FreezeArgs, is_frozen: bool) -> anyhow::Result<()> {
    let state_dir = args.place.state_dir()?;
    if admin::freeze(&admin::socket(&state_dir), is_frozen).await?.is_none() {
        let (mut journal, _lock) = app::open_journal(&state_dir)?;
        journal.write(None, &[Record::Frozen(is_frozen)])?;
    }
    if args.json {
        return print(json!({ "is_frozen": is_frozen }).to_string() + "\n");
    }
    print(if is_frozen {
        "frozen: tollpass signs nothing, also after a restart, until `tollpass thaw`\n"
    } else {
        "thawed: tollpass signs again\n"
    })
}

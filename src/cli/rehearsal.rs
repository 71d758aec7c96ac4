//! What `tollpass demo --fund` gives to a configuration of the user's own: play money, and the variables of the demo's
//! chain, tokens and seller.

use std::path::Path;

use ethers_core::types::U256;

use crate::devnet::chain::{DevChain, DevChainSettings};
use crate::devnet::contracts;
use crate::devnet::deploy;
use crate::devnet::deploy::{DeployError, Deployed};
use crate::protocol::{Address, Amount};

/// What an account gets of the token of the channels, in base units.
const TOKENS: u64 = 1_000_000_000_000_000_000;
/// What it gets of the token for x402, in base units: a thousand.
const DOLLARS: u64 = 1_000_000_000;
/// What it gets of ether for fees, in wei: one ether.
const ETHER: u64 = 1_000_000_000_000_000_000;

/// Gives an account play money: ether and both tokens.
///
/// # Errors
/// The chain refuses a transfer.
pub(super) async fn fund(
    devchain: &DevChain,
    (deployed, dollar): (&Deployed, Address),
    account: Address,
) -> Result<(), DeployError> {
    let tokens = [(deployed.token, Amount::from(TOKENS)), (dollar, Amount::from(DOLLARS))];
    deploy::fund(&devchain.url(), account, U256::from(ETHER), &tokens).await
}

/// A script for the shell that sets the variables with which any configuration uses the demo: its chain, tokens and seller,
/// and a state directory that ends with it.
pub(super) fn variables(
    devchain: &DevChain,
    (deployed, dollar): (&Deployed, Address),
    directory: &Path,
    sellers_ca: &Path,
) -> String {
    let network = format!("eip155:{}", DevChainSettings::default().chain_id);
    let (token, dollar) = (deployed.token.to_string(), dollar.to_string());
    [
        ("STATE_DIR", &*directory.join("rehearsal").to_string_lossy()),
        ("CHAIN__RPC_URL", &devchain.url()),
        ("CHAIN__CHANNEL_MANAGER", &deployed.channel_manager.to_string()),
        ("CHAIN__START_BLOCK", &deployed.start_block.to_string()),
        ("CHAIN__POLL_EVERY", "100ms"),
        ("ASSET__0__SYMBOL", "DEMO"),
        ("ASSET__0__NETWORK", &network),
        ("ASSET__0__TOKEN", &token),
        ("ASSET__0__DECIMALS", "18"),
        ("ASSET__0__USD", "1"),
        ("ASSET__1__SYMBOL", "DUSD"),
        ("ASSET__1__NETWORK", &network),
        ("ASSET__1__TOKEN", &dollar),
        ("ASSET__1__DECIMALS", "6"),
        ("ASSET__1__USD", "1"),
        ("ASSET__1__EIP712_NAME", contracts::AUTHORIZED_NAME),
        ("ASSET__1__EIP712_VERSION", contracts::AUTHORIZED_VERSION),
        ("UPSTREAM__CA_FILE", &sellers_ca.to_string_lossy()),
    ]
    .iter()
    .map(|(name, value)| format!("export TOLLPASS_{name}='{}'\n", value.replace('\'', r"'\''")))
    .collect()
}

/// What to type to pay with a configuration of the user's own. `script` sets the variables.
pub(super) fn what_to_type(
    funded: &[Address],
    (program, script): (&str, &Path),
    (paid, x402): (&str, &str),
) -> String {
    let accounts: Vec<_> = funded.iter().map(ToString::to_string).collect();
    let verb = if funded.len() == 1 { "has" } else { "have" };
    format!(
        "{accounts} {verb} play money on this chain, too. To pay with a configuration of your\n\
         own, whose [[pay]] entries name localhost and 127.0.0.1, type this in each terminal first:\n\
         \n  \
         . {script}\n      \
         sets variables that override keys of the configuration; a new terminal is without them\n  \
         {program} serve\n  \
         {program} run -- curl -i {paid}\n  \
         {program} run -- curl -i {x402}\n\
         \n",
        accounts = accounts.join(" and "),
        script = script.display(),
    )
}

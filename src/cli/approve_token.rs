//! `tollpass approve-token`: lets Permit2 move a stated amount of a token, or shows how much it may move; through the
//! running proxy or, if none is running, with the wallet itself.

use anyhow::{Context as _, bail};
use clap::Args;
use ethers_core::types::U256;
use serde_json::json;

use super::channels::backend::Backend;
use super::config_args::ConfigArgs;
use super::confirm::confirm;
use super::output::{print, tell};
use super::progress::with_progress;
use crate::channels::{AllowanceChange, AllowanceName, Permit2Allowance, SetAllowance};
use crate::protocol::policy::{KnownAsset, well_known};
use crate::protocol::{Address, Amount, AssetId, decimal};

/// What `tollpass approve-token --help` shows below the options.
const AFTER_HELP: &str = "\
x402 payments in tokens without EIP-3009 go through Permit2, a contract that moves what
you sign for each payment, within the allowance that you give it here. tollpass never
gives one by itself. It costs a transaction, whose highest fee is shown before you
confirm it, and takes effect once that is confirmed. The amount is a new limit, not an
addition; payments use it up. 0 ends the allowance. The contract knows nothing of your
budgets: it moves only what tollpass signs, one payment at a time.

The network needs a node: a [[network]] entry, or [chain] if it is the same network. While
`serve` runs, it sends the transaction; otherwise the command opens the wallet itself.
The exit code is 1 if that failed, or may have failed, and 3 if you decline.";

/// Let Permit2 move a stated amount of a token, or show how much it may move
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ApproveTokenArgs {
    /// The token: its symbol, or the address of its contract
    pub token: String,
    /// The most that Permit2 may move, such as "5 USDC", or in base units; without one, shows what it may move now
    #[arg(num_args = 0..=2, conflicts_with_all = ["unlimited", "show"])]
    pub amount: Vec<String>,
    /// The network, as a CAIP-2 ID such as eip155:8453
    #[arg(long, value_name = "ID")]
    pub network: String,
    /// Let Permit2 move any amount, indefinitely
    #[arg(long, conflicts_with = "show")]
    pub unlimited: bool,
    /// Show what Permit2 may move
    #[arg(long)]
    pub show: bool,
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the allowance as JSON
    #[arg(long)]
    pub json: bool,
    /// Send the transaction without asking for confirmation
    #[arg(long)]
    pub yes: bool,
}

/// A token on a network, and what is known about it.
struct NamedToken {
    name: AllowanceName,
    known: Option<KnownAsset>,
}

/// Shows or sets the allowance.
pub async fn run(args: ApproveTokenArgs) -> anyhow::Result<()> {
    // With only a state directory, a running proxy can be asked; without one, a configuration is needed.
    let config = args.place.load_unless_state_is_given()?;
    let assets = config.as_ref().map_or_else(well_known, |config| config.assets.to_vec());
    let token = NamedToken::find(&args.token, &args.network, &assets)?;
    let amount = match (args.unlimited, args.amount.join(" ")) {
        (true, _) => Some(U256::MAX),
        (false, text) if text.is_empty() => None,
        (false, text) => Some(token.amount(&text)?),
    };
    let backend = Backend::open(args.place.state_dir()?, || Ok(config)).await?;
    let done = match amount {
        None => backend.allowance(&token.name).await.map(|Permit2Allowance { amount, .. }| present(amount)),
        Some(amount) => set(&backend, &token, amount, args.yes).await,
    };
    backend.close().await;
    let SetAllowance { amount, transactions } = done?;
    if args.json {
        let AllowanceName { chain_id, token } = token.name;
        let is_unlimited = amount == U256::MAX;
        let shown = json!({
            "network": format!("eip155:{chain_id}"), "token": token, "amount": amount.to_string(), "unlimited": is_unlimited,
            "transactions": transactions,
        });
        return print(format!("{shown}\n"));
    }
    let sent: String = transactions.iter().map(|hash| format!("transaction: {hash}\n")).collect();
    print(format!("Permit2 may move {} on {}\n{sent}", token.show(amount), args.network))
}

/// An allowance for which nothing was sent.
fn present(amount: U256) -> SetAllowance {
    SetAllowance { amount, transactions: Vec::new() }
}

/// Sets the allowance, if the user agrees.
async fn set(
    backend: &Backend,
    token: &NamedToken,
    amount: U256,
    is_agreed: bool,
) -> anyhow::Result<SetAllowance> {
    let wanted = Permit2Allowance { name: token.name, amount };
    let AllowanceChange { owner, spender, present, transactions, wei } =
        backend.plan_allowance(&wanted).await?;
    if transactions == 0 {
        return Ok(self::present(present));
    }
    let steps = if transactions > 1 { " in 2 transactions, as the token wants 0 in between" } else { "" };
    tell(format_args!(
        "let Permit2 ({spender}) move up to {} of {owner} on eip155:{}; now it may move {}\nfees: at most {wei} wei{steps}",
        token.show(amount),
        token.name.chain_id,
        token.show(present),
    ));
    if !is_agreed {
        confirm()?;
    }
    let set = with_progress(backend.set_allowance(&wanted)).await?;
    // Some tokens count down from less than the largest number.
    if set.amount < amount && amount != U256::MAX {
        bail!(
            "the transaction is confirmed, but the token lets Permit2 move only {}",
            token.show(set.amount)
        );
    }
    Ok(set)
}

impl NamedToken {
    /// The token of this symbol or address on a network.
    fn find(token: &str, network: &str, assets: &[KnownAsset]) -> anyhow::Result<Self> {
        let chain_id = network.strip_prefix("eip155:").and_then(|id| id.parse().ok());
        let chain_id: u64 = chain_id.context("--network must be an EVM network such as eip155:8453")?;
        let of_network = || assets.iter().filter(|known| known.network == network);
        let is_address = |known: &&KnownAsset, address: Address| {
            known.asset == AssetId::token(network, address.to_string())
        };
        if let Ok(address) = token.parse::<Address>() {
            let known = of_network().find(|known| is_address(known, address)).cloned();
            return Ok(Self { name: AllowanceName { chain_id, token: address }, known });
        }
        let Some(known) = of_network().find(|known| known.symbol == token) else {
            bail!(
                "no token {token:?} is known on {network}: give the address of its contract, or write an [[asset]] entry"
            );
        };
        let AssetId::Token(asset) = &known.asset else { bail!("{token} has no address") };
        let address = asset.token.parse().with_context(|| format!("{token} has no address"))?;
        Ok(Self { name: AllowanceName { chain_id, token: address }, known: Some(known.clone()) })
    }

    /// Reads an amount: with the token's symbol, or in base units.
    fn amount(&self, text: &str) -> anyhow::Result<U256> {
        let (number, decimals) = match (text.split_once(' '), &self.known) {
            (None, _) => (text, 0),
            (Some((number, symbol)), Some(known)) if symbol == known.symbol => (number, known.decimals),
            (Some((_, symbol)), Some(known)) => bail!("the token is {}, not {symbol}", known.symbol),
            (Some(_), None) => {
                bail!("the decimals of this token are not known: give the amount in base units")
            }
        };
        let units = decimal::parse(number, decimals).with_context(|| format!("{text:?} is not an amount"))?;
        // More than any payment can be is a slip.
        Amount::try_from(units).with_context(|| format!("{text:?} is not an amount; see --unlimited"))?;
        Ok(units)
    }

    /// An amount as people read it.
    fn show(&self, amount: U256) -> String {
        let unit = self
            .known
            .as_ref()
            .map_or_else(|| format!("base units of {}", self.name.token), |known| known.symbol.clone());
        if amount == U256::MAX {
            return format!("any amount of {}", unit.trim_start_matches("base units of "));
        }
        format!("{} {unit}", decimal::show(amount, self.known.as_ref().map_or(0, |known| known.decimals)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_named_by_symbol_or_address_and_amounts_by_either_unit() {
        let usdc = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
        let find = |token: &str, network: &str| NamedToken::find(token, network, &well_known());
        for token in ["USDC", usdc, &usdc.to_lowercase()] {
            let found = find(token, "eip155:8453").unwrap();
            assert_eq!((found.name.chain_id, found.name.token.to_string().as_str()), (8453, usdc));
            for (text, expected) in
                [("5 USDC", Some(5_000_000)), ("0.000001 USDC", Some(1)), ("17", Some(17)), ("0", Some(0))]
                    .into_iter()
                    .chain(
                        ["5.5", "5 EURC", "0.0000001 USDC", "five", "-1", "$5", "5 USDC now"]
                            .map(|text| (text, None)),
                    )
            {
                let read = found.amount(text).ok();
                assert_eq!(read, expected.map(|units: u64| U256::from(units)), "{text}");
            }
            assert!(found.amount(&U256::MAX.to_string()).is_err(), "that needs --unlimited");
            assert_eq!(found.show(5_000_000.into()), "5 USDC");
            assert_eq!(found.show(U256::MAX), "any amount of USDC");
        }
        let unknown = find("0x70ab1e0000000000000000000000000000004020", "eip155:8453").unwrap();
        assert_eq!(unknown.amount("5").unwrap(), 5.into());
        assert!(unknown.amount("5 USDC").is_err());
        assert!(unknown.show(5.into()).starts_with("5 base units of 0x70"));
        for (token, network) in
            [("USDC", "eip155:2"), ("usdc", "eip155:8453"), ("USDC", "base"), (usdc, "eip155:x")]
        {
            assert!(find(token, network).is_err(), "{token} {network}");
        }
    }
}

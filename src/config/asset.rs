//! Reads `[[asset]]`: tokens that rules can name.

use ::config::Value;

use super::issue::ConfigIssue;
use super::key::{ADDRESS, Shape, Table, keys};
use super::raw_value::{InvalidValue, quoted};
use super::rules::both_or_neither;
use super::section::{Issues, Section, entries};
use super::values;
use crate::protocol::Usd;
use crate::protocol::policy::{KnownAsset, TokenDomain, well_known};

pub(super) const MAX_ASSETS: usize = 1000;
/// The most decimals of a token: 10^36 is less than the largest amount.
const MAX_DECIMALS: u64 = 36;
const LONGEST_SYMBOL: usize = 32;
/// A network, as a CAIP-2 ID.
pub(super) const NETWORK: Shape = Shape::Text("^eip155:[1-9][0-9]{0,19}$");
/// A token's symbol.
pub(super) const SYMBOL: Shape = Shape::Text("^[A-Za-z][A-Za-z0-9._-]{0,31}$");

/// A name or version in an EIP-712 domain.
const DOMAIN_TEXT: Shape = Shape::Text("^.{1,100}$");
const LONGEST_DOMAIN_TEXT: usize = 100;

/// The keys of one `[[asset]]` entry.
pub(super) static ASSET: Table = Table::new(
    "asset",
    "A token that rules can name, in addition to well-known ones (RDN, and USDC on several networks).",
    keys! {
        /// Its symbol: a letter, then letters, digits, ".", "_" or "-". No two tokens of one network can share it.
        "symbol": SYMBOL; required(),
        /// Its network, as a CAIP-2 ID such as "eip155:8453".
        "network": NETWORK; required(),
        /// The address of its contract. An entry for a well-known token replaces what tollpass knows about it.
        "token": ADDRESS; required(),
        /// How many decimals it has. tollpass believes only this, not what a seller says.
        "decimals": Shape::Integer(0, MAX_DECIMALS); required(),
        /// The value of one whole token in US dollars, such as "0.04". Without it, limits in dollars do not allow the
        /// token.
        "usd": Shape::Text(r"^[0-9]+(\.[0-9]{1,18})?$"),
        /// The name in the EIP-712 domain of its contract, with which transfers are signed, such as "USD Coin". Without it,
        /// only channels and Permit2 can pay in the token. Ask the contract, not a seller.
        "eip712_name": DOMAIN_TEXT,
        /// The version in that domain.
        "eip712_version": DOMAIN_TEXT,
    },
)
.with_rules(|| vec![both_or_neither("eip712_name", "eip712_version")]);

/// Reads all `[[asset]]` entries; returns them and the well-known tokens.
pub(super) fn assets(value: Option<Value>, issues: &Issues) -> Vec<KnownAsset> {
    let mut assets: Vec<KnownAsset> = Vec::new();
    for (index, entry) in entries("asset", value, MAX_ASSETS, issues).into_iter().enumerate() {
        let section = Section::new(format!("asset[{index}]"), Some(entry), &ASSET, issues);
        let Some(asset) = asset(&section) else { continue };
        if assets.iter().any(|other| other.asset == asset.asset) {
            section.issue("token", "another [[asset]] names the same token", "remove one of the two");
        } else if assets.iter().any(|other| is_namesake(other, &asset)) {
            section.issue(
                "symbol",
                "another [[asset]] on the same network has the same symbol",
                "give each its own",
            );
        } else {
            assets.push(asset);
        }
    }
    for known in well_known() {
        if assets.iter().any(|other| other.asset == known.asset) {
            continue;
        }
        if let Some(index) = assets.iter().position(|other| is_namesake(other, &known)) {
            let KnownAsset { symbol, asset, .. } = &known;
            issues.push(ConfigIssue::new(
                format!("asset[{index}].symbol"),
                format!("{symbol} is {asset}, which tollpass knows"),
                "use another symbol",
            ));
            continue;
        }
        assets.push(known);
    }
    assets
}

fn is_namesake(one: &KnownAsset, other: &KnownAsset) -> bool {
    (&one.symbol, &one.network) == (&other.symbol, &other.network)
}

fn asset(section: &Section<'_>) -> Option<KnownAsset> {
    let symbol = section.require("symbol", "\"USDC\"", symbol);
    let network = section.require("network", "\"eip155:8453\"", network);
    let token = section.require("token", "the address of its contract", values::address);
    let decimals =
        section.require("decimals", "how many decimals it has", |value| match values::integer(value)? {
            decimals @ 0..=MAX_DECIMALS => Ok(decimals as u32),
            decimals => Err(InvalidValue::new(
                format!("{decimals} is out of range"),
                format!("write a number from 0 to {MAX_DECIMALS}"),
            )),
        });
    let usd = section.read("usd", |value| {
        let text = values::text(value)?;
        let remedy = "write the value of one whole token in dollars, such as \"0.04\"";
        match text.parse::<Usd>() {
            Ok(usd) if usd.is_zero() => Err(InvalidValue::new(
                "0 would make the token free",
                "write a value above 0, or remove the key",
            )),
            Ok(usd) => Ok(usd),
            Err(error) => Err(InvalidValue::new(format!("{} is {error}", quoted(text)), remedy)),
        }
    });
    let name = section.read("eip712_name", domain_text);
    let version = section.read("eip712_version", domain_text);
    let domain = match (name, version) {
        (Some(name), Some(version)) => Some(TokenDomain { name, version }),
        (Some(_), None) => {
            section.issue("eip712_version", "missing beside eip712_name", "write it, such as \"2\"");
            None
        }
        (None, Some(_)) => {
            section.issue("eip712_name", "missing beside eip712_version", "write it, such as \"USD Coin\"");
            None
        }
        (None, None) => None,
    };
    // An invalid value has been reported.
    Some(KnownAsset::new(&symbol?, &network?, token?, decimals?, usd).with_domain(domain))
}

/// A name or version in an EIP-712 domain.
fn domain_text(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    if (1..=LONGEST_DOMAIN_TEXT).contains(&text.chars().count()) && !text.contains('\n') {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new(
        format!("{} is too long or has more than one line", quoted(text)),
        "copy it from the token's contract",
    ))
}

/// A token's symbol.
pub(super) fn symbol(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_symbol = text.len() <= LONGEST_SYMBOL
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_usual);
    if is_symbol {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new(format!("{} is not a valid symbol", quoted(text)), "write one such as \"USDC\""))
}

/// A network, as a CAIP-2 ID.
pub(super) fn network(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    let is_number = |id: &str| {
        (1..=20).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0')
    };
    if text.strip_prefix("eip155:").is_some_and(is_number) {
        return Ok(text.to_owned());
    }
    Err(InvalidValue::new(
        format!("{} is not a valid network", quoted(text)),
        "write its CAIP-2 ID, such as \"eip155:8453\"",
    ))
}

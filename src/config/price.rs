//! Reads `max_price`, with the keys that narrow it.

use ::config::{Value, ValueKind};

use super::issue::nearest;
use super::key::Shape;
use super::raw_value::{InvalidValue, quoted};
use super::section::Section;
use super::{asset, values};
use crate::protocol::decimal;
use crate::protocol::policy::{KnownAsset, PriceLimit};
use crate::protocol::{Amount, Usd};

pub(super) const MAX_NAMES: usize = 1000;

/// What `max_price` may hold.
pub(super) const PRICE: Shape = Shape::Any(&[Shape::Amount(1, None), DOLLARS, WITH_SYMBOL, UNITS]);
/// The same, or 0.
pub(super) const PRICE_OR_ZERO: Shape = Shape::Any(&[Shape::Amount(0, None), DOLLARS, WITH_SYMBOL, UNITS]);

const DOLLARS: Shape = Shape::Text(r"^\$[0-9]+(\.[0-9]{1,18})?$");
const WITH_SYMBOL: Shape = Shape::Text(r"^[0-9]+(\.[0-9]+)? +[A-Za-z][A-Za-z0-9._-]{0,31}$");
const UNITS: Shape = Shape::Text(r"^[0-9]+ +units +of +[A-Za-z][A-Za-z0-9._-]{0,31}$");

/// What a limit of a budget may hold.
pub(super) const SUM: Shape = Shape::Any(&[
    Shape::Amount(0, None),
    Shape::Text(r"^\$[0-9]+(\.[0-9]{1,18})?$"),
    Shape::Text(r"^[0-9]+(\.[0-9]+)? +[A-Za-z][A-Za-z0-9._-]{0,31}$"),
    Shape::Text(r"^[0-9]+ +units +of +[A-Za-z][A-Za-z0-9._-]{0,31}$"),
]);

/// What to write instead of an invalid price.
const REMEDY: &str = "write one such as \"0.05 USDC\", \"$0.05\" or \"1000 units of RDN\", or a bare integer for base \
                      units of the µRaiden token";

/// What an entry says about prices.
pub(super) struct PricesOfRule {
    /// The highest price.
    pub(super) max_price: PriceLimit,
    /// The price above which an approver is asked.
    pub(super) ask_above: Option<PriceLimit>,
    /// The only assets, by their symbols.
    pub(super) assets: Vec<String>,
    /// The only networks.
    pub(super) networks: Vec<String>,
}

/// Reads what an entry says about prices. `known` are all assets.
pub(super) fn prices(entry: &Section<'_>, known: &[KnownAsset]) -> Option<PricesOfRule> {
    let (assets, networks) =
        (names(entry, "assets", asset::symbol), names(entry, "networks", asset::network));
    // An invalid list must not allow every asset.
    let mut are_valid =
        (assets.is_some() || !entry.has("assets")) && (networks.is_some() || !entry.has("networks"));
    for (key, names) in [("assets", &assets), ("networks", &networks)] {
        for name in names.iter().flatten() {
            let is_known = known.iter().any(|asset| [&asset.symbol, &asset.network].contains(&name));
            if !is_known {
                entry.issue(key, format!("no token is known for {}", quoted(name)), remedy(name, known));
                are_valid = false;
            }
        }
    }
    let is_named =
        |names: &Option<Vec<String>>, name: &String| names.as_ref().is_none_or(|names| names.contains(name));
    // With an invalid list, it is not known what a price may name.
    let is_allowed = |asset: &&KnownAsset| {
        !are_valid || (is_named(&assets, &asset.symbol) && is_named(&networks, &asset.network))
    };
    let allowed: Vec<&KnownAsset> = known.iter().filter(is_allowed).collect();
    let price = entry.require("max_price", "\"$0.05\"", |value| {
        let price = price(value, known, &allowed)?;
        if is_zero(&price) {
            return Err(InvalidValue::new(
                "0 would pay nothing",
                "write a price above 0, or deny = true instead",
            ));
        }
        Ok(price)
    });
    let ask_above = entry.read("ask_above", |value| self::price(value, known, &allowed));
    let price = price.filter(|_| are_valid)?;
    if matches!(price, PriceLimit::ChannelToken(_))
        && let Some(key) = ["assets", "networks"].into_iter().find(|key| entry.has(key))
    {
        entry.issue(
            key,
            "has no effect: a max_price without a symbol allows only the µRaiden token",
            "remove it, or write max_price with a symbol or in dollars",
        );
        return None;
    }
    // An invalid one must not pay without asking.
    if entry.has("ask_above") && ask_above.is_none() {
        return None;
    }
    let (assets, networks) = (assets.unwrap_or_default(), networks.unwrap_or_default());
    Some(PricesOfRule { max_price: price, ask_above, assets, networks })
}

fn names(
    entry: &Section<'_>,
    key: &str,
    name: fn(&Value) -> Result<String, InvalidValue>,
) -> Option<Vec<String>> {
    entry.read(key, |value| values::list(value, MAX_NAMES, name))
}

fn is_zero(price: &PriceLimit) -> bool {
    match price {
        PriceLimit::ChannelToken(most) => most.is_zero(),
        PriceLimit::Tokens(tokens) => tokens.iter().any(|(most, _)| most.is_zero()),
        PriceLimit::Usd(most, _) => most.is_zero(),
    }
}

/// Reads an amount with its assets. `known` are all assets, `allowed` those that may be named.
pub(super) fn price(
    value: &Value,
    known: &[KnownAsset],
    allowed: &[&KnownAsset],
) -> Result<PriceLimit, InvalidValue> {
    let ValueKind::String(text) = &value.kind else { return base_units(value) };
    let text = text.trim();
    let invalid =
        |error: &dyn std::fmt::Display| InvalidValue::new(format!("{} is {error}", quoted(text)), REMEDY);
    if let Some(dollars) = text.strip_prefix('$') {
        let most: Usd = dollars.parse().map_err(|error| invalid(&error))?;
        let worth = allowed.iter().filter(|asset| asset.usd.is_some()).map(|asset| (*asset).clone());
        return match worth.collect::<Vec<_>>() {
            worth if worth.is_empty() => Err(InvalidValue::new(
                "no allowed token has a value in dollars",
                "write usd in its [[asset]] entry, or name other assets or networks",
            )),
            worth => Ok(PriceLimit::Usd(most, worth.into())),
        };
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (number, symbol, are_base_units) = match words[..] {
        [word] => return base_units(value).map_err(|error| spaced(word).unwrap_or(error)),
        [] => return base_units(value),
        [number, "units", "of", symbol] => (number, symbol, true),
        [number, symbol] if symbol != "units" => (number, symbol, false),
        _ => return Err(invalid(&"not a valid price")),
    };
    let named: Vec<&KnownAsset> = allowed.iter().filter(|asset| asset.symbol == symbol).copied().collect();
    if named.is_empty() {
        return Err(if known.iter().any(|asset| asset.symbol == symbol) {
            InvalidValue::new(
                format!("{symbol} is not among the entry's assets and networks"),
                "name it there, or remove these keys",
            )
        } else {
            let remedy = in_dollars(number, symbol).unwrap_or_else(|| remedy(symbol, known));
            InvalidValue::new(format!("no token is known for {}", quoted(symbol)), remedy)
        });
    }
    let most = |asset: &KnownAsset| {
        let decimals = if are_base_units { 0 } else { asset.decimals };
        let units = decimal::parse(number, decimals).map_err(|error| invalid(&error))?;
        let most = Amount::try_from(units).map_err(|error| invalid(&error))?;
        Ok((most, asset.clone()))
    };
    let tokens: Result<Vec<_>, InvalidValue> = named.into_iter().map(most).collect();
    Ok(PriceLimit::Tokens(tokens?.into()))
}

/// Reads an amount in base units of the channels' token. Whoever writes an invalid one most likely means another token.
fn base_units(value: &Value) -> Result<PriceLimit, InvalidValue> {
    let units =
        values::amount(value).map_err(|InvalidValue { problem, .. }| InvalidValue::new(problem, REMEDY))?;
    Ok(units.into())
}

/// The error of a number and a symbol without a space between them.
fn spaced(word: &str) -> Option<InvalidValue> {
    let (number, symbol) = word.split_at_checked(word.find(|letter: char| letter.is_ascii_alphabetic())?)?;
    // Not the exponent of a number, such as 1e3.
    let is_symbol = symbol.len() > 2 && symbol.bytes().all(|byte| byte.is_ascii_alphabetic());
    decimal::parse(number, 18).ok().filter(|_| is_symbol)?;
    let problem = format!("{} has no space before the symbol", quoted(word));
    Some(InvalidValue::new(problem, format!("write {}", quoted(format!("{number} {symbol}")))))
}

/// How to write a sum of dollars or cents.
fn in_dollars(number: &str, unit: &str) -> Option<String> {
    let dollars = match unit.to_ascii_lowercase().as_str() {
        "dollar" | "dollars" => number.parse::<Usd>().ok()?.to_string(),
        "cent" | "cents" => {
            let cents: u64 = number.parse().ok()?;
            format!("{}.{:02}", cents / 100, cents % 100)
        }
        _ => return None,
    };
    Some(format!("write {}", quoted(format!("${}", dollars.trim_start_matches('$')))))
}

/// Suggests a symbol or a network that is known.
fn remedy(name: &str, known: &[KnownAsset]) -> String {
    let names = known.iter().flat_map(|asset| [asset.symbol.as_str(), asset.network.as_str()]);
    match nearest(name, names) {
        Some(meant) => format!("did you mean {meant:?}? Other tokens need an [[asset]] entry"),
        None => "write an [[asset]] entry for it".to_owned(),
    }
}

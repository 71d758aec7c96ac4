//! Prices with symbols and in dollars, and the tokens that they name.

use super::*;
use tollpass::protocol::policy::{PriceLimit, well_known};

const TOKEN: &str = "0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd";

/// A configuration with one rule that has these keys, and more tables.
fn rule(keys: &str, more: &str) -> String {
    format!("{PAYING}[[pay]]\nhost = \"a.example\"\n{keys}\n{more}")
}

fn limit(keys: &str, more: &str) -> PriceLimit {
    let config = parse(&rule(keys, more), &[]).unwrap_or_else(|error| panic!("{keys}: {error}"));
    match &config.policy.rules[0].allow {
        Allow::Pay { max_price, .. } => max_price.clone(),
        Allow::Deny => panic!("{keys}: it denies"),
    }
}

fn asset(symbol: &str, network: &str, token: &str, more: &str) -> String {
    format!(
        "[[asset]]\nsymbol = \"{symbol}\"\nnetwork = \"{network}\"\ntoken = \"{token}\"\ndecimals = 3\n{more}\n"
    )
}

#[test]
fn the_price_to_ask_above_is_written_like_the_highest_one() {
    for (keys, shown) in [
        ("max_price = 7", None),
        ("max_price = 7\nask_above = 0", Some("0")),
        ("max_price = \"1 USDC\"\nask_above = \"$0.05\"", Some("$0.05")),
        ("max_price = \"$1\"\nask_above = \"0.05 USDC\"\nnetworks = [\"eip155:1\"]", Some("0.05 USDC")),
        ("max_price = 7\nask_above = \"5 units of RDN\"", Some("0.000000000000000005 RDN")),
    ] {
        let config = parse(&rule(keys, ""), &[]).unwrap_or_else(|error| panic!("{keys}: {error}"));
        let Allow::Pay { hooks, .. } = &config.policy.rules[0].allow else { panic!("{keys}: it denies") };
        let above = hooks.ask_above.as_ref();
        assert_eq!(above.map(ToString::to_string).as_deref(), shown, "{keys}");
        if let Some(PriceLimit::Tokens(tokens)) = above.filter(|_| keys.contains("networks")) {
            assert_eq!(tokens.len(), 1);
        }
    }
}

#[test]
fn a_price_names_the_assets_that_it_allows() {
    let euro = asset("EUR", "eip155:5", TOKEN, "usd = \"1.10\"");
    let usdc = well_known().into_iter().filter(|known| known.symbol == "USDC");
    let everywhere: Vec<String> = usdc.map(|known| format!("{} 50000", known.network)).collect();
    assert!(everywhere.len() > 10, "{everywhere:?}");
    for (keys, more, shown, allowed) in [
        ("max_price = 7", "", "7", vec![]),
        ("max_price = \"7\"", "", "7", vec![]),
        ("max_price = \"0.05 RDN\"", "", "0.05 RDN", vec!["eip155:1 50000000000000000"]),
        ("max_price = \"1000 units of RDN\"", "", "0.000000000000001 RDN", vec!["eip155:1 1000"]),
        ("max_price = \"0.05 USDC\"", "", "0.05 USDC", everywhere.iter().map(String::as_str).collect()),
        (
            "max_price = \"0.05 USDC\"\nnetworks = [\"eip155:8453\", \"eip155:84532\"]",
            "",
            "0.05 USDC",
            vec!["eip155:8453 50000", "eip155:84532 50000"],
        ),
        ("max_price = \"0.5  EUR\"", &euro, "0.5 EUR", vec!["eip155:5 500"]),
        ("max_price = \"$0.05\"\nassets = [\"EUR\"]", &euro, "$0.05", vec!["eip155:5 $1.1"]),
        (
            "max_price = \"$0.05\"\nassets = [\"EUR\", \"USDC\"]\nnetworks = [\"eip155:5\", \"eip155:1\"]",
            &euro,
            "$0.05",
            vec!["eip155:5 $1.1", "eip155:1 $1"],
        ),
        // The token of a test network has no value.
        (
            "max_price = \"$0.05\"\nnetworks = [\"eip155:8453\", \"eip155:84532\"]",
            "",
            "$0.05",
            vec!["eip155:8453 $1"],
        ),
    ] {
        let limit = limit(keys, more);
        let named: Vec<String> = match &limit {
            PriceLimit::ChannelToken(_) => Vec::new(),
            PriceLimit::Tokens(tokens) => {
                tokens.iter().map(|(most, known)| format!("{} {most}", known.network)).collect()
            }
            PriceLimit::Usd(_, tokens) => {
                tokens.iter().map(|known| format!("{} {}", known.network, known.usd.unwrap())).collect()
            }
        };
        assert_eq!(
            (limit.to_string().as_str(), named),
            (shown, allowed.into_iter().map(str::to_owned).collect())
        );
    }
}

#[test]
fn an_entry_for_a_well_known_token_replaces_it() {
    let usdc = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913";
    let own = asset("MY-USD", "eip155:8453", usdc, "");
    let PriceLimit::Tokens(tokens) = limit("max_price = \"1 MY-USD\"", &own) else { panic!() };
    assert_eq!((tokens.len(), tokens[0].0), (1, 1000.into()));
    let PriceLimit::Tokens(tokens) = limit("max_price = \"1 USDC\"", &own) else { panic!() };
    assert!(tokens.iter().all(|(_, known)| known.network != "eip155:8453"), "{tokens:?}");
}

#[test]
fn what_is_not_a_price_or_names_no_token_is_reported_with_the_remedy() {
    let euro = asset("EUR", "eip155:5", TOKEN, "");
    for (keys, more, expected) in [
        ("max_price = 0", "", "max_price: 0 would pay nothing"),
        ("max_price = \"$0\"", "", "max_price: 0 would pay nothing"),
        ("max_price = \"0.00 USDC\"", "", "max_price: 0 would pay nothing"),
        ("max_price = \"0.0000001 USDC\"", "", "\"0.0000001 USDC\" is a number with more than 6 decimals"),
        ("max_price = \"0.5 units of USDC\"", "", "is a number with more than 0 decimals"),
        ("max_price = \"$0.0000000000000000001\"", "", "is a number with more than 18 decimals"),
        ("max_price = \"-1 USDC\"", "", "is not a decimal number"),
        ("max_price = \"$-1\"", "", "is not a decimal number"),
        ("max_price = \"1,5 USDC\"", "", "is not a decimal number"),
        ("max_price = \"1000 units\"", "", "is not a valid price -> write one such as \"0.05 USDC\""),
        ("max_price = \"5 of USDC\"", "", "is not a valid price"),
        (
            "max_price = \"USDC\"",
            "",
            "\"USDC\" is not a whole number of base units -> write one such as \"0.05 USDC\"",
        ),
        (
            "max_price = 0.05",
            "",
            "expected an amount, found a number with a decimal point -> write one such as \"0.05 USDC\", \"$0.05\"",
        ),
        (
            "max_price = \"0.05\"",
            "",
            "is not a whole number of base units -> write one such as \"0.05 USDC\"",
        ),
        ("max_price = -5", "", "-5 is negative -> write one such as \"0.05 USDC\""),
        ("max_price = \"-$1\"", "", "is not a whole number of base units -> write one such as \"0.05 USDC\""),
        ("max_price = \"5 usdc\"", "", "no token is known for \"usdc\" -> did you mean \"USDC\"?"),
        ("max_price = \"5 DOGE\"", "", "no token is known for \"DOGE\" -> write an [[asset]] entry"),
        (&format!("max_price = \"{} RDN\"", "9".repeat(60)), "", "is too large"),
        (&format!("max_price = \"{} RDN\"", "9".repeat(50)), "", "larger than 2^192"),
        ("max_price = \"$1\"\nassets = [\"EUR\"]", &euro, "no allowed token has a value in dollars"),
        (
            "max_price = \"$1\"\nassets = [\"EURO\"]",
            &euro,
            "assets: no token is known for \"EURO\" -> did you mean",
        ),
        ("max_price = \"$1\"\nnetworks = [\"eip155:7\"]", "", "networks: no token is known for \"eip155:7\""),
        ("max_price = \"$1\"\nnetworks = [\"base\"]", "", "networks: \"base\" is not a valid network"),
        ("max_price = \"$1\"\nassets = []", "", "assets: an empty list"),
        ("max_price = \"1 EUR\"\nassets = [\"USDC\"]", &euro, "EUR is not among the entry's assets"),
        ("max_price = 5\nassets = [\"USDC\"]", "", "assets: has no effect"),
        ("deny = true\nnetworks = [\"eip155:1\"]", "", "networks: has no effect with deny = true"),
        ("max_price = 1", &asset("USDC", "eip155:8453", TOKEN, ""), "asset[0].symbol: USDC is 0x833589"),
        ("max_price = 1", &(euro.clone() + &euro), "asset[1].token: another [[asset]] names the same token"),
        (
            "max_price = 1",
            &(euro.clone() + &asset("EUR", "eip155:5", "0x3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a", "")),
            "asset[1].symbol: another [[asset]] on the same network has the same symbol",
        ),
        (
            "max_price = 1",
            &asset("5X", "eip155:5", TOKEN, ""),
            "asset[0].symbol: \"5X\" is not a valid symbol",
        ),
        (
            "max_price = 1",
            &asset("X", "eip155:05", TOKEN, ""),
            "asset[0].network: \"eip155:05\" is not a valid network",
        ),
        (
            "max_price = 1",
            &asset("X", "eip155:5", TOKEN, "usd = \"0\""),
            "asset[0].usd: 0 would make the token free",
        ),
        (
            "max_price = 1",
            &asset("X", "eip155:5", TOKEN, "usd = \"much\""),
            "asset[0].usd: \"much\" is not a decimal",
        ),
    ] {
        let found = issues(&rule(keys, more), &[]);
        assert!(found.iter().any(|issue| issue.contains(expected)), "{keys}\n{more}: {found:#?}");
    }
}

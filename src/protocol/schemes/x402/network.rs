//! The names of networks.

/// The words with which version 1 names networks, and their chain IDs.
const WORDS: &[(&str, u64)] = &[
    ("ethereum", 1),
    ("sepolia", 11_155_111),
    ("base", 8453),
    ("base-sepolia", 84_532),
    ("polygon", 137),
    ("polygon-amoy", 80_002),
    ("avalanche", 43_114),
    ("avalanche-fuji", 43_113),
    ("celo", 42_220),
    ("monad", 143),
    ("megaeth", 4326),
    ("sei", 1329),
    ("sei-testnet", 1328),
    ("iotex", 4689),
    ("peaq", 3338),
    ("story", 1514),
    ("educhain", 41_923),
    ("flare", 14),
    ("stable", 988),
    ("stable-testnet", 2201),
    ("abstract", 2741),
    ("abstract-testnet", 11_124),
    ("skale-base-sepolia", 324_705_682),
];

/// The chain ID of a CAIP-2 ID such as `eip155:8453`, or of a word of version 1; `None` for all other networks.
pub(super) fn chain_id(network: &str) -> Option<u64> {
    if let Some(id) = network.strip_prefix("eip155:") {
        let is_plain = id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0');
        return if is_plain { id.parse().ok() } else { None };
    }
    WORDS.iter().find(|(word, _)| *word == network).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_name_each() {
        for (network, expected) in [
            ("eip155:8453", Some(8453)),
            ("base", Some(8453)),
            ("base-sepolia", Some(84_532)),
            ("eip155:08453", None),
            ("eip155:", None),
            ("eip155:+1", None),
            ("eip155:99999999999999999999", None),
            ("Base", None),
            ("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", None),
            ("", None),
        ] {
            assert_eq!(chain_id(network), expected, "{network}");
        }
        for (index, (word, id)) in WORDS.iter().enumerate() {
            assert!(WORDS[..index].iter().all(|(other, known)| other != word && known != id), "{word}");
        }
    }
}

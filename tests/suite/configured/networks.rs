//! The nodes of networks.

use super::*;

fn network(id: &str, more: &str) -> String {
    format!("[[network]]\nid = \"{id}\"\nrpc_url = \"https://me:hunter2@node.example/key\"\n{more}")
}

#[test]
fn nodes_of_networks_are_read_beside_the_chain() {
    let pinned = PAYING.replace("[chain]\n", "[chain]\nchain_id = 8453\n");
    let text = [
        pinned,
        network("eip155:8453", ""),
        network(
            "eip155:18446744073709551615",
            "confirmations = 3\nrequest_timeout = \"2s\"\nretry_timeout = \"1s\"\n",
        ),
    ];
    let config = parse(&text.concat(), &[]).unwrap();
    let [base, last] = config.networks.as_slice() else { panic!("{:?}", config.networks) };
    assert_eq!((base.id.as_str(), base.chain_id, base.confirmations), ("eip155:8453", 8453, 1));
    assert_eq!((last.chain_id, last.confirmations), (u64::MAX, 3));
    let seconds = Duration::from_secs;
    assert_eq!((base.request_timeout, base.retry_timeout), (seconds(10), seconds(20)));
    assert_eq!((last.request_timeout, last.retry_timeout), (seconds(2), seconds(1)));
    assert_eq!(base.rpc_url.expose(), "https://me:hunter2@node.example/key");
    assert!(!format!("{config:?}").contains("hunter2"));
    // It needs no [chain].
    assert_eq!(parse(&network("eip155:1", ""), &[]).unwrap().networks.len(), 1);
}

#[test]
fn a_node_is_of_one_network_which_has_one_node() {
    for (text, expected) in [
        (
            network("eip155:1", "") + &network("eip155:1", ""),
            "network[1].id: another [[network]] has the same id -> remove one of the two",
        ),
        (network("solana:1", ""), "network[0].id: \"solana:1\" is not a valid network"),
        (network("eip155:18446744073709551616", ""), "network[0].id: the number of"),
        (network("eip155:1", "confirmations = 0"), "network[0].confirmations: 0 is out of range"),
        ("[[network]]\nid = \"eip155:1\"".to_owned(), "network[0].rpc_url: missing"),
        ("[[network]]\nrpc_url = \"http://a\"".to_owned(), "network[0].id: missing"),
        (
            "[[network]]\nid = \"eip155:1\"\nrpc_url = \"ws://a\"".to_owned(),
            "network[0].rpc_url: not an http:// or https:// URL",
        ),
        ("[network]\nid = \"eip155:1\"".to_owned(), "network: expected a list of tables"),
    ] {
        let found = issues(&text, &[]);
        assert!(found.iter().any(|issue| issue.contains(expected)), "{text}: {found:#?}");
    }
}

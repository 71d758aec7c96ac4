//! What a node's JSON-RPC error means. Nodes agree on little, so this reads codes and words, and is pure.

/// Why a node did not take a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendRefusal {
    /// It has it already: it counts as sent.
    AlreadyKnown,
    /// The nonce was used.
    NonceTooLow,
    /// Another transaction with the nonce waits, and this one does not pay enough more.
    Underpriced,
    /// The account cannot pay for it.
    InsufficientFunds,
    /// Anything else.
    Other,
}

/// Code of EIP-1474's successors for "execution reverted".
const REVERTED: i32 = 3;
/// Code of OpenEthereum and Nethermind for an execution that failed.
const VM_EXECUTION_ERROR: i32 = -32015;

/// True when the contract, not the node, said no.
pub(super) fn is_revert(code: i32, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    code == REVERTED
        || code == VM_EXECUTION_ERROR
        || [
            "revert",
            "invalid opcode",
            "invalidfeopcode",
            "bad instruction",
            "bad jump destination",
            "always failing transaction",
            "gas required exceeds allowance",
        ]
        .iter()
        .any(|words| message.contains(words))
}

/// Reads the refusal of `eth_sendRawTransaction`.
pub(super) fn of_send(message: &str) -> SendRefusal {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["already known", "already imported", "known transaction", "alreadyknown"]) {
        SendRefusal::AlreadyKnown
    } else if says(&["nonce too low", "nonce is too low", "oldnonce", "invalid transaction nonce"]) {
        SendRefusal::NonceTooLow
    } else if says(&["underpriced", "feetoolowtocompete", "there is another transaction with same nonce"]) {
        SendRefusal::Underpriced
    } else if says(&["insufficient funds", "insufficientfunds", "insufficient balance"]) {
        SendRefusal::InsufficientFunds
    } else {
        SendRefusal::Other
    }
}

/// The reason in the data of a revert: `Error(string)`, or nothing.
pub(super) fn revert_reason(data: &str) -> Option<String> {
    use ethers_core::abi::AbiDecode as _;

    // Selector of Error(string).
    let words = data.trim_matches('"').strip_prefix("0x08c379a0")?;
    let words = ethers_core::utils::hex::decode(words).ok()?;
    String::decode(words).ok().filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_revert_from_a_fault_of_the_node() {
        for (code, message, expected) in [
            (3, "execution reverted", true),
            (-32000, "execution reverted: too much", true),
            (-32603, "VM Exception while processing transaction: revert", true),
            (-32000, "invalid opcode: INVALID", true),
            (-32603, "EVM error InvalidFEOpcode", true),
            (-32015, "VM execution error.", true),
            (-32000, "gas required exceeds allowance (30000000)", true),
            (-32000, "header not found", false),
            (-32000, "missing trie node 0x12 (path )", false),
            (-32005, "limit exceeded", false),
            (-32601, "the method eth_call does not exist", false),
            (-32000, "insufficient funds for gas * price + value", false),
            (429, "too many requests", false),
        ] {
            assert_eq!(is_revert(code, message), expected, "{code} {message}");
        }
    }

    #[test]
    fn reads_why_a_transaction_was_not_taken() {
        for (message, expected) in [
            ("already known", SendRefusal::AlreadyKnown),
            ("Transaction with the same hash was already imported.", SendRefusal::AlreadyKnown),
            ("transaction already imported", SendRefusal::AlreadyKnown),
            ("nonce too low: next nonce 5, tx nonce 4", SendRefusal::NonceTooLow),
            ("OldNonce", SendRefusal::NonceTooLow),
            ("replacement transaction underpriced", SendRefusal::Underpriced),
            ("insufficient funds for gas * price + value: balance 1", SendRefusal::InsufficientFunds),
            ("Insufficient funds for gas * price + value", SendRefusal::InsufficientFunds),
            ("intrinsic gas too low", SendRefusal::Other),
        ] {
            assert_eq!(of_send(message), expected, "{message}");
        }
    }

    #[test]
    fn reads_the_reason_of_a_revert() {
        let mut data = String::from("0x08c379a0");
        data.push_str(&ethers_core::utils::hex::encode(ethers_core::abi::AbiEncode::encode(String::from(
            "over",
        ))));
        assert_eq!(revert_reason(&data), Some("over".into()));
        for none in ["", "0x", "0x08c379a0", "0x08c379a0zz", "0x4e487b71"] {
            assert_eq!(revert_reason(none), None, "{none}");
        }
    }
}

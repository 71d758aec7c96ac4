//! Classifies the JSON-RPC errors of nodes. Nodes agree on little, so this module goes by codes and message text. It is
//! pure.

/// Why a node did not accept a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendRefusal {
    /// It already has it: counts as sent.
    AlreadyKnown,
    /// The nonce is used.
    NonceTooLow,
    /// Another pending transaction has the nonce, and this one does not pay enough more.
    Underpriced,
    /// The account cannot pay for it.
    InsufficientFunds,
    /// No node would accept it.
    Invalid,
    /// Anything else: unknown whether the node has it.
    Unclear,
}

/// "Execution reverted", as geth reports it.
const REVERTED: i32 = 3;
/// A failed execution in OpenEthereum and Nethermind.
const VM_EXECUTION_ERROR: i32 = -32015;

/// Whether the contract rejected the call, rather than the node.
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

/// "Limit exceeded": the code of EIP-1474, and HTTP's, which some gateways repeat.
const LIMIT_EXCEEDED: [i32; 2] = [-32005, 429];
/// "Internal error" of JSON-RPC.
const INTERNAL: i32 = -32603;
/// "Resource not found" and "resource unavailable" of EIP-1474.
const NOT_AVAILABLE: [i32; 2] = [-32001, -32002];

/// Whether the same request may succeed if retried: the node is behind, busy or limits its callers.
pub(super) fn may_pass(method: &str, code: i32, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["header not found", "unknown block", "block not found", "missing trie node", "not synced"])
        || says(&["too many requests", "rate limit", "ratelimit", "request limit", "requests per second"])
    {
        return true;
    }
    // For logs, anything else may mean that the range is too wide.
    method != "eth_getLogs"
        && (says(&["try again", "timeout", "timed out", "temporar", "unavailable", "overloaded", "busy"])
            || LIMIT_EXCEEDED.contains(&code)
            || NOT_AVAILABLE.contains(&code)
            || code == INTERNAL)
}

/// Classifies the error of `eth_sendRawTransaction`.
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
    } else if says(&[
        "intrinsic gas",
        "gas limit",
        "chain id",
        "chainid",
        "invalid sender",
        "invalid signature",
    ]) || says(&[
        "type not supported",
        "tx fee",
        "exceeds the configured cap",
        "less than block base fee",
    ]) {
        SendRefusal::Invalid
    } else {
        SendRefusal::Unclear
    }
}

/// The reason in the data of a revert, `Error(string)`, if there is one.
pub(super) fn revert_reason(data: &str) -> Option<String> {
    use ethers_core::abi::AbiDecode as _;

    // The selector of Error(string).
    let words = data.trim_matches('"').strip_prefix("0x08c379a0")?;
    let words = ethers_core::utils::hex::decode(words).ok()?;
    String::decode(words).ok().filter(|reason| !reason.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::chain::refusal::*;

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
    fn tells_transient_errors_from_permanent_ones() {
        for (method, code, message, expected) in [
            ("eth_call", -32000, "header not found", true),
            ("eth_call", -32000, "missing trie node 0x12 (path )", true),
            ("eth_chainId", 429, "Too Many Requests", true),
            ("eth_chainId", -32005, "limit exceeded", true),
            ("eth_getLogs", -32005, "query returned more than 10000 results", false),
            ("eth_getLogs", -32005, "daily request limit reached", true),
            ("eth_getLogs", -32000, "header not found", true),
            ("eth_estimateGas", -32603, "Internal error", true),
            ("eth_getTransactionCount", -32602, "pending is not supported", false),
            ("eth_maxPriorityFeePerGas", -32601, "the method does not exist", false),
        ] {
            assert_eq!(may_pass(method, code, message), expected, "{method} {code} {message}");
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
            ("intrinsic gas too low", SendRefusal::Invalid),
            ("exceeds block gas limit", SendRefusal::Invalid),
            ("invalid chain id for signer: have 1 want 31337", SendRefusal::Invalid),
            ("tx fee (82.00 ether) exceeds the configured cap (1.00 ether)", SendRefusal::Invalid),
            ("internal error", SendRefusal::Unclear),
            ("txpool is full", SendRefusal::Unclear),
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

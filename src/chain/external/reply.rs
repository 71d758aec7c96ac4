//! Reads what a signer answered.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Signature as EthersSignature, U256};
use ethers_core::utils::hex;
use ethers_core::utils::rlp::Rlp;
use serde::Deserialize;
use serde_json::Value;

use crate::chain::repeated::{one_line, truncated};
use crate::protocol::Signature;

/// EIP-1193: the user rejected the request.
const USER_REJECTED: i64 = 4001;
/// The order of the curve.
const ORDER: U256 =
    U256([0xbfd2_5e8c_d036_4141, 0xbaae_dce6_af48_a03b, 0xffff_ffff_ffff_fffe, 0xffff_ffff_ffff_ffff]);

/// A well-formed response.
#[derive(Debug, PartialEq)]
pub(super) enum SignerReply {
    Result(Value),
    /// Explicitly: it does not sign.
    Refused(String),
    /// Another error, which does not say that nothing was signed.
    Failed(String),
}

#[derive(Deserialize)]
struct RpcReply {
    result: Option<Value>,
    error: Option<RpcError>,
}

#[derive(Deserialize)]
struct RpcError {
    code: i64,
    #[serde(default)]
    message: String,
}

/// Reads a response.
///
/// # Errors
/// It is not a JSON-RPC response with either a result or an error, for this reason.
pub(super) fn parse(answer: &[u8]) -> Result<SignerReply, String> {
    if answer.trim_ascii().is_empty() {
        return Err("its answer is empty".to_owned());
    }
    let reply: RpcReply = serde_json::from_slice(answer).map_err(|error| {
        // Without the answer itself: it may contain a signature.
        format!("its answer is not a JSON-RPC response (line {}, column {})", error.line(), error.column())
    })?;
    match (reply.result, reply.error) {
        (Some(result), None) => Ok(SignerReply::Result(result)),
        (None, Some(RpcError { code: USER_REJECTED, message })) => {
            Ok(SignerReply::Refused(readable(&message)))
        }
        (None, Some(RpcError { code, message })) => {
            Ok(SignerReply::Failed(format!("error {code}: {}", readable(&message))))
        }
        (None, None) => Err("its answer has neither a result nor an error".to_owned()),
        (Some(_), Some(_)) => Err("its answer has both a result and an error".to_owned()),
    }
}

/// The bytes of a result: hexadecimal digits, or an object that has them as `raw`.
pub(super) fn bytes_of(result: &Value) -> Option<Vec<u8>> {
    let digits = result.as_str().or_else(|| result.get("raw")?.as_str())?;
    hex::decode(digits).ok()
}

/// The signature of a signed transaction, or the signature itself.
///
/// # Errors
/// It is neither, for this reason.
pub(super) fn signature_of_transaction(answer: Vec<u8>) -> Result<[u8; 65], String> {
    let raw = match <[u8; 65]>::try_from(answer) {
        Ok(signature) => return Ok(signature),
        Err(raw) => raw,
    };
    let decoded = TypedTransaction::decode_signed(&Rlp::new(&raw));
    let (_, EthersSignature { r, s, v }) =
        decoded.map_err(|_| "its result is neither a signed transaction nor a signature".to_owned())?;
    let mut bytes = [0; 65];
    r.to_big_endian(&mut bytes[..32]);
    s.to_big_endian(&mut bytes[32..64]);
    // EIP-155 adds twice the chain ID to 35 or 36.
    bytes[64] = match v {
        0 | 27 => 27,
        1 | 28 => 28,
        v if v >= 35 && v % 2 == 1 => 27,
        v if v >= 35 => 28,
        _ => return Err("the signature of the transaction is not valid".to_owned()),
    };
    Ok(bytes)
}

/// The signature with a low s, and v 27 or 28; `None` if it is not one.
pub(super) fn normalized(mut bytes: [u8; 65]) -> Option<Signature> {
    let is_odd = match bytes[64] {
        0 | 27 => false,
        1 | 28 => true,
        _ => return None,
    };
    let s = U256::from_big_endian(&bytes[32..64]);
    if s.is_zero() || s >= ORDER {
        return None;
    }
    let is_high = s > ORDER >> 1;
    if is_high {
        (ORDER - s).to_big_endian(&mut bytes[32..64]);
    }
    bytes[64] = 27 + u8::from(is_odd != is_high);
    Some(Signature(bytes))
}

/// A signer's text in one line, truncated.
pub(super) fn readable(text: &str) -> String {
    truncated(one_line(text.trim()))
}

#[cfg(test)]
mod tests {
    use crate::chain::external::reply::*;
    use crate::chain::repeated::MAX_REPEATED;

    #[test]
    fn only_one_code_is_a_refusal_and_nothing_else_is_a_response() {
        let refused = |why: &str| Ok(SignerReply::Refused(why.to_owned()));
        let failed = |why: &str| Ok(SignerReply::Failed(why.to_owned()));
        for (answer, expected) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":"0x12"}"#, Ok(SignerReply::Result("0x12".into()))),
            (r#" {"result":"0x12","error":null} "#, Ok(SignerReply::Result("0x12".into()))),
            (r#"{"error":{"code":4001,"message":"no\nthanks","data":{}}}"#, refused("no thanks")),
            (r#"{"error":{"code":4001},"result":null}"#, refused("")),
            (r#"{"error":{"code":-32601,"message":"unknown"}}"#, failed("error -32601: unknown")),
            (r#"{"error":{"code":4100,"message":""}}"#, failed("error 4100: ")),
        ] {
            assert_eq!(parse(answer.as_bytes()), expected, "{answer}");
        }
        for answer in [
            "",
            " \n",
            "{}",
            "null",
            "4001",
            r#"{"result":null}"#,
            r#"{"error":"4001"}"#,
            r#"{"error":{"code":"4001"}}"#,
            r#"{"error":{"code":4001.5}}"#,
            r#"{"error":{"message":"no"}}"#,
            r#"{"error":{"code":4001}} and more"#,
            r#"{"error":{"code":4001},"error":null}"#,
            r#"{"error":{"code":4001},"result":"0x12"}"#,
            r#"[{"error":{"code":4001}}]"#,
            r#"{"error":{"code":4001}"#,
        ] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer}");
        }
        let long = readable(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_REPEATED + 1);
    }

    #[test]
    fn signatures_have_a_low_s_and_their_usual_v() {
        let bytes = |s: U256, v: u8| {
            let mut bytes = [1; 65];
            s.to_big_endian(&mut bytes[32..64]);
            bytes[64] = v;
            bytes
        };
        let half = ORDER >> 1;
        for (s, v, expected) in [
            (U256::one(), 0, Some((U256::one(), 27))),
            (U256::one(), 28, Some((U256::one(), 28))),
            (half, 27, Some((half, 27))),
            (half + 1, 27, Some((half, 28))),
            (ORDER - 1, 1, Some((U256::one(), 27))),
            (U256::zero(), 27, None),
            (ORDER, 27, None),
            (U256::MAX, 27, None),
            (U256::one(), 2, None),
            (U256::one(), 29, None),
            (U256::one(), 255, None),
        ] {
            let expected = expected.map(|(s, v)| Signature(bytes(s, v)));
            assert_eq!(normalized(bytes(s, v)), expected, "{s} {v}");
        }
    }

    #[test]
    fn a_result_is_hexadecimal_digits_or_has_them_as_raw() {
        let bytes = |text: &str| bytes_of(&serde_json::from_str(text).unwrap());
        for text in [r#""0x0aff""#, r#""0AFF""#, r#"{"raw":"0x0aff","tx":{}}"#] {
            assert_eq!(bytes(text), Some(vec![0x0a, 0xff]), "{text}");
        }
        for text in ["1", "true", "[]", "{}", r#""0x0af""#, r#""0xgg""#, r#"{"raw":1}"#] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}

//! The extension `sign-in-with-x`: the payer proves who it is, so that a seller serves what it has bought before.
//!
//! The proof is a message that names the seller's own domain and URL (EIP-4361, CAIP-122), signed as in EIP-191. It is signed
//! only for the origin that sent the challenge: any other could be used to sign in somewhere else.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ethers_core::utils::keccak256;
use http::{HeaderMap, HeaderValue, Uri};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::encoding::decode;
use super::headers::{PAYMENT_REQUIRED, SIGN_IN_WITH_X};
use crate::protocol::{Address, Signature, SigningRequest, TypedData};

/// The longest text of a challenge, in bytes.
const LONGEST_TEXT: usize = 1024;
/// How long all of its texts may be together, in bytes: the proof repeats them in a header, and sellers on Node refuse heads
/// above 16 KB.
const LONGEST_TEXTS: usize = 4096;
/// The names of the message's fields (EIP-4361), in lower case.
const FIELDS: [&str; 9] = [
    "uri",
    "version",
    "chain id",
    "nonce",
    "issued at",
    "expiration time",
    "not before",
    "request id",
    "resources",
];
/// The shortest nonce (EIP-4361).
const SHORTEST_NONCE: usize = 8;

/// A challenge of a seller, for one of its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    info: SignInInfo,
    /// The network, such as `eip155:8453`.
    chain: String,
    /// Its number.
    chain_id: u64,
}

/// What the seller wants to have signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignInInfo {
    domain: String,
    uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<String>,
    version: String,
    nonce: String,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Vec<String>>,
}

/// What a 402 offers, as far as signing in is concerned.
#[derive(Deserialize)]
struct Offered {
    #[serde(rename = "x402Version")]
    version: u64,
    #[serde(default)]
    accepts: Vec<IgnoredAny>,
    extensions: Option<OfferedExtensions>,
}

#[derive(Deserialize)]
struct OfferedExtensions {
    #[serde(rename = "sign-in-with-x")]
    sign_in: Option<Challenge>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Challenge {
    info: SignInInfo,
    supported_chains: Vec<ChallengeChain>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChallengeChain {
    chain_id: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What proves it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignInProof<'a> {
    #[serde(flatten)]
    info: &'a SignInInfo,
    address: String,
    chain_id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    signature: String,
}

impl SignIn {
    /// The challenge in a 402, if it is one for the origin of `url`: for the network of its offer, or else for the first one that
    /// it names. The payer has the same address on each.
    pub(super) fn read(headers: &HeaderMap, url: &Uri, chain_id: u64) -> Option<Self> {
        let chain = format!("eip155:{chain_id}");
        let offered = Offered::read(headers)?;
        offered.challenge(url, |supported| supported == chain).or_else(|| offered.challenge(url, |_| true))
    }

    /// The challenge in a 402 that has no offers, if it is one for the origin of `url`; for the first of its networks that
    /// is `allowed`.
    pub(in crate::protocol::schemes) fn without_offers(
        headers: &HeaderMap,
        url: &Uri,
        allowed: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        Offered::read(headers)?.without_offers()?.challenge(url, allowed)
    }

    /// The network on which the payer shows its address.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.chain
    }

    /// What the payer signs.
    pub fn signing_request(&self, payer: Address) -> SigningRequest {
        let message = self.message(payer);
        let prefix = format!("\x19Ethereum Signed Message:\n{}", message.len());
        let digest = keccak256([prefix.as_bytes(), message.as_bytes()].concat());
        SigningRequest { digest, typed: TypedData::Message(message) }
    }

    /// The message in the form of EIP-4361.
    fn message(&self, payer: Address) -> String {
        let SignInInfo { domain, uri, version, nonce, issued_at, .. } = &self.info;
        let statement = self.info.statement.as_ref().map(|text| format!("{text}\n")).unwrap_or_default();
        let mut message = format!(
            "{domain} wants you to sign in with your Ethereum account:\n{payer}\n\n{statement}\nURI: {uri}\n\
             Version: {version}\nChain ID: {}\nNonce: {nonce}\nIssued At: {issued_at}",
            self.chain_id
        );
        let optional = [
            ("Expiration Time", &self.info.expiration_time),
            ("Not Before", &self.info.not_before),
            ("Request ID", &self.info.request_id),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(message, "\n{name}: {value}");
            }
        }
        if let Some(resources) = &self.info.resources {
            message += "\nResources:";
            resources.iter().for_each(|resource| message += &format!("\n- {resource}"));
        }
        message
    }

    /// Sets the header that proves it.
    pub fn attach(&self, payer: Address, signature: &Signature, headers: &mut HeaderMap) {
        let mut signature = *signature;
        if signature.0[64] < 27 {
            signature.0[64] += 27;
        }
        let (info, chain_id) = (&self.info, &*self.chain);
        let (address, signature) = (payer.to_string(), signature.to_hex());
        let proof = SignInProof { info, address, chain_id, kind: "eip191", signature };
        // JSON of a proof always serializes, and base64 is always a valid header value.
        let Ok(json) = serde_json::to_vec(&proof) else { return };
        if let Ok(mut value) = HeaderValue::try_from(STANDARD.encode(json)) {
            value.set_sensitive(true);
            headers.insert(&SIGN_IN_WITH_X, value);
        }
    }
}

impl Offered {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let json = decode(headers.get(&PAYMENT_REQUIRED)?.as_bytes())?;
        serde_json::from_slice(&json).ok()
    }

    fn without_offers(self) -> Option<Self> {
        (self.version == 2 && self.accepts.is_empty()).then_some(self)
    }

    /// Its challenge, if it is one for the origin of `url`; for the first of its networks that is `allowed`.
    fn challenge(&self, url: &Uri, allowed: impl Fn(&str) -> bool) -> Option<SignIn> {
        let Challenge { info, supported_chains } = self.extensions.as_ref()?.sign_in.as_ref()?;
        let number = |chain: &str| chain.strip_prefix("eip155:")?.parse().ok();
        let mut usable = supported_chains.iter().filter(|supported| supported.kind == "eip191");
        let (chain, chain_id) = usable.find_map(|ChallengeChain { chain_id: chain, .. }| {
            let number = number(chain).filter(|_| allowed(chain))?;
            Some((chain.clone(), number))
        })?;
        (info.is_of(url) && info.is_well_formed()).then(|| SignIn { info: info.clone(), chain, chain_id })
    }
}

impl SignInInfo {
    /// Whether it names the origin of this URL, and no other.
    fn is_of(&self, url: &Uri) -> bool {
        let origin = |url: &Uri| {
            let scheme = url.scheme_str()?.to_ascii_lowercase();
            let usual = if scheme == "https" { 443 } else { 80 };
            let port = url.port_u16().unwrap_or(usual);
            Some((scheme, url.host()?.to_ascii_lowercase(), port, usual))
        };
        let Some((scheme, host, port, usual)) = origin(url) else { return false };
        let named = if port == usual { host.clone() } else { format!("{host}:{port}") };
        let uri = self.uri.parse::<Uri>().ok();
        // User info would be shown to whoever reads the message.
        let is_bare =
            uri.as_ref().and_then(Uri::authority).is_some_and(|authority| !authority.as_str().contains('@'));
        self.domain.eq_ignore_ascii_case(&named)
            && is_bare
            && uri.as_ref().and_then(origin) == Some((scheme, host, port, usual))
    }

    /// Whether no field can inject lines into the message: a text with a line break could add lines of its own, and a
    /// statement could read like one of them.
    fn is_well_formed(&self) -> bool {
        let is_line =
            |text: &str| text.len() <= LONGEST_TEXT && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let is_word = |text: &str| !text.is_empty() && is_line(text) && !text.contains(' ');
        let optional = [&self.expiration_time, &self.not_before, &self.request_id].into_iter().flatten();
        let resources = self.resources.as_deref().unwrap_or_default();
        let words = || {
            let required = [&self.domain, &self.uri, &self.nonce, &self.issued_at].into_iter();
            required.chain(optional.clone()).chain(resources).map(String::as_str)
        };
        let statement = self.statement.as_deref().unwrap_or_default();
        let named = statement.split_once(':').map(|(name, _)| name.trim().to_ascii_lowercase());
        let is_field = named.is_some_and(|name| FIELDS.contains(&&*name));
        self.version == "1"
            && self.nonce.len() >= SHORTEST_NONCE
            && self.nonce.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && words().all(is_word)
            && is_line(statement)
            && !is_field
            && words().map(str::len).sum::<usize>() + statement.len() <= LONGEST_TEXTS
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PAYER: &str = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1";

    fn info() -> Value {
        json!({
            "domain": "bob.example:8443", "uri": "https://bob.example:8443/goods?a=1", "version": "1",
            "nonce": "abcdef0123456789", "issuedAt": "2026-11-29T22:00:00.000Z",
        })
    }

    fn with(members: Value) -> Value {
        let mut info = info();
        info.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        info
    }

    fn read(info: &Value, chains: &Value, url: &str) -> Option<SignIn> {
        let offer = json!({
            "x402Version": 2, "accepts": [],
            "extensions": {"sign-in-with-x": {"info": info, "supportedChains": chains, "schema": {}}},
        });
        let value = STANDARD.encode(offer.to_string()).parse().unwrap();
        let headers = HeaderMap::from_iter([(PAYMENT_REQUIRED.clone(), value)]);
        SignIn::read(&headers, &url.parse().unwrap(), 8453)
    }

    fn base() -> Value {
        json!([{"chainId": "eip155:8453", "type": "eip191"}])
    }

    #[test]
    fn the_message_is_the_one_that_published_wallets_sign() {
        let full = json!({
            "statement": "Sign in to see what you bought.", "expirationTime": "2026-11-29T22:05:00.000Z",
            "notBefore": "2026-11-29T21:00:00.000Z", "requestId": "r-1",
            "resources": ["https://bob.example:8443/goods?a=1"],
        });
        // Signed by viem for messages of @signinwithethereum/siwe.
        for (info, signature) in [
            (
                info(),
                "0xd160e31ae9367fdc150542dfc98dac542d7d46d0a8098982a2e9d023fbd768b21ab93d7a2c84137ac22a9b4554595098b6cd1791a550b88791562b5c7cea86df1b",
            ),
            (
                with(full),
                "0x2a59df57544afea949948a393b6b2866ebfec55965cfd027576f00d4062b712d2609e954293d777e5ecfdcb5e534335739dc3ba87f05c30d263d3d536908eb121c",
            ),
        ] {
            let sign_in = read(&info, &base(), "https://bob.example:8443/other").unwrap();
            let payer: Address = PAYER.parse().unwrap();
            let bytes: [u8; 65] = ethers_core::utils::hex::decode(signature).unwrap().try_into().unwrap();
            let request = sign_in.signing_request(payer);
            assert_eq!(Signature(bytes).recover(request.digest), Some(payer), "{:?}", request.typed);
            let mut headers = HeaderMap::new();
            sign_in.attach(payer, &Signature(bytes), &mut headers);
            let proof: Value =
                serde_json::from_slice(&STANDARD.decode(&headers[&SIGN_IN_WITH_X]).unwrap()).unwrap();
            let mut expected = info;
            expected.as_object_mut().unwrap().extend(
                json!({"address": PAYER, "chainId": "eip155:8453", "type": "eip191", "signature": signature})
                    .as_object()
                    .unwrap()
                    .clone(),
            );
            assert_eq!(proof, expected);
        }
    }

    #[test]
    fn only_a_challenge_for_the_origin_itself_is_signed() {
        let url = "https://bob.example:8443/goods";
        assert!(read(&info(), &base(), url).is_some());
        assert!(read(&info(), &base(), "HTTPS://Bob.Example:8443/").is_some());
        for other in
            ["https://bob.example/goods", "http://bob.example:8443/goods", "https://mallory.example:8443/"]
        {
            assert_eq!(read(&info(), &base(), other), None, "{other}");
        }
        let usual = with(json!({"domain": "bob.example", "uri": "https://bob.example:443/goods"}));
        assert!(read(&usual, &base(), "https://bob.example/").is_some());
        let colon = with(json!({"statement": "Welcome: sign in to see what you bought."}));
        assert!(read(&colon, &base(), url).is_some());
        for members in [
            json!({"domain": "bank.example"}),
            json!({"uri": "https://bank.example/"}),
            json!({"uri": "https://bob.example:8443@bank.example/"}),
            json!({"uri": "https://bank.example@bob.example:8443/"}),
            json!({"uri": "/goods"}),
            json!({"version": "2"}),
            json!({"nonce": "short"}),
            json!({"nonce": "abcdef0123456789\nIssued At: now"}),
            json!({"statement": "Hello\n\nURI: https://bank.example/"}),
            json!({"statement": "uri: https://bank.example/"}),
            json!({"statement": " Chain ID : 1"}),
            json!({"statement": "\u{202e}"}),
            json!({"statement": "x".repeat(1025)}),
            json!({"requestId": "1\nResources:"}),
            json!({"resources": ["https://bob.example/\n- https://bank.example/"]}),
            json!({"resources": vec!["x".repeat(1000); 5]}),
            json!({"resources": "a"}),
        ] {
            assert_eq!(read(&with(members.clone()), &base(), url), None, "{members}");
        }
        for chains in [
            json!([]),
            json!([{"chainId": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "type": "eip191"}]),
            json!([{"chainId": "eip155:8453", "type": "ed25519"}]),
        ] {
            assert_eq!(read(&info(), &chains, url), None, "{chains}");
        }
        let on = |chain: &str| json!({"chainId": chain, "type": "eip191"});
        for (chains, expected) in [
            (json!([on("eip155:1"), on("eip155:8453")]), "eip155:8453"),
            // The same address has bought there.
            (
                json!([on("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"), on("eip155:1"), on("eip155:10")]),
                "eip155:1",
            ),
        ] {
            assert_eq!(read(&info(), &chains, url).unwrap().network(), expected, "{chains}");
        }
    }
}

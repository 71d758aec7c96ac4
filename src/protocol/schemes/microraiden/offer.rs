//! Parses a 402 response into a [`ChannelOffer`]. It never panics, whatever a seller sends.

use http::{HeaderMap, HeaderName};

use super::headers;
use super::malformed::MalformedChannelOffer;
use crate::protocol::policy::Complaint;
use crate::protocol::{Account, Address, Amount, Refusal, Signature};

/// A seller's offer, and its statement about the payment just presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelOffer {
    /// The price of this request, in base units.
    pub price: Amount,
    /// The channel contract.
    pub contract: Address,
    /// The payee.
    pub receiver: Address,
    /// The token, if the seller names it.
    pub token: Option<Address>,
    /// The path of the seller's REST interface at its origin, such as `/api/1`; an invalid path is ignored.
    pub gateway: Option<String>,
    /// The complaint about the presented payment.
    pub complaint: Option<Complaint>,
    /// The seller's record of the presented channel.
    pub state: Option<SellerRecord>,
}

impl ChannelOffer {
    /// The offer without what the seller stated of one payment.
    #[must_use]
    pub fn as_quote(&self) -> Self {
        Self { gateway: None, complaint: None, state: None, ..*self }
    }

    /// The offer for a recorded price.
    #[must_use]
    pub fn quoted(price: Amount, receiver: Address, account: &Account) -> Self {
        let (contract, token) = (account.contract, Some(account.token));
        Self { price, contract, receiver, token, gateway: None, complaint: None, state: None }
    }

    /// Checks that the offer uses the account's contract and token.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`] or [`Refusal::ForeignToken`].
    pub fn check_account(&self, account: &Account) -> Result<(), Refusal> {
        self.check_contract(account.contract)?;
        match self.token.filter(|token| *token != account.token) {
            Some(theirs) => Err(Refusal::ForeignToken { theirs, ours: account.token }),
            None => Ok(()),
        }
    }

    /// Checks the channel contract only.
    ///
    /// # Errors
    /// [`Refusal::ForeignContract`].
    pub fn check_contract(&self, ours: Address) -> Result<(), Refusal> {
        if self.contract == ours {
            Ok(())
        } else {
            Err(Refusal::ForeignContract { theirs: self.contract, ours })
        }
    }
}

/// The seller's own record of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SellerRecord {
    /// The payer, if the seller names it.
    pub sender: Option<Address>,
    /// The last total that it registered.
    pub total: Amount,
    /// The payer's signature of that total; absent if nothing was paid.
    pub signature: Option<Signature>,
}

/// Longer paths are ignored.
const LONGEST_GATEWAY: usize = 256;

/// Parses the headers of a 402, or returns `None` if it is not a µRaiden offer.
pub fn read(fields: &HeaderMap) -> Option<Result<ChannelOffer, MalformedChannelOffer>> {
    let marks = [&headers::PRICE, &headers::CONTRACT_ADDRESS, &headers::RECEIVER_ADDRESS];
    marks.into_iter().any(|name| fields.contains_key(name)).then(|| read_fields(fields))
}

fn read_fields(fields: &HeaderMap) -> Result<ChannelOffer, MalformedChannelOffer> {
    let needed = |name: &HeaderName, found: Option<Address>| {
        found.ok_or_else(|| MalformedChannelOffer::Missing(name.clone()))
    };
    Ok(ChannelOffer {
        price: amount(fields, &headers::PRICE)?
            .ok_or_else(|| MalformedChannelOffer::Missing(headers::PRICE.clone()))?,
        contract: needed(&headers::CONTRACT_ADDRESS, address(fields, &headers::CONTRACT_ADDRESS)?)?,
        receiver: needed(&headers::RECEIVER_ADDRESS, address(fields, &headers::RECEIVER_ADDRESS)?)?,
        token: address(fields, &headers::TOKEN_ADDRESS)?,
        gateway: gateway(fields),
        complaint: complaint(fields),
        state: state(fields)?,
    })
}

/// A valid URL path. It only matters when a channel is closed, so an invalid one is not an error.
fn gateway(fields: &HeaderMap) -> Option<String> {
    let path = single(fields, &headers::GATEWAY_PATH).ok()??.trim_end_matches('/');
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    (path.len() <= LONGEST_GATEWAY && path.starts_with('/') && path.bytes().all(is_plain))
        .then(|| path.to_owned())
}

/// The first complaint, in the order in which the original client checks them.
fn complaint(fields: &HeaderMap) -> Option<Complaint> {
    [
        (&headers::NONEXISTING_CHANNEL, Complaint::NonexistingChannel),
        (&headers::INSUFFICIENT_CONFIRMATIONS, Complaint::InsufficientConfirmations),
        (&headers::INVALID_BALANCE_PROOF, Complaint::InvalidBalanceProof),
        (&headers::INVALID_AMOUNT, Complaint::InvalidAmount),
    ]
    .into_iter()
    .find_map(|(name, complaint)| fields.contains_key(name).then_some(complaint))
}

fn state(fields: &HeaderMap) -> Result<Option<SellerRecord>, MalformedChannelOffer> {
    let sender = address(fields, &headers::SENDER_ADDRESS)?;
    let signature = signature(fields, &headers::BALANCE_SIGNATURE)?;
    let total = amount(fields, &headers::SENDER_BALANCE)?;
    Ok(total.map(|total| SellerRecord { sender, total, signature }))
}

fn amount(fields: &HeaderMap, name: &HeaderName) -> Result<Option<Amount>, MalformedChannelOffer> {
    let Some(text) = single(fields, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error| MalformedChannelOffer::NotAnAmount(name.clone(), error))
}

fn address(fields: &HeaderMap, name: &HeaderName) -> Result<Option<Address>, MalformedChannelOffer> {
    let Some(text) = single(fields, name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error| MalformedChannelOffer::NotAnAddress(name.clone(), error))
}

fn signature(fields: &HeaderMap, name: &HeaderName) -> Result<Option<Signature>, MalformedChannelOffer> {
    let Some(text) = single(fields, name)? else { return Ok(None) };
    Signature::parse(text).map(Some).ok_or_else(|| MalformedChannelOffer::NotASignature(name.clone()))
}

fn single<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, MalformedChannelOffer> {
    let mut values = fields.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(MalformedChannelOffer::Doubled(name.clone()));
    }
    value.to_str().map(|text| Some(text.trim())).map_err(|_| MalformedChannelOffer::NotText(name.clone()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use crate::protocol::schemes::microraiden::offer::*;

    const BOB: &str = "0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd";
    const CONTRACT: &str = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512";

    fn fields(more: &[(&str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        let base = [
            ("RDN-Price", "10"),
            ("RDN-Contract-Address", CONTRACT),
            ("RDN-Receiver-Address", BOB),
            ("RDN-Token-Address", CONTRACT),
            ("RDN-Gateway-Path", "/api/1"),
        ];
        for (name, value) in base.iter().chain(more) {
            fields.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        fields
    }

    fn without(name: &str) -> HeaderMap {
        let mut fields = fields(&[]);
        fields.remove(name);
        fields
    }

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut fields = fields(&[]);
        fields.insert(name, HeaderValue::from_bytes(value).unwrap());
        fields
    }

    #[test]
    fn reads_every_kind_of_answer() {
        let base = read(&fields(&[])).unwrap().unwrap();
        assert_eq!(
            (base.price, base.receiver, base.complaint, base.state),
            (10.into(), BOB.parse().unwrap(), None, None)
        );

        for (name, complaint) in [
            ("RDN-NONEXISTING-CHANNEL", Complaint::NonexistingChannel),
            ("rdn-insufficient-confirmations", Complaint::InsufficientConfirmations),
            ("Rdn-Invalid-Balance-Proof", Complaint::InvalidBalanceProof),
            ("RDN-Invalid-Amount", Complaint::InvalidAmount),
        ] {
            assert_eq!(read(&fields(&[(name, "1")])).unwrap().unwrap().complaint, Some(complaint), "{name}");
        }

        let signature = format!("0x{}", "11".repeat(65));
        let state = read(&fields(&[
            ("RDN-Sender-Address", CONTRACT),
            ("RDN-Sender-Balance", "30"),
            ("RDN-Balance-Signature", &signature),
        ]));
        let expected = SellerRecord {
            sender: CONTRACT.parse().ok(),
            total: 30.into(),
            signature: Some(Signature([0x11; 65])),
        };
        assert_eq!(state.unwrap().unwrap().state, Some(expected));
    }

    #[test]
    fn a_response_without_an_offer_is_not_a_challenge() {
        assert_eq!(read(&HeaderMap::new()), None);
        let mut other = HeaderMap::new();
        other.insert("payment-required", HeaderValue::from_static("e30="));
        assert_eq!(read(&other), None);
    }

    #[test]
    fn malformed_offers_are_reported() {
        use MalformedChannelOffer::*;
        for (fields, expected) in [
            (without("rdn-price"), Missing(headers::PRICE.clone())),
            (without("rdn-contract-address"), Missing(headers::CONTRACT_ADDRESS.clone())),
            (without("rdn-receiver-address"), Missing(headers::RECEIVER_ADDRESS.clone())),
            (
                with("rdn-price", b"-1"),
                NotAnAmount(headers::PRICE.clone(), crate::protocol::money::NotAnAmount::NotDecimal),
            ),
            (
                with("rdn-price", b"ten"),
                NotAnAmount(headers::PRICE.clone(), crate::protocol::money::NotAnAmount::NotDecimal),
            ),
            (
                with("rdn-price", b""),
                NotAnAmount(headers::PRICE.clone(), crate::protocol::money::NotAnAmount::NotDecimal),
            ),
            (
                with("rdn-price", b"1606938044258990275541962092341162602522202993782792835301376"),
                NotAnAmount(headers::PRICE.clone(), crate::protocol::money::NotAnAmount::TooLarge),
            ),
            (with("rdn-price", b"\xff"), NotText(headers::PRICE.clone())),
            (
                with("rdn-receiver-address", b"0x123"),
                NotAnAddress(
                    headers::RECEIVER_ADDRESS.clone(),
                    crate::protocol::address::NotAnAddress::Shape,
                ),
            ),
            (with("rdn-balance-signature", b"0x12"), NotASignature(headers::BALANCE_SIGNATURE.clone())),
            (fields(&[("rdn-price", "10")]), Doubled(headers::PRICE.clone())),
        ] {
            assert_eq!(read(&fields), Some(Err(expected)));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_seller_sends_is_read_or_refused(
            fields in prop::collection::vec((0..NAMES.len(), any_value()), 0..12)
        ) {
            let mut sent = HeaderMap::new();
            for (name, value) in &fields {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    sent.append(NAMES[*name], value);
                }
            }
            if let Some(Ok(offer)) = read(&sent) {
                // What is accepted equals what was written.
                let price = sent.get("rdn-price").unwrap().to_str().unwrap().trim();
                let read = offer.price.to_string();
                prop_assert_eq!(price.trim_start_matches('0'), read.trim_start_matches('0'));
                prop_assert_eq!(sent.get_all("rdn-price").iter().count(), 1);
            }
        }
    }

    const NAMES: [&str; 12] = [
        "rdn-price",
        "rdn-contract-address",
        "rdn-receiver-address",
        "rdn-token-address",
        "rdn-gateway-path",
        "rdn-sender-address",
        "rdn-sender-balance",
        "rdn-balance-signature",
        "rdn-invalid-amount",
        "rdn-nonexisting-channel",
        "rdn-insufficient-confirmations",
        "rdn-invalid-balance-proof",
    ];

    /// Values that are nearly valid as often as not.
    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..80),
            "[0-9]{0,70}".prop_map(String::into_bytes),
            "0x[0-9a-fA-F]{38,42}".prop_map(String::into_bytes),
            "(0x)?[0-9a-f]{128,132}".prop_map(String::into_bytes),
            Just(BOB.as_bytes().to_vec()),
            Just(CONTRACT.as_bytes().to_vec()),
        ]
    }
}

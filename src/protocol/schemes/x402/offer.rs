//! Reads offers, of both versions.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::contracts::{EXACT_PROXY, PERMIT2};
use super::encoding::decode;
use super::headers::PAYMENT_REQUIRED;
use super::malformed::MalformedExactOffer;
use super::network::chain_id;
use super::receipt::LONGEST_STATEMENT;
use super::stated_error::StatedError;
use crate::protocol::asset::AssetId;
use crate::protocol::safe_text::safe_text;
use crate::protocol::{Address, Amount, Answer};

/// Facilitators want a payment to be valid for at least this many seconds more.
pub(super) const LEAST_VALIDITY: u64 = 6;
/// How many offers of one response are read.
const MOST_OFFERS: usize = 100;
/// The largest offer that can be paid, in bytes of the JSON that is kept of it: in version 2, the payment repeats it in a
/// header, and sellers on Node refuse heads above 16 KB.
const LARGEST_OFFER: usize = 6 * 1024;
/// The largest resource that a payment names, in bytes of JSON.
const LARGEST_RESOURCE: usize = 1024;
/// How much of a name that a seller chose is shown, in characters.
pub(super) const LONGEST_NAME: usize = 40;
/// How much is shown of the reason why an offer cannot be read, in characters.
const LONGEST_REASON: usize = 160;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum X402Version {
    /// Offers in the body.
    V1,
    /// Offers in a header.
    V2,
}

/// How a payment moves the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransferMethod {
    /// By an authorization that the token takes (EIP-3009).
    Eip3009,
    /// By one that Permit2 takes, within the allowance that the payer gave it.
    Permit2,
}

/// An offer of the scheme `exact`, paid with one authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExactOffer {
    /// What has to be paid; it stays the same in the seller's later responses, unless the price changes.
    pub requirement: Arc<Requirement>,
    /// What the response says about a payment.
    pub error: StatedError,
    /// The seller's clock, in seconds since 1970, if the response states it.
    pub date: Option<u64>,
    /// Whether the seller lets a payer sign in for what it has bought.
    pub has_sign_in: bool,
    /// The same offer as the seller has signed it (the extension `offer-receipt`), in JSON as it came; unchecked.
    pub signed: Option<Box<str>>,
}

/// What a seller requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The version in which it was offered, and is paid.
    pub version: X402Version,
    /// The network as the seller names it.
    pub network: Box<str>,
    /// Its chain ID.
    pub chain_id: u64,
    /// How a payment moves the tokens.
    pub method: TransferMethod,
    /// The contract of the token.
    pub token: Address,
    /// The same as an asset.
    pub asset: AssetId,
    /// The payee.
    pub payee: Address,
    /// The price, in base units of the token.
    pub amount: Amount,
    /// How long a payment has to be valid, in seconds.
    pub max_timeout: u64,
    /// The name in the token's EIP-712 domain, as the seller claims.
    pub claimed_name: Option<Box<str>>,
    /// The version in it, as the seller claims.
    pub claimed_version: Option<Box<str>>,
    /// The offer in JSON. In version 2 as the seller wrote it, since a payment repeats it; in version 1, which describes
    /// resources at length, only what matters to a payment.
    pub entry: Box<str>,
    /// The extension `payment-identifier` as the seller wrote it, if a payment can carry it with an ID.
    pub identifier: Option<Box<str>>,
    /// The resource in JSON, if a payer can sign in for it later: the payment names it. Its URL has lost its query, which may
    /// be secret.
    pub resource: Option<Box<str>>,
}

/// The offers that were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OffersRead {
    /// Those that can be paid, the ones that need no allowance first.
    pub(super) offers: Vec<ExactOffer>,
    /// The others, and why not.
    pub(super) others: Vec<String>,
}

/// The offers of a response, in either version.
#[derive(Deserialize)]
struct Offers<'a> {
    #[serde(rename = "x402Version")]
    version: u64,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    accepts: Vec<&'a RawValue>,
    #[serde(borrow)]
    extensions: Option<&'a RawValue>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Extensions<'a> {
    #[serde(borrow, rename = "payment-identifier")]
    identifier: Option<&'a RawValue>,
    #[serde(borrow, rename = "sign-in-with-x")]
    sign_in: Option<&'a RawValue>,
    #[serde(borrow, rename = "offer-receipt")]
    signed: Option<&'a RawValue>,
}

/// One of them.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    scheme: String,
    network: String,
    /// The price in version 2.
    amount: Option<Amount>,
    /// The price in version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_amount_required: Option<Amount>,
    asset: Option<String>,
    pay_to: Option<String>,
    max_timeout_seconds: Option<u64>,
    #[serde(default)]
    extra: Option<Extra>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    asset_transfer_method: Option<String>,
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<serde_json::Value>,
    verifying_contract: Option<String>,
    spender: Option<String>,
}

/// Whether a response has x402 offers in its header.
pub(super) fn is_in_header(headers: &HeaderMap) -> bool {
    headers.contains_key(&PAYMENT_REQUIRED)
}

/// Reads the offers of a response that asks for a payment; `None` if it has none. A header wins over the body.
pub(super) fn read(answer: &Answer<'_>) -> Option<Result<OffersRead, MalformedExactOffer>> {
    let date = answer.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(http_date);
    let mut values = answer.headers.get_all(&PAYMENT_REQUIRED).iter();
    if let Some(value) = values.next() {
        if values.next().is_some() {
            return Some(Err(MalformedExactOffer::Doubled(PAYMENT_REQUIRED.clone())));
        }
        let not_json = || MalformedExactOffer::NotJson(PAYMENT_REQUIRED.clone());
        let json = decode(value.as_bytes()).ok_or_else(not_json);
        return Some(json.and_then(|json| parse(&json, X402Version::V2, date)));
    }
    let body = answer.body?;
    // Any other JSON is the body of another scheme.
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "x402Version")]
        _version: serde::de::IgnoredAny,
    }
    serde_json::from_slice::<Versioned>(body).ok()?;
    Some(parse(body, X402Version::V1, date))
}

/// Reads the offers in `json`, which came where `version` has them.
fn parse(json: &[u8], version: X402Version, date: Option<u64>) -> Result<OffersRead, MalformedExactOffer> {
    let unreadable = |error: serde_json::Error| MalformedExactOffer::Unreadable(reason(&error).into());
    let answer: Offers<'_> = serde_json::from_slice(json).map_err(unreadable)?;
    let entries = &answer.accepts;
    if answer.version != (if version == X402Version::V1 { 1 } else { 2 }) {
        return Err(MalformedExactOffer::Version(answer.version));
    }
    if entries.len() > MOST_OFFERS {
        return Err(MalformedExactOffer::TooMany { count: entries.len(), most: MOST_OFFERS });
    }
    let error = answer.error.and_then(|error| serde_json::from_str::<String>(error.get()).ok());
    let error = StatedError::read(error.as_deref());
    let extensions = answer.extensions.map_or("{}", RawValue::get);
    let extensions = serde_json::from_str::<Extensions<'_>>(extensions).unwrap_or_default();
    let identifier = extensions.identifier.map(RawValue::get);
    let signed = extensions.signed.map(SignedOffers::read);
    let resource = answer.resource.filter(|_| extensions.sign_in.is_some()).and_then(without_query);
    let (mut offers, mut others) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        match requirement(entry.get(), version, identifier) {
            Ok(requirement) => {
                let requirement = Requirement { resource: resource.clone(), ..requirement };
                let (requirement, error) = (Arc::new(requirement), error.clone());
                offers.push(ExactOffer {
                    requirement,
                    error,
                    date,
                    has_sign_in: extensions.sign_in.is_some(),
                    signed: signed.as_ref().and_then(|signed| signed.of(index)),
                });
            }
            Err(why) => others.push(why),
        }
    }
    // Stable: apart from that, the seller's order stays.
    offers.sort_by_key(|offer| offer.requirement.method);
    Ok(OffersRead { offers, others })
}

/// Reads one offer; `Err` names it and says why it cannot be paid.
pub(super) fn requirement(
    json: &str,
    version: X402Version,
    identifier: Option<&str>,
) -> Result<Requirement, String> {
    let entry: Entry = serde_json::from_str(json)
        .map_err(|error| format!("one that cannot be read ({})", reason(&error)))?;
    let named = format!("{} on {}", shown(&entry.scheme), shown(&entry.network));
    let but = |why: &str| format!("{named} ({why})");
    if entry.scheme != "exact" {
        return Err(named);
    }
    let kept = match version {
        X402Version::V1 => Cow::from(serde_json::to_string(&entry).map_err(|error| but(&reason(&error)))?),
        X402Version::V2 => Cow::from(json),
    };
    let chain_id = chain_id(&entry.network).ok_or_else(|| but("not an EVM network"))?;
    let extra = entry.extra.unwrap_or_default();
    let method = match extra.asset_transfer_method.as_deref() {
        None | Some("eip3009") => TransferMethod::Eip3009,
        Some("permit2") if version == X402Version::V2 => TransferMethod::Permit2,
        Some("permit2") => return Err(but("by permit2, which x402 has since version 2")),
        Some(other) => return Err(but(&format!("by {}", shown(other)))),
    };
    let address = |text: Option<String>, what: &str| {
        text.and_then(|text| text.parse::<Address>().ok()).ok_or_else(|| but(&format!("without {what}")))
    };
    let token = address(entry.asset, "a valid token")?;
    let payee = address(entry.pay_to, "a valid payee")?;
    if payee == Address::default() || payee == token {
        return Err(but("to the token or the zero address"));
    }
    let is_other = |named: &Option<String>, known: Address| {
        named.as_ref().is_some_and(|named| named.parse::<Address>().ok() != Some(known))
    };
    let (verifier, spender, whose) = match method {
        TransferMethod::Eip3009 => (token, None, "the token's"),
        TransferMethod::Permit2 => (PERMIT2, Some(EXACT_PROXY), "Permit2"),
    };
    // The second is a transfer from a deposit at another contract, which is a scheme of its own.
    if is_other(&extra.verifying_contract, verifier) || extra.name.as_deref() == Some("GatewayWalletBatched")
    {
        return Err(but(&format!("signed for another contract than {whose}")));
    }
    if let Some(spender) = spender
        && is_other(&extra.spender, spender)
    {
        return Err(but("redeemed by another contract than that of x402"));
    }
    let amount = match version {
        X402Version::V1 => entry.max_amount_required.or(entry.amount),
        X402Version::V2 => entry.amount.or(entry.max_amount_required),
    };
    let amount = amount.ok_or_else(|| but("without a price"))?;
    let max_timeout = entry.max_timeout_seconds.ok_or_else(|| but("without maxTimeoutSeconds"))?;
    if max_timeout < LEAST_VALIDITY {
        return Err(but("maxTimeoutSeconds is too short to pay"));
    }
    let identifier = identifier.filter(|_| version == X402Version::V2);
    if kept.len() + identifier.map_or(0, str::len) > LARGEST_OFFER {
        return Err(but("too large to repeat in a payment"));
    }
    let asset = AssetId::token(format!("eip155:{chain_id}"), token.to_string());
    Ok(Requirement {
        version,
        network: entry.network.into(),
        chain_id,
        method,
        token,
        asset,
        payee,
        amount,
        max_timeout,
        claimed_name: extra.name.map(Into::into),
        claimed_version: extra.version.as_ref().and_then(version_text).map(Into::into),
        entry: kept.into(),
        identifier: identifier.filter(|json| identified(json, "").is_some()).map(Into::into),
        resource: None,
    })
}

/// A version that a seller writes as text or as a number.
fn version_text(version: &serde_json::Value) -> Option<String> {
    match version {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The extension `payment-identifier` with an ID, as a payment carries it; `None` if it has no place for one.
pub(super) fn identified(extension: &str, id: &str) -> Option<serde_json::Value> {
    let mut identifier: serde_json::Value = serde_json::from_str(extension).ok()?;
    identifier.get_mut("info")?.as_object_mut()?.insert("id".to_owned(), id.into());
    Some(identifier)
}

/// The offers that a seller has signed, in JSON, each with the index of its entry.
struct SignedOffers<'a>(Vec<(Option<usize>, &'a RawValue)>);

impl<'a> SignedOffers<'a> {
    /// Those of the extension; none if it cannot be read.
    fn read(extension: &'a RawValue) -> Self {
        #[derive(Deserialize)]
        struct Extension<'a> {
            #[serde(borrow)]
            info: SignedList<'a>,
        }
        #[derive(Deserialize)]
        struct SignedList<'a> {
            #[serde(borrow)]
            offers: Vec<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Indexed {
            #[serde(rename = "acceptIndex")]
            index: Option<usize>,
        }
        let extension = serde_json::from_str::<Extension<'_>>(extension.get());
        let offers = extension.map_or_else(|_| Vec::new(), |extension| extension.info.offers);
        let indexed = offers.into_iter().take(MOST_OFFERS).filter_map(|offer| {
            let Indexed { index } = serde_json::from_str(offer.get()).ok()?;
            Some((index, offer))
        });
        Self(indexed.collect())
    }

    /// That of the entry with this index or, if there is only one, without any. A larger one than a receipt may be is left out.
    fn of(&self, entry: usize) -> Option<Box<str>> {
        let (_, signed) = self.0.iter().find(|(index, _)| match index {
            Some(index) => *index == entry,
            None => self.0.len() == 1,
        })?;
        (signed.get().len() <= LONGEST_STATEMENT).then(|| signed.get().into())
    }
}

/// A resource with its URL only, and that without query and fragment: sellers remember a payer by the path.
fn without_query(resource: &RawValue) -> Option<Box<str>> {
    #[derive(Deserialize, Serialize)]
    struct NamedResource {
        url: String,
    }
    let NamedResource { mut url } = serde_json::from_str(resource.get()).ok()?;
    url.truncate(url.find(['?', '#']).unwrap_or(url.len()));
    let json = serde_json::to_string(&NamedResource { url }).ok()?;
    (json.len() <= LARGEST_RESOURCE).then(|| json.into())
}

/// A name that a seller chose, cut and made safe for terminals.
fn shown(name: &str) -> String {
    safe_text(name, LONGEST_NAME)
}

/// Why JSON cannot be read, which may repeat parts of it.
fn reason(error: &serde_json::Error) -> String {
    safe_text(&error.to_string(), LONGEST_REASON)
}

/// A date in the preferred form of RFC 9110, section 5.6.7, in seconds since 1970.
fn http_date(text: &str) -> Option<u64> {
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    u64::try_from(date.timestamp().as_second()).ok()
}

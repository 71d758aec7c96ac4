//! A 402 and its consequences: how a seller's headers are parsed and judged, and the payment that follows.
//!
//! An input consists of lines `name: value`, the headers of a 402. Lines whose name starts with `@` set the payer's
//! side instead: `@deposit`, `@acknowledged`, `@promised`, `@unclear`, `@unclear-price`, `@presented`, `@price` and
//! `@signed` (repeatable) are amounts.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tollpass::protocol::channel::{ChannelDraft, InDoubt};
use tollpass::protocol::policy::Complaint;
use tollpass::protocol::schemes::microraiden::proof::{balance_digest, recover};
use tollpass::protocol::schemes::microraiden::{
    ChannelOffer, MicroRaiden, SellerRecord, complaint, headers, judge,
};
use tollpass::protocol::schemes::{self, Holding, Malformed, Scheme as _, Verdict, Violation};
use tollpass::protocol::{Account, Address, Amount, Answer, Channel, ChannelId, Phase, Refusal, Signature};
use tollpass::proxy::error_response::proxy_status;

/// From the published test vectors: the corpus contains a signature of this payer for 15 on this channel.
const PAYER: &str = "0x8Bf640A099fE945DA46F354d3B49c48a125F48B6";
const RECEIVER: &str = "0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd";
const CONTRACT: &str = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512";
const OPEN_BLOCK: u32 = 37;

/// The headers that make a 402 one of this scheme.
static MARKS: [&HeaderName; 3] = [&headers::PRICE, &headers::CONTRACT_ADDRESS, &headers::RECEIVER_ADDRESS];

/// Parses the headers in `input`, judges them as the response to a payment, and makes the payment that follows.
pub fn run(input: &[u8]) {
    let mut fields = HeaderMap::new();
    let mut payer = Payer::default();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if let [b'@', name @ ..] = name {
            payer.set(name, value);
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            fields.append(name, value);
        }
    }
    let is_ours = MARKS.iter().any(|name| fields.contains_key(*name));
    match schemes::read(&answer(&fields)) {
        Ok(offers) => {
            let [schemes::Offer::MicroRaiden(challenge)] = offers.as_slice() else { return };
            matches_the_headers(challenge, &fields);
            assert_eq!(reread(challenge), *challenge, "written down and read again it is another");
            payer.meets(challenge);
        }
        // The other schemes are unrelated to these headers.
        Err(Refusal::Malformed(Malformed::TestToken(_) | Malformed::X402(_))) => {}
        Err(refusal @ Refusal::Malformed(_)) => {
            assert!(is_ours, "{refusal}");
            fits_on_one_line(&refusal);
        }
        Err(Refusal::UnsupportedOffers { .. }) => {}
        Err(refusal) => assert!(refusal == Refusal::UnknownScheme && !is_ours, "{refusal}"),
    }
}

fn answer(headers: &HeaderMap) -> Answer<'_> {
    Answer { status: StatusCode::PAYMENT_REQUIRED, headers, body: None }
}

/// What `Proxy-Status` can carry must not depend on what a seller sent.
fn fits_on_one_line(refusal: &Refusal) {
    let said = refusal.to_string();
    assert!(said.len() < 200 && !said.contains(char::is_control), "{said:?}");
    let field = proxy_status(None, refusal.reason(), &said);
    assert!(
        field.to_str().is_ok_and(|text| text.starts_with("tollpass; reason=offer-malformed; details=\"")),
        "{field:?}"
    );
}

/// Nothing is parsed into an offer that is not in the headers, once.
fn matches_the_headers(challenge: &ChannelOffer, fields: &HeaderMap) {
    let one = |name: &HeaderName| {
        let mut lines = fields.get_all(name).iter();
        let line = lines.next().map(|line| line.to_str().expect("what was read is text").trim());
        assert!(lines.next().is_none(), "{name} stands there twice");
        line
    };
    let same_amount = |name: &HeaderName, amount: Amount| {
        let text = one(name).expect("it is there");
        let digits = text.trim_start_matches('0');
        assert_eq!(amount.to_string(), if digits.is_empty() { "0" } else { digits }, "{name}: {text}");
        assert!(amount <= Amount::MAX, "{name}");
    };
    let same_address = |name: &HeaderName, address: Address| {
        let text = one(name).expect("it is there");
        assert_eq!(address.to_string().to_lowercase(), text.to_lowercase(), "{name}");
    };
    same_amount(&headers::PRICE, challenge.price);
    same_address(&headers::CONTRACT_ADDRESS, challenge.contract);
    same_address(&headers::RECEIVER_ADDRESS, challenge.receiver);
    match challenge.token {
        Some(token) => same_address(&headers::TOKEN_ADDRESS, token),
        None => assert!(one(&headers::TOKEN_ADDRESS).is_none()),
    }
    if let Some(path) = &challenge.gateway {
        assert!(path.starts_with('/') && !path.ends_with('/') && path.len() <= 256, "{path}");
        let url = format!("http://a.example{path}/channels").parse::<http::Uri>().expect("a path in a URL");
        assert_eq!((url.host(), url.query()), (Some("a.example"), None), "{path}");
    }
    if let Some(state) = challenge.state {
        same_amount(&headers::SENDER_BALANCE, state.total);
        if let Some(sender) = state.sender {
            same_address(&headers::SENDER_ADDRESS, sender);
        }
        if let Some(signature) = state.signature {
            let text = one(&headers::BALANCE_SIGNATURE).expect("it is there").to_lowercase();
            assert_eq!(signature.to_hex().trim_start_matches("0x"), text.trim_start_matches("0x"));
        }
    }
}

/// An offer as a seller would write it, parsed.
fn reread(challenge: &ChannelOffer) -> ChannelOffer {
    let mut fields = HeaderMap::new();
    let mut add = |name: &HeaderName, text: Option<String>| {
        if let Some(text) = text {
            fields.append(name, HeaderValue::try_from(text).expect("a value"));
        }
    };
    add(&headers::PRICE, Some(challenge.price.to_string()));
    add(&headers::CONTRACT_ADDRESS, Some(challenge.contract.to_string()));
    add(&headers::RECEIVER_ADDRESS, Some(challenge.receiver.to_string()));
    add(&headers::TOKEN_ADDRESS, challenge.token.map(|token| token.to_string()));
    add(&headers::GATEWAY_PATH, challenge.gateway.clone());
    if let Some(complaint) = challenge.complaint {
        let name = match complaint {
            Complaint::InsufficientConfirmations => &headers::INSUFFICIENT_CONFIRMATIONS,
            Complaint::InvalidAmount => &headers::INVALID_AMOUNT,
            Complaint::InvalidBalanceProof => &headers::INVALID_BALANCE_PROOF,
            Complaint::NonexistingChannel => &headers::NONEXISTING_CHANNEL,
        };
        add(name, Some("1".to_owned()));
    }
    if let Some(SellerRecord { sender, total, signature }) = challenge.state {
        add(&headers::SENDER_ADDRESS, sender.map(|sender| sender.to_string()));
        add(&headers::SENDER_BALANCE, Some(total.to_string()));
        add(&headers::BALANCE_SIGNATURE, signature.map(|signature| signature.to_hex()));
    }
    let mut again = MicroRaiden::read(&answer(&fields)).expect("it is there").expect("it is whole");
    again.remove(0)
}

/// The payer's side.
#[derive(Default)]
struct Payer {
    deposit: Amount,
    acknowledged: Amount,
    promised: Amount,
    unclear: Option<Amount>,
    unclear_price: Option<Amount>,
    presented: Amount,
    price: Amount,
    signed: Vec<Amount>,
}

impl Payer {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        let Ok(amount) = text.trim().parse::<Amount>() else { return };
        match name {
            b"deposit" => self.deposit = amount,
            b"acknowledged" => self.acknowledged = amount,
            b"promised" => self.promised = amount,
            b"unclear" => self.unclear = Some(amount),
            b"unclear-price" => self.unclear_price = Some(amount),
            b"presented" => self.presented = amount,
            b"price" => self.price = amount,
            b"signed" => self.signed.push(amount),
            _ => {}
        }
    }

    /// A seller may lower totals, but raise them only with our own signature.
    fn meets(&self, challenge: &ChannelOffer) {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        let account = Account {
            chain_id: 1,
            contract: address(CONTRACT),
            token: address(CONTRACT),
            payer: address(PAYER),
        };
        let id = ChannelId { receiver: address(RECEIVER), open_block: OPEN_BLOCK };
        let acknowledged = self.acknowledged.min(self.promised);
        let channel = Channel {
            deposit: self.deposit,
            funded: self.deposit,
            promised: self.promised,
            presented: acknowledged,
            durable_limit: self.promised,
            acknowledged,
            in_doubt: self.unclear.zip(self.unclear_price).map(|(total, price)| InDoubt { total, price }),
            doubt: self.unclear.filter(|_| self.unclear_price.is_none()),
            must_query: self.unclear_price.is_none(),
            signed: Amount::ZERO,
            payments: 0,
            phase: Phase::Open,
        };
        let presented =
            ChannelDraft { channel: id, total: self.presented, price: self.price, is_query: false };

        let verdict = judge(challenge, &channel, &presented, &self.signed, &account);
        let is_proven = |total| {
            let signature = challenge.state.and_then(|state| state.signature);
            let digest = balance_digest(id, total, account.contract);
            signature.is_some_and(|signature| recover(digest, &signature) == Some(account.payer))
        };
        let shown = challenge.state.map(|state| state.total);
        let is_foreign =
            challenge.state.and_then(|state| state.sender).is_some_and(|sender| sender != account.payer);
        match verdict {
            Verdict::Correct(Holding { total, proven }) | Verdict::Confirm(Holding { total, proven }) => {
                assert!(Some(total) == shown && !is_foreign, "{verdict:?}");
                assert_eq!(proven, is_proven(total), "{verdict:?}");
                assert!(
                    total <= channel.acknowledged || is_proven(total),
                    "{verdict:?} raises without proof"
                );
            }
            Verdict::Registered(total) => {
                assert!(
                    Some(total) == shown && is_proven(total) && self.signed.contains(&total),
                    "{verdict:?}"
                );
            }
            Verdict::Again(again) => assert_eq!(Some(again), complaint(challenge, &presented)),
            Verdict::Violation(Violation::Unproven { claimed }) => {
                assert!(claimed > channel.acknowledged && !is_proven(claimed), "{verdict:?}");
            }
            Verdict::Violation(Violation::Silent) => assert_eq!(shown, None),
            Verdict::Violation(Violation::ForeignState) => assert!(is_foreign),
        }
        if let Some(total) = channel.next_total(challenge.price) {
            assert!(total <= channel.deposit, "{total} is not covered");
            answers(&ChannelDraft { channel: id, total, price: challenge.price, is_query: false }, &account);
        }
    }
}

/// Six headers, which parse to what they were made from.
fn answers(draft: &ChannelDraft, account: &Account) {
    let signature = Signature([0x1b; 65]);
    let mut fields = HeaderMap::new();
    let payer = schemes::Payer { address: account.payer, account: Some(*account) };
    MicroRaiden::attach(draft, &payer, &signature, &mut fields);
    let text = |name: &HeaderName| fields[name].to_str().expect("text").to_owned();
    assert_eq!(fields.len(), 6);
    assert_eq!(text(&headers::CONTRACT_ADDRESS).parse(), Ok(account.contract));
    assert_eq!(text(&headers::RECEIVER_ADDRESS).parse(), Ok(draft.channel.receiver));
    assert_eq!(text(&headers::SENDER_ADDRESS).parse(), Ok(account.payer));
    assert_eq!(text(&headers::OPEN_BLOCK).parse(), Ok(draft.channel.open_block));
    assert_eq!(text(&headers::BALANCE).parse(), Ok(draft.total));
    assert_eq!(Signature::parse(&text(&headers::BALANCE_SIGNATURE)), Some(signature));
    assert!(fields[&headers::BALANCE_SIGNATURE].is_sensitive());
}

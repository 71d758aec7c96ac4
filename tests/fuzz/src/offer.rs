//! The offers of a seller that speaks x402, and the payment that follows.
//!
//! The first byte of an input says where the rest is: `h`, in the header as it is; `b`, in the header in base64; anything
//! else, in the body.

use http::{HeaderMap, HeaderValue, StatusCode};
use tollpass::protocol::policy::{KnownAsset, TokenDomain};
use tollpass::protocol::schemes::{self, DrawContext, Offer, Payer};
use tollpass::protocol::{Address, Answer, Draft, Refusal, Signature, TypedData};
use tollpass::proxy::error_response::proxy_status;

/// Reads the offers in `input`, and draws a payment for each.
pub fn run(input: &[u8]) {
    let [place, rest @ ..] = input else { return };
    let mut headers = HeaderMap::new();
    let mut body = None;
    let value = match place {
        b'h' => HeaderValue::from_bytes(rest).ok(),
        b'b' => HeaderValue::try_from(base64(rest)).ok(),
        _ => {
            body = Some(rest);
            None
        }
    };
    if let Some(value) = value {
        headers.insert("payment-required", value);
    }
    let answer = Answer { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body };
    for named in schemes::unsupported(&answer) {
        fits_on_one_line(&named);
    }
    match schemes::read(&answer) {
        Ok(offers) => {
            assert!(offers.len() <= 100, "{} offers", offers.len());
            for offer in &offers {
                can_be_paid(offer);
                proves_who_pays_to_nobody_else(offer, &headers);
            }
        }
        Err(refusal) => {
            assert!(
                matches!(
                    refusal,
                    Refusal::Malformed(_) | Refusal::UnsupportedOffers { .. } | Refusal::UnknownScheme
                ),
                "{refusal}"
            );
            let field = proxy_status(None, refusal.reason(), &refusal.to_string());
            assert!(field.to_str().is_ok_and(|text| text.starts_with("tollpass; reason=")), "{field:?}");
        }
    }
}

fn fits_on_one_line(text: &str) {
    assert!(text.len() < 400 && !text.contains(char::is_control), "{text:?}");
}

/// A payment is what its offer says, expires soon, and can be presented again by what the journal keeps.
fn can_be_paid(offer: &Offer) {
    let Offer::X402(read) = offer else { return };
    let (now, nonce) = (1_000, [7; 32]);
    let domain = TokenDomain { name: "Toy".to_owned(), version: "2".to_owned() };
    let known = KnownAsset::new("TOY", "eip155:1", Address([1; 20]), 6, None).with_domain(Some(domain));
    let context = DrawContext { nonce, now, max_validity: 600, asset: Some(&known) };
    let draft = match offer.draw_one_shot(&context) {
        Ok(draft) => draft,
        Err(refusal) => {
            assert!(matches!(refusal, Refusal::TokenNamedWrongly { .. }), "{refusal}");
            fits_on_one_line(&refusal.to_string());
            return;
        }
    };
    assert_eq!(draft.terms(), offer.terms());
    let valid_before = draft.valid_before().expect("it expires");
    assert!((now + 6..=now + 600).contains(&valid_before), "{valid_before}");
    let stored = draft.to_stored().expect("it can be kept");
    assert_eq!(Draft::from_stored("x402", nonce, &stored).as_ref(), Some(&draft), "{stored}");
    let payer = Payer { address: Address([2; 20]), account: None };
    assert!(draft.digest(&payer).is_some());
    let mut headers = HeaderMap::new();
    draft.attach(&payer, &Signature([3; 65]), &mut headers);
    assert_eq!(headers.len(), 1, "{read:?}");
    let size = headers.values().map(|value| value.len()).sum::<usize>();
    assert!(size < 14 * 1024, "{size} bytes, and Node takes 16 KB in all");
}

/// What is signed to sign in names the origin of the request, and each of its lines is what it says.
fn proves_who_pays_to_nobody_else(offer: &Offer, headers: &HeaderMap) {
    let url = "https://bob.example:8443/goods".parse().expect("a URL");
    let Some(challenge) = offer.sign_in(headers, &url) else { return };
    let payer = Address([2; 20]);
    let TypedData::Message(text) = challenge.signing_request(payer).typed else { panic!("a text") };
    let lower = text.to_ascii_lowercase();
    assert!(lower.starts_with("bob.example:8443 wants you to sign in"), "{text}");
    let named = lower.lines().filter_map(|line| line.strip_prefix("uri: ")).collect::<Vec<_>>();
    assert!(matches!(&named[..], [uri, ..] if uri.starts_with("https://bob.example:8443")), "{text}");
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{text:?}");
    let mut proof = HeaderMap::new();
    challenge.attach(payer, &Signature([3; 65]), &mut proof);
    let size = proof.values().map(|value| value.len()).sum::<usize>();
    assert!(proof.len() == 1 && size < 8 * 1024, "{size} bytes");
}

/// The standard alphabet, with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for piece in bytes.chunks(3) {
        let bits =
            piece.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - piece.len()));
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= piece.len() { digit.into() } else { '=' });
        }
    }
    text
}

//! The payment fields of a scheme belong to the hop between us and the seller: a client's own are taken out, so that
//! they cannot be added to ours, and the seller's are not handed on. The same for the cookies that stand for them.

use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http_body::Body as _;

use super::Body;
use crate::protocol::schemes;
use crate::proxy::message::payment_headers;

/// Takes the payment fields and cookies out of a client's request.
pub(super) fn request(request: &mut HeaderMap) {
    announced(request);
    payment_headers::strip(request);
    let fields = request;
    let lines: Vec<HeaderValue> = fields.get_all(header::COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| pairs(line).any(is_payment)) {
        return;
    }
    fields.remove(header::COOKIE);
    for line in &lines {
        let rest: Vec<&[u8]> = pairs(line).filter(|pair| !is_payment(pair)).collect();
        // The pieces of a valid value are a valid value.
        if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_bytes(&rest.join(&b"; "[..]))) {
            fields.append(header::COOKIE, value);
        }
    }
}

/// Takes the payment fields out of an answer, those after its body included.
pub(super) fn answer(mut answer: Response<Body>) -> Response<Body> {
    announced(answer.headers_mut());
    payment_headers::strip(answer.headers_mut());
    if answer.body().is_end_stream() || !answer.body().may_have_trailers() {
        return answer;
    }
    answer.map(|body| Body::Unpaid(Box::new(body)))
}

/// Takes the names of payment fields out of what is announced to come after a body.
fn announced(fields: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = fields.get_all(header::TRAILER).iter().cloned().collect();
    let names = |line| HeaderValue::as_bytes(line).split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if !lines.iter().flat_map(names).any(is_payment) {
        return;
    }
    fields.remove(header::TRAILER);
    let rest: Vec<&[u8]> = lines.iter().flat_map(names).filter(|name| !is_payment(name)).collect();
    if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_bytes(&rest.join(&b", "[..]))) {
        fields.insert(header::TRAILER, value);
    }
}

/// Takes the cookies out that stand for payment fields: a browser would send them back, and they win over fields.
pub(super) fn answer_cookies(fields: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = fields.get_all(header::SET_COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| is_payment(line.as_bytes())) {
        return;
    }
    fields.remove(header::SET_COOKIE);
    for line in lines.into_iter().filter(|line| !is_payment(line.as_bytes())) {
        fields.append(header::SET_COOKIE, line);
    }
}

fn pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty())
}

fn is_payment(pair: &[u8]) -> bool {
    schemes::is_payment_name(pair.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use crate::proxy::pay::strip::*;

    fn values(fields: &HeaderMap, name: HeaderName) -> Vec<&str> {
        fields.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn only_what_pays_is_taken_out() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("rdn-balance", "5"),
            ("x-rdn-balance", "kept"),
            ("rdn-balance", "6"),
            ("accept", "text/*"),
            ("rdn-price", "7"),
            ("accept", "image/*"),
            ("cookie", "a=1; RDN-Price=3;b=2"),
            ("cookie", "rdn-open-block=1"),
            ("cookie", "c=rdn-3"),
        ] {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request(&mut fields);
        assert!(!fields.contains_key("rdn-balance") && !fields.contains_key("rdn-price"));
        assert_eq!(values(&fields, header::ACCEPT), ["text/*", "image/*"]);
        assert_eq!(values(&fields, HeaderName::from_static("x-rdn-balance")), ["kept"]);
        assert_eq!(values(&fields, header::COOKIE), ["a=1; b=2", "c=rdn-3"]);
    }

    #[test]
    fn cookies_of_the_seller_that_pay_are_taken_out() {
        let mut fields = HeaderMap::new();
        for value in ["RDN-Price=3; Path=/", "session=rdn-1; HttpOnly", "rdn-receiver-address=0x0"] {
            fields.append(header::SET_COOKIE, HeaderValue::from_static(value));
        }
        answer_cookies(&mut fields);
        assert_eq!(values(&fields, header::SET_COOKIE), ["session=rdn-1; HttpOnly"]);
    }
}

//! Payment headers of a scheme belong to the hop between the proxy and the seller: a client's own are removed, so that
//! they cannot be combined with ours, and the seller's are not passed on. The same goes for cookies with the same
//! names.

use http::Response;
use http::header::{self, HeaderMap, HeaderValue};
use http_body::Body as _;

use super::Body;
use crate::protocol::schemes;
use crate::proxy::message::payment_headers;

/// Removes payment headers and cookies from a client's request.
pub(super) fn request(request: &mut HeaderMap) {
    announced(request);
    payment_headers::strip(request);
    let headers = request;
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| pairs(line).any(is_payment)) {
        return;
    }
    headers.remove(header::COOKIE);
    for line in &lines {
        let rest: Vec<&[u8]> = pairs(line).filter(|pair| !is_payment(pair)).collect();
        // Parts of a valid value are a valid value.
        if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_bytes(&rest.join(&b"; "[..]))) {
            headers.append(header::COOKIE, value);
        }
    }
}

/// Removes payment headers from a response, including its trailers.
pub(super) fn answer(mut answer: Response<Body>) -> Response<Body> {
    announced(answer.headers_mut());
    payment_headers::strip(answer.headers_mut());
    if answer.body().is_end_stream() || !answer.body().may_have_trailers() {
        return answer;
    }
    answer.map(|body| Body::Unpaid(Box::new(body)))
}

/// Removes payment headers and cookies from an interim response.
pub(super) fn interim(headers: &mut HeaderMap) {
    answer_cookies(headers);
    announced(headers);
    payment_headers::strip(headers);
}

/// Removes the names of payment headers from `Trailer`.
fn announced(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers.get_all(header::TRAILER).iter().cloned().collect();
    let names = |line| HeaderValue::as_bytes(line).split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    if !lines.iter().flat_map(names).any(is_payment) {
        return;
    }
    headers.remove(header::TRAILER);
    let rest: Vec<&[u8]> = lines.iter().flat_map(names).filter(|name| !is_payment(name)).collect();
    if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_bytes(&rest.join(&b", "[..]))) {
        headers.insert(header::TRAILER, value);
    }
}

/// Removes payment cookies: a browser would send them back, and they take precedence over headers.
pub(super) fn answer_cookies(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    if !lines.iter().any(|line| is_payment(line.as_bytes())) {
        return;
    }
    headers.remove(header::SET_COOKIE);
    for line in lines.into_iter().filter(|line| !is_payment(line.as_bytes())) {
        headers.append(header::SET_COOKIE, line);
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
    fn an_interim_response_keeps_nothing_that_pays() {
        let mut fields = HeaderMap::new();
        for (name, value) in
            [("link", "</a>"), ("rdn-price", "1"), ("payment-response", "x"), ("set-cookie", "RDN-Price=3")]
        {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        interim(&mut fields);
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["link"]);
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

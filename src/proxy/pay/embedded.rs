//! Sellers that ask for a payment within a response that is not a 402, such as the result of an MCP tool. They are not paid:
//! a log line says so, since the program sees a failed call and no reason.
//!
//! Source: the transport Streamable HTTP of MCP, <https://modelcontextprotocol.io/specification>.

use bytes::Bytes;
use http::request;
use http::{HeaderMap, Method, Response};

use crate::protocol::schemes;
use crate::proxy::Body;
use crate::proxy::handling::RequestName;
use crate::proxy::message::recorded::{BodyEnd, BodyRecord, RecordedBody};

/// Headers of MCP over HTTP; at least one is on every tool call.
const MCP_HEADERS: [&str; 2] = ["mcp-protocol-version", "mcp-session-id"];

/// How much of a response is searched, in bytes. Offers come at the start.
const MOST_SEARCHED: usize = 64 * 1024;

/// Logs if the seller asks for a payment within this response.
pub(super) fn watch(request: &RequestName, head: &request::Parts, answer: Response<Body>) -> Response<Body> {
    if !answer.status().is_success() || !calls_a_tool(&head.method, &head.headers) {
        return answer;
    }
    let search = Search { request: request.clone(), left: MOST_SEARCHED, found: Vec::new(), end: Vec::new() };
    answer.map(|body| Body::Recorded(Box::new(RecordedBody::new(body, search))))
}

fn calls_a_tool(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::POST && MCP_HEADERS.iter().any(|name| headers.contains_key(*name))
}

/// Searches the start of a body for the words of an offer.
#[derive(Debug)]
struct Search {
    request: RequestName,
    /// How many bytes are still searched.
    left: usize,
    found: Vec<&'static str>,
    /// The last bytes, in which a word may have begun.
    end: Vec<u8>,
}

impl BodyRecord for Search {
    fn saw(&mut self, data: &Bytes) {
        let data = data.get(..self.left).unwrap_or(data);
        if data.is_empty() {
            return;
        }
        self.left -= data.len();
        let mut searched = std::mem::take(&mut self.end);
        searched.extend_from_slice(data);
        for word in schemes::WORDS_OF_OFFERS {
            let is_there = || searched.windows(word.len()).any(|part| part == word.as_bytes());
            if !self.found.contains(word) && is_there() {
                self.found.push(word);
            }
        }
        if self.found.len() == schemes::WORDS_OF_OFFERS.len() {
            self.left = 0;
            tracing::warn!(
                request = %self.request,
                "not paid: the seller asks for a payment within the result of an MCP tool, which tollpass does not pay"
            );
        }
        let longest = schemes::WORDS_OF_OFFERS.iter().map(|word| word.len()).max().unwrap_or_default();
        searched.drain(..searched.len().saturating_sub(longest));
        self.end = searched;
    }

    fn ended(&mut self, _: u64, _: BodyEnd) {}
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn finds(parts: &[&str]) -> bool {
        let request = RequestName::of(&Request::new(()));
        let mut search = Search { request, left: MOST_SEARCHED, found: Vec::new(), end: Vec::new() };
        parts.iter().for_each(|part| search.saw(&Bytes::copy_from_slice(part.as_bytes())));
        search.found.len() == schemes::WORDS_OF_OFFERS.len()
    }

    #[test]
    fn an_offer_is_found_however_it_is_written_and_cut() {
        let (plain, quoted) =
            (r#"{"x402Version":2,"accepts":[]}"#, r#"{"text":"{\"x402Version\":2,\"accepts\":[]}"}"#);
        for text in [plain, quoted] {
            for cut in 0..text.len() {
                assert!(finds(&[&text[..cut], &text[cut..]]), "{text} cut at {cut}");
            }
            let bytes: Vec<&str> = text.split("").collect();
            assert!(finds(&bytes), "{text} byte by byte");
        }
        let early = "x".repeat(MOST_SEARCHED - 50);
        assert!(finds(&[&early, plain]));
        for without in
            [vec!["{\"accepts\":[]}"], vec!["x402Versio", " n accepts"], vec![&early, &early[..40], plain]]
        {
            assert!(!finds(&without), "{without:?}");
        }
    }
}

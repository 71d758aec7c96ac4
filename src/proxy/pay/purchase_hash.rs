//! What makes two requests the same purchase.

use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use crate::protocol::policy::ProxyClient;
use crate::proxy::Body;

/// How much of a body is hashed at once on the thread of a worker.
const LARGE_PART: usize = 128 * 1024;

/// Hashes a request: its method and URL, the client, `Authorization`, and its `Idempotency-Key` or else its body.
pub(super) struct PurchaseHash {
    hash: Sha256,
    /// Whether the body is not needed.
    is_keyed: bool,
}

impl PurchaseHash {
    /// Without its body. `name` has the method and the URL.
    pub(super) fn new(name: &str, client: Option<&ProxyClient>, headers: &HeaderMap) -> Self {
        let mut hash = Sha256::new();
        let client = client.map_or("", |client| &client.name);
        let parts = [name.as_bytes(), client.as_bytes()];
        let values = |name| headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let keys = headers.get_all("idempotency-key");
        let is_keyed = keys.iter().next().is_some();
        for part in parts.into_iter().chain(values(header::AUTHORIZATION)) {
            add(&mut hash, part);
        }
        // What follows is of another kind than what came before.
        add(&mut hash, if is_keyed { b"key" } else { b"body" });
        keys.iter().for_each(|key| add(&mut hash, key.as_bytes()));
        Self { hash, is_keyed }
    }

    /// Whether the body does not count.
    pub(super) fn is_complete(&self) -> bool {
        self.is_keyed
    }

    /// Adds the whole body. A large one is hashed on a thread for work that blocks, because other clients of the worker
    /// would wait.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) async fn add_body(&mut self, mut body: Body) -> Result<(), String> {
        let (mut waiting, mut size) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
            size += data.len();
            waiting.push(data);
            if size > LARGE_PART {
                let (mut hash, parts) = (self.hash.clone(), std::mem::take(&mut waiting));
                let hashing = tokio::task::spawn_blocking(move || {
                    parts.iter().for_each(|part| hash.update(part));
                    hash
                });
                self.hash = hashing.await.map_err(|error| error.to_string())?;
                size = 0;
            }
        }
        waiting.iter().for_each(|part| self.hash.update(part));
        Ok(())
    }

    /// The hash.
    pub(super) fn finish(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}

/// Headers that differ when a program sends a request again, and that say nothing about whose the response is. Those that
/// describe the body are among them: it is part of the purchase, or an `Idempotency-Key` stands for it.
const VARYING: [&str; 20] = [
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "b3",
    "baggage",
    "content-digest",
    "content-length",
    "content-md5",
    "date",
    "digest",
    "expect",
    "repr-digest",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-request-id",
];

/// How the names of further such headers begin.
const VARYING_PREFIXES: [&str; 3] = ["x-b3-", "x-datadog-", "x-stainless-"];

/// Whether a header tells of the attempt or of the body only.
fn varies(name: &str) -> bool {
    VARYING.contains(&name) || VARYING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Hashes all headers of a request that may matter to its response.
pub(super) fn of_headers(headers: &HeaderMap) -> [u8; 32] {
    let mut lines: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .filter(|(name, _)| !varies(name))
        .collect();
    // Of one name, the order stays.
    lines.sort_by_key(|(name, _)| *name);
    let mut hash = Sha256::new();
    for (name, value) in lines {
        add(&mut hash, name.as_bytes());
        add(&mut hash, value);
    }
    hash.finalize().into()
}

/// Hashes the cookies of a request.
pub(super) fn of_cookies(headers: &HeaderMap) -> [u8; 32] {
    let mut hash = Sha256::new();
    headers.get_all(header::COOKIE).iter().for_each(|line| add(&mut hash, line.as_bytes()));
    hash.finalize().into()
}

/// Adds a part after its length, so that different parts cannot look the same together.
fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    async fn hash(name: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> [u8; 32] {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let mut hash = PurchaseHash::new(name, None, &map);
        if !hash.is_complete() {
            hash.add_body(Body::with_trailers(bytes::Bytes::from_static(body.as_bytes()), None))
                .await
                .unwrap();
        }
        hash.finish()
    }

    #[tokio::test]
    async fn a_large_body_counts_like_a_small_one() {
        let body = vec![7; LARGE_PART + 1];
        let [mut expected, mut hash] =
            [(); 2].map(|()| PurchaseHash::new("PUT http://a.example/", None, &HeaderMap::new()));
        expected.hash.update(&body);
        hash.add_body(Body::with_trailers(body, None)).await.unwrap();
        assert_eq!(hash.finish(), expected.finish());
    }

    #[tokio::test]
    async fn the_same_purchase_is_the_same_request_for_the_same_client() {
        let get = "GET http://a.example/x?y";
        let one = hash(get, &[("accept", "*/*")], "").await;
        assert_eq!(one, hash(get, &[("accept", "text/html"), ("cookie", "a=b")], "").await);
        for other in [
            hash("GET http://a.example/x?z", &[], "").await,
            hash("POST http://a.example/x?y", &[], "").await,
            hash(get, &[], "body").await,
            hash(get, &[("authorization", "Bearer a")], "").await,
            hash(get, &[("idempotency-key", "1")], "").await,
        ] {
            assert_ne!(one, other);
        }
        let keyed = hash(get, &[("idempotency-key", "1")], "body").await;
        assert_eq!(keyed, hash(get, &[("idempotency-key", "1")], "another").await);
        assert_ne!(keyed, hash(get, &[("idempotency-key", "2")], "body").await);
    }

    #[test]
    fn headers_that_describe_the_body_or_the_attempt_make_no_difference() {
        let hash = |headers: &[(&'static str, &'static str)]| {
            let pairs = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            of_headers(&pairs.collect())
        };
        let one = hash(&[("cookie", "a=b"), ("content-length", "7"), ("x-request-id", "1")]);
        assert_eq!(one, hash(&[("cookie", "a=b"), ("content-length", "9"), ("x-request-id", "2")]));
        assert_eq!(one, hash(&[("transfer-encoding", "chunked"), ("cookie", "a=b")]));
        assert_eq!(one, hash(&[("cookie", "a=b"), ("x-stainless-retry-count", "1"), ("baggage", "c")]));
        assert_ne!(one, hash(&[("cookie", "a=c"), ("content-length", "7")]));
    }
}

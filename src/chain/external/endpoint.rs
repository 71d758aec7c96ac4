//! A signer that is an HTTP endpoint.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::transport::{MAX_ANSWER, Unanswered, UnusableSigner};
use crate::error_chain::with_causes;

/// An endpoint. Redirects are not followed.
pub(super) struct EndpointSigner {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    /// Scheme, host and port: the rest may be a secret.
    name: String,
}

impl EndpointSigner {
    pub(super) fn new(url: &str) -> Result<Self, UnusableSigner> {
        let unusable = |why: &str| UnusableSigner(why.to_owned());
        let url: Uri = url.parse().map_err(|_| unusable("it is not a valid URL"))?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(unusable("it is not an http or https URL"));
        };
        let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let name = format!("{scheme}://{}:{port}", authority.host());
        let mut roots = RootCertStore::empty();
        if scheme == "https" {
            // Unreadable ones among them do not matter, unless the endpoint needs them.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| UnusableSigner(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // One connection per request: losing a reused one would leave the outcome unclear.
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self { client, url, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Posts the request.
    pub(super) async fn ask(&self, body: Vec<u8>) -> Result<Vec<u8>, Unanswered> {
        let mut post = Request::new(Full::from(body));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = self.url.clone();
        post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.client.request(post).await.map_err(|error| {
            let is_unsent = error.is_connect();
            let why = with_causes(&error);
            match is_unsent {
                true => Unanswered::NotAsked(format!("it cannot be reached: {why}")),
                false => Unanswered::Unclear(format!("the connection was lost: {why}")),
            }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body
            .map_err(|error| Unanswered::Unclear(format!("its answer cannot be read ({status}): {error}")))?;
        let body = body.to_bytes();
        match body.trim_ascii().first() {
            Some(b'{') => Ok(body.into()),
            _ => Err(Unanswered::Unclear(format!("it responded {status} without JSON"))),
        }
    }
}

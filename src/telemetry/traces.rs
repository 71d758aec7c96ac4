//! Traces of requests, sent to a collector by OTLP over HTTP (OpenTelemetry Protocol 1, binary). A thread sends them in
//! batches; a slow or absent collector delays no request.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Runtime;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::trace_settings::{TraceSettings, TracesError};
use crate::error_chain::with_causes;
use crate::tls::{ServerTrust, client_config, system};

/// The name of the span of a request.
const REQUEST: &str = "request";
/// The name of the span of a payment.
const PAYMENT: &str = "payment";
/// The largest answer of a collector that is read.
const MAX_ANSWER: usize = 64 << 10;
/// The names of attributes for collectors: OpenTelemetry's semantic conventions of HTTP spans, and our own.
const NAMES: [(&str, &str); 10] = [
    ("asset", "tollpass.asset"),
    ("client", "tollpass.client"),
    ("handled", "tollpass.handled"),
    ("host", "server.address"),
    ("id", "tollpass.request"),
    ("method", "http.request.method"),
    ("path", "url.path"),
    ("price", "tollpass.price"),
    ("reason", "tollpass.reason"),
    ("status", "http.response.status_code"),
];

/// What sends the traces of this process, once there is one.
static PROVIDER: OnceLock<(SdkTracerProvider, Duration)> = OnceLock::new();

/// Sends what is left, for at most the time that a collector may take.
pub(super) fn finish() {
    if let Some((provider, within)) = PROVIDER.get() {
        // The collector's failure has been logged.
        let _ = provider.shutdown_with_timeout(*within);
    }
}

/// The layer that turns spans into traces.
///
/// # Errors
/// The system has no root certificates for a collector over https, or no runtime can be started.
pub(super) fn layer<S>(settings: &TraceSettings) -> Result<impl Layer<S> + use<S>, TracesError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.to_string())
        .with_timeout(settings.timeout)
        .with_http_client(Collector::new(settings)?)
        .build()
        .map_err(|error| TracesError(error.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(settings.queue.min(512))
        .build();
    let processor = BatchSpanProcessor::builder(NamedSpans(exporter)).with_batch_config(batches).build();
    let share = 1.0 / f64::from(settings.one_in.max(1));
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
        .with_resource(Resource::builder().with_service_name("tollpass").build())
        .with_span_processor(processor)
        .build();
    let tracer = provider.tracer("tollpass");
    // A second one cannot be started.
    let _ = PROVIDER.set((provider, settings.timeout));
    Ok(tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_traced).with_max_level_hint(LevelFilter::DEBUG)))
}

/// Whether something belongs into a trace: requests, their payments, and what the log says of them at `info`.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let is_ours = metadata.target().starts_with("tollpass::");
    is_ours
        && if metadata.is_span() {
            [REQUEST, PAYMENT].contains(&metadata.name())
        } else {
            *metadata.level() <= Level::INFO
        }
}

/// Renames spans and their attributes for collectors.
#[derive(Debug)]
struct NamedSpans(opentelemetry_otlp::SpanExporter);

impl SpanExporter for NamedSpans {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(rename);
        self.0.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn rename(span: &mut SpanData) {
    if span.name == REQUEST {
        span.span_kind = SpanKind::Server;
        // The convention for spans without a route.
        let method = span.attributes.iter().find(|attribute| attribute.key.as_str() == "method");
        if let Some(method) = method.map(|attribute| attribute.value.to_string()) {
            span.name = method.into();
        }
    }
    for KeyValue { key, .. } in &mut span.attributes {
        if let Some((_, name)) = NAMES.iter().find(|(ours, _)| key.as_str() == *ours) {
            *key = Key::from_static_str(name);
        }
    }
}

/// The client of a collector.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The thread that sends batches belongs to no other runtime.
    runtime: Runtime,
    timeout: Duration,
    /// Whether the last batch failed, so that a series of failures is logged once.
    has_failed: AtomicBool,
}

impl Collector {
    fn new(settings: &TraceSettings) -> Result<Self, TracesError> {
        let failed = |error: &dyn std::error::Error| TracesError(error.to_string());
        let trust = match settings.endpoint.scheme_str() {
            Some("https") => ServerTrust::Roots(system(None).map_err(|error| failed(&error))?.store),
            _ => ServerTrust::Roots(rustls::RootCertStore::empty().into()),
        };
        let tls = client_config(&trust, None, &[]);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // Batches are seconds apart.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        Ok(Self { client, runtime, timeout: settings.timeout, has_failed: AtomicBool::new(false) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = async {
            let answer = self.client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        self.runtime.block_on(async { tokio::time::timeout(self.timeout, sent).await? })
    }

    fn log(&self, answer: &Result<Response<Bytes>, HttpError>) {
        let problem = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it responded {}", answer.status())),
            Err(error) => Some(with_causes(&**error)),
        };
        let had_failed = self.has_failed.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !had_failed => {
                tracing::warn!(problem, "the collector in traces.endpoint rejects traces; dropping them");
            }
            None if had_failed => tracing::info!("the collector in traces.endpoint takes traces again"),
            _ => {}
        }
    }
}

impl HttpClient for Collector {
    // What `async_trait` makes of the method.
    fn send_bytes<'a, 'f>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        let answer = self.send(request);
        self.log(&answer);
        Box::pin(std::future::ready(answer))
    }
}

//! Traces of requests at a collector that speaks OTLP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::pays::QUICK;
use crate::program::run;
use crate::support::fair::{Fair, empty};
use crate::support::origins::serve;
use crate::support::payer::{Alice, PATIENCE};
use crate::support::wire::{ask, whole};

/// A collector that passes on what it gets.
struct Collector {
    endpoint: String,
    status: Arc<AtomicU16>,
    batches: UnboundedReceiver<(String, ExportTraceServiceRequest)>,
}

impl Collector {
    async fn start() -> Self {
        let (sender, batches) = unbounded_channel();
        let status = Arc::new(AtomicU16::new(200));
        let answer = Arc::clone(&status);
        let address = serve(move |request: Request<hyper::body::Incoming>| {
            let (sender, status) = (sender.clone(), answer.load(Ordering::Relaxed));
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let batch = ExportTraceServiceRequest::decode(body).unwrap();
                let _ = sender.send((path, batch));
                let mut response = Response::new(whole(""));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            }
        })
        .await;
        Self { endpoint: format!("http://{address}"), status, batches }
    }

    /// The next spans.
    async fn spans(&mut self) -> Vec<Span> {
        let next = tokio::time::timeout(PATIENCE, self.batches.recv()).await;
        let (path, batch) = next.expect("no traces come").unwrap();
        assert_eq!(path, "/v1/traces");
        let [of_one] = &batch.resource_spans[..] else { panic!("{batch:?}") };
        let service = attributes(&of_one.resource.as_ref().unwrap().attributes);
        assert_eq!(service["service.name"], "tollpass");
        of_one.scope_spans.iter().flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn attributes(of: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    of.iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            (attribute.key.as_str(), text(value.unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn a_collector_gets_a_span_for_each_request_and_payment() {
    let (mut collector, fair) = (Collector::start().await, Fair::open().await);
    let config = format!("{QUICK}[traces]\nendpoint = \"{}\"\n", collector.endpoint);
    let alice = Alice::with(&fair.market, &config).await;
    let proxy = alice.serve(&[("TOLLPASS_LOG", "warn")]).await;
    let host = fair.origin.url();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let get = async |url: String, parent: Option<&str>| {
        let mut request = Request::get(url);
        if let Some(parent) = parent {
            request = request.header("traceparent", parent);
        }
        ask(proxy.address, request.body(empty()).unwrap()).await.status
    };
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    assert_eq!(get(format!("{host}/paid?token=hush"), Some(&parent)).await, 200);
    let unsampled = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    assert_eq!(get(format!("{host}/free"), Some(unsampled)).await, 200);
    let local = host.replace("127.0.0.1", "localhost");
    assert_eq!(get(format!("{local}/paid"), None).await, 402);
    // What is left is sent at the end.
    let log = proxy.stop().await;
    assert!(!log.contains("traces"), "{log}");

    let spans = collector.spans().await;
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["payment", "GET", "GET"], "{spans:?}");
    let [payment, paid, unpaid] = &spans[..] else { panic!("{spans:?}") };
    let authority = host.strip_prefix("http://").unwrap();
    assert_eq!(hex(&paid.trace_id), trace);
    assert_eq!(hex(&paid.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(paid.kind(), SpanKind::Server);
    let told = attributes(&paid.attributes);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("server.address", authority),
        ("url.path", "/paid"),
        ("tollpass.handled", "paid"),
        ("tollpass.price", "1000"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}: {told:?}");
    }
    assert_eq!(payment.trace_id, paid.trace_id);
    assert_eq!(payment.parent_span_id, paid.span_id);

    // Requests without a trace begin one, even on the connection of another.
    assert_ne!(unpaid.trace_id, paid.trace_id);
    assert!(unpaid.parent_span_id.is_empty(), "{unpaid:?}");
    let told = attributes(&unpaid.attributes);
    assert_eq!((told["tollpass.handled"].as_str(), told["tollpass.reason"].as_str()), ("unpaid", "no-rule"));
    assert!(!format!("{spans:?}").contains("hush"), "{spans:?}");
}

#[tokio::test]
async fn a_collector_that_takes_nothing_is_logged_once_and_delays_nothing() {
    let collector = Collector::start().await;
    collector.status.store(503, Ordering::Relaxed);
    let config = format!("[traces]\nendpoint = \"{}/otel\"\n", collector.endpoint);
    let alice = Alice::without_chain(&config);
    let proxy = alice.serve(&[]).await;
    let request = Request::get("http://127.0.0.1:1/").body(empty()).unwrap();
    assert_eq!(ask(proxy.address, request).await.status, StatusCode::BAD_GATEWAY);
    let log = proxy.stop().await;
    let lines = log.lines().filter(|line| line.contains("rejects traces")).count();
    assert_eq!(lines, 1, "{log}");
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused() {
    for (endpoint, problem) in [
        ("127.0.0.1:4318", "not an http or https URL"),
        ("ftp://a/", "not an http or https URL"),
        ("http://me:hush@a:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let alice = Alice::without_chain(&format!("[traces]\nendpoint = \"{endpoint}\"\n"));
        let checked = run(&["check", "--config", alice.config_path().to_str().unwrap()]).await;
        assert_eq!(checked.code, 1, "{checked:?}");
        let told = checked.out + &checked.errors;
        assert!(told.contains("traces.endpoint") && told.contains(problem), "{told}");
        assert!(!told.contains("hush"), "{told}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

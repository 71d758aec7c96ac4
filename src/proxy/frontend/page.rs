//! The set-up page and its files: status, CA certificate, PAC file, and instructions for each program; and the answers to
//! probes. It shows no secrets and takes no commands.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use maud::{Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::identity::ReachedAs;
use super::program;
use super::program::SetupAdvice;
use super::route::{ReverseRoute, ReverseRoutes};
use super::system;
use super::system::{ReachedProxy, SetupStep, SystemAdvice};
use super::{identity, pac};
use crate::payments::Obstacle;
use crate::proxy::Body;

/// The proxy's properties that the page shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// The certificate of the local CA, if HTTPS is intercepted.
    pub ca: Option<CaFiles>,
    /// Whether the proxy has a wallet.
    pub pays: bool,
    /// The start time of the proxy.
    pub since: SystemTime,
}

/// A CA certificate in both encodings.
#[derive(Clone, Debug)]
pub struct CaFiles {
    /// PEM.
    pub pem: Bytes,
    /// DER.
    pub der: Bytes,
}

/// A request for the page or one of its files.
pub(super) struct PageRequest<'a> {
    pub(super) request: &'a Request<Body>,
    pub(super) reached_as: ReachedAs,
    /// The host and port at which this client can use the proxy.
    pub(super) address: String,
    /// The address that the port listens on.
    pub(super) listen: SocketAddr,
    /// Whether the port speaks TLS.
    pub(super) is_tls: bool,
    pub(super) routes: &'a ReverseRoutes,
    /// Whether routes need their token at every host.
    pub(super) needs_route_token: bool,
    /// What is known to keep the proxy from paying.
    pub(super) obstacles: Vec<Obstacle>,
    /// Whether the port has a dashboard.
    pub(super) has_dashboard: bool,
}

/// The files of the set-up page.
#[derive(Clone, Copy)]
enum PageFile {
    Page,
    Pac,
    Pem,
    Der,
    Health,
    Readiness,
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const PEM: HeaderValue = HeaderValue::from_static("application/x-pem-file");
/// Operating systems offer to install this type.
const DER: HeaderValue = HeaderValue::from_static("application/x-x509-ca-cert");
const PAC: HeaderValue = HeaderValue::from_static("application/x-ns-proxy-autoconfig");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The command that opens the dashboard.
const DASHBOARD: &str = "tollpass dashboard";

/// The style of the page; the policy below contains its SHA-256.
const STYLE: &str = include_str!("page.css");
const SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-L++ORELxL2FLndZst3mSDN6hpabTi5ZQGsCm1B3IPlU='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

impl PageRequest<'_> {
    /// The URL of the proxy for this client.
    fn proxy(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }
}

impl Page {
    /// The response to a request for one of the files; `None` for one that asks whether the proxy is ready.
    pub(super) fn answer(&self, visit: &PageRequest<'_>) -> Option<Response<Body>> {
        let Some(file) = file(visit.request.uri().path()) else {
            return Some(plain(StatusCode::NOT_FOUND, "Not found. The set-up page is at /\n"));
        };
        match visit.request.method() {
            method if is_read(method) => self.show(file, visit),
            method => Some(read_only(method)),
        }
    }

    fn show(&self, file: PageFile, visit: &PageRequest<'_>) -> Option<Response<Body>> {
        let response = match (file, &self.ca) {
            (PageFile::Page, _) if takes_html(visit.request) => {
                varies(with(StatusCode::OK, HTML, Body::full(self.html(visit))))
            }
            (PageFile::Page, _) => varies(plain(StatusCode::OK, self.text(visit))),
            (PageFile::Pac, _) => {
                with(StatusCode::OK, PAC, Body::full(pac::file(&visit.address, visit.is_tls)))
            }
            (PageFile::Pem, Some(ca)) => download(PEM, "attachment; filename=\"tollpass-ca.pem\"", &ca.pem),
            (PageFile::Der, Some(ca)) => download(DER, "inline; filename=\"tollpass-ca.crt\"", &ca.der),
            (PageFile::Pem | PageFile::Der, None) => {
                plain(StatusCode::NOT_FOUND, "HTTPS is not intercepted: no certificate to trust.\n")
            }
            (PageFile::Health, _) => plain(StatusCode::OK, "ok\n"),
            (PageFile::Readiness, _) => return None,
        };
        Some(response)
    }

    /// The status lines: a label and its value.
    fn facts(&self, visit: &PageRequest<'_>) -> Vec<(&'static str, String)> {
        let certificate = match &self.ca {
            Some(ca) => format!("SHA-256 {}", fingerprint(&ca.der)),
            None => "none: HTTPS is not intercepted".to_owned(),
        };
        let payments = match (self.pays, visit.obstacles.as_slice()) {
            (false, _) => "never (no wallet)".to_owned(),
            (true, []) => "within your [[pay]] rules".to_owned(),
            (true, obstacles) => {
                let details: Vec<_> = obstacles.iter().map(|obstacle| obstacle.details()).collect();
                format!("not now: {}", details.join("; "))
            }
        };
        vec![
            ("proxy", visit.proxy()),
            ("listens on", visit.listen.to_string()),
            ("since", humantime::format_rfc3339_seconds(self.since).to_string()),
            ("pays", payments),
            ("certificate", certificate),
        ]
    }

    /// The files to download: path and purpose.
    fn files(&self) -> Vec<(&'static str, &'static str)> {
        let mut files = vec![("/proxy.pac", "the PAC file, for browsers")];
        if self.ca.is_some() {
            files.push(("/ca.pem", "the certificate, for programs"));
            files.push(("/ca.crt", "the certificate, to install in a system or a browser (DER)"));
        }
        files
    }

    /// Instructions for each system.
    fn systems(&self, visit: &PageRequest<'_>) -> Vec<SystemAdvice> {
        let is_shared = !visit.listen.ip().to_canonical().is_loopback();
        system::advice(ReachedProxy { url: &visit.proxy(), intercepts: self.ca.is_some(), is_shared })
    }

    /// The same instructions, and those for programs, for the dashboard.
    pub(super) fn setup(&self, visit: &PageRequest<'_>) -> serde_json::Value {
        serde_json::json!({
            "proxy": visit.proxy(),
            "systems": self.systems(visit),
            "programs": program::advice(&visit.proxy(), self.ca.is_some()),
        })
    }

    fn text(&self, visit: &PageRequest<'_>) -> String {
        let mut text = format!("{}\n\n", greeting(visit));
        for (name, fact) in self.facts(visit) {
            put(&mut text, format_args!("{name:<12} {fact}\n"));
        }
        for (path, purpose) in self.files() {
            put(&mut text, format_args!("{path:<12} {purpose}\n"));
        }
        if visit.has_dashboard {
            put(&mut text, format_args!("\nTo see what is paid, and to approve payments:\n  {DASHBOARD}\n"));
        }
        if self.ca.is_some() {
            put(
                &mut text,
                format_args!(
                    "\nbundle.pem contains the system CAs plus tollpass's:\n  {}\n",
                    program::BUNDLE
                ),
            );
        }
        for SetupAdvice { program, commands, notes, undo } in
            program::advice(&visit.proxy(), self.ca.is_some())
        {
            put(&mut text, format_args!("\n{program}\n"));
            for line in
                commands.iter().map(String::as_str).chain([notes].into_iter().filter(|n| !n.is_empty()))
            {
                put(&mut text, format_args!("  {line}\n"));
            }
            put(&mut text, format_args!("  Undo: {undo}\n"));
        }
        for SystemAdvice { system, steps, undo } in self.systems(visit) {
            put(&mut text, format_args!("\n{system}\n"));
            for step in &steps {
                put_step(&mut text, step);
            }
            put(&mut text, format_args!("  Undo:\n"));
            for step in &undo {
                put_step(&mut text, step);
            }
        }
        for (route, origin) in visit.routes.shown() {
            let base = self.base(visit, route);
            put(&mut text, format_args!("\nBase URL {base}\n  leads to {origin}\n"));
        }
        text
    }

    /// The base URL of a route. The page never shows the token, because pages of other sites may be able to read it.
    fn base(&self, visit: &PageRequest<'_>, route: &ReverseRoute) -> String {
        let (address, proxy, prefix) = (&visit.address, visit.proxy(), &route.prefix);
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let is_unprotected = self.pays && !identity::is_kept_apart(host);
        if route.client.is_some() {
            format!("{proxy}/TOKEN{prefix} (TOKEN is the token of its [[client]])")
        } else if visit.needs_route_token || is_unprotected {
            format!(
                "{proxy}/TOKEN{prefix} (TOKEN is in the file route-token of state_dir, or the token of a [[client]])"
            )
        } else {
            format!("{proxy}{prefix}")
        }
    }

    fn html(&self, visit: &PageRequest<'_>) -> String {
        let works = visit.reached_as == ReachedAs::Proxy && visit.obstacles.is_empty();
        let class = if works { "works" } else { "direct" };
        let page = html! {
            (PreEscaped("<!doctype html>\n"))
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { "tollpass" }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    main {
                        h1 { "tollpass" }
                        p class=(class) { (greeting(visit)) }
                        dl {
                            @for (name, fact) in self.facts(visit) {
                                dt { (name) }
                                dd { code { (fact) } }
                            }
                        }
                        @if visit.has_dashboard {
                            p { "To see what is paid, and to approve payments, open the link that this prints:" }
                            pre { (DASHBOARD) }
                        }
                        h2 { "Files" }
                        ul {
                            @for (path, purpose) in self.files() {
                                li { a href=(path) { (path) } " " (purpose) }
                            }
                        }
                        @if self.ca.is_some() {
                            p { "bundle.pem contains the system CAs plus tollpass's:" }
                            pre { (program::BUNDLE) }
                        }
                        h2 { "Set-up" }
                        @for SetupAdvice { program, commands, notes, undo } in
                            program::advice(&visit.proxy(), self.ca.is_some())
                        {
                            h3 { (program) }
                            @if !commands.is_empty() { pre { (commands.join("\n")) } }
                            @if !notes.is_empty() { p { (notes) } }
                            p class="undo" { "Undo: " (undo) }
                        }
                        h2 { "Systems" }
                        @for SystemAdvice { system, steps, undo } in self.systems(visit) {
                            h3 { (system) }
                            @for step in steps { (step_of(&step)) }
                            div class="undo" {
                                p { "Undo:" }
                                @for step in undo { (step_of(&step)) }
                            }
                        }
                        @for (route, origin) in visit.routes.shown() {
                            h3 { "Base URL" }
                            pre { (self.base(visit, route)) }
                            p { "leads to " (origin) }
                        }
                    }
                }
            }
            "\n"
        };
        page.into_string()
    }
}

fn step_of(step: &SetupStep) -> Markup {
    match step {
        SetupStep::Do(text) => html! { p { (text) } },
        SetupStep::Run(commands) => html! { pre { (commands) } },
    }
}

fn put_step(text: &mut String, step: &SetupStep) {
    let (SetupStep::Do(lines) | SetupStep::Run(lines)) = step;
    for line in lines.lines() {
        put(text, format_args!("  {line}\n"));
    }
}

fn file(path: &str) -> Option<PageFile> {
    match path {
        "/" => Some(PageFile::Page),
        "/proxy.pac" => Some(PageFile::Pac),
        "/ca.pem" => Some(PageFile::Pem),
        "/ca.der" | "/ca.crt" => Some(PageFile::Der),
        "/health" => Some(PageFile::Health),
        "/ready" => Some(PageFile::Readiness),
        _ => None,
    }
}

fn greeting(visit: &PageRequest<'_>) -> &'static str {
    match (visit.reached_as, visit.obstacles.is_empty()) {
        (ReachedAs::Proxy, true) => "It works: this request came through the proxy.",
        (ReachedAs::Proxy, false) => "This request came through the proxy, which cannot pay now.",
        (ReachedAs::Server, _) => {
            "The proxy is running, but this request did not go through it. To test that, open \
             http://tollpass.local/"
        }
    }
}

/// Whether the client accepts HTML.
fn takes_html(request: &Request<Body>) -> bool {
    let lines = request.headers().get_all(header::ACCEPT).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).any(|range| {
        let kind = range.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

/// The SHA-256 fingerprint of a certificate.
fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// Whether a method only reads.
pub(super) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The response to a method that does not read what can only be read.
pub(super) fn read_only(method: &Method) -> Response<Body> {
    let mut response = match *method {
        Method::OPTIONS => with(StatusCode::NO_CONTENT, TEXT, Body::Empty),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.\n"),
    };
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    with(status, TEXT, Body::full(text))
}

fn download(kind: HeaderValue, disposition: &'static str, bytes: &Bytes) -> Response<Body> {
    let mut response = with(StatusCode::OK, kind, Body::full(bytes.clone()));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    response
}

/// Marks a response as depending on `Accept`.
fn varies(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// A response that is not cached, not readable by other sites, and runs no scripts.
pub(super) fn with(status: StatusCode, kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, SECURITY_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    response
}

/// Appends formatted text; writing to a string cannot fail.
fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(more);
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::page::*;
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    #[test]
    fn the_policy_names_the_style() {
        let digest = Sha256::digest(STYLE);
        let expected = format!("style-src 'sha256-{}'", BASE64_STANDARD.encode(digest));
        assert!(SECURITY_POLICY.to_str().unwrap().contains(&expected), "{expected}");
        assert!(!STYLE.contains(['<', '&']), "it stands in the page as it is");
    }

    #[test]
    fn the_page_is_for_browsers() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", true),
            ("text/plain, Text/HTML;q=0.5", true),
            ("*/*", false),
            ("text/htmlx", false),
        ] {
            let request = Request::get("/").header("accept", accept).body(Body::Empty).unwrap();
            assert_eq!(takes_html(&request), expected, "{accept}");
        }
    }
    #[test]
    fn the_page_escapes_its_values() {
        let request = Request::get("/").body(Body::Empty).unwrap();
        let visit = PageRequest {
            request: &request,
            reached_as: ReachedAs::Server,
            address: "<a href=\"x\">&".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8402)),
            is_tls: false,
            routes: &ReverseRoutes::new(Vec::new()),
            needs_route_token: false,
            obstacles: Vec::new(),
            has_dashboard: true,
        };
        let page = Page { ca: None, pays: false, since: SystemTime::UNIX_EPOCH }.html(&visit);
        assert!(page.contains("<dd><code>http://&lt;a href=&quot;x&quot;&gt;&amp;</code></dd>"), "{page}");
        assert!(!page.contains("<a href=\"x"), "{page}");
    }
}

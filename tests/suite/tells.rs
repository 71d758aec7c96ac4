//! What a client is told if it is not served, in all six ways in: a guard that holds in five is none.

mod payments;
mod refused;
mod sellers;
mod tokens;

pub use tokens::basic;

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, header};
use tokio::task::JoinHandle;
use tollpass::app::App;
use tollpass::config::Config;
use tollpass::payments::Payments;
use tollpass::protocol::{Amount, ReasonCode};
use tollpass::shutdown::Shutdown;

use crate::support::payer::{Alice, PATIENCE};
use crate::support::ways::{Asked, Entrances, WayIn};
use crate::support::wire::Got;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A proxy in this process, with or without a wallet, and the entrances to it and to a seller.
struct Proxy {
    entrances: Entrances,
    payments: Option<Payments>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Runs Alice's proxy. `entrances` are those of the seller.
    async fn start(
        alice: &Alice,
        mut entrances: Entrances,
        change: impl FnOnce(&mut Config),
        is_dry_run: bool,
    ) -> Self {
        let mut config = Config::load(Some(&alice.config_path())).unwrap();
        change(&mut config);
        let shutdown = Shutdown::new();
        let mut app = App::build(config, None, shutdown.clone()).await.unwrap();
        if is_dry_run {
            app.dry_run();
        }
        entrances.proxy = ([127, 0, 0, 1], app.address().port()).into();
        entrances.ca = alice.state_dir().join("ca.pem");
        let payments = app.channels().map(|channels| channels.payments().clone());
        let task = tokio::spawn(async move { app.run().await.unwrap() });
        Self { entrances, payments, shutdown, task }
    }

    /// The sum of all promised totals.
    async fn promised(&self) -> Amount {
        let Some(payments) = &self.payments else { return Amount::ZERO };
        let channels = payments.list().await.expect("the service runs").channels;
        channels.iter().fold(Amount::ZERO, |sum, channel| sum.checked_add(channel.promised).unwrap())
    }

    async fn stop(self) {
        drop(self.payments);
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it does not stop").unwrap();
    }

    /// Asks by one way, and checks that the client gets the seller's own 402, and with it, unless the tunnel is blind,
    /// this reason.
    async fn refuses(&self, way: WayIn, asked: &Asked, reason: ReasonCode, retry: Retry) -> String {
        let row = format!("{reason} by {way:?}");
        let (direct, got) =
            (self.entrances.ask_seller(way, asked).await, self.entrances.ask(way, asked).await);
        assert_eq!(direct.status, 402, "{row}: {direct:?}");
        assert_eq!((got.status, &got.body), (direct.status, &direct.body), "{row}: {got:?}");
        let mut fields = end_to_end(&got);
        // Browsers keep the pages of a route apart from the dashboard, which a proxy without a wallet does not have.
        let policy = fields.remove(header::CONTENT_SECURITY_POLICY);
        let is_sandboxed = policy.is_some_and(|policy| policy.as_bytes().starts_with(b"sandbox "));
        assert_eq!(is_sandboxed, way == WayIn::Route && self.payments.is_some(), "{row}: {got:?}");
        // Nor do they tell others the URL of a route with its token.
        let is_guarded = way == WayIn::Route && !asked.route_token.is_empty();
        assert_eq!(fields.remove(header::REFERRER_POLICY).is_some(), is_guarded, "{row}: {got:?}");
        assert_eq!(fields, end_to_end(&direct), "{row}");
        if way == WayIn::Tunnel {
            assert_eq!(got.headers.get(PROXY_STATUS), direct.headers.get(PROXY_STATUS), "{row}");
            return String::new();
        }
        is_told(&got, reason, retry, &row)
    }
}

/// Checks that a response which is not the proxy's own has this reason; returns it.
fn is_told(got: &Got, reason: ReasonCode, retry: Retry, row: &str) -> String {
    let seconds = got.header(&header::RETRY_AFTER).map(|seconds| seconds.parse::<u64>().unwrap());
    match retry {
        None => assert_eq!(seconds, None, "{row}"),
        Some((least, most)) => {
            assert!(seconds.is_some_and(|seconds| (least..=most).contains(&seconds)), "{row}: {seconds:?}");
        }
    }
    let start = format!("tollpass; reason={reason}; details=\"");
    let told = ours(got, row);
    assert!(told.starts_with(&start) && told.ends_with('"') && told.len() > start.len() + 5, "{row}: {told}");
    told
}

/// The least and the most that `Retry-After` may say.
type Retry = Option<(u64, u64)>;

/// The one entry of the proxy in `Proxy-Status`: a line of its own, the last one.
fn ours(got: &Got, row: &str) -> String {
    let lines: Vec<&str> =
        got.headers.get_all(PROXY_STATUS).iter().map(|line| line.to_str().unwrap()).collect();
    let told = lines.last().unwrap_or_else(|| panic!("{row}: no reason: {got:?}"));
    let count = lines.iter().filter(|line| line.to_ascii_lowercase().contains("tollpass;")).count();
    assert_eq!(count, 1, "{row}: {lines:?}");
    (*told).to_owned()
}

/// Checks a response of the proxy's own.
fn is_problem(got: &Got, status: u16, error: &str, reason: ReasonCode, row: &str) {
    assert_eq!(got.status, status, "{row}: {got:?}");
    let told = ours(got, row);
    let start = format!("tollpass; error={error}; reason={reason}; details=\"");
    assert!(told.starts_with(&start), "{row}: {told}");
    assert_eq!(got.header(&header::CONTENT_TYPE), Some("application/problem+json"), "{row}");
    let problem: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!((&problem["status"], &problem["reason"]), (&status.into(), &reason.as_str().into()), "{row}");
    let details = problem["detail"].as_str().unwrap();
    assert!(told.contains(&details.replace('\\', "\\\\").replace('"', "\\\"")), "{row}: {told} {details}");
}

/// The end-to-end headers, without what a proxy adds and the date.
fn end_to_end(got: &Got) -> HeaderMap {
    let mut fields = got.headers.clone();
    for name in [header::VIA, header::DATE, header::CONNECTION, header::RETRY_AFTER, PROXY_STATUS] {
        fields.remove(name);
    }
    fields
}

/// The tables that all configurations here need: every tunnel to the seller's address is read, and the route leads to the seller.
fn tables(entrances: &Entrances, client: &str, upstream: &str) -> String {
    format!(
        "[intercept]\nhosts = [\"{}\"]\n[[route]]\nprefix = \"/seller\"\norigin = \"http://{}\"\n{client}\
         [upstream]\nca_file = \"{}\"\n{upstream}",
        entrances.secure.ip(),
        entrances.plain,
        entrances.seller_ca.display()
    )
}

/// Entrances to a seller, as long as there is no proxy.
fn entrances(plain: &str, secure: &str, seller_ca: PathBuf) -> Entrances {
    let place = |url: &str| url.rsplit('/').next().unwrap().parse().unwrap();
    let (plain, secure) = (place(plain), place(secure));
    Entrances { proxy: plain, ca: PathBuf::new(), plain, secure, seller_ca }
}

/// The reasons that no test here tries in all six ways, why not, and what tries them.
const ELSEWHERE: &[(&[ReasonCode], &str)] = &[
    (
        &[ReasonCode::UnknownUser],
        "the client's socket would have to be one that the kernel does not list: no program has it open, and none reads a response. \
         It is told where other-user is: proxy::pay::spender",
    ),
    (
        &[ReasonCode::RunOver, ReasonCode::UnknownRun],
        "about programs of `tollpass run`, which have a port of their own: program::run, proxy::client_connection",
    ),
    (
        &[ReasonCode::ClientLeft, ReasonCode::ShuttingDown],
        "the client has left, or the proxy is leaving: falters, stops",
    ),
    (
        &[
            ReasonCode::NoApprover,
            ReasonCode::TermsNeedApproval,
            ReasonCode::OtherPayer,
            ReasonCode::UnprovenTotal,
            ReasonCode::NotAccepted,
            ReasonCode::NoProgress,
            ReasonCode::MaxAttempts,
            ReasonCode::HookAborts,
            ReasonCode::HookGaveUp,
            ReasonCode::ChannelDenied,
            ReasonCode::AnswerUnreadable,
            ReasonCode::PaidAnswerLost,
            ReasonCode::SecondPrice,
        ],
        "what a channel's seller does once it has a payment, which it has in four of the ways and in the same way: refuses, \
         approves, recovers",
    ),
    (
        &[ReasonCode::DepositUnseen, ReasonCode::FundedOnce],
        "about transactions that the chain shows late: nodes, protocol::engine::tests::funding",
    ),
    (
        &[ReasonCode::OfferTooSlow, ReasonCode::OfferIncomplete],
        "the body of the seller's 402, which the client gets with the same fault: refuses, x402::pages",
    ),
    (
        &[
            ReasonCode::NoRoute,
            ReasonCode::PathClimbs,
            ReasonCode::PathTooLong,
            ReasonCode::NotAProxy,
            ReasonCode::HttpsUnencrypted,
            ReasonCode::BadHost,
            ReasonCode::OtherHost,
            ReasonCode::NoSuchPage,
            ReasonCode::OtherTunnel,
        ],
        "each is about one of the ways: fronts, encrypted, intercepts",
    ),
    (
        &[
            ReasonCode::BadTarget,
            ReasonCode::MalformedRequest,
            ReasonCode::HeadTooLarge,
            ReasonCode::UnknownExpectation,
            ReasonCode::UnsupportedScheme,
            ReasonCode::UnsupportedCoding,
            ReasonCode::RequestLoop,
            ReasonCode::RequestIncomplete,
            ReasonCode::CannotIntercept,
            ReasonCode::NameNotFound,
            ReasonCode::ConnectTimeout,
            ReasonCode::ConnectionRefused,
            ReasonCode::Unreachable,
            ReasonCode::BadCertificate,
            ReasonCode::TlsFailed,
            ReasonCode::RootsUnreadable,
            ReasonCode::OutboundProxyRefused,
            ReasonCode::OutboundProxyInvalid,
            ReasonCode::ConnectionLost,
            ReasonCode::NotProcessed,
            ReasonCode::NoAnswer,
            ReasonCode::AnswerTooLarge,
            ReasonCode::AnswerMalformed,
        ],
        "nothing is refused: the request cannot be forwarded, or its response not read: bytes, outbound, streams, transparent",
    ),
];

#[test]
fn each_reason_is_tried_in_all_six_ways_or_it_says_why_not() {
    let tried = [refused::TOLD, sellers::TOLD, payments::TOLD, tokens::TOLD].concat();
    let excused = ELSEWHERE.iter().flat_map(|(reasons, _)| *reasons);
    assert!(excused.clone().all(|reason| !tried.contains(reason)), "tried after all");
    let known: Vec<&ReasonCode> = tried.iter().chain(excused).collect();
    let missing: Vec<_> = ReasonCode::ALL.iter().filter(|reason| !known.contains(reason)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

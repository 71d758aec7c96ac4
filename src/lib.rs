//! tollpass: a local HTTP forward proxy that meets `402 Payment Required` and pays it, so that the program behind it
//! never sees a paywall. It speaks µRaiden: payments are signed totals over a channel, and only opening,
//! topping up and ending a channel touch the chain.
//!
//! # As a library
//!
//! [`App`] is the proxy. [`StandalonePayments`] pays without one, for an HTTP client of your own: [`PayLayer`] is a tower
//! layer around it. [`Policy`] says what may be paid, [`Payments`] signs it.
//!
#![cfg_attr(feature = "demo", doc = "```")]
#![cfg_attr(not(feature = "demo"), doc = "```ignore")]
//! use http::Request;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tollpass::{Body, Config, ForwardError, Sandbox, StandalonePayments};
//! use tower::{Layer, ServiceExt};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! // A chain, a seller and play money on this machine, and a configuration for them.
//! let sandbox = Sandbox::start(directory.path()).await?;
//! let payments = StandalonePayments::open(Config::load(Some(sandbox.config()))?).await?;
//!
//! // The pool must never send a paid request again by itself.
//! let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http::<Body>();
//! let client = client
//!     .map_response(|answer| answer.map(Body::from))
//!     .map_err(|error| ForwardError::Lost(error.to_string()));
//!
//! let request = Request::get(sandbox.paid_url()).body(Body::Empty)?;
//! let answer = payments.layer(None).layer(client).oneshot(request).await?;
//! assert_eq!(answer.status(), 200);
//! assert_eq!(payments.payments().report().total().paid.amount, 1000.into());
//!
//! payments.close().await;
//! # sandbox.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # One request
//!
//! ```text
//! client ─► proxy::downstream ─► proxy::frontend ─► proxy::intercept ─► proxy::pay ─► proxy::forward ─► origin
//!
//! proxy::frontend   for the proxy itself: the set-up page, the PAC file, the certificate of the local CA
//!                   below a [[route]], or http to a host of upstream.upgrade: gets its whole address
//! proxy::intercept  CONNECT to a host that is not to be read: on, and proxy::forward makes a blind tunnel of it
//!                   CONNECT to one that is: the origin is reached, 200, and who speaks first decides. What begins like
//!                   TLS or HTTP/1 is read, and its requests go on from here; anything else is a blind tunnel after all
//! proxy::pay
//!                               │  anything but 402: straight back, streaming, nothing changed
//!                               │  402, and no rule that pays it: back as it came, and Proxy-Status says why
//!                               │  402, and a rule: can this request be sent again? (proxy::replay kept its body)
//!                               │  a rule, and a price that is known from before (protocol::quote): paid at once
//!                               ▼
//!                         schemes::read ─► [Offer]
//!                               ▼
//!                         Payments::pay(offer, limit).await ─► Lease | Refusal
//!                               │   SharedEngine::submit(input), behind a short lock; answers are handed out at once:
//!                               │     Grant           lend the channel; signed in the client's own task: Lease
//!                               │     Refuse          Refusal, with a reason
//!                               │   the rest by the actor, one task, in order:
//!                               │     Persist(seq)    to the journal's thread, one durable write for all that has queued; what
//!                               │                     relies on it waits in the engine for Durable(seq) or NotRecorded(seq)
//!                               │     Submit, Resume  open, top up, end, or find out what became of it, in a task of its own;
//!                               │                     its transaction is on disk before `Send` lets it go
//!                               ▼
//!                         proxy::pay::exchange: the kept request again, with the payment ─► origin
//!                               │  (if the client disconnects, the exchange finishes in a detached task)
//!                               │  the scheme assesses the answer: paid -> Lease::accept: acknowledged
//!                               │  asked again -> Lease::reject: the same payment after a pause, another one, or none
//!                               │  in doubt, no answer, lease dropped -> in doubt: resolved before anything new
//! ```
//!
//! # Modules, and what they may import
//!
//! | module | what it is | imports |
//! |---|---|---|
//! | `cli` | one file for each subcommand | `app` and what they show |
//! | `app` | from a configuration to a running proxy, until it is told to stop | every module |
//! | `config` | `proxy.toml` and environment to a configuration that cannot be wrong | `hosts`, `limits`, `protocol` |
//! | `protocol` | the core, pure: what is asked for, what is decided, the engine | `hosts` |
//! | `hosts` | names and addresses of hosts, patterns for them, `no_proxy` | nothing of ours |
//! | `proxy` | the HTTP shell: server, client, payment layer, kept bodies, errors | `hosts`, `limits`, `payments`, `protocol`, `shutdown`, `tls` |
//! | `payments` | the payment service: the engine behind a lock, the actor that acts on the disk and the chain, the journal | `chain`, `limits`, `protocol` |
//! | `channels` | operations on channels: open, top up, close, settle; the idle-channel reaper | `chain`, `payments`, `protocol` |
//! | `chain` | the chain shell: contracts, node, transactions, keys | `private`, `protocol` |
//! | `tls` | the local CA, the certificates that it signs, the roots of others | `private` |
//! | `admin` | the socket on which `serve` answers the command line | `channels`, `payments`, `shutdown` |
//! | `private` | files and directories that are for this user alone | nothing of ours |
//! | `limits` | every limit on what is held and waited for, declared once | nothing of ours |
//! | `shutdown` | signals, drain, deadline | nothing of ours |
//! | `telemetry` | the log | nothing of ours |
//! | `error_chain` | errors with their causes | nothing of ours |
//! | `mutex` | locks that a panic does not close | nothing of ours |
//! | `failpoint` | crash points for tests; nothing in a release build | nothing of ours |
//! | `devnet` | feature `demo`: a development chain, contracts, a seller | `protocol`, but not its proofs |
//!
//! `proxy` never sees the chain, `chain` never sees an HTTP request, only `app` sees all. `tests/suite/house.rs` keeps
//! this so.
//!
//! # What is always true of the money
//!
//! - Of each channel two totals are kept: what was *promised*, the highest total ever signed, which never falls, and
//!   what is *acknowledged*, what the seller is believed to hold, where the next price is added. No total exceeds the
//!   deposit.
//! - One client request raises what its seller can redeem by at most one allowed price. What it raises counts from the
//!   highest total that the seller was *presented*, which the journal keeps.
//! - A channel pays for the host that it was opened for. One client request causes at most one deposit.
//! - Absence is never a verdict: what leads to spending again rests on a proof, never on an answer that is missing.
//! - Record, then act: a total is in the journal before it is signed, a transaction before it is sent.
//! - The connection pool sends a request that carries a payment again only if the origin says that it did not process
//!   it, or that it takes it over HTTP/1.1 only; once, and with the same payment.
//! - Openings to one receiver happen one after the other.
//!
//! # HTTP on the way
//!
//! - Responses other than 402 stream through unchanged. `CONNECT` is a blind tunnel, except to the hosts in `[intercept]`:
//!   there TLS and plain HTTP are read, in HTTP/1.1 and HTTP/2, and anything else, such as a server that speaks first,
//!   passes untouched.
//! - A message that two parsers could read differently (two `Host` headers, malformed or conflicting lengths, a transfer
//!   coding other than `chunked`, misplaced whitespace) is refused with 400, or with 502 if the origin sent it, and the
//!   connection is closed; or it goes on in a form that has one reading.
//! - `Expect: 100-continue` waits until the origin asks for the body or responds without it, or until
//!   `limits.expect_continue_timeout`. A 402 that comes first is paid before the body is sent, once.
//! - Interim responses (102, 103) go on to HTTP/1.1 clients; over HTTP/2 they do not pass, on either side.
//! - A plain request with an `https://` target goes upstream as https if it comes from this machine, and is refused
//!   otherwise.
//! - `Max-Forwards: 0` on `OPTIONS` and `TRACE` is answered here; a `TRACE` shows no credentials, cookies or payments.
//!   `OPTIONS http://host` without a path goes on as `OPTIONS /`: after parsing, the two are the same.
//! - Headers and cookies that begin with `RDN-` are removed from requests that a rule pays and from their responses. Other
//!   hosts get them as they are, so that a client with its own wallet still works.
//! - Clients of one HTTP/2 connection to an origin share what the origin allows its streams to hold together (Node: 10 MB).
//!   If the origin then refuses a request, it fails unless it is idempotent, without a body and not paid; the next one
//!   uses another connection.
//! - The set-up page responds under the proxy's own names only: a foreign name that resolves to the proxy gets 421.
//! - A payment over plain http goes to the address that its 402 came from; one that goes with the first request, to what
//!   the name resolves to then. Behind an outbound proxy, that proxy resolves names.
//! - A request counts as a browser's if it has a `User-Agent` that begins with `Mozilla/`, or `Upgrade-Insecure-Requests`,
//!   `Sec-CH-UA` or `Sec-Fetch-Site`. A foreign `Origin` or `Referer`, or `Sec-Fetch-Site: cross-site` or `same-site`, marks
//!   a request of another site, which is never paid.

// Tests, benches and fuzz targets see the modules; programs see what the crate root exports.
#[cfg(not(feature = "testing"))]
mod admin;
#[cfg(feature = "testing")]
pub mod admin;
#[cfg(not(feature = "testing"))]
mod app;
#[cfg(feature = "testing")]
pub mod app;
#[cfg(not(feature = "testing"))]
mod chain;
#[cfg(feature = "testing")]
pub mod chain;
#[cfg(not(feature = "testing"))]
mod channels;
#[cfg(feature = "testing")]
pub mod channels;
#[doc(hidden)]
pub mod cli;
#[cfg(not(feature = "testing"))]
mod config;
#[cfg(feature = "testing")]
pub mod config;
#[cfg(all(feature = "demo", not(feature = "testing")))]
#[allow(dead_code, reason = "tests steer and observe the development network")]
mod devnet;
#[cfg(all(feature = "demo", feature = "testing"))]
pub mod devnet;
mod error_chain;
#[cfg(not(feature = "testing"))]
mod failpoint;
#[cfg(feature = "testing")]
pub mod failpoint;
#[cfg(not(feature = "testing"))]
mod hosts;
#[cfg(feature = "testing")]
pub mod hosts;
#[cfg(not(feature = "testing"))]
mod limits;
#[cfg(feature = "testing")]
pub mod limits;
mod mutex;
#[cfg(not(feature = "testing"))]
mod payments;
#[cfg(feature = "testing")]
pub mod payments;
#[cfg(not(feature = "testing"))]
mod private;
#[cfg(feature = "testing")]
pub mod private;
#[cfg(not(feature = "testing"))]
mod protocol;
#[cfg(feature = "testing")]
pub mod protocol;
#[cfg(not(feature = "testing"))]
mod proxy;
#[cfg(feature = "testing")]
pub mod proxy;
#[cfg(not(feature = "testing"))]
mod shutdown;
#[cfg(feature = "testing")]
pub mod shutdown;
#[cfg(not(feature = "testing"))]
mod telemetry;
#[cfg(feature = "testing")]
pub mod telemetry;
#[cfg(not(feature = "testing"))]
mod tls;
#[cfg(feature = "testing")]
pub mod tls;

pub use app::{App, StandalonePayments, StartError};
pub use config::{Config, ConfigError, PolicyBuilder};
#[cfg(feature = "demo")]
pub use devnet::sandbox::Sandbox;
pub use payments::{Lease, Payments};
pub use protocol::policy::SpendLimit;
pub use protocol::policy::{Deposit, HostPattern};
pub use protocol::{Address, Amount, Offer, Policy, Refusal, Terms};
pub use proxy::pay::PayLayer;
pub use proxy::pay::webhook::{ApprovalRequest, Approver, Decision};
pub use proxy::{Body, ForwardError};
pub use shutdown::Shutdown;

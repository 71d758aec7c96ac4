//! tollpass: a local HTTP forward proxy that pays for `402 Payment Required` responses, so that the programs behind it
//! never see a paywall. It speaks x402, in which each payment is an authorization of a token, and µRaiden, in which payments
//! are signed totals over a payment channel, and only opening, topping up and closing a channel require transactions.
//!
//! # As a library
//!
//! [`App`] is the proxy. [`StandalonePayments`] pays without a proxy, for your own HTTP client: [`PayLayer`] is a tower
//! layer around it. [`Policy`] contains the rules, [`Payments`] signs.
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
//! client ─► proxy::downstream ─► proxy::frontend ─► proxy::authenticate
//!        ─► proxy::intercept ─► proxy::pay ─► proxy::forward ─► origin
//!
//! proxy::frontend   requests to the proxy itself: the set-up page, the PAC file, the certificate of the local CA, the
//!                   dashboard
//!                   [[route]] and upstream.upgrade: rewrites the target
//! proxy::authenticate  [[client]]: refuses requests without a valid token where one is needed
//! proxy::intercept  CONNECT to a host that is not intercepted: proxy::forward opens a blind tunnel
//!                   CONNECT to an intercepted host: dials the origin, responds 200, then sniffs the protocol. TLS and
//!                   HTTP/1 are intercepted, and their requests continue from here; anything else stays a blind tunnel
//! proxy::pay
//!                               │  not a 402: streams back unchanged
//!                               │  402, and no rule pays it: returned unchanged, with the reason in Proxy-Status
//!                               │  402, and a rule pays it: can this request be sent again (proxy::replay keeps its body)?
//!                               │  a rule, and a price known from an earlier 402 (protocol::quote): paid at once
//!                               │  a page instead of offers: a GET is sent once more, as a program would ask
//!                               │  offers for those who sign in: sent once with a proof, before anything is paid
//!                               ▼
//!                         schemes::read ─► [Offer]
//!                               ▼
//!                         Payments::pay(offer, limit, deadline).await ─► Lease | Refusal
//!                               │   SharedEngine::submit(input), behind a short lock, which delivers results at once:
//!                               │     Grant           lease the channel; the client's own task signs: Lease
//!                               │     Refuse          Refusal, with the reason
//!                               │   the actor, one task, executes the other effects in order:
//!                               │     Persist(seq)    to the journal thread, one durable write for everything queued; what
//!                               │                     depends on it waits in the engine for Durable(seq) or NotRecorded(seq)
//!                               │     Submit, Resume  open, top up, close, or resume a transaction, each in its own task;
//!                               │                     its transaction is on disk before `Send` releases it
//!                               ▼
//!                         proxy::pay::exchange: the same request again, with the payment ─► origin
//!                               │  (if the client disconnects, the exchange finishes in a detached task)
//!                               │  the scheme judges the response: paid -> Lease::accept: acknowledged
//!                               │  another 402 -> Lease::reject: the same payment after a pause, another one, or none
//!                               │  in doubt, no response, lease dropped -> in doubt: resolved before the next payment
//! ```
//!
//! # Modules and their imports
//!
//! | module | purpose | imports |
//! |---|---|---|
//! | `cli` | the subcommands, one file each | `app` and what the commands print |
//! | `app` | the composition root: turns a configuration into a running proxy | every module |
//! | `config` | reads `proxy.toml` and the environment into a valid configuration | `hosts`, `limits`, `private`, `protocol` |
//! | `protocol` | the pure core: offers, policy, budgets, the engine | `hosts` |
//! | `hosts` | host names and addresses, patterns, `no_proxy` | none |
//! | `proxy` | the HTTP shell: server, client, payment layer, kept bodies, errors | `hosts`, `limits`, `payments`, `protocol`, `shutdown`, `tls`, `workers` |
//! | `payments` | the payment service: the engine behind a lock, the actor that owns disk and chain effects, the journal with the ledger | `chain`, `limits`, `processes`, `protocol` |
//! | `channels` | operations on channels: open, top up, close, settle; allowances; the idle-channel reaper | `chain`, `payments`, `protocol` |
//! | `chain` | the chain shell: contracts, node, transactions, keys, external signers | `private`, `protocol` |
//! | `tls` | the local CA, its certificates, root certificates, the certificate of the proxy's own ports | `private` |
//! | `admin` | the socket through which the command line controls `serve` | `channels`, `payments`, `shutdown` |
//! | `private` | files and directories that only this user can access | none |
//! | `limits` | every limit, declared once | none |
//! | `processes` | which process descends from which, and which has a socket | none |
//! | `shutdown` | signals, drain, deadline | none |
//! | `workers` | the threads that serve clients, and which of them gets a connection | `shutdown` |
//! | `telemetry` | the log, and traces | `tls` |
//! | `error_chain` | errors with their causes | none |
//! | `histogram` | how long things take | none |
//! | `mutex` | locks that ignore poisoning | none |
//! | `failpoint` | crash points for tests; no-ops in a release build | none |
//! | `devnet` | feature `demo`: a development chain, contracts, a seller | `protocol`, except its proofs |
//!
//! `proxy` never sees the chain, `chain` never sees an HTTP request, and only `app` sees everything.
//! `tests/suite/house.rs` enforces this.
//!
//! # Threads
//!
//! The main thread accepts connections and runs what is there once: the actor, the chain watcher, the admin socket. Each
//! connection then belongs to one of the workers (`workers` in the configuration), threads with a runtime and pools of
//! connections to origins of their own, until it ends: a request that pays nothing never waits for another thread. The
//! engine is shared behind a lock that is not held across anything slow. The journal has a thread that writes. Names,
//! files, and whatever else takes long (large offers, digests of large bodies) use threads for work that blocks.
//!
//! # Money invariants
//!
//! - Each channel has two totals: *promised*, the highest total ever signed, which never falls; and *acknowledged*, the
//!   total that the seller is believed to hold, to which the next price is added. No total exceeds the deposit.
//! - One client request raises what its seller can redeem by at most one allowed price, counted from the highest total
//!   *presented* to the seller, which the journal stores. Of two authorizations, if the first was sent ahead in vain,
//!   the sum has to be allowed.
//! - A channel pays for the host that it was opened for. One client request causes at most one deposit.
//! - Absence is never a verdict: spending again requires a proof, never a missing response.
//! - An authorization whose outcome is unclear stays counted as spent, unless its chain shows, in a confirmed block after its
//!   expiry, that it was not used.
//! - Record, then act: a total is in the journal before it is signed, a transaction before it is sent.
//! - The connection pool resends a request that carries a payment only if the origin states that it did not process it,
//!   or that it requires HTTP/1.1; once, and with the same payment.
//! - Channels to one receiver are opened one at a time.
//! - Only an explicit refusal of an external signer means that nothing was signed. Without a clear answer, a payment is in
//!   doubt, and the same transaction is asked for again.
//!
//! # HTTP behaviour
//!
//! - Responses other than 402 stream through unchanged. `CONNECT` is a blind tunnel, except to the hosts in `[intercept]`:
//!   there, TLS and plain HTTP are intercepted, in HTTP/1.1 and HTTP/2, and anything else, such as a server that sends
//!   first, passes unchanged.
//! - A message that two parsers could read differently (two `Host` headers, malformed or conflicting lengths, a transfer
//!   coding other than `chunked`, misplaced whitespace) is refused with 400, or with 502 if the origin sent it, and the
//!   connection is closed; or it is forwarded in an unambiguous form.
//! - `Expect: 100-continue` waits until the origin requests the body or responds without it, or until
//!   `limits.expect_continue_timeout`. A 402 that comes first is paid before the body is sent, once.
//! - Interim responses (102, 103) are forwarded to HTTP/1.1 clients, but not over HTTP/2, on either side.
//! - With `tls_cert`, ports speak TLS with HTTP/1.1 inside, as they speak it without; a request without TLS gets 400.
//! - A plain request with an `https://` target goes upstream as https if it comes from this machine or over TLS, and is
//!   refused otherwise.
//! - The proxy itself answers `OPTIONS` and `TRACE` with `Max-Forwards: 0`; the response to `TRACE` contains no credentials,
//!   cookies or payments. `OPTIONS http://host` without a path is forwarded as `OPTIONS /`, since the two are the same after
//!   parsing.
//! - Payment headers and cookies (`RDN-…`, and `PAYMENT-…` and `X-PAYMENT…` of x402) are removed from requests that a rule
//!   pays and from their responses. For other hosts they pass, so that a client with its own wallet still works.
//! - Clients that share an HTTP/2 connection to an origin share its limits on streams (Node: 10 MB). If the origin then
//!   refuses a request, it fails unless it is idempotent, without a body and not paid; the next one uses another
//!   connection.
//! - The set-up page is served under the proxy's own names only, with TLS also those in its certificate, and those in
//!   `frontend.names`: a foreign name that resolves to the proxy gets 421.
//! - A payment over plain http goes to the address that sent the 402; one that is sent ahead goes to the address that the
//!   name resolves to then. With an outbound proxy, that proxy resolves names. Without `allow_plain_http`, a payment is
//!   never written to an unencrypted connection that leaves this machine.
//! - Without a token, a request is paid only if the user who runs tollpass created the client's end of the connection. The
//!   kernel lists that end only in the network namespace of the proxy, so a container with its own is another machine.
//! - Clients on other machines reach only public and allowed addresses. The address is checked for each connection, after
//!   its name is resolved, and requests of local and remote clients share no connection.
//! - A request counts as a browser's if it has a `User-Agent` that begins with `Mozilla/`, or `Upgrade-Insecure-Requests`,
//!   `Sec-CH-UA` or `Sec-Fetch-Site`. A foreign `Origin` or `Referer`, or `Sec-Fetch-Site: cross-site` or `same-site`, marks
//!   a cross-site request, which is never paid.

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
mod histogram;
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
mod processes;
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
#[cfg(not(feature = "testing"))]
mod workers;
#[cfg(feature = "testing")]
pub mod workers;

pub use app::{App, StandalonePayments, StartError};
pub use config::{Config, ConfigError, PolicyBuilder};
#[cfg(feature = "demo")]
pub use devnet::sandbox::Sandbox;
pub use payments::{Consultant, Lease, Payments};
pub use protocol::engine::Question;
pub use protocol::policy::{Decision, Deposit, HostPattern, SpendLimit};
pub use protocol::{Address, Amount, Offer, Policy, Refusal, Terms};
pub use proxy::pay::PayLayer;
pub use proxy::pay::webhook::{ApprovalRequest, Approver};
pub use proxy::{Body, ForwardError};
pub use shutdown::Shutdown;

//! Every limit on what the proxy holds, sends and waits for, declared once: key, type, default, bounds and
//! documentation. The configuration, its schema and the modules that apply the limits all read this table.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What a number stands for, its default and its inclusive bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantity {
    /// The unit of the three numbers.
    pub unit: Unit,
    /// The value if none is configured.
    pub default: u64,
    /// The smallest value allowed.
    pub min: u64,
    /// The largest value allowed.
    pub max: u64,
}

/// The unit of a [`Quantity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    Count,
    /// Bytes.
    Bytes,
    /// Nanoseconds.
    Time,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its key in the `[limits]` table of the configuration.
    pub key: &'static str,
    /// Its documentation, one string per line.
    pub documentation: &'static [&'static str],
    /// Its default and bounds.
    pub quantity: Quantity,
}

/// A plain number.
pub const fn count(default: u64, range: RangeInclusive<u64>) -> Quantity {
    quantity(Unit::Count, default, range)
}

/// A number of bytes.
pub const fn bytes(default: u64, range: RangeInclusive<u64>) -> Quantity {
    quantity(Unit::Bytes, default, range)
}

/// A duration, in nanoseconds.
pub const fn time(default: u64, range: RangeInclusive<u64>) -> Quantity {
    quantity(Unit::Time, default, range)
}

const fn quantity(unit: Unit, default: u64, range: RangeInclusive<u64>) -> Quantity {
    let (min, max) = (*range.start(), *range.end());
    assert!(min <= default && default <= max, "a default lies within its bounds");
    Quantity { unit, default, min, max }
}

/// In nanoseconds.
pub const MILLISECOND: u64 = 1_000_000;
/// In nanoseconds.
pub const SECOND: u64 = 1000 * MILLISECOND;
/// In nanoseconds.
pub const MINUTE: u64 = 60 * SECOND;
/// In nanoseconds.
pub const HOUR: u64 = 60 * MINUTE;
/// In nanoseconds.
pub const DAY: u64 = 24 * HOUR;
/// In bytes.
pub const KIB: u64 = 1 << 10;
/// In bytes.
pub const MIB: u64 = 1 << 20;
/// In bytes.
pub const GIB: u64 = 1 << 30;

/// The type of a limit's field.
trait Field {
    fn from_number(number: u64) -> Self;
}

impl Field for Duration {
    fn from_number(number: u64) -> Self {
        Self::from_nanos(number)
    }
}

macro_rules! integer_fields {
    ($($integer:ty),+) => {
        $(impl Field for $integer {
            fn from_number(number: u64) -> Self {
                // Only `usize` on a 32-bit machine can be too small, for sizes that such a machine cannot hold anyway.
                Self::try_from(number).unwrap_or(Self::MAX)
            }
        })+
    };
}

integer_fields!(u32, u64, usize);

macro_rules! limits {
    ($($(#[doc = $line:literal])+ $key:ident: $type:ty = $quantity:expr;)+) => {
        /// The value of every limit.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $line])+ pub $key: $type,)+
        }

        /// Every limit, in the order of the documentation.
        pub const LIMITS: &[Limit] = &[
            $(Limit { key: stringify!($key), documentation: &[$($line),+], quantity: $quantity },)+
        ];

        impl Limits {
            /// Takes each value from `read`, or the default if it returns `None`. The caller checks the bounds.
            pub fn read(mut read: impl FnMut(&Limit) -> Option<u64>) -> Self {
                let mut limits = LIMITS.iter();
                let mut next = || {
                    limits.next().map_or(0, |limit| read(limit).unwrap_or(limit.quantity.default))
                };
                Self { $($key: <$type>::from_number(next()),)+ }
            }
        }
    };
}

limits! {
    /// The longest time from a request's first 402 to the headers of its paid response. It includes the upload of the
    /// body, which is cut off at the end, after it was paid for: raise this and answer_timeout for large bodies over
    /// slow networks.
    pay_timeout: Duration = time(5 * MINUTE, MILLISECOND..=HOUR);
    /// How many different payments one client request may cause. The hooks limit how often the same one is presented.
    max_attempts: u32 = count(8, 1..=1000);
    /// How many prices to remember, by a hash of method and URL, so that the next request carries its payment at once.
    prices: usize = count(4096, 1..=1_000_000);
    /// How long to remember a price that is not confirmed again.
    price_age: Duration = time(DAY, MILLISECOND..=366 * DAY);
    /// How many payees, by host and receiver, the report of `tollpass run` lists; the rest is added up.
    report_payees: usize = count(1024, 1..=1_000_000);
    /// How many hosts have labels of their own in the metrics; the others together are "other".
    metrics_hosts: usize = count(100, 0..=10_000);
    /// For how long a link that `tollpass dashboard` prints can be opened. It can be opened once.
    dashboard_link: Duration = time(MINUTE, SECOND..=HOUR);
    /// For how long a page of the dashboard stays signed in, at most until the proxy stops.
    dashboard_session: Duration = time(12 * HOUR, MINUTE..=30 * DAY);
    /// How many links may wait to be opened, and how many pages may be signed in; beyond that, the oldest becomes invalid.
    dashboard_sessions: usize = count(16, 1..=1000);
    /// How many pages of the dashboard may receive live updates at once; further ones must retry later.
    dashboard_streams: usize = count(16, 1..=1000);
    /// The largest request of the dashboard, such as to approve a payment.
    dashboard_body: usize = bytes(16 * KIB, KIB..=MIB);
    /// How many of the latest requests that were not paid the dashboard shows. They are in memory only.
    refused_requests: usize = count(200, 0..=100_000);
    /// How many `tollpass run` commands may use one proxy at once: each gets a port of its own.
    runs: usize = count(64, 1..=10_000);
    /// How many further payments of the same price may be signed before the next durable write to the journal. After a
    /// crash, this many count as promised until the seller proves what it holds.
    sign_ahead: u64 = count(256, 0..=1_000_000);
    /// How many payments that have ended may wait for their row in the ledger, which is written within a second. Beyond
    /// that, the ledger records only their sum.
    ledger_queue: usize = count(16_384, 1..=1_000_000);
    /// How long a 402 that arrives during startup waits for the key and the chain.
    ready_timeout: Duration = time(30 * SECOND, MILLISECOND..=HOUR);
    /// How many payments may be queued at once.
    max_pending: usize = count(1024, 1..=1_000_000);
    /// How long a request waits for `tollpass approve` or `tollpass deny`, if its rule asks; pay_timeout starts again
    /// after the approval. After that time the client gets the seller's 402, and may send the request again.
    approval_timeout: Duration = time(5 * MINUTE, MILLISECOND..=DAY);
    /// How many requests may wait for approval at once; further ones are not paid.
    max_approvals: usize = count(64, 1..=100_000);
    /// How many approvals of `tollpass approve --always` may be in force at once.
    standing_approvals: usize = count(1000, 1..=100_000);
    /// After how many payments in a row that a host takes without delivering it is paused: it is not paid until `tollpass
    /// resume HOST`, also after a restart. Not delivered means a 5xx, another 402, no response, or one that is late or
    /// breaks off; whole 2xx and 3xx start again from 0, and other responses, as well as clients that leave, change
    /// nothing. 0: never.
    undelivered_payments: u32 = count(3, 0..=1_000_000);
    /// How many hosts to remember with such payments, and how many paused ones; the oldest is forgotten first.
    undelivered_hosts: usize = count(1024, 1..=100_000);
    /// By how many percent a host may raise a price before it is paused like one that does not deliver. Compared with the
    /// lowest price paid for the same method, path (without its query) and asset since the host was last resumed. 0: any
    /// rise, up to the limit of the rule, which applies in any case.
    price_rise_percent: u32 = count(0, 0..=1_000_000);
    /// How many such prices to remember, also after a restart; the one that was used longest ago is forgotten first.
    paid_prices: usize = count(10_000, 1..=1_000_000);
    /// The longest time that a payment which is an authorization of a token may be valid, however long the seller
    /// wants it to be.
    max_validity: Duration = time(10 * MINUTE, 10 * SECOND..=DAY);
    /// The same for a payment that is sent ahead, see send_ahead: until then, the seller can redeem it even if it wants
    /// another price by now. Sellers refuse one that is valid for less than 6 seconds.
    ahead_validity: Duration = time(30 * SECOND, 10 * SECOND..=DAY);
    /// After two payments in a row were sent ahead in vain for the same method and URL, how long to ask for the price
    /// first.
    ahead_pause: Duration = time(10 * MINUTE, SECOND..=DAY);
    /// How long the same purchase is not paid for again after the seller took such a payment and did not deliver, or after
    /// one whose outcome is unclear has expired, unless the network's node shows that it was not used. The same purchase:
    /// same method, URL, body, client and Authorization, or the same Idempotency-Key. Until it has expired, a request for
    /// it presents the same payment again.
    retry_window: Duration = time(MINUTE, SECOND..=DAY);
    /// How often tollpass presents such a payment again by itself while its outcome is unclear: at once, then more slowly.
    unclear_repeats: u32 = count(6, 0..=1000);
    /// How many such payments may be in use or unclear at once; further requests are not paid until some have expired.
    open_authorizations: usize = count(10_000, 1..=1_000_000);
    /// How often to ask the node of a network whether such a payment was taken, if its outcome is unclear or only the
    /// seller says that it was. After each round without an answer, the pause doubles, up to 64 times this.
    chain_check_every: Duration = time(10 * SECOND, MILLISECOND..=HOUR);
    /// For how long after such a payment has expired the node is asked. After that, it stays counted as spent.
    chain_check_for: Duration = time(DAY, SECOND..=366 * DAY);
    /// How many such questions one node is asked at once.
    chain_checks: usize = count(8, 1..=1000);
    /// How many payments that were served a node is also asked about in each round, after those whose outcome is unclear. The
    /// ledger then says that the chain confirms the seller's claim, or that the seller never took the money. 0: none.
    served_checks: usize = count(200, 0..=100_000);
    /// How many paid responses to clients that have left are kept for retry_window at most, with their connections to the
    /// origin, for requests for the same purchase with the same headers. What is not kept is not paid for again either.
    /// 0: none.
    kept_answers: usize = count(64, 0..=100_000);
    /// How many client connections may be open at once, on each port.
    connections: usize = count(4096, 1..=1_000_000);
    /// How many requests may be in flight on one HTTP/2 connection from a client; more wait.
    streams: usize = count(200, 1..=10_000);
    /// How often an address (IPv6: a /64 network) may send a wrong name or token of a client within auth_window. Until
    /// the window ends, each further wrong attempt from there gets a 429 and loses its connection. A client with the
    /// right token is not affected.
    auth_failures: u32 = count(10, 1..=1_000_000);
    /// How long a failed attempt counts.
    auth_window: Duration = time(MINUTE, SECOND..=DAY);
    /// How many addresses with failed attempts to remember; the one whose last attempt is oldest is forgotten first.
    auth_addresses: usize = count(4096, 1..=1_000_000);
    /// The largest head of a request or response, in HTTP/1.1 and HTTP/2. A response with a larger one is replaced by a
    /// 502; if it was paid for, the same request is not paid for again.
    head_bytes: usize = bytes(256 * KIB, 8 * KIB..=MIB);
    /// The most headers in such a head; more have the same consequences.
    head_fields: usize = count(100, 1..=10_000);
    /// How long a client may take to send the head of a request, from its first byte, and for a TLS handshake.
    head_timeout: Duration = time(30 * SECOND, MILLISECOND..=HOUR);
    /// How long to keep an idle client connection.
    keepalive_timeout: Duration = time(MINUTE, MILLISECOND..=DAY);
    /// How long an exchange may be idle, with no byte from or to the client. Long polls and event streams can be silent
    /// for minutes. Checked at this interval, so up to twice the time may pass. Also applies to tunnels and WebSockets;
    /// over HTTP/2, only exchange_timeout applies.
    stream_idle_timeout: Duration = time(HOUR, MILLISECOND..=7 * DAY);
    /// How long one exchange may take in total, such as a download or an event stream. Checked at intervals, too. Over
    /// HTTP/2, it starts once a connection has had no new request for keepalive_timeout. Tunnels are exempt.
    exchange_timeout: Duration = time(DAY, MILLISECOND..=366 * DAY);
    /// How long a client may keep sending after the last response on its connection, for example if the response came
    /// in the middle of its upload. tollpass reads and discards it, so that the response is not lost.
    linger_timeout: Duration = time(2 * SECOND, MILLISECOND..=MINUTE);
    /// Timeout for opening a connection to an origin.
    connect_timeout: Duration = time(10 * SECOND, MILLISECOND..=10 * MINUTE);
    /// How long to wait for an origin to request the body of a request with "Expect: 100-continue" before tollpass
    /// asks the client for it anyway.
    expect_continue_timeout: Duration = time(SECOND, MILLISECOND..=MINUTE);
    /// Timeout for the headers of the response to a paid request.
    answer_timeout: Duration = time(5 * MINUTE, MILLISECOND..=DAY);
    /// Timeout of a request to a seller about a channel, such as for the signature that closes it at once.
    seller_timeout: Duration = time(30 * SECOND, MILLISECOND..=HOUR);
    /// How long to keep idle connections to origins.
    pool_idle_timeout: Duration = time(MINUTE, MILLISECOND..=DAY);
    /// How many idle connections to keep per origin.
    pool_idle_per_host: usize = count(128, 1..=100_000);
    /// How many requests share one HTTP/2 connection to an origin, if the origin allows as many. Further requests, and
    /// uploads larger than 48 KiB together, which could block each other, get another connection.
    origin_streams: usize = count(32, 1..=1000);
    /// How long an HTTP/2 connection to an origin may be silent, while responses are outstanding, before tollpass sends
    /// a PING.
    ping_every: Duration = time(30 * SECOND, MILLISECOND..=DAY);
    /// How long the origin may take to answer a PING. If it does not, the connection's requests fail. A connection that
    /// was silent for longer than ping_every and ping_timeout together gets no new requests.
    ping_timeout: Duration = time(15 * SECOND, MILLISECOND..=HOUR);
    /// How much of a request body to keep in memory so that it can be sent again with a payment.
    replay_memory: usize = bytes(MIB, 0..=GIB);
    /// How much more of it to keep in a private, unnamed file in the system's temporary directory. A request with a
    /// larger body passes through, but is not paid.
    replay_file: u64 = bytes(100 * MIB, 0..=1 << 40);
    /// How much of the body of a 402 to buffer. A larger 402 passes through, but is not paid.
    max_402_body: usize = bytes(64 * KIB, KIB..=16 * MIB);
    /// How long the body of a 402 may take, or offers in place of a page. A slower 402 passes through, but is not paid.
    offer_timeout: Duration = time(10 * SECOND, MILLISECOND..=10 * MINUTE);
    /// How many certificates for intercepted hosts to cache, in memory only. Each is valid for at most 197 days.
    certificate_cache: usize = count(1024, 1..=100_000);
    /// How long exchanges in flight may take to finish at shutdown.
    drain_timeout: Duration = time(10 * SECOND, MILLISECOND..=HOUR);
}

impl Default for Limits {
    fn default() -> Self {
        Self::read(|_| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_gets_the_value_of_its_own_key() {
        let limits = Limits::read(|limit| match limit.key {
            "pay_timeout" => Some(SECOND),
            "head_bytes" => Some(9000),
            "drain_timeout" => Some(MINUTE),
            _ => None,
        });
        let expected = Limits {
            pay_timeout: Duration::from_secs(1),
            head_bytes: 9000,
            drain_timeout: Duration::from_secs(60),
            ..Limits::default()
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn every_limit_has_a_key_of_its_own_and_documentation() {
        for (index, limit) in LIMITS.iter().enumerate() {
            assert!(LIMITS[..index].iter().all(|other| other.key != limit.key), "{}", limit.key);
            assert!(limit.documentation.iter().all(|line| !line.trim().is_empty()), "{}", limit.key);
        }
    }
}

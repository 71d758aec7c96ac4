//! Reads `[limits]`: how much and how long, for everything that could otherwise grow or last.

use std::time::Duration;

use super::section::Section;
use super::values;
use super::values::{show_duration, show_size};

/// The keys of `[limits]`. The first four belong to the policy.
pub(super) const LIMITS: &[&str] = &[
    "pay_timeout",
    "max_attempts",
    "sign_ahead",
    "ready_timeout",
    "prices",
    "price_age",
    "report_payees",
    "max_pending",
    "connections",
    "streams",
    "head_bytes",
    "head_fields",
    "head_timeout",
    "keepalive_timeout",
    "stream_idle_timeout",
    "exchange_timeout",
    "linger_timeout",
    "connect_timeout",
    "expect_continue_timeout",
    "answer_timeout",
    "pool_idle_timeout",
    "pool_idle_per_host",
    "origin_streams",
    "ping_every",
    "ping_timeout",
    "replay_memory",
    "replay_file",
    "max_402_body",
    "offer_timeout",
    "certificate_cache",
    "drain_timeout",
];

/// `[limits]`: bounds on what the proxy holds and waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many prices are remembered.
    pub prices: usize,
    /// How long a price is remembered that was not seen again.
    pub price_age: Duration,
    /// How many payees the bill tells apart.
    pub report_payees: usize,
    /// How many demands may be queued at once.
    pub max_pending: usize,
    /// How many client connections may be open at once.
    pub connections: usize,
    /// How many requests may be under way at once on one connection of HTTP/2.
    pub streams: usize,
    /// The largest head of a request or an answer, in bytes.
    pub head_bytes: usize,
    /// The largest number of fields in such a head.
    pub head_fields: usize,
    /// How long a client may take to send a request's head, counted from its first byte.
    pub head_timeout: Duration,
    /// How long a client's connection is kept on which no request is begun.
    pub keepalive_timeout: Duration,
    /// How long an exchange is kept up in which nothing moves.
    pub stream_idle_timeout: Duration,
    /// How long one exchange may take altogether.
    pub exchange_timeout: Duration,
    /// How long what a client still sends after the last answer is read and dropped.
    pub linger_timeout: Duration,
    /// How long a connection to an origin may take to open.
    pub connect_timeout: Duration,
    /// How long an origin may take to ask for a body that the client holds back.
    pub expect_continue_timeout: Duration,
    /// How long the head of the answer to a paid request may take.
    pub answer_timeout: Duration,
    /// How long an unused connection to an origin is kept.
    pub pool_idle_timeout: Duration,
    /// How many unused connections to one origin are kept.
    pub pool_idle_per_host: usize,
    /// How many requests share a connection of HTTP/2 to an origin.
    pub origin_streams: usize,
    /// How long such a connection is silent before the origin is asked whether it is there.
    pub ping_every: Duration,
    /// How long the origin may take to answer that.
    pub ping_timeout: Duration,
    /// How much of a request's body is kept in memory to send it again, in bytes.
    pub replay_memory: u64,
    /// How much of a request's body is kept in a private file to send it again, in bytes.
    pub replay_file: u64,
    /// How much of the body of a 402 is held, in bytes.
    pub max_402_body: usize,
    /// How long the body of a 402 may take.
    pub offer_timeout: Duration,
    /// How many certificates for intercepted hosts are kept.
    pub certificate_cache: usize,
    /// How long exchanges that are under way may take to end when the proxy stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prices: 4096,
            price_age: secs(24 * 3600),
            report_payees: 1024,
            max_pending: 1024,
            connections: 4096,
            streams: 200,
            head_bytes: 256 << 10,
            head_fields: 100,
            head_timeout: secs(30),
            keepalive_timeout: secs(60),
            stream_idle_timeout: secs(3600),
            exchange_timeout: secs(24 * 3600),
            linger_timeout: secs(2),
            connect_timeout: secs(10),
            expect_continue_timeout: secs(1),
            answer_timeout: secs(300),
            pool_idle_timeout: secs(60),
            pool_idle_per_host: 128,
            origin_streams: 32,
            ping_every: secs(30),
            ping_timeout: secs(15),
            replay_memory: 1 << 20,
            replay_file: 100 << 20,
            max_402_body: 64 << 10,
            offer_timeout: secs(10),
            certificate_cache: 1024,
            drain_timeout: secs(10),
        }
    }
}

/// How often, and how long, one client request may go on: what of `[limits]` belongs to the policy.
pub(super) struct Bounds {
    /// See [`crate::protocol::policy::Policy::max_attempts`].
    pub max_attempts: u32,
    /// See [`crate::protocol::policy::Policy::sign_ahead`].
    pub sign_ahead: u64,
    /// See [`crate::protocol::policy::Policy::pay_timeout`].
    pub pay_timeout: Duration,
    /// See [`crate::protocol::policy::Policy::ready_timeout`].
    pub ready_timeout: Duration,
}

/// Reads `[limits]`.
pub(super) fn limits(section: &Section<'_>) -> (Limits, Bounds) {
    let default = Limits::default();
    let bounds = Bounds {
        max_attempts: section
            .bounded("max_attempts", 8, 1..=1000, values::small_integer, |rounds| rounds.to_string()),
        sign_ahead: section
            .bounded("sign_ahead", 256, 0..=1_000_000, values::integer, |number| number.to_string()),
        pay_timeout: duration(section, "pay_timeout", secs(300), 3600),
        ready_timeout: duration(section, "ready_timeout", secs(30), 3600),
    };
    let limits = Limits {
        prices: count(section, "prices", default.prices, 1_000_000),
        price_age: duration(section, "price_age", default.price_age, 366 * 24 * 3600),
        report_payees: count(section, "report_payees", default.report_payees, 1_000_000),
        max_pending: count(section, "max_pending", default.max_pending, 1_000_000),
        connections: count(section, "connections", default.connections, 1_000_000),
        streams: count(section, "streams", default.streams, 10_000),
        head_bytes: held(section, "head_bytes", default.head_bytes, 8 << 10, 1 << 20),
        head_fields: count(section, "head_fields", default.head_fields, 10_000),
        head_timeout: duration(section, "head_timeout", default.head_timeout, 3600),
        keepalive_timeout: duration(section, "keepalive_timeout", default.keepalive_timeout, 24 * 3600),
        stream_idle_timeout: duration(
            section,
            "stream_idle_timeout",
            default.stream_idle_timeout,
            7 * 24 * 3600,
        ),
        exchange_timeout: duration(section, "exchange_timeout", default.exchange_timeout, 366 * 24 * 3600),
        linger_timeout: duration(section, "linger_timeout", default.linger_timeout, 60),
        connect_timeout: duration(section, "connect_timeout", default.connect_timeout, 600),
        expect_continue_timeout: duration(
            section,
            "expect_continue_timeout",
            default.expect_continue_timeout,
            60,
        ),
        answer_timeout: duration(section, "answer_timeout", default.answer_timeout, 24 * 3600),
        pool_idle_timeout: duration(section, "pool_idle_timeout", default.pool_idle_timeout, 24 * 3600),
        pool_idle_per_host: count(section, "pool_idle_per_host", default.pool_idle_per_host, 100_000),
        origin_streams: count(section, "origin_streams", default.origin_streams, 1000),
        ping_every: duration(section, "ping_every", default.ping_every, 24 * 3600),
        ping_timeout: duration(section, "ping_timeout", default.ping_timeout, 3600),
        replay_memory: size(section, "replay_memory", default.replay_memory, 0, 1 << 30),
        replay_file: size(section, "replay_file", default.replay_file, 0, 1 << 40),
        max_402_body: held(section, "max_402_body", default.max_402_body, 1 << 10, 16 << 20),
        offer_timeout: duration(section, "offer_timeout", default.offer_timeout, 600),
        certificate_cache: count(section, "certificate_cache", default.certificate_cache, 100_000),
        drain_timeout: duration(section, "drain_timeout", default.drain_timeout, 3600),
    };
    (limits, bounds)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn duration(section: &Section<'_>, key: &str, default: Duration, most_seconds: u64) -> Duration {
    let range = Duration::from_millis(1)..=secs(most_seconds);
    section.bounded(key, default, range, values::duration, show_duration)
}

fn size(section: &Section<'_>, key: &str, default: u64, least: u64, most: u64) -> u64 {
    section.bounded(key, default, least..=most, values::size, show_size)
}

/// A size of something that is held in memory whole.
fn held(section: &Section<'_>, key: &str, default: usize, least: u32, most: u32) -> usize {
    let read =
        section.bounded(key, default as u64, u64::from(least)..=u64::from(most), values::size, show_size);
    // Bounded by a u32.
    read as usize
}

fn count(section: &Section<'_>, key: &str, default: usize, most: u32) -> usize {
    let read = section.bounded(
        key,
        u32::try_from(default).unwrap_or(most),
        1..=most,
        values::small_integer,
        |number| number.to_string(),
    );
    read as usize
}

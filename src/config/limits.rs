//! Reads `[limits]`: how much and how long, for everything that could otherwise grow or last.

use std::time::Duration;

use super::{
    section::Section,
    values::{self, show_duration, show_size},
};

/// The keys of `[limits]`. The first four belong to the policy.
pub(super) const LIMITS: &[&str] = &[
    "pay_within",
    "rounds",
    "reserve_ahead",
    "ready_within",
    "prices",
    "price_age",
    "payees",
    "waiting",
    "connections",
    "streams",
    "head_bytes",
    "head_fields",
    "head_within",
    "idle_within",
    "stalled_within",
    "exchange_within",
    "linger_within",
    "connect_within",
    "continue_within",
    "answer_within",
    "pool_idle_within",
    "pool_idle_per_host",
    "origin_streams",
    "ping_every",
    "ping_within",
    "replay_memory",
    "replay_file",
    "offer_body",
    "offer_within",
    "leaves",
    "drain_within",
];

/// `[limits]`: bounds on what the proxy holds and waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many prices are remembered.
    pub prices: usize,
    /// How long a price is remembered that was not seen again.
    pub price_age: Duration,
    /// How many payees the bill tells apart.
    pub payees: usize,
    /// How many demands may be queued at once.
    pub waiting: usize,
    /// How many client connections may be open at once.
    pub connections: usize,
    /// How many requests may be under way at once on one connection of HTTP/2.
    pub streams: usize,
    /// The largest head of a request or an answer, in bytes.
    pub head_bytes: usize,
    /// The largest number of fields in such a head.
    pub head_fields: usize,
    /// How long a client may take to send a request's head, counted from its first byte.
    pub head_within: Duration,
    /// How long a client's connection is kept on which no request is begun.
    pub idle_within: Duration,
    /// How long an exchange is kept up in which nothing moves.
    pub stalled_within: Duration,
    /// How long one exchange may take altogether.
    pub exchange_within: Duration,
    /// How long what a client still sends after the last answer is read and dropped.
    pub linger_within: Duration,
    /// How long a connection to an origin may take to open.
    pub connect_within: Duration,
    /// How long an origin may take to ask for a body that the client holds back.
    pub continue_within: Duration,
    /// How long the head of the answer to a paid request may take.
    pub answer_within: Duration,
    /// How long an unused connection to an origin is kept.
    pub pool_idle_within: Duration,
    /// How many unused connections to one origin are kept.
    pub pool_idle_per_host: usize,
    /// How many requests share a connection of HTTP/2 to an origin.
    pub origin_streams: usize,
    /// How long such a connection is silent before the origin is asked whether it is there.
    pub ping_every: Duration,
    /// How long the origin may take to answer that.
    pub ping_within: Duration,
    /// How much of a request's body is kept in memory to send it again, in bytes.
    pub replay_memory: u64,
    /// How much of a request's body is kept in a private file to send it again, in bytes.
    pub replay_file: u64,
    /// How much of the body of a 402 is held, in bytes.
    pub offer_body: usize,
    /// How long the body of a 402 may take.
    pub offer_within: Duration,
    /// How many certificates for intercepted hosts are kept.
    pub leaves: usize,
    /// How long exchanges that are under way may take to end when the proxy stops.
    pub drain_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prices: 4096,
            price_age: secs(24 * 3600),
            payees: 1024,
            waiting: 1024,
            connections: 4096,
            streams: 200,
            head_bytes: 256 << 10,
            head_fields: 100,
            head_within: secs(30),
            idle_within: secs(60),
            stalled_within: secs(3600),
            exchange_within: secs(24 * 3600),
            linger_within: secs(2),
            connect_within: secs(10),
            continue_within: secs(1),
            answer_within: secs(300),
            pool_idle_within: secs(60),
            pool_idle_per_host: 128,
            origin_streams: 32,
            ping_every: secs(30),
            ping_within: secs(15),
            replay_memory: 1 << 20,
            replay_file: 100 << 20,
            offer_body: 64 << 10,
            offer_within: secs(10),
            leaves: 1024,
            drain_within: secs(10),
        }
    }
}

/// How often, and how long, one client request may go on: what of `[limits]` belongs to the policy.
pub(super) struct Bounds {
    /// See [`crate::protocol::policy::Policy::rounds`].
    pub rounds: u32,
    /// See [`crate::protocol::policy::Policy::reserve_ahead`].
    pub reserve_ahead: u64,
    /// See [`crate::protocol::policy::Policy::pay_within`].
    pub pay_within: Duration,
    /// See [`crate::protocol::policy::Policy::ready_within`].
    pub ready_within: Duration,
}

/// Reads `[limits]`.
pub(super) fn limits(section: &Section<'_>) -> (Limits, Bounds) {
    let default = Limits::default();
    let bounds = Bounds {
        rounds: section.bounded("rounds", 8, 1..=1000, values::small_integer, |rounds| rounds.to_string()),
        reserve_ahead: section
            .bounded("reserve_ahead", 256, 0..=1_000_000, values::integer, |number| number.to_string()),
        pay_within: duration(section, "pay_within", secs(300), 3600),
        ready_within: duration(section, "ready_within", secs(30), 3600),
    };
    let limits = Limits {
        prices: count(section, "prices", default.prices, 1_000_000),
        price_age: duration(section, "price_age", default.price_age, 366 * 24 * 3600),
        payees: count(section, "payees", default.payees, 1_000_000),
        waiting: count(section, "waiting", default.waiting, 1_000_000),
        connections: count(section, "connections", default.connections, 1_000_000),
        streams: count(section, "streams", default.streams, 10_000),
        head_bytes: held(section, "head_bytes", default.head_bytes, 8 << 10, 1 << 20),
        head_fields: count(section, "head_fields", default.head_fields, 10_000),
        head_within: duration(section, "head_within", default.head_within, 3600),
        idle_within: duration(section, "idle_within", default.idle_within, 24 * 3600),
        stalled_within: duration(section, "stalled_within", default.stalled_within, 7 * 24 * 3600),
        exchange_within: duration(section, "exchange_within", default.exchange_within, 366 * 24 * 3600),
        linger_within: duration(section, "linger_within", default.linger_within, 60),
        connect_within: duration(section, "connect_within", default.connect_within, 600),
        continue_within: duration(section, "continue_within", default.continue_within, 60),
        answer_within: duration(section, "answer_within", default.answer_within, 24 * 3600),
        pool_idle_within: duration(section, "pool_idle_within", default.pool_idle_within, 24 * 3600),
        pool_idle_per_host: count(section, "pool_idle_per_host", default.pool_idle_per_host, 100_000),
        origin_streams: count(section, "origin_streams", default.origin_streams, 1000),
        ping_every: duration(section, "ping_every", default.ping_every, 24 * 3600),
        ping_within: duration(section, "ping_within", default.ping_within, 3600),
        replay_memory: size(section, "replay_memory", default.replay_memory, 0, 1 << 30),
        replay_file: size(section, "replay_file", default.replay_file, 0, 1 << 40),
        offer_body: held(section, "offer_body", default.offer_body, 1 << 10, 16 << 20),
        offer_within: duration(section, "offer_within", default.offer_within, 600),
        leaves: count(section, "leaves", default.leaves, 100_000),
        drain_within: duration(section, "drain_within", default.drain_within, 3600),
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

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
    /// Time for one client request from its first 402 to the head of the paid answer. The upload of its body counts:
    /// raise this and answer_timeout for large bodies over slow connections, or they are cut off after payment.
    pay_timeout: Duration = time(5 * MINUTE, MILLISECOND..=HOUR);
    /// Different payments that one client request may lead to. Hooks bound how often the same payment is repeated.
    max_attempts: u32 = count(8, 1..=1000);
    /// Remembered prices, by a hash of method and URL, so that the next request can carry its payment.
    prices: usize = count(4096, 1..=1_000_000);
    /// Time for which a price is remembered after it was last seen.
    price_age: Duration = time(DAY, MILLISECOND..=366 * DAY);
    /// Payees (host and receiver) that the bill of `tollpass run` lists; the rest is added up.
    report_payees: usize = count(1024, 1..=1_000_000);
    /// Further payments of the same price that may be signed before the next durable write to the store. After a
    /// crash that many count as promised until the seller's own records show otherwise.
    sign_ahead: u64 = count(256, 0..=1_000_000);
    /// Time for which a 402 that arrives during start-up waits for the key and the chain.
    ready_timeout: Duration = time(30 * SECOND, MILLISECOND..=HOUR);
    /// Requests that may wait for a payment, or hold one, at the same time.
    max_pending: usize = count(1024, 1..=1_000_000);
    /// Client connections, tunnels included, that may be open at the same time on each port; more wait in the
    /// system's backlog.
    connections: usize = count(4096, 1..=1_000_000);
    /// Concurrent requests on one HTTP/2 connection from a client; more wait.
    streams: usize = count(200, 1..=10_000);
    /// Size of the head of a request or an answer, first line included. More in a request is a 431; more in an answer is
    /// a 502, and if that answer was paid for, the same request is not paid for again.
    head_bytes: usize = bytes(256 * KIB, 8 * KIB..=MIB);
    /// Number of headers in a request or an answer, with the same consequences.
    head_fields: usize = count(100, 1..=10_000);
    /// Time for a client to send the head of a request, from its first byte.
    head_timeout: Duration = time(30 * SECOND, MILLISECOND..=HOUR);
    /// Time for which a client connection without a request is kept open.
    keepalive_timeout: Duration = time(MINUTE, MILLISECOND..=DAY);
    /// Time for which an exchange, tunnel or WebSocket is kept open while no byte moves to or from the client. Checked
    /// at intervals of this length, so up to twice as long may pass. Over HTTP/2 only exchange_timeout applies.
    stream_idle_timeout: Duration = time(HOUR, MILLISECOND..=7 * DAY);
    /// Total time for one exchange, however much data moves. Tunnels are exempt. Over HTTP/2 it starts once a
    /// connection has had no new request for keepalive_timeout.
    exchange_timeout: Duration = time(DAY, MILLISECOND..=366 * DAY);
    /// Time for which the proxy reads and drops what a client still sends after the last answer on its connection, so
    /// that the answer is not lost.
    linger_timeout: Duration = time(2 * SECOND, MILLISECOND..=MINUTE);
    /// Time to resolve an origin's name and connect to it.
    connect_timeout: Duration = time(10 * SECOND, MILLISECOND..=10 * MINUTE);
    /// Time for an origin to ask for the body of a request with `Expect: 100-continue` before the proxy asks the client
    /// for it anyway.
    expect_continue_timeout: Duration = time(SECOND, MILLISECOND..=MINUTE);
    /// Time for the head of the answer to a paid request.
    answer_timeout: Duration = time(5 * MINUTE, MILLISECOND..=DAY);
    /// Time for which an unused connection to an origin is kept.
    pool_idle_timeout: Duration = time(MINUTE, MILLISECOND..=DAY);
    /// Unused connections to one origin that are kept.
    pool_idle_per_host: usize = count(128, 1..=100_000);
    /// Requests that share one HTTP/2 connection to an origin, if the origin allows as many. Uploads share one only while
    /// together they are no larger than 48 KiB.
    origin_streams: usize = count(32, 1..=1000);
    /// Time for which an HTTP/2 connection to an origin that owes answers may be silent before the proxy sends a PING.
    ping_every: Duration = time(30 * SECOND, MILLISECOND..=DAY);
    /// Time for the origin to answer a PING; after that the requests on its connection fail.
    ping_timeout: Duration = time(15 * SECOND, MILLISECOND..=HOUR);
    /// Bytes of a request's body that are kept in memory, to send the request again with a payment.
    replay_memory: usize = bytes(MIB, 0..=GIB);
    /// Bytes of a request's body beyond replay_memory that are kept in a private temporary file. A larger request is
    /// forwarded, but not paid for.
    replay_file: u64 = bytes(100 * MIB, 0..=1 << 40);
    /// Size of the body of a 402. A 402 with a larger one is passed on, not paid.
    max_402_body: usize = bytes(64 * KIB, KIB..=16 * MIB);
    /// Time to read the body of a 402. A slower 402 is passed on, not paid.
    offer_timeout: Duration = time(10 * SECOND, MILLISECOND..=10 * MINUTE);
    /// Certificates for intercepted hosts that are kept in memory.
    certificate_cache: usize = count(1024, 1..=100_000);
    /// Time for open exchanges to finish when the proxy stops.
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

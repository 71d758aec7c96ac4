//! Policy: what the user allows. Rules say whom to pay and how much at most; hooks say what to do at each turn of a
//! purchase. Nothing is paid that no rule allows.

mod hooks;
mod hosts;
mod limit;

use std::sync::Arc;
use std::{fmt, str::FromStr, time::Duration};

use crate::hosts::host::{Host, NotAHost, canonical};
use crate::protocol::{Address, Amount, Money};
pub use hooks::{
    Abort, Adopt, CloseDenied, Complaint, Exit, Hook, Hooks, Init, Mark, Marks, Missing, OnError, OnResponse,
    Requested, Retry, Success, Webhook,
};
pub use hosts::Hosts;
pub use limit::SpendLimit;

/// All that the user allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The first rule that matches a request decides; no rule, no payment.
    pub rules: Vec<Rule>,
    /// How much to lock up.
    pub deposit: Deposit,
    /// What to do at each turn of a purchase, where no rule says otherwise.
    pub hooks: Arc<Hooks>,
    /// How many different payments one client request may lead to. Presenting the same one again is bounded
    /// by the hooks.
    pub max_attempts: u32,
    /// How many further payments of the same price may be signed before the next durable write.
    pub sign_ahead: u64,
    /// How long a 402 waits at start until the key is unlocked and the chain synced.
    pub ready_timeout: Duration,
    /// How long one client request may take from its first 402 to the paid answer's head.
    pub pay_timeout: Duration,
}

/// One `[[pay]]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which hosts it speaks of.
    pub host: HostPattern,
    /// Which port it speaks of; any when absent.
    pub port: Option<u16>,
    /// What it allows.
    pub allow: Allow,
}

/// What a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Pay nothing.
    Deny,
    /// Pay at most this.
    Pay {
        /// The highest price of one request. No other asset is paid.
        max_price: Money,
        /// Who may be paid; anyone when empty.
        receivers: Vec<Address>,
        /// True when a price that is known from before is paid in the first request.
        send_ahead: bool,
        /// Which requests of browsers are paid; when absent, what [`Browsers::usual`] says.
        browsers: Option<Browsers>,
        /// What to do at each turn of a purchase: the defaults, and what this rule puts in their place.
        hooks: Arc<Hooks>,
    },
}

/// Which requests of browsers a rule pays. None of them pays what a page of another site made a browser send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browsers {
    /// None.
    Never,
    /// Pages that the user opens, or that the same site leads to.
    Navigations,
    /// These, and what a page asks of its own origin.
    SameOrigin,
    /// Every request that bears no mark of another site.
    Any,
}

impl Browsers {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Never, Self::Navigations, Self::SameOrigin, Self::Any];

    /// What a rule says that does not say it. Over plain http browsers do not mark which site made a request.
    pub fn usual(is_plain: bool) -> Self {
        if is_plain { Self::Never } else { Self::Navigations }
    }

    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Navigations => "navigations",
            Self::SameOrigin => "same-origin",
            Self::Any => "any",
        }
    }
}

/// A host name or IP address, `*.example.com` for every name below example.com, or `*` for every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`
    Any,
    /// `*.example.com`: every name below it, not itself. Held in lower case with the leading dot.
    Below(String),
    /// Exactly this host, in lower case; an IPv6 address without brackets.
    Exactly(String),
}

/// Why a text is not a [`HostPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host pattern: use a host name, an IP address, *.example.com or *, without scheme, port or path"
)]
pub struct NotAHostPattern;

/// `[deposit]`: how much to lock up in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deposit {
    /// What a new channel holds.
    pub initial: DepositSize,
    /// What a channel that runs low can pay after it was topped up.
    pub top_up: DepositSize,
    /// How many channels to one receiver may be open at once: further ones are opened when requests queue.
    pub channels: u32,
    /// A channel never holds more than this, top ups included, in base units.
    pub max_per_channel: Amount,
    /// After a transaction failed, how long nothing more is tried for that receiver and host. It doubles with each failure
    /// in a row.
    pub retry_after: Duration,
    /// How often money is put into channels to one receiver for one host within `count_window`.
    pub max_count: u32,
    /// See `max_count`.
    pub count_window: Duration,
    /// What becomes of the channels when tollpass ends.
    pub on_exit: OnExit,
    /// After how long without a payment a channel beyond the first to a receiver is closed; never when absent.
    pub close_idle_after: Option<Duration>,
}

/// How much to put into a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositSize {
    /// This many times the price.
    Times(u64),
    /// This much, in base units, whatever the price.
    Units(Amount),
}

impl DepositSize {
    /// How much that is for a price.
    pub fn of(self, price: Amount) -> Amount {
        match self {
            Self::Times(factor) => price.saturating_mul(factor),
            Self::Units(amount) => amount,
        }
    }
}

/// What becomes of the channels when tollpass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum OnExit {
    /// They stay open.
    #[default]
    Never,
    /// They are closed together with their sellers.
    Cooperative,
}

impl Deposit {
    /// What applies if nothing is configured. The contract accepts at most 100 * 10^18 base units per channel.
    pub const DEFAULT: Self = Self {
        initial: DepositSize::Times(10),
        top_up: DepositSize::Times(5),
        channels: 1,
        max_per_channel: Amount::from_units(100 * 10_u128.pow(18)),
        retry_after: Duration::from_secs(30),
        max_count: 200,
        count_window: Duration::from_secs(3600),
        on_exit: OnExit::Never,
        close_idle_after: None,
    };
}

impl Default for Deposit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Policy {
    /// The first rule that speaks of `host` (without brackets, in any case) and `port`.
    pub fn rule(&self, host: &str, port: u16) -> Option<&Rule> {
        let speaks = |rule: &&Rule| rule.port.is_none_or(|only| only == port) && rule.host.matches(host);
        self.rules.iter().find(speaks)
    }
}

impl HostPattern {
    /// True when `host` (in any case and any spelling, a root dot ignored) is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Any => true,
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|&start| start > 0)
                .and_then(|start| host.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
            Self::Exactly(name) => {
                // An address has many spellings, a name has none.
                let may_be_address =
                    host.contains(':') || host.starts_with(|first: char| first.is_ascii_digit());
                host.eq_ignore_ascii_case(name) || (may_be_address && canonical(host) == *name)
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = NotAHostPattern;

    fn from_str(text: &str) -> Result<Self, NotAHostPattern> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
                && !text.starts_with('.')
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(below) = text.strip_prefix("*.") {
            // Below an address there is nothing.
            return if plain(below) && matches!(Host::read(below), Ok(Host::Name(_))) {
                Ok(Self::Below(format!(".{}", below.to_ascii_lowercase())))
            } else {
                Err(NotAHostPattern)
            };
        }
        match Host::read(text) {
            Ok(_) => Ok(Self::Exactly(canonical(text).into_owned())),
            Err(NotAHost) => Err(NotAHostPattern),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Exactly(host) => f.write_str(host),
        }
    }
}

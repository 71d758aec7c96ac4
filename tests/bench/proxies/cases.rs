//! What is measured, and with which proxies.

use clap::ValueEnum;

use crate::IDLE;
use crate::load::Way;
use crate::program::{Program, Setup};

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Line {
    /// Requests for http URLs
    Plain,
    /// TLS through CONNECT, kept open
    Tunnel,
    /// A new tunnel for each request
    NewTunnel,
    /// TLS that the proxy decrypts, kept open
    Intercepted,
    /// A new decrypted connection for each request
    NewIntercepted,
    /// The access log, on and off
    Log,
    /// Start-up, and memory with idle connections
    Memory,
    /// Small requests beside large downloads
    Skew,
    /// Up to 4,000 clients
    Growth,
    /// One worker or processor and two
    Workers,
}

/// How many clients download the large object while others ask for the small one.
pub const DOWNLOADS: usize = 2;
/// How many clients make new connections.
const FRESH: usize = 8;

impl Line {
    pub const ALL: [Self; 10] = [
        Self::Plain,
        Self::Tunnel,
        Self::NewTunnel,
        Self::Intercepted,
        Self::NewIntercepted,
        Self::Log,
        Self::Memory,
        Self::Skew,
        Self::Growth,
        Self::Workers,
    ];

    /// Each case, and the proxies that are compared in it.
    pub fn cases(self) -> Vec<(Case, Vec<Setup>)> {
        let [tollpass, per_core, shared, haproxy] =
            [Program::Tollpass, Program::PerCore, Program::Shared, Program::Haproxy].map(Program::plain);
        let intercepting = [tollpass, per_core, shared].map(|setup| Setup { intercepts: true, ..setup });
        let (clients, setups) = match self {
            Self::Plain => (vec![1, 16, 64], vec![tollpass, per_core, shared, haproxy]),
            Self::Tunnel => (vec![1, 16, 64], vec![tollpass, per_core, shared]),
            Self::NewTunnel => (vec![FRESH], vec![tollpass, per_core, shared]),
            Self::Intercepted => (vec![1, 16, 64], intercepting.to_vec()),
            Self::NewIntercepted => (vec![FRESH], intercepting.to_vec()),
            Self::Log => (vec![64], vec![tollpass, Setup { access_log: true, ..tollpass }]),
            Self::Memory => {
                let [intercepting, floor, _] = intercepting;
                (vec![IDLE], vec![tollpass, per_core, intercepting, floor])
            }
            Self::Skew => (vec![64 - DOWNLOADS], vec![tollpass, per_core, shared]),
            Self::Growth => (vec![1, 64, 1000, 4000], vec![tollpass, per_core]),
            Self::Workers => {
                let variants = |setup| {
                    let workers = [1, 2].map(|workers| Setup { workers: Some(workers), ..setup });
                    [setup, Setup { is_pinned: true, ..setup }, workers[0], workers[1]]
                };
                (vec![64], [variants(tollpass), variants(per_core)].concat())
            }
        };
        clients.into_iter().map(|clients| (Case { line: self, clients }, setups.clone())).collect()
    }
}

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub line: Line,
    pub clients: usize,
}

impl Case {
    pub fn way(self, setup: Setup) -> Way {
        match self.line {
            Line::Tunnel | Line::NewTunnel => Way::Secure,
            _ if setup.intercepts => Way::Secure,
            _ => Way::Plain,
        }
    }

    pub fn is_fresh(self) -> bool {
        matches!(self.line, Line::NewTunnel | Line::NewIntercepted)
    }

    pub fn name(self) -> String {
        let what = match self.line {
            Line::Plain | Line::Growth | Line::Log | Line::Workers => "plain",
            Line::Tunnel => "tunnel",
            Line::NewTunnel => "new tunnels",
            Line::Intercepted => "intercepted",
            Line::NewIntercepted => "new intercepted",
            Line::Memory => "idle connections",
            Line::Skew => "small beside 2 downloads",
        };
        match self.clients {
            1 => format!("{what}, 1 client"),
            clients => format!("{what}, {clients} clients"),
        }
    }
}

//! Every rule, limit and state of the user that stops a payment.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use tollpass::admin;
use tollpass::config::Config;
use tollpass::devnet::origin;
use tollpass::payments::journal;
use tollpass::protocol::ReasonCode as Code;
use tollpass::protocol::policy::LocalSpenders;

use super::{Proxy, Retry, entrances, is_problem, tables};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE};
use crate::support::payer::{Alice, PATIENCE, write_private};
use crate::support::ports::ReservedPort;
use crate::support::raw::RawOrigin;
use crate::support::secure::Notary;
use crate::support::ways::{Asked, Entrances, WAYS_IN, WayIn};

/// What the client is told here.
pub const TOLD: &[Code] = &[
    Code::NoRule,
    Code::DeniedByRule,
    Code::NoClientRule,
    Code::AboveMaxPrice,
    Code::AssetNotAllowed,
    Code::ReceiverNotAllowed,
    Code::OverBudget,
    Code::BudgetCannotCount,
    Code::OtherUser,
    Code::Browser,
    Code::AnotherSite,
    Code::Prefetch,
    Code::BoundConnection,
    Code::Frozen,
    Code::HostPaused,
    Code::DryRun,
    Code::NotWanted,
    Code::AnswerWithheld,
    Code::ApproverRefused,
    Code::ApprovalTimedOut,
    Code::ApprovalDenied,
    Code::TooManyApprovals,
    Code::NoWallet,
    Code::NoChain,
    Code::NotReady,
    Code::Busy,
    Code::JournalUnwritable,
    Code::ChannelLimit,
    Code::DepositLimit,
    Code::TooManyDeposits,
    Code::FundingFailed,
    Code::NotReplayable,
    Code::OtherProtocol,
];

const RULE: &str = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n";
/// A user that has no files and runs nothing.
const OTHER: u32 = 54_321;
const TOKEN: &str = "a-token-of-the-laptop";

/// What happens before the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// The client asks for this once, and the seller takes a payment for it.
    Paid(&'static str),
    Frozen,
    /// The client is paid for once, and then no payment can be recorded.
    JournalBroken,
    /// Another request waits for the operator.
    WaitingForOperator,
    /// Another request waits for a webhook that does not reply.
    WaitingForWebhook,
    /// The node is down, so the proxy does not become ready.
    NodeDown,
}

/// A configuration, and what clients are told under it.
struct Case {
    reason: Code,
    /// Everything after `[chain]`, without the tables that all have.
    rest: String,
    before: Before,
    asked: Asked,
    /// What a WebSocket is told, as these are never paid.
    socket: Code,
    retry: Retry,
    /// Changes the file of the configuration.
    edit: fn(&mut Alice),
    change: fn(&mut Config),
    is_dry_run: bool,
}

fn case(reason: Code, rest: impl Into<String>) -> Case {
    Case {
        reason,
        rest: rest.into(),
        before: Before::Nothing,
        asked: Asked::default(),
        socket: Code::OtherProtocol,
        retry: None,
        edit: |_| {},
        change: |_| {},
        is_dry_run: false,
    }
}

impl Case {
    /// With this header in the requests.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.asked.headers.push((name, value.to_owned()));
        self
    }

    fn after(self, before: Before) -> Self {
        Self { before, ..self }
    }

    fn retry(self, least: u64, most: u64) -> Self {
        Self { retry: Some((least, most)), ..self }
    }

    /// No rule pays it, so that a WebSocket is told the same as all others.
    fn also_sockets(self) -> Self {
        Self { socket: self.reason, ..self }
    }

    async fn run(self, number: u8, fair: &Fair, seller: &Entrances, silent: &RawOrigin) {
        let (reason, row) = (self.reason, format!("{}: {}", self.reason, self.rest));
        let client = if reason == Code::NoClientRule { "client = \"laptop\"\n" } else { "" };
        let rest = format!("{}{}", self.rest, tables(seller, client, ""));
        let (url, manager, token) = (fair.market.chain.url(), fair.market.manager, fair.market.token);
        // Each case has a key of its own, as channels of an earlier one would be found on the chain.
        let mut alice = Alice::with_key(&[number; 32], &url, manager, token, &rest).await;
        write_private(&alice.directory.path().join("laptop"), TOKEN);
        (self.edit)(&mut alice);
        let proxy = Proxy::start(&alice, seller.clone(), self.change, self.is_dry_run).await;
        let mut asked = self.asked;
        if !client.is_empty() {
            asked.credentials = vec![super::basic("laptop", TOKEN)];
            asked.route_token = format!("/{TOKEN}");
        }
        let socket = admin::socket(&alice.state_dir());
        let (mut outstanding, mut asked_webhook) = (None, None);
        match self.before {
            Before::Nothing | Before::NodeDown => {}
            Before::Paid(path) => {
                let got = proxy.entrances.ask(WayIn::Plain, &Asked { path, ..Asked::default() }).await;
                assert!(got.status != 402, "{row}: {got:?}");
            }
            Before::JournalBroken => {
                let got = proxy.entrances.ask(WayIn::Plain, &Asked::default()).await;
                assert_eq!(got.status, 200, "{row}: {got:?}");
                let other = rusqlite::Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
                other.execute_batch("DROP TABLE channel").unwrap();
            }
            Before::Frozen => {
                admin::freeze(&socket, true).await.unwrap().unwrap();
            }
            Before::WaitingForOperator | Before::WaitingForWebhook => {
                let entrances = proxy.entrances.clone();
                let waits = async move { entrances.ask(WayIn::Plain, &Asked::default()).await };
                outstanding = Some(tokio::spawn(waits));
                if self.before == Before::WaitingForOperator {
                    await_pending(&socket).await;
                } else {
                    asked_webhook = Some(silent.accept().await);
                }
            }
        }
        // A total that could not be recorded counts as promised, and is not signed.
        let promised =
            async || if reason == Code::JournalUnwritable { 0.into() } else { proxy.promised().await };
        let before = (fair.origin.total_registered(), fair.market.openings().await, promised().await);
        for way in WAYS_IN {
            let is_route = way == WayIn::Route;
            if is_route && reason == Code::AnotherSite {
                // A route does not even forward it.
                let got = proxy.entrances.ask(way, &asked).await;
                is_problem(&got, 403, "http_request_denied", reason, &row);
                continue;
            }
            let expected = if way == WayIn::WebSocket { self.socket } else { reason };
            let retry = if expected == reason { self.retry } else { None };
            proxy.refuses(way, &asked, expected, retry).await;
        }
        let after = (fair.origin.total_registered(), fair.market.openings().await, promised().await);
        assert_eq!(after, before, "{row}");
        if let Some(outstanding) = outstanding {
            outstanding.abort();
        }
        drop(asked_webhook);
        proxy.stop().await;
    }
}

/// Waits until a payment waits for the operator; returns its ID.
async fn await_pending(socket: &Path) -> u64 {
    let waiting = async {
        loop {
            if let [pending] = admin::pending(socket).await.unwrap().expect("it runs").as_slice() {
                return pending.id;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("nothing is pending")
}

/// A hook that asks before each payment.
fn ask(webhook: &str) -> String {
    format!("{RULE}[hooks]\npayment_requested = {{ action = \"ask\"{webhook} }}\n")
}

fn webhook(url: &str) -> String {
    format!(", webhook = \"{url}/\"")
}

fn cases(silent: &RawOrigin, closed: &ReservedPort) -> Vec<Case> {
    let with = |more: &str| format!("{RULE}{QUICK}{more}");
    let budget = |more: &str| with(&format!("[[budget]]\nname = \"b\"\nwallet = true\n{more}\n"));
    let silent = webhook(&format!("http://{}", silent.address));
    let paid = Before::Paid("/paid");
    vec![
        // What the rules say.
        case(Code::NoRule, "").also_sockets(),
        case(Code::NoRule, "[[pay]]\nhost = \"127.0.0.1\"\nport = 1\nmax_price = 10000\n").also_sockets(),
        case(Code::DeniedByRule, "[[pay]]\nhost = \"127.0.0.1\"\ndeny = true\n").also_sockets(),
        case(Code::NoClientRule, with("[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\npay = []\n"))
            .also_sockets(),
        case(Code::AboveMaxPrice, "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 999\n"),
        case(Code::AssetNotAllowed, "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = \"0.05 USDC\"\n"),
        case(
            Code::ReceiverNotAllowed,
            "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n\
             receivers = [\"0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd\"]\n",
        ),
        // Budgets.
        case(Code::OverBudget, budget("per_hour = 1500")).after(paid).retry(3590, 3660),
        case(Code::OverBudget, budget("total = 999")),
        case(Code::OverBudget, budget("payments = 1")).after(paid),
        case(Code::BudgetCannotCount, budget("per_day = \"$5\"")),
        // Who asks.
        Case {
            change: |config| config.local = LocalSpenders::User(OTHER),
            ..case(Code::OtherUser, with(""))
        },
        case(Code::Browser, with("")).with("user-agent", "Mozilla/5.0 Firefox/140.0"),
        case(Code::AnotherSite, with("")).with("origin", "https://evil.example"),
        case(Code::Prefetch, with("")).with("sec-purpose", "prefetch"),
        case(Code::BoundConnection, with("")).with("authorization", "NTLM TlRMTVNTUAAB"),
        // What the user has stopped.
        case(Code::Frozen, with("")).after(Before::Frozen),
        case(Code::HostPaused, with("[limits]\nundelivered_payments = 1\n"))
            .after(Before::Paid("/status/500")),
        Case { is_dry_run: true, ..case(Code::DryRun, with("")) },
        case(Code::NotWanted, format!("{RULE}[hooks]\npayment_requested = {{ action = \"abort\" }}\n")),
        case(
            Code::AnswerWithheld,
            format!("{RULE}[hooks]\nhttp_response = {{ action = \"abort\", header = [\"RDN-Price\"] }}\n"),
        ),
        // Who is asked.
        case(Code::ApproverRefused, ask(&webhook(&closed.url()))),
        case(Code::ApprovalTimedOut, ask("") + "[limits]\napproval_timeout = \"20ms\"\n"),
        case(Code::TooManyApprovals, ask("") + "[limits]\nmax_approvals = 1\n")
            .after(Before::WaitingForOperator)
            .retry(1, 60),
        // What is missing.
        Case {
            edit: |alice| {
                remove_chain(alice);
                alice.change("[wallet]\nkey_file = \"key\"\n", "");
            },
            ..case(Code::NoWallet, with(""))
        },
        Case { edit: remove_chain, ..case(Code::NoChain, with("")) },
        Case {
            edit: |alice| alice.change("rpc_url = \"http://127.0.0.1:", "rpc_url = \"http://127.0.0.1:1/"),
            ..case(Code::NotReady, with("[limits]\nready_timeout = \"50ms\"\n"))
        }
        .after(Before::NodeDown)
        .retry(1, 60),
        case(Code::Busy, ask(&silent) + "[limits]\nmax_pending = 1\n")
            .after(Before::WaitingForWebhook)
            .retry(1, 60),
        case(Code::JournalUnwritable, with("[limits]\nsign_ahead = 0\n")).after(Before::JournalBroken),
        // Deposits.
        case(Code::ChannelLimit, with("[deposit]\nmax_per_channel = 999\n")),
        case(Code::DepositLimit, with("[deposit]\nmax_total = 999\n")),
        case(
            Code::TooManyDeposits,
            with("[deposit]\ninitial = 1\ntop_up = 1\nmax_count = 1\ncount_window = \"1h\"\n"),
        )
        .after(paid)
        .retry(3500, 3600),
        Case { edit: with_another_key, ..case(Code::FundingFailed, with("")) }.retry(1, 31),
        // The request itself.
        Case {
            asked: Asked {
                method: Method::POST,
                path: "/paid/echo",
                body: vec![b'x'; 65_537].into(),
                ..Asked::default()
            },
            // With the price known from the request before, the next one would be paid at once.
            ..case(
                Code::NotReplayable,
                format!(
                    "{RULE}send_ahead = false\n[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"60KiB\"\n"
                ),
            )
        },
    ]
}

fn remove_chain(alice: &mut Alice) {
    let text = std::fs::read_to_string(alice.config_path()).unwrap();
    let (begin, end) = (text.find("[chain]").unwrap(), text.find("[[pay]]").unwrap());
    alice.change(&text[begin..end], "");
}

/// A key without money.
fn with_another_key(alice: &mut Alice) {
    write_private(&alice.directory.path().join("poor"), &"e7".repeat(32));
    alice.change("key_file = \"key\"", "key_file = \"poor\"");
}

#[tokio::test]
async fn each_refusal_is_told_in_all_six_ways_and_nothing_is_paid() {
    let notary = Notary::new();
    let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let seller = entrances(&fair.origin.url(), &fair.origin.secure_url().unwrap(), notary.ca_file());
    let (silent, closed) = (RawOrigin::start().await, ReservedPort::new());
    let mut told = BTreeSet::from([Code::OtherProtocol, Code::ApprovalDenied]);
    for (number, case) in (100..).zip(cases(&silent, &closed)) {
        told.insert(case.reason);
        case.run(number, &fair, &seller, &silent).await;
    }
    assert_eq!(told, TOLD.iter().copied().collect());
    assert_eq!(fair.origin.total_registered(), (5 * PRICE).into());

    // The operator denies each request.
    let alice = Alice::ruled(&fair.market, &(ask("") + &tables(&seller, "", ""))).await;
    let socket = admin::socket(&alice.state_dir());
    let proxy = Proxy::start(&alice, seller, |_| {}, false).await;
    for way in [WayIn::Plain, WayIn::Http1, WayIn::Http2, WayIn::Route] {
        let denies = async {
            let id = await_pending(&socket).await;
            admin::decide(&socket, id, false, None).await.unwrap().unwrap();
        };
        let asked = Asked::default();
        tokio::join!(proxy.refuses(way, &asked, Code::ApprovalDenied, None), denies);
    }
    assert_eq!((proxy.promised().await, fair.origin.total_registered()), (0.into(), (5 * PRICE).into()));
    proxy.stop().await;
}

//! What the dashboard shows of the moment.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::app::amounts::{number_and_unit, shown_amount};
use crate::app::funds::{HeldToken, WITHIN, WatchedTokens};
use crate::mutex::lock;
use crate::payments::{BudgetView, Payments, Spending};
use crate::protocol::policy::{KnownAsset, shown_price};
use crate::protocol::{Amount, AssetId, Money, decimal};
use crate::proxy::frontend::Readiness;
use crate::proxy::pay::refused::{REFUSED_REQUESTS, RefusedRequest};

/// How long balances are shown before the nodes are asked again.
const BALANCES_FOR: Duration = Duration::from_secs(30);

/// How many entries each list has, at most: the command line lists all.
const MOST: usize = 100;

/// Takes snapshots; cheap to clone.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub(super) payments: Payments,
    pub(super) readiness: Readiness,
    pub(super) balances: WalletBalances,
}

/// What the wallet holds, as the nodes last said. They are asked while someone looks, and no one waits for them.
#[derive(Clone)]
pub(super) struct WalletBalances(Arc<BalanceState>);

struct BalanceState {
    payments: Payments,
    tokens: WatchedTokens,
    runtime: Handle,
    known: Mutex<KnownBalances>,
}

#[derive(Default)]
struct KnownBalances {
    /// When the nodes were last asked.
    asked: Option<Instant>,
    shown: Value,
}

impl Snapshots {
    /// Everything as of now.
    pub(super) fn take(&self) -> Value {
        let Self { payments, readiness, balances } = self;
        let assets = payments.approvals().assets();
        let report = payments.report();
        let obstacles = readiness.known();
        let obstacles = obstacles.iter().map(|one| json!({ "name": one.name(), "details": one.details() }));
        let of_channels = (AssetId::ChannelToken, report.total());
        let others = report.other_assets.iter();
        let others = others.map(|other| (AssetId::token(&other.network, &other.token), other.total()));
        let spent: Vec<_> = std::iter::once(of_channels)
            .chain(others)
            .filter(|(_, spent)| *spent != Spending::default())
            .map(|(asset, spent)| self.spent(asset, &spent, &assets))
            .collect();
        let holds = payments.holds().into_iter().take(MOST).map(|hold| {
            let asset = match (&hold.network, &hold.token) {
                (Some(network), Some(token)) => AssetId::token(network, token),
                _ => AssetId::ChannelToken,
            };
            let shown = shown_price(&Money { amount: hold.amount, asset }, &assets);
            json!({ "reason": hold.reason.name(), "shown": shown, "host": hold.host, "until": hold.until })
        });
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "since": report.since,
            "payer": payments.payer(),
            "is_frozen": payments.is_frozen(),
            "obstacles": obstacles.collect::<Vec<_>>(),
            "balances": balances.shown(),
            "spent": spent,
            "budgets": payments.budgets().iter().take(MOST).map(budget).collect::<Vec<_>>(),
            "holds": holds.collect::<Vec<_>>(),
            "pending": first(payments.approvals().list()),
            "approvals": first(payments.approvals().standing()),
            "paused": payments.paused_hosts().iter().take(MOST).map(|paused| {
                json!({ "host": paused.host, "since": paused.since, "reason": paused.reason.to_string() })
            }).collect::<Vec<_>>(),
            "unsupported": first(payments.unsupported()),
            "refused": REFUSED_REQUESTS.count(),
        })
    }

    /// What was paid in one asset since the start.
    fn spent(&self, asset: AssetId, spent: &Spending, assets: &[KnownAsset]) -> Value {
        let asset = self.payments.known_asset(&asset);
        let show = |amount: Amount| match &asset {
            AssetId::Token(token) => shown_amount(amount.into(), &token.network, &token.token, assets),
            AssetId::ChannelToken => format!("{amount} units"),
        };
        json!({
            "asset": asset.to_string(),
            "shown": show(spent.paid.amount),
            "payments": spent.paid.requests,
            "unclear": show(spent.unclear.amount),
            "unclear_payments": spent.unclear.requests,
        })
    }
}

/// As many as are shown.
fn first<T>(mut list: Vec<T>) -> Vec<T> {
    list.truncate(MOST);
    list
}

/// What of a snapshot changes only if something happens: not how long something has waited.
pub(super) fn lasting(mut snapshot: Value) -> Value {
    let each = |list: &mut Value, change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        for item in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            change(item);
        }
    };
    each(&mut snapshot["pending"], &|pending| {
        pending.remove("age");
        pending.remove("left");
    });
    each(&mut snapshot["budgets"], &|budget| {
        for window in budget.get_mut("windows").and_then(Value::as_array_mut).into_iter().flatten() {
            window["free_in_s"] = Value::Null;
        }
    });
    snapshot
}

/// A budget, and which part of each limit is used.
fn budget(view: &BudgetView) -> Value {
    let part = |used: &str, limit: &str| {
        let (used, limit) = (number_and_unit(used)?.0, number_and_unit(limit)?.0);
        Some(if limit > 0.0 { (used / limit).clamp(0.0, 1.0) } else { 1.0 })
    };
    let windows = view.windows.iter().map(|window| {
        json!({
            "key": window.key,
            "limit": window.limit,
            "spent": window.spent,
            "held": window.held,
            "left": window.left,
            "used": part(&window.spent, &window.limit),
            "free_in_s": window.free_in_s,
        })
    });
    let payments = view.max_payments.map(|most| {
        let used = if most > 0 { (view.payments as f64 / most as f64).min(1.0) } else { 1.0 };
        json!({ "made": view.payments, "most": most, "used": used })
    });
    json!({ "name": view.name, "host": view.host, "windows": windows.collect::<Vec<_>>(), "payments": payments })
}

/// The latest requests that were not paid, the newest first.
pub(super) fn refused() -> Value {
    let latest = REFUSED_REQUESTS.latest().into_iter().map(|refused| {
        let RefusedRequest { number, at, method, url, host, reason, details } = refused;
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        json!({ "number": number, "at": at, "method": method, "url": url, "host": host, "reason": reason, "details": details })
    });
    json!({ "count": REFUSED_REQUESTS.count(), "latest": latest.collect::<Vec<_>>() })
}

impl WalletBalances {
    /// Asks nodes on this runtime, the main thread's.
    pub(super) fn new(payments: Payments, tokens: WatchedTokens, runtime: Handle) -> Self {
        Self(Arc::new(BalanceState { payments, tokens, runtime, known: Mutex::default() }))
    }

    /// What is known. If that is too old, asks for the next time.
    fn shown(&self) -> Value {
        let mut known = lock(&self.0.known);
        let is_old = known.asked.is_none_or(|asked| asked.elapsed() >= BALANCES_FOR);
        if is_old && self.0.payments.payer().is_some() {
            known.asked = Some(Instant::now());
            let state = Arc::clone(&self.0);
            self.0.runtime.spawn(async move {
                let shown = state.read().await;
                lock(&state.known).shown = shown;
            });
        }
        known.shown.clone()
    }
}

impl BalanceState {
    async fn read(&self) -> Value {
        let Some(payer) = self.payments.payer() else { return Value::Null };
        let mut shown = Vec::new();
        match timeout(WITHIN, self.tokens.read(payer)).await {
            Ok(tokens) => shown.extend(tokens.into_iter().map(of_token)),
            Err(_) => shown.push(json!({ "error": format!("a node has not responded within {WITHIN:?}") })),
        }
        if let Ok(context) = self.payments.chain_context().await {
            match timeout(WITHIN, context.chain.balances()).await {
                Ok(Ok(balances)) => {
                    let network = format!("eip155:{}", context.account.chain_id);
                    let decimals = u32::from(balances.decimals.unwrap_or_default());
                    let symbol = balances.symbol.as_deref().unwrap_or("units of the channel token");
                    let tokens = decimal::show(balances.tokens.into(), decimals);
                    let text = format!("{tokens} {symbol}");
                    shown.push(json!({ "shown": text, "network": network, "for": "channels" }));
                    let coins = decimal::show(balances.wei, 18);
                    shown.push(
                        json!({ "shown": coins, "network": network, "for": "fees, in the chain's own coin" }),
                    );
                }
                Ok(Err(error)) => shown.push(json!({ "error": error.to_string() })),
                Err(_) => shown.push(json!({ "error": "the node of [chain] has not responded" })),
            }
        }
        shown.into()
    }
}

fn of_token(HeldToken { asset, amount }: HeldToken) -> Value {
    match amount {
        Ok(amount) => json!({ "shown": asset.show(amount), "network": asset.network, "for": "payments" }),
        Err(error) => json!({ "error": error, "network": asset.network }),
    }
}

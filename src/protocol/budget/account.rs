//! What each budget has spent and holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::amount::BudgetAmount;
use super::coverage::{Coverage, Covered};
use super::definition::{Budget, BudgetUnit};
use super::hold::{CoveredBy, Hold};
use super::over::OverBudget;
use super::set::{BudgetKey, BudgetRef, BudgetRow};
use super::window::{WINDOWS, Window, WindowSum};
use crate::protocol::policy::Webhook;
use crate::protocol::{Amount, AssetId, Money};

/// Identifies a budget within a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetIndex(usize);

/// All budgets with their sums.
#[derive(Debug, Default)]
pub struct Budgets {
    accounts: Vec<BudgetAccount>,
    indices: BTreeMap<BudgetKey, BudgetIndex>,
    /// Places of forgotten budgets, for new ones.
    free: Vec<BudgetIndex>,
    /// Minutes since 1970; it never goes back.
    now: u64,
    /// The channel contract's token, once it is known.
    channel_token: Option<AssetId>,
    /// Rows that the journal may not have, because a write has failed.
    unwritten: BTreeSet<RowId>,
    /// What the user has not been told yet.
    notices: Vec<BudgetNotice>,
}

/// A budget of which much is spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetNotice {
    /// Its name.
    pub name: Arc<str>,
    /// The host, if every host has one of its own.
    pub host: Option<Arc<str>>,
    /// The key of the limit.
    pub key: &'static str,
    /// The limit.
    pub limit: String,
    /// How much of it is spent at least, in percent.
    pub percent: u64,
    /// Who else is told.
    pub webhook: Option<Webhook>,
}

/// Notice thresholds in percent, highest first.
const THRESHOLDS: [u64; 2] = [100, 80];

/// The highest threshold that a sum has passed.
fn passed(sum: &WindowSum, limit: BudgetAmount) -> Option<u64> {
    THRESHOLDS.into_iter().find(|percent| sum.sum().is_at_least(*percent, limit))
}

/// One budget with its sums.
#[derive(Debug)]
struct BudgetAccount {
    key: BudgetKey,
    /// What it limits; `None` if no policy of this run has had it.
    budget: Option<Arc<Budget>>,
    /// Whether the policy still has it: otherwise it limits nothing, and keeps its sums.
    applies: bool,
    /// The cost of one base unit of the channel contract's token, if it is known and counts.
    each: Option<BudgetAmount>,
    sums: [WindowSum; WINDOWS],
    payments: u64,
    /// The part of `payments` that the journal knows.
    recorded_payments: u64,
    /// What may be signed on channels without another record.
    held: HeldAmounts,
    /// The highest threshold that the user was told of in each window, and when, in minutes.
    told: [(u64, u64); WINDOWS],
}

/// What may be signed on a channel without another record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::protocol) struct HeldAmounts {
    /// Whatever happens to pending writes.
    pub most: BudgetAmount,
    /// Once all pending writes have succeeded.
    pub ahead: BudgetAmount,
}

/// The row of one bucket.
pub(in crate::protocol) type RowId = (BudgetIndex, Window, u64);

/// A change of a budget's sums that the journal does not know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::protocol) struct Change {
    pub plus: BudgetAmount,
    pub minus: BudgetAmount,
    pub payments: u64,
    pub payments_undone: u64,
}

/// A payment that a budget is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::protocol) struct Need {
    /// What it adds to each window, in the order of [`Window::ALL`].
    pub costs: [BudgetAmount; WINDOWS],
    /// Whether it is one more payment.
    pub is_payment: bool,
    /// What it takes from the hold of its channel.
    pub released: HeldAmounts,
}

/// How a budget falls short of a payment.
#[derive(Clone, Copy, Debug)]
pub(in crate::protocol) struct Shortage {
    pub index: BudgetIndex,
    /// `None`: the number of payments.
    pub window: Option<Window>,
    /// By how much.
    pub by: BudgetAmount,
}

/// What a budget has spent, for the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// Its name.
    pub name: String,
    /// The host, if every host has one of its own.
    pub host: Option<String>,
    /// Its limits on amounts.
    pub windows: Vec<WindowView>,
    /// The number of payments, ever.
    pub payments: u64,
    /// Its limit.
    pub max_payments: Option<u64>,
}

/// What a budget has spent within a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// The key of the limit.
    pub key: String,
    /// The limit.
    pub limit: String,
    /// What was spent: signed, or possibly signed before a crash.
    pub spent: String,
    /// What channels may still sign without another record.
    pub held: String,
    /// What is left.
    pub left: String,
    /// The seconds until all of it is free, if nothing else is spent; `None` if nothing was spent, or never.
    pub free_in_s: Option<u64>,
}

impl HeldAmounts {
    fn plus(self, more: Self) -> Self {
        Self { most: self.most.plus(more.most), ahead: self.ahead.plus(more.ahead) }
    }

    fn minus(self, less: Self) -> Self {
        Self { most: self.most.minus(less.most), ahead: self.ahead.minus(less.ahead) }
    }
}

impl BudgetAccount {
    fn new(key: BudgetKey) -> Self {
        let sums = Window::ALL.map(WindowSum::new);
        let (budget, each, held) = (None, None, HeldAmounts::default());
        let told = [(0, 0); WINDOWS];
        Self { key, budget, applies: false, each, sums, payments: 0, recorded_payments: 0, held, told }
    }

    /// What limits it now.
    fn limit(&self) -> Option<&Arc<Budget>> {
        self.budget.as_ref().filter(|_| self.applies)
    }

    /// Applies this definition from now on.
    fn define(&mut self, budget: &Arc<Budget>, now: u64) {
        let before = self.budget.replace(Arc::clone(budget));
        for sum in &mut self.sums {
            sum.set_calendar(&budget.calendar, now);
        }
        for window in Window::ALL {
            let (limit, sum) = (budget.limits.within(window), &self.sums[window as usize]);
            let told = &mut self.told[window as usize];
            match &before {
                Some(before) if before.limits.within(window) == limit => {}
                Some(_) => *told = (0, 0),
                // An earlier process has already reported what it spent.
                None => {
                    *told = limit
                        .and_then(|limit| Some((passed(sum, limit)?, sum.newest()?)))
                        .unwrap_or_default();
                }
            }
        }
    }

    /// Whether it is one of this budget, of all hosts or of a single one.
    fn is_of(&self, budget: &Budget) -> bool {
        let BudgetKey { name, unit, host } = &self.key;
        (name, unit, host.is_some()) == (&budget.name, &budget.tag, budget.scope.each)
    }

    fn show(&self, cost: BudgetAmount) -> String {
        self.budget.as_ref().map_or_else(|| cost.to_string(), |budget| budget.unit.show(cost))
    }

    /// The thresholds that were passed since the user was told of one.
    fn told_of(&mut self, budget: &Budget, now: u64) -> Vec<BudgetNotice> {
        let mut notices = Vec::new();
        for window in Window::ALL {
            let Some(limit) = budget.limits.within(window) else { continue };
            let passed = passed(&self.sums[window as usize], limit);
            let (told, at) = &mut self.told[window as usize];
            if !self.sums[window as usize].has(*at, now) {
                *told = 0;
            }
            if let Some(percent) = passed.filter(|percent| percent > told) {
                (*told, *at) = (percent, now);
                let (name, host) = (Arc::clone(&self.key.name), self.key.host.clone());
                let limit = budget.unit.show(limit);
                let webhook = budget.webhook.clone();
                notices.push(BudgetNotice { name, host, key: window.key(), limit, percent, webhook });
            }
        }
        notices
    }

    fn row(&self, window: Window, start: u64) -> BudgetRow {
        let payments = if window == Window::Total { self.recorded_payments } else { 0 };
        let spent = self.sums[window as usize].recorded(start);
        BudgetRow { key: self.key.clone(), window, start, spent, payments }
    }
}

impl Budgets {
    /// The budgets as the journal has them. After a crash, everything that its holds allow counts as spent now. Returns
    /// the changed rows; these and the changed holds must be recorded before anything is signed. Budgets of runs are over;
    /// what they held still counts in all others.
    pub fn restore(mut rows: Vec<BudgetRow>, holds: &mut [Hold], now: u64) -> (Self, Vec<BudgetRow>) {
        rows.retain(|row| !row.key.is_of_run());
        holds.iter_mut().for_each(Hold::forget_runs);
        let newest = rows.iter().filter(|row| row.window == Window::Hour).map(|row| row.start).max();
        let mut budgets = Self { now: now.max(newest.unwrap_or_default()), ..Self::default() };
        for BudgetRow { key, window, start, spent, payments } in rows {
            let index = budgets.index_of(key);
            let account = &mut budgets.accounts[index.0];
            account.sums[window as usize].restore(start, spent);
            if window == Window::Total {
                (account.payments, account.recorded_payments) = (payments, payments);
            }
        }
        budgets.advance();
        let mut changes = Vec::new();
        for hold in holds.iter_mut().filter(|hold| hold.upto > hold.above) {
            for (key, each) in &hold.budgets {
                let index = budgets.index_of(key.clone());
                let found = hold.covered.iter().position(|by| by.budget == *key && by.each == *each);
                let place = found.unwrap_or_else(|| {
                    let coverage = Coverage::default();
                    hold.covered.push(CoveredBy { budget: key.clone(), each: *each, coverage });
                    hold.covered.len() - 1
                });
                let coverage = &mut hold.covered[place].coverage;
                changes.extend(budgets.cover(index, *each, coverage, (hold.above, hold.upto)).1);
            }
            hold.above = hold.upto;
        }
        let rows = budgets.record(&changes).into_iter().map(|id| budgets.row(id)).collect();
        (budgets, rows)
    }

    /// Notes that the journal does not have these rows.
    pub fn not_recorded(&mut self, rows: &[BudgetRow]) {
        for row in rows {
            let index = self.index_of(row.key.clone());
            self.unwritten.insert((index, row.window, row.start));
        }
    }

    /// Whether no budget has ever applied.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The time, in minutes since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sets the time; an earlier one has no effect.
    pub fn set_time(&mut self, minute: u64) {
        if minute > self.now {
            self.now = minute;
            self.advance();
        }
    }

    fn advance(&mut self) {
        for sum in self.accounts.iter_mut().flat_map(|account| &mut account.sums) {
            sum.advance(self.now);
        }
    }

    /// Sets the channel contract's token.
    pub(in crate::protocol) fn set_channel_token(&mut self, token: AssetId) {
        self.channel_token = Some(token);
        for index in (0..self.accounts.len()).map(BudgetIndex) {
            self.set_each(index);
        }
    }

    /// Whether the channel contract's token is known.
    pub(in crate::protocol) fn knows_channel_token(&self) -> bool {
        self.channel_token.is_some()
    }

    /// The index of the budget with this key.
    pub(in crate::protocol) fn index_of(&mut self, key: BudgetKey) -> BudgetIndex {
        *self.indices.entry(key).or_insert_with_key(|key| {
            let account = BudgetAccount::new(key.clone());
            if let Some(index) = self.free.pop() {
                self.accounts[index.0] = account;
                return index;
            }
            self.accounts.push(account);
            BudgetIndex(self.accounts.len() - 1)
        })
    }

    /// The index of the budget with this key, if there is one.
    pub(in crate::protocol) fn find(&self, key: &BudgetKey) -> Option<BudgetIndex> {
        self.indices.get(key).copied()
    }

    /// Forgets a budget that nothing refers to any more; returns its key. Another one gets its index.
    pub(in crate::protocol) fn forget(&mut self, index: BudgetIndex) -> BudgetKey {
        let key = self.accounts[index.0].key.clone();
        self.accounts[index.0] = BudgetAccount::new(key.clone());
        self.unwritten.retain(|(other, ..)| *other != index);
        if self.indices.remove(&key).is_some() {
            self.free.push(index);
        }
        key
    }

    /// Adds budgets that have not been used yet, and applies those of a single host that have; others come with its first
    /// payment.
    pub fn define(&mut self, budgets: &[Arc<Budget>]) {
        let used: Vec<BudgetIndex> = self.indices.values().copied().collect();
        for index in used {
            if let Some(budget) = budgets.iter().find(|budget| self.accounts[index.0].is_of(budget)) {
                self.apply(index, budget);
            }
        }
        for budget in budgets.iter().filter(|budget| !budget.scope.each) {
            self.open(&BudgetRef { budget: Arc::clone(budget), host: None });
        }
    }

    /// Replaces all definitions but those of runs. What was spent stays with the name, unit and host of a budget, also of one
    /// that does not apply any more.
    pub(in crate::protocol) fn redefine(&mut self, budgets: &[Arc<Budget>]) {
        for index in (0..self.accounts.len()).map(BudgetIndex) {
            let account = &mut self.accounts[index.0];
            if account.key.is_of_run() {
                continue;
            }
            account.applies = false;
        }
        self.define(budgets);
        // A limit that was lowered may be passed already.
        for account in &mut self.accounts {
            if let Some(budget) = account.limit().cloned() {
                self.notices.extend(account.told_of(&budget, self.now));
            }
        }
    }

    /// The index of a budget, which applies from now on as it is defined here.
    pub(in crate::protocol) fn open(&mut self, budget: &BudgetRef) -> BudgetIndex {
        let index = self.index_of(budget.key());
        self.apply(index, &budget.budget);
        index
    }

    fn apply(&mut self, index: BudgetIndex, budget: &Arc<Budget>) {
        let account = &mut self.accounts[index.0];
        account.applies = true;
        if !account.budget.as_ref().is_some_and(|known| Arc::ptr_eq(known, budget)) {
            account.define(budget, self.now);
            self.set_each(index);
        }
    }

    fn set_each(&mut self, index: BudgetIndex) {
        let account = &mut self.accounts[index.0];
        if let Some(budget) = &account.budget {
            let unit = Money::channel_token(Amount::from_units(1));
            account.each = budget.unit.cost(&unit, self.channel_token.as_ref());
        }
    }

    /// The budget's key, and the cost of one base unit of the channel contract's token.
    pub(in crate::protocol) fn each(&self, index: BudgetIndex) -> Option<BudgetAmount> {
        self.accounts[index.0].each
    }

    pub(in crate::protocol) fn key(&self, index: BudgetIndex) -> &BudgetKey {
        &self.accounts[index.0].key
    }

    /// Whether each payment must be recorded before it is sent: its number is limited.
    pub(in crate::protocol) fn counts_payments(&self, index: BudgetIndex) -> bool {
        self.accounts[index.0].limit().is_some_and(|budget| budget.limits.payments.is_some())
    }

    /// What a price costs.
    ///
    /// # Errors
    /// The budget cannot count it.
    pub(in crate::protocol) fn cost(
        &self,
        index: BudgetIndex,
        price: &Money,
    ) -> Result<BudgetAmount, OverBudget> {
        let account = &self.accounts[index.0];
        let Some(budget) = &account.budget else { return Ok(BudgetAmount::ZERO) };
        budget.unit.cost(price, self.channel_token.as_ref()).ok_or_else(|| OverBudget::Asset {
            budget: Arc::clone(&budget.name),
            asset: match (&price.asset, &self.channel_token) {
                (AssetId::ChannelToken, Some(token)) => token.to_string(),
                (asset, _) => asset.to_string(),
            },
            is_usd: matches!(budget.unit, BudgetUnit::Usd(_)),
        })
    }

    /// Whether a payment fits into a budget; `ahead`: once all pending writes have succeeded.
    ///
    /// # Errors
    /// The limit that falls short most.
    pub(in crate::protocol) fn fits(
        &self,
        index: BudgetIndex,
        need: &Need,
        ahead: bool,
    ) -> Result<(), Shortage> {
        let account = &self.accounts[index.0];
        let Some(budget) = account.limit() else { return Ok(()) };
        let held = account.held.minus(need.released);
        let held = if ahead { held.ahead } else { held.most };
        let mut worst: Option<Shortage> = None;
        for window in Window::ALL {
            let Some(limit) = budget.limits.within(window) else { continue };
            let costs = need.costs[window as usize];
            let by = account.sums[window as usize].sum().plus(held).plus(costs).minus(limit);
            if !by.is_zero() && worst.is_none_or(|worst| by > worst.by) {
                worst = Some(Shortage { index, window: Some(window), by });
            }
        }
        let is_full = budget.limits.payments.is_some_and(|most| account.payments >= most);
        if need.is_payment && is_full {
            worst = Some(Shortage { index, window: None, by: BudgetAmount::ZERO });
        }
        worst.map_or(Ok(()), Err)
    }

    /// What is left in the tightest window.
    pub(in crate::protocol) fn left(&self, index: BudgetIndex) -> BudgetAmount {
        let account = &self.accounts[index.0];
        let Some(budget) = account.limit() else { return BudgetAmount::MAX };
        let left = |window: Window| {
            let limit = budget.limits.within(window)?;
            Some(limit.minus(account.sums[window as usize].sum()).minus(account.held.most))
        };
        Window::ALL.into_iter().filter_map(left).min().unwrap_or(BudgetAmount::MAX)
    }

    /// Why a budget does not allow a payment at this price.
    pub(in crate::protocol) fn explain(&self, shortage: &Shortage, price: BudgetAmount) -> OverBudget {
        let account = &self.accounts[shortage.index.0];
        let name = Arc::clone(&account.key.name);
        let limits = account.budget.as_ref().map(|budget| &budget.limits);
        let Some(window) = shortage.window else {
            let limit = limits.and_then(|limits| limits.payments).unwrap_or_default();
            return OverBudget::Payments { budget: name, limit };
        };
        let limit = limits.and_then(|limits| limits.within(window)).unwrap_or_default();
        let sum = &account.sums[window as usize];
        let left = limit.minus(sum.sum()).minus(account.held.ahead);
        // What channels hold becomes free with certainty only, at a time that is not known.
        let most = limit.minus(account.held.ahead).minus(price);
        let free_in = if price.plus(account.held.ahead) > limit { None } else { sum.falls_to(most) };
        let is_of_run = account.key.is_of_run();
        OverBudget::Amount {
            budget: name,
            key: if is_of_run { "--budget" } else { window.key() },
            price: account.show(price),
            limit: account.show(limit),
            left: account.show(left),
            free_in: free_in.map(|minute| self.until(minute)),
        }
    }

    fn until(&self, minute: u64) -> Duration {
        Duration::from_secs(60 * minute.saturating_sub(self.now))
    }

    /// Counts a payment of this minute, now.
    pub(in crate::protocol) fn charge(&mut self, index: BudgetIndex, cost: BudgetAmount) {
        let account = &mut self.accounts[index.0];
        for sum in &mut account.sums {
            sum.add(self.now, cost);
        }
        if let Some(budget) = account.limit().cloned() {
            self.notices.extend(account.told_of(&budget, self.now));
        }
    }

    /// Takes what the user has not been told yet: each threshold once in each window.
    pub fn take_notices(&mut self) -> Vec<BudgetNotice> {
        std::mem::take(&mut self.notices)
    }

    /// Stops counting what was counted at this minute.
    pub(in crate::protocol) fn discharge(&mut self, index: BudgetIndex, at: u64, cost: BudgetAmount) {
        for sum in &mut self.accounts[index.0].sums {
            sum.subtract(at, cost, self.now);
        }
    }

    /// Counts one more payment, or one less.
    pub(in crate::protocol) fn count_payment(&mut self, index: BudgetIndex, is_made: bool) {
        let payments = &mut self.accounts[index.0].payments;
        *payments = if is_made { payments.saturating_add(1) } else { payments.saturating_sub(1) };
    }

    /// What a range of totals adds to each window: what was counted earlier and still counts is not counted twice.
    pub(in crate::protocol) fn costs(
        &self,
        index: BudgetIndex,
        each: BudgetAmount,
        coverage: Option<&Coverage>,
        (above, upto): (Amount, Amount),
    ) -> [BudgetAmount; WINDOWS] {
        let account = &self.accounts[index.0];
        Window::ALL.map(|window| {
            let counts = |at| account.sums[window as usize].has(at, self.now);
            let all = upto.saturating_sub(above);
            each.of(coverage.map_or(all, |coverage| coverage.uncovered(above, upto, counts)))
        })
    }

    /// Counts a range of totals now, instead of when parts of it were counted earlier. Returns how much is new, and the
    /// changes for the journal.
    pub(in crate::protocol) fn cover(
        &mut self,
        index: BudgetIndex,
        each: BudgetAmount,
        coverage: &mut Coverage,
        (above, upto): (Amount, Amount),
    ) -> (Amount, Vec<(BudgetIndex, u64, Change)>) {
        let moved = coverage.cover(above, upto, self.now);
        let mut fresh = upto.saturating_sub(above);
        let mut changes = Vec::with_capacity(1);
        for part in moved {
            fresh = fresh.saturating_sub(part.size());
            if part.at != self.now {
                let cost = each.of(part.size());
                self.discharge(index, part.at, cost);
                self.charge(index, cost);
                changes.push((index, part.at, Change { minus: cost, ..Change::default() }));
                changes.push((index, self.now, Change { plus: cost, ..Change::default() }));
            }
        }
        if !fresh.is_zero() {
            let plus = each.of(fresh);
            self.charge(index, plus);
            changes.push((index, self.now, Change { plus, ..Change::default() }));
        }
        (fresh, changes)
    }

    /// Stops counting a range of totals; returns the changes for the journal.
    pub(in crate::protocol) fn uncover(
        &mut self,
        index: BudgetIndex,
        each: BudgetAmount,
        coverage: &mut Coverage,
        (above, upto): (Amount, Amount),
    ) -> Vec<(BudgetIndex, u64, Change)> {
        let removed = coverage.cut(above, upto);
        let undo = |Covered { at, .. }: Covered, minus| (index, at, Change { minus, ..Change::default() });
        removed
            .into_iter()
            .map(|part| {
                let cost = each.of(part.size());
                self.discharge(index, part.at, cost);
                undo(part, cost)
            })
            .collect()
    }

    /// Replaces what a channel holds.
    pub(in crate::protocol) fn replace_held(
        &mut self,
        index: BudgetIndex,
        old: HeldAmounts,
        new: HeldAmounts,
    ) {
        let held = &mut self.accounts[index.0].held;
        *held = held.minus(old).plus(new);
    }

    /// Notes what the next write tells the journal; returns the rows that it must contain.
    pub(in crate::protocol) fn record(&mut self, changes: &[(BudgetIndex, u64, Change)]) -> BTreeSet<RowId> {
        let mut rows = std::mem::take(&mut self.unwritten);
        for (index, minute, change) in changes {
            let account = &mut self.accounts[index.0];
            let counted = account.recorded_payments.saturating_add(change.payments);
            account.recorded_payments = counted.saturating_sub(change.payments_undone);
            for window in Window::ALL {
                let sum = &mut account.sums[window as usize];
                if sum.has(*minute, self.now) {
                    let (start, _) = sum.record(*minute, change.plus, change.minus);
                    rows.insert((*index, window, start));
                }
            }
        }
        rows
    }

    /// The content of a row, as the next write must have it.
    pub(in crate::protocol) fn row(&self, (index, window, start): RowId) -> BudgetRow {
        self.accounts[index.0].row(window, start)
    }

    /// Notes that the journal may not have these rows.
    pub(in crate::protocol) fn not_written(&mut self, rows: impl IntoIterator<Item = RowId>) {
        self.unwritten.extend(rows);
    }

    /// What each budget has spent.
    pub fn views(&self) -> Vec<BudgetView> {
        self.accounts.iter().filter_map(|account| self.view(account)).collect()
    }

    fn view(&self, account: &BudgetAccount) -> Option<BudgetView> {
        let limits = &account.limit()?.limits;
        let window = |window: Window| {
            let (limit, sum) = (limits.within(window)?, &account.sums[window as usize]);
            Some(WindowView {
                key: window.key().to_owned(),
                limit: account.show(limit),
                spent: account.show(sum.sum()),
                held: account.show(account.held.most),
                left: account.show(limit.minus(sum.sum()).minus(account.held.most)),
                free_in_s: sum.falls_to(BudgetAmount::ZERO).map(|minute| self.until(minute).as_secs()),
            })
        };
        Some(BudgetView {
            name: account.key.name.to_string(),
            host: account.key.host.as_deref().map(str::to_owned),
            windows: Window::ALL.into_iter().filter_map(window).collect(),
            payments: account.payments,
            max_payments: limits.payments,
        })
    }
}

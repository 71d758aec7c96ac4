//! Budgets of purchases: what a payment adds to each, what channels hold, and what can be freed near a budget's end.
//!
//! A channel's hold is the range of totals that may be signed without another record; it counts in each of its budgets.
//! A payment uses it only if all budgets of the payment are the hold's, whichever pending writes succeed.

use super::authorization::OneShotPurchase;
use super::fit::{BudgetIndices, CountedRange, Fit, Lowered, Signable};
use super::ids::{PurchaseId, Seq};
use super::slot::{CoveredTotals, Slot};
use super::{Engine, Record};
use crate::protocol::budget::{
    BudgetAmount, BudgetIndex, BudgetRef, BudgetSet, Change, Coverage, CoveredBy, HeldAmounts, Hold, Need,
    OverBudget, RowId, Shortage, WINDOWS,
};
use crate::protocol::policy::SpendLimit;
use crate::protocol::{Amount, AssetId, ChannelId, Money, Refusal};

impl From<OverBudget> for Refusal {
    fn from(over: OverBudget) -> Self {
        Self::OverBudget(Box::new(over))
    }
}

impl Engine {
    /// The indices of the budgets that apply to a purchase.
    pub(super) fn open_budgets(&mut self, budgets: &BudgetSet) -> BudgetIndices {
        if budgets.is_empty() {
            return BudgetIndices::default();
        }
        let mut indices: Vec<BudgetIndex> = budgets.iter().map(|budget| self.budgets.open(budget)).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.into()
    }

    /// What a payment of this total needs from a budget; without a channel, from a new one.
    fn need(
        &self,
        index: BudgetIndex,
        slot: Option<&Slot>,
        (total, price): (Amount, Amount),
    ) -> Result<Need, OverBudget> {
        let cost = self.budgets.cost(index, &Money::channel_token(price))?;
        let Some(slot) = slot else {
            return Ok(Need { costs: [cost; WINDOWS], is_payment: true, released: HeldAmounts::default() });
        };
        if slot.channel.is_query(total) {
            return Ok(Need::default());
        }
        let each = self.budgets.each(index).unwrap_or(BudgetAmount::MAX);
        let range = (total.saturating_sub(price), total);
        let coverage = slot.coverage(index, each);
        let costs = self.budgets.costs(index, each, coverage, range);
        let is_payment = coverage.is_none_or(|coverage| !coverage.has_payment(range.0, range.1));
        let after = slot.held(index, each, slot.channel.promised.max(total));
        let before = slot.counted(index);
        // If there is not enough for more, its own hold ends at this total.
        let released = HeldAmounts { most: before.most.minus(after.most), ahead: before.ahead };
        Ok(Need { costs, is_payment, released })
    }

    /// How a payment of `total` from a channel fits into the budgets of a purchase.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub(super) fn fit(
        &self,
        budgets: &BudgetIndices,
        channel: Option<ChannelId>,
        total: Amount,
        price: Amount,
    ) -> Result<Fit, OverBudget> {
        let slot = channel.and_then(|id| self.slots.get(&id));
        let mut needs = Vec::with_capacity(budgets.len());
        for index in budgets.iter() {
            needs.push((*index, self.need(*index, slot, (total, price))?));
        }
        if needs.iter().all(|(index, need)| self.budgets.fits(*index, need, false).is_ok()) {
            return Ok(Fit::default());
        }
        let short = needs.iter().filter_map(|(index, need)| self.budgets.fits(*index, need, true).err());
        let lowered = self.lower(short.collect(), channel).map_err(|shortage| {
            let cost =
                self.budgets.cost(shortage.index, &Money::channel_token(price)).unwrap_or(BudgetAmount::MAX);
            self.budgets.explain(&shortage, cost)
        })?;
        Ok(Fit { tight: Some(lowered) })
    }

    /// The lower limits of other channels that make up for shortages.
    ///
    /// # Errors
    /// A shortage that remains.
    fn lower(&self, mut short: Vec<Shortage>, except: Option<ChannelId>) -> Result<Lowered, Shortage> {
        let mut lowered = Vec::new();
        if let Some(full) = short.iter().find(|shortage| shortage.window.is_none()) {
            return Err(*full);
        }
        for (id, slot) in &self.slots {
            if short.is_empty() {
                break;
            }
            let limit = slot.limit_ahead();
            let left = limit.saturating_sub(slot.channel.promised);
            let budgets = slot.budgets_ahead();
            if left.is_zero() || budgets.is_empty() || Some(*id) == except {
                continue;
            }
            let each = |index| self.budgets.each(index).unwrap_or_default();
            let required = |shortage: &Shortage| shortage.by.requires(each(shortage.index));
            let ours = short.iter().filter(|shortage| budgets.contains(&shortage.index));
            let Some(units) = ours.map(required).max() else { continue };
            let units = units.min(left);
            lowered.push((*id, limit.saturating_sub(units)));
            for shortage in short.iter_mut().filter(|shortage| budgets.contains(&shortage.index)) {
                shortage.by = shortage.by.minus(each(shortage.index).of(units));
            }
            short.retain(|shortage| !shortage.by.is_zero());
        }
        short.first().map_or(Ok(lowered), |shortage| Err(*shortage))
    }

    /// How an authorization fits into its budgets.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub(super) fn fit_one_shot(&mut self, budgets: &BudgetSet, price: &Money) -> Result<Fit, OverBudget> {
        let mut needs = Vec::with_capacity(budgets.len());
        for budget in budgets.iter() {
            let index = self.budgets.open(budget);
            let cost = self.budgets.cost(index, price)?;
            needs.push((
                index,
                Need { costs: [cost; WINDOWS], is_payment: true, released: HeldAmounts::default() },
            ));
        }
        if needs.iter().all(|(index, need)| self.budgets.fits(*index, need, false).is_ok()) {
            return Ok(Fit::default());
        }
        let short = needs.iter().filter_map(|(index, need)| self.budgets.fits(*index, need, true).err());
        let lowered = self.lower(short.collect(), None).map_err(|shortage| {
            let cost = self.budgets.cost(shortage.index, price).unwrap_or(BudgetAmount::MAX);
            self.budgets.explain(&shortage, cost)
        })?;
        Ok(Fit { tight: Some(lowered) })
    }

    /// Counts what a dry run would pay now. Nothing is recorded, so that a restart forgets it.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub fn rehearse(&mut self, limit: SpendLimit, price: &Money) -> Result<(), OverBudget> {
        // A dry run may not know the channel contract's token: then only its own units are counted.
        let is_known = price.asset != AssetId::ChannelToken || self.budgets.knows_channel_token();
        let counts = |budget: &&BudgetRef| is_known || budget.budget.unit.cost(price, None).is_some();
        let budgets: BudgetSet = self.by_now(limit).budgets.iter().filter(counts).cloned().collect();
        self.fit_one_shot(&budgets, price)?;
        for index in self.open_budgets(&budgets).iter().copied() {
            let cost = self.budgets.cost(index, price)?;
            self.budgets.charge(index, cost);
            self.budgets.count_payment(index, true);
        }
        Ok(())
    }

    /// Counts an authorization that is about to be recorded.
    pub(super) fn count_one_shot(&mut self, id: PurchaseId, budgets: &BudgetSet, price: &Money) {
        let (mut counted, mut changes) = (Vec::new(), Vec::new());
        for index in self.open_budgets(budgets).iter().copied() {
            let Ok(plus) = self.budgets.cost(index, price) else { continue };
            let now = self.budgets.now();
            self.budgets.charge(index, plus);
            self.budgets.count_payment(index, true);
            changes.push((index, now, Change { plus, payments: 1, ..Change::default() }));
            counted.push((index, plus, now));
        }
        if let Some(purchase) = self.one_shots.get_mut(&id) {
            purchase.counted = counted;
        }
        self.record_changes(&changes);
    }

    /// Stops counting an authorization that was never sent.
    pub(super) fn discount(&mut self, purchase: &mut OneShotPurchase) {
        let mut changes = Vec::new();
        for (index, minus, at) in std::mem::take(&mut purchase.counted) {
            self.budgets.discharge(index, at, minus);
            self.budgets.count_payment(index, false);
            changes.push((index, at, Change { minus, payments_undone: 1, ..Change::default() }));
        }
        self.record_changes(&changes);
    }

    /// Stops counting an authorization that was never signed, since its record has failed or relies on one that has. In the
    /// second case, its own may succeed yet.
    pub(super) fn uncount_one_shot(&mut self, id: PurchaseId) {
        if let Some(mut purchase) = self.one_shots.remove(&id) {
            self.discount(&mut purchase);
            self.end_never_signed(purchase.nonce);
            self.one_shots.insert(id, purchase);
        }
    }

    /// Checks that some payment for a purchase fits into its budgets: from a channel that it may use, or from a new one.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub(super) fn check_budgets(&self, id: PurchaseId) -> Result<(), Refusal> {
        let Some(purchase) = self.purchases.get(&id) else { return Ok(()) };
        if purchase.budgets.is_empty() {
            return Ok(());
        }
        let price = purchase.price();
        let Err(over) = self.fit(&purchase.budgets, None, Amount::ZERO, price) else { return Ok(()) };
        let mut usable = self.usable_slots(purchase, purchase.receiver());
        let fits = usable.any(|(id, slot)| {
            let total = slot.channel.next_total(price);
            total.is_some_and(|total| self.fit(&purchase.budgets, Some(*id), total, price).is_ok())
        });
        if fits { Ok(()) } else { Err(over.into()) }
    }

    /// Counts a payment that is about to be signed in its budgets. Returns whether the channel's hold covers all that is
    /// new to them: it starts above what was promised.
    pub(super) fn count(
        &mut self,
        id: PurchaseId,
        channel: ChannelId,
        total: Amount,
        promised: Amount,
    ) -> bool {
        let (Some(purchase), Some(slot)) = (self.purchases.get_mut(&id), self.slots.get_mut(&channel)) else {
            return true;
        };
        let mut is_covered = true;
        let range = (total.saturating_sub(purchase.price()), total);
        for index in purchase.budgets.iter().copied() {
            let Some(each) = self.budgets.each(index) else { continue };
            let coverage = slot.coverage_mut(index, each);
            let mut gaps = coverage.gaps(range.0, range.1);
            let is_payment = !coverage.has_payment(range.0, range.1);
            let (_, changes) = self.budgets.cover(index, each, coverage, range);
            slot.unrecorded.extend(changes);
            is_covered &= gaps.iter().all(|(above, _)| *above >= promised);
            if is_payment {
                self.budgets.count_payment(index, true);
                let change = Change { payments: 1, ..Change::default() };
                slot.unrecorded.push((index, self.budgets.now(), change));
                if gaps.is_empty() {
                    // Ends with the purchase if that is not sent, as others do.
                    gaps.push((total, total));
                }
            }
            purchase.counted.extend(gaps.into_iter().map(|(above, upto)| CountedRange {
                index,
                above,
                upto,
            }));
        }
        is_covered
    }

    /// Stops counting a payment that was never sent.
    pub(super) fn uncount(&mut self, id: PurchaseId, channel: ChannelId) {
        let (Some(purchase), Some(slot)) = (self.purchases.get_mut(&id), self.slots.get_mut(&channel)) else {
            return;
        };
        let mut undone = None;
        for CountedRange { index, above, upto } in std::mem::take(&mut purchase.counted) {
            let Some(each) = self.budgets.each(index) else { continue };
            let coverage = slot.coverage_mut(index, each);
            let changes = self.budgets.uncover(index, each, coverage, (above, upto));
            slot.unrecorded.extend(changes);
            if undone.replace(index) != Some(index) {
                self.budgets.count_payment(index, false);
                let change = Change { payments_undone: 1, ..Change::default() };
                slot.unrecorded.push((index, self.budgets.now(), change));
            }
            (slot.is_dirty, self.is_dirty) = (true, true);
        }
    }

    /// Stops counting what was signed above the total that a channel was settled at: it cannot be redeemed any more.
    pub(super) fn uncount_above(&mut self, id: ChannelId, total: Amount) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        for CoveredTotals { index, each, coverage, lost } in &mut slot.covered {
            let above = coverage.ranges().iter().filter(|covered| covered.upto > total);
            lost.extend(above.map(|covered| (covered.above.max(total), covered.upto)));
            let changes = self.budgets.uncover(*index, *each, coverage, (total, Amount::MAX));
            if !changes.is_empty() {
                (slot.is_dirty, self.is_dirty) = (true, true);
            }
            slot.unrecorded.extend(changes);
        }
    }

    /// Counts again what a channel's settlement had ended, since a reorganisation has undone it.
    pub(super) fn count_again(&mut self, id: ChannelId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        for CoveredTotals { index, each, coverage, lost } in &mut slot.covered {
            for range in std::mem::take(lost) {
                let (_, changes) = self.budgets.cover(*index, *each, coverage, range);
                slot.unrecorded.extend(changes);
                (slot.is_dirty, self.is_dirty) = (true, true);
            }
        }
    }

    /// Updates what a channel holds in its budgets, after its promise or its limits have changed.
    pub(super) fn update_held(&mut self, id: &ChannelId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.counted.is_empty() && slot.budgets.is_empty() && slot.budgets_ahead().is_empty() {
            return;
        }
        let mut indices: Vec<BudgetIndex> = slot.budgets.to_vec();
        for write in &slot.writes {
            indices.extend(write.budgets.iter().filter(|index| !slot.budgets.contains(index)));
        }
        indices.sort_unstable();
        indices.dedup();
        let promised = slot.channel.promised;
        let held = |index| {
            let each = self.budgets.each(index).unwrap_or_default();
            (index, slot.held(index, each, promised))
        };
        let new: Vec<(BudgetIndex, HeldAmounts)> = indices.into_iter().map(held).collect();
        let old = std::mem::take(&mut slot.counted);
        for (index, held) in &old {
            self.budgets.replace_held(*index, *held, HeldAmounts::default());
        }
        for (index, held) in &new {
            self.budgets.replace_held(*index, HeldAmounts::default(), *held);
        }
        slot.counted = new;
    }

    /// The durable limit that allows signing `ahead` beyond what is promised, as far as the deposit and the budgets of the
    /// channel's hold cover it.
    pub(super) fn bound(&self, slot: &Slot, budgets: &[BudgetIndex], ahead: Amount) -> Amount {
        let within = |index: &BudgetIndex| {
            if self.budgets.counts_payments(*index) {
                return Amount::ZERO;
            }
            let Some(each) = self.budgets.each(*index) else { return Amount::ZERO };
            // Most of what is left stays free for other channels.
            let left = self.budgets.left(*index).quarter();
            slot.counted(*index).ahead.plus(left).buys(each)
        };
        slot.channel.bound(budgets.iter().map(within).fold(ahead, Amount::min))
    }

    /// Adds to the current write what it tells the journal about the budgets of a channel.
    pub(super) fn record_budgets(&mut self, id: ChannelId, durable_limit: Amount) {
        if self.budgets.is_empty() {
            return;
        }
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let changes = std::mem::take(&mut slot.unrecorded);
        let budgets = slot.budgets_ahead();
        if changes.is_empty() && budgets.is_empty() && slot.covered.is_empty() {
            return;
        }
        let key = |index| self.budgets.key(index).clone();
        let covered = |covered: &CoveredTotals| CoveredBy {
            budget: key(covered.index),
            each: covered.each,
            coverage: covered.coverage.clone(),
        };
        let hold = Hold {
            above: slot.channel.promised,
            upto: durable_limit.max(slot.channel.promised),
            budgets: budgets
                .iter()
                .map(|index| (key(*index), self.budgets.each(*index).unwrap_or_default()))
                .collect(),
            covered: slot.covered.iter().map(covered).collect(),
        };
        self.records.push(Record::Hold(id, Box::new(hold)));
        self.record_changes(&changes);
    }

    /// Adds changes of budgets to the current write.
    pub(super) fn record_changes(&mut self, changes: &[(BudgetIndex, u64, Change)]) {
        let rows = self.budgets.record(changes);
        if rows.is_empty() {
            return;
        }
        self.records.extend(rows.iter().map(|row| Record::Budget(Box::new(self.budgets.row(*row)))));
        let seq = self.next_write();
        self.budget_writes.push_back((seq, rows.into_iter().collect()));
    }

    /// All writes up to this one have ended.
    pub(super) fn budget_writes_ended(&mut self, seq: Seq, have_succeeded: bool) {
        let ended = self.budget_writes.partition_point(|(write, _)| *write <= seq);
        let rows = self.budget_writes.drain(..ended).flat_map(|(_, rows): (_, Vec<RowId>)| rows);
        if have_succeeded {
            rows.for_each(drop);
        } else {
            self.budgets.not_written(rows);
        }
        let changed = self.slots.iter().filter(|(_, slot)| !slot.counted.is_empty()).map(|(id, _)| *id);
        for id in changed.collect::<Vec<_>>() {
            self.update_held(&id);
        }
    }
}

impl Slot {
    /// The budgets of its hold once all pending writes have succeeded.
    pub(super) fn budgets_ahead(&self) -> &BudgetIndices {
        self.writes.back().map_or(&self.budgets, |write| &write.budgets)
    }

    /// What it holds in a budget, at `each` for a base unit, once this much is promised.
    fn held(&self, index: BudgetIndex, each: BudgetAmount, promised: Amount) -> HeldAmounts {
        let part = |limit: Amount, budgets: &BudgetIndices| {
            let holds = budgets.contains(&index);
            if holds { limit.saturating_sub(promised) } else { Amount::ZERO }
        };
        let durable = part(self.channel.durable_limit, &self.budgets);
        let pending = self.writes.iter().map(|write| part(write.limit, &write.budgets));
        let most = pending.fold(durable, Amount::max);
        let ahead = part(self.limit_ahead(), self.budgets_ahead());
        HeldAmounts { most: each.of(most), ahead: each.of(ahead) }
    }

    /// What it currently counts for in a budget.
    fn counted(&self, index: BudgetIndex) -> HeldAmounts {
        self.counted
            .iter()
            .find(|(other, _)| *other == index)
            .map_or(HeldAmounts::default(), |(_, held)| *held)
    }

    /// What a budget has counted of its totals at this price.
    fn coverage(&self, index: BudgetIndex, each: BudgetAmount) -> Option<&Coverage> {
        let found = self.covered.iter().find(|covered| covered.index == index && covered.each == each);
        found.map(|covered| &covered.coverage)
    }

    fn coverage_mut(&mut self, index: BudgetIndex, each: BudgetAmount) -> &mut Coverage {
        let found = self.covered.iter().position(|covered| covered.index == index);
        let place = found.unwrap_or_else(|| {
            let (coverage, lost) = (Coverage::default(), Vec::new());
            self.covered.push(CoveredTotals { index, each, coverage, lost });
            self.covered.len() - 1
        });
        let covered = &mut self.covered[place];
        if covered.each != each {
            // The value of the token was changed: what was counted stays, and is counted again if it is re-signed.
            (covered.each, covered.coverage) = (each, Coverage::default());
        }
        &mut covered.coverage
    }

    /// When a total may be signed for these budgets.
    pub(super) fn signable(&self, total: Amount, budgets: &[BudgetIndex]) -> Signable {
        let allows = |limit: Amount, holds: &BudgetIndices| {
            total <= limit && budgets.iter().all(|index| holds.contains(index))
        };
        // A later write may lower the limit, or give the hold to other budgets.
        let mut first = Signable::Never;
        for write in self.writes.iter().rev() {
            if !allows(write.limit, &write.budgets) {
                return first;
            }
            first = Signable::After(write.seq);
        }
        if allows(self.channel.durable_limit, &self.budgets) { Signable::Now } else { first }
    }
}

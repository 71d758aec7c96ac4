//! What a budget limits, and in what unit.

use std::sync::Arc;

use ethers_core::types::U256;

use super::amount::BudgetAmount;
use super::calendar::Calendar;
use super::over::OverBudget;
use super::window::Window;
use crate::protocol::decimal;
use crate::protocol::policy::{HostPattern, KnownAsset, Webhook};
use crate::protocol::{Amount, AssetId, Money, Usd};

/// The names of the budgets of runs begin with this. Those of a `[[budget]]` have no spaces.
const OF_RUN: &str = "run ";

/// A `[[budget]]`, or the budget of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub name: Arc<str>,
    /// The tag of its unit: sums in one unit mean nothing in another.
    pub tag: Arc<str>,
    /// What it applies to, besides the rules and clients that name it.
    pub scope: BudgetScope,
    /// What it counts.
    pub unit: BudgetUnit,
    /// Its limits.
    pub limits: BudgetLimits,
    /// When its days, weeks and months begin.
    pub calendar: Calendar,
    /// Who is told when much of it is spent.
    pub webhook: Option<Webhook>,
}

/// What a budget applies to, besides the rules and clients that name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetScope {
    /// Whether it applies to every payment.
    pub wallet: bool,
    /// It applies to these hosts.
    pub hosts: Vec<HostPattern>,
    /// Whether every host has one of its own.
    pub each: bool,
}

/// The limits of a budget; one that is absent does not apply, and 0 allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Within an hour.
    pub per_hour: Option<BudgetAmount>,
    /// Within 24 hours.
    pub per_day: Option<BudgetAmount>,
    /// Within 30 days.
    pub per_30_days: Option<BudgetAmount>,
    /// Within a day of the calendar.
    pub per_calendar_day: Option<BudgetAmount>,
    /// Within a week of the calendar.
    pub per_calendar_week: Option<BudgetAmount>,
    /// Within a month of the calendar.
    pub per_calendar_month: Option<BudgetAmount>,
    /// Ever.
    pub total: Option<BudgetAmount>,
    /// The number of payments, ever.
    pub payments: Option<u64>,
}

/// What a budget counts. Costs are whole multiples of its smallest unit, so that sums are exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetUnit {
    /// Only the number of payments, in any asset.
    Payments,
    /// Base units of the channel contract's token.
    ChannelToken,
    /// Tokens with one symbol, on any network, in units of 10^-36 tokens.
    Tokens {
        /// The symbol.
        symbol: Arc<str>,
        /// The tokens.
        tokens: Arc<[KnownAsset]>,
    },
    /// US dollars, in units of 10^-54: those of [`Usd`] for each 10^-36 of a token.
    Usd(Arc<[KnownAsset]>),
}

/// The decimals of a whole token's cost.
const TOKEN_DECIMALS: u32 = 36;
/// The decimals of a dollar's cost.
const USD_DECIMALS: u32 = TOKEN_DECIMALS + 18;

impl BudgetLimits {
    /// The limit on the amount within a window.
    pub fn within(&self, window: Window) -> Option<BudgetAmount> {
        match window {
            Window::Hour => self.per_hour,
            Window::Day => self.per_day,
            Window::ThirtyDays => self.per_30_days,
            Window::CalendarDay => self.per_calendar_day,
            Window::CalendarWeek => self.per_calendar_week,
            Window::CalendarMonth => self.per_calendar_month,
            Window::Total => self.total,
        }
    }
}

impl Budget {
    /// A budget that applies only to rules and clients that name it.
    pub fn new(name: &str, unit: BudgetUnit, limits: BudgetLimits) -> Self {
        let tag = match &unit {
            BudgetUnit::Payments => "payments".into(),
            BudgetUnit::ChannelToken => "units".into(),
            BudgetUnit::Tokens { symbol, .. } => Arc::clone(symbol),
            BudgetUnit::Usd(_) => "$".into(),
        };
        let (scope, calendar) = (BudgetScope::default(), Calendar::default());
        Self { name: name.into(), tag, scope, unit, limits, calendar, webhook: None }
    }

    /// The budget of a run with this number: at most this much in total.
    pub fn of_run(number: u64, unit: BudgetUnit, most: BudgetAmount) -> Self {
        let limits = BudgetLimits { total: Some(most), ..BudgetLimits::default() };
        Self::new(&format!("{OF_RUN}{number}"), unit, limits)
    }

    /// Whether a budget of this name is that of a run.
    pub(super) fn is_name_of_run(name: &str) -> bool {
        name.starts_with(OF_RUN)
    }

    /// Checks that it allows a payment at this price once everything in it is free.
    ///
    /// # Errors
    /// It never does.
    pub fn check_alone(&self, price: &Money) -> Result<(), OverBudget> {
        let name = || Arc::clone(&self.name);
        if self.limits.payments == Some(0) {
            return Err(OverBudget::Payments { budget: name(), limit: 0 });
        }
        let Some(cost) = self.unit.cost(price, None) else {
            return match &price.asset {
                // Which token that is only the node knows.
                AssetId::ChannelToken => Ok(()),
                asset @ AssetId::Token(_) => Err(OverBudget::Asset {
                    budget: name(),
                    asset: asset.to_string(),
                    is_usd: matches!(self.unit, BudgetUnit::Usd(_)),
                }),
            };
        };
        let limits = Window::ALL.into_iter().filter_map(|window| Some((self.limits.within(window)?, window)));
        match limits.min() {
            Some((limit, window)) if cost > limit => Err(OverBudget::Amount {
                budget: name(),
                key: window.key(),
                price: self.unit.show(cost),
                limit: self.unit.show(limit),
                left: self.unit.show(limit),
                free_in: None,
            }),
            _ => Ok(()),
        }
    }

    /// Whether it applies to a host (without brackets, in any case) without being named.
    pub fn applies_to(&self, host: &str) -> bool {
        self.scope.wallet || self.scope.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

impl BudgetUnit {
    /// What an amount costs; `None` if the budget cannot count its asset. `channel_token` is the channel contract's
    /// token, once it is known.
    pub fn cost(&self, price: &Money, channel_token: Option<&AssetId>) -> Option<BudgetAmount> {
        if *self == Self::Payments {
            return Some(BudgetAmount::ZERO);
        }
        let asset = match &price.asset {
            AssetId::ChannelToken if *self == Self::ChannelToken => {
                return Some(BudgetAmount::from(U256::from(price.amount)));
            }
            AssetId::ChannelToken => channel_token?,
            token @ AssetId::Token(_) => token,
        };
        let (Self::Tokens { tokens, .. } | Self::Usd(tokens)) = self else { return None };
        let known = tokens.iter().find(|known| known.asset == *asset)?;
        let each = match self {
            Self::Usd(_) => Self::scale(known.decimals)?.of(known.usd?.units()),
            Self::Payments | Self::ChannelToken | Self::Tokens { .. } => Self::scale(known.decimals)?,
        };
        Some(each.of(price.amount))
    }

    /// The cost of a base unit of a token with this many decimals.
    fn scale(decimals: u32) -> Option<BudgetAmount> {
        let zeros = TOKEN_DECIMALS.checked_sub(decimals)?;
        U256::from(10).checked_pow(zeros.into()).map(BudgetAmount::from)
    }

    /// The cost of this many base units of a token with this many decimals; `None` if it is too large.
    pub fn cost_of_units(amount: Amount, decimals: u32) -> Option<BudgetAmount> {
        Some(Self::scale(decimals)?.of(amount)).filter(|cost| *cost < BudgetAmount::MAX)
    }

    /// The cost of this many dollars; `None` if it is too large.
    pub fn cost_of_usd(most: Usd) -> Option<BudgetAmount> {
        let cost = Self::scale(0)?.of(most.units());
        Some(cost).filter(|cost| *cost < BudgetAmount::MAX)
    }

    /// A sum with its unit, such as `0.05 USDC` or `$0.05`.
    pub fn show(&self, cost: BudgetAmount) -> String {
        match self {
            Self::Payments | Self::ChannelToken => cost.to_string(),
            Self::Tokens { symbol, .. } => format!("{} {symbol}", decimal::show(cost.into(), TOKEN_DECIMALS)),
            Self::Usd(_) => format!("${}", decimal::show(cost.into(), USD_DECIMALS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::budget::definition::*;
    use crate::protocol::policy::well_known;

    #[test]
    fn costs_are_exact_in_each_unit() {
        let known: Vec<KnownAsset> = well_known();
        let usdc: Vec<KnownAsset> = known.iter().filter(|asset| asset.symbol == "USDC").cloned().collect();
        let on = |network: &str| usdc.iter().find(|asset| asset.network == network).unwrap().asset.clone();
        let (base, test) = (on("eip155:8453"), on("eip155:84532"));
        let priced = usdc.iter().filter(|asset| asset.usd.is_some()).cloned().collect();
        let (tokens, usd) =
            (BudgetUnit::Tokens { symbol: "USDC".into(), tokens: usdc.into() }, BudgetUnit::Usd(priced));
        let money = |amount: u64, asset: &AssetId| Money { amount: amount.into(), asset: asset.clone() };
        let cases = [
            (&tokens, money(50_001, &base), None, Some("0.050001 USDC")),
            (&tokens, money(1, &test), None, Some("0.000001 USDC")),
            (&tokens, money(1, &AssetId::ChannelToken), None, None),
            (&tokens, money(1, &AssetId::ChannelToken), Some(&base), Some("0.000001 USDC")),
            (&usd, money(50_001, &base), None, Some("$0.050001")),
            (&usd, money(1, &test), None, None),
            (&BudgetUnit::ChannelToken, money(7, &AssetId::ChannelToken), None, Some("7")),
            (&BudgetUnit::ChannelToken, money(7, &base), None, None),
        ];
        for (unit, price, channel_token, expected) in cases {
            let cost = unit.cost(&price, channel_token).map(|cost| unit.show(cost));
            assert_eq!(cost.as_deref(), expected, "{unit:?} {price:?}");
        }
    }

    #[test]
    fn what_is_too_large_to_count_is_above_every_limit() {
        let known = KnownAsset::new("BIG", "eip155:1", crate::protocol::Address([1; 20]), 0, None);
        let price = Money { amount: Amount::MAX, asset: known.asset.clone() };
        let unit = BudgetUnit::Tokens { symbol: "BIG".into(), tokens: vec![known].into() };
        assert_eq!(unit.cost(&price, None), Some(BudgetAmount::MAX));
        assert_eq!(BudgetUnit::cost_of_units(Amount::MAX, 0), None);
    }
}

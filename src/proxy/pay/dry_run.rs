//! A dry run: everything except signing, and a tally of what it would have cost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::mutex::lock;
use crate::protocol::policy::{KnownAsset, shown_price};
use crate::protocol::{Amount, AssetId, Money, Refusal};

/// What a dry run would have paid; cheap to clone.
#[derive(Clone, Debug)]
pub struct DryRun {
    /// The number of payments and their sum for each asset, which rules allow.
    sums: Arc<Mutex<BTreeMap<AssetId, (u64, Amount)>>>,
    assets: Arc<[KnownAsset]>,
}

impl DryRun {
    /// Nothing yet. `assets` are the tokens whose symbols are shown.
    #[must_use]
    pub fn new(assets: Arc<[KnownAsset]>) -> Self {
        Self { sums: Arc::default(), assets }
    }

    /// Counts a payment, and returns the reason why it is not made.
    pub(super) fn would_pay(&self, price: &Money) -> Refusal {
        let mut sums = lock(&self.sums);
        let (count, sum) = sums.entry(price.asset.clone()).or_default();
        *count = count.saturating_add(1);
        *sum = sum.saturating_add(price.amount);
        Refusal::DryRun { price: shown_price(price, &self.assets).into() }
    }

    /// What all payments would have cost, for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let sums = lock(&self.sums);
        let each = sums.iter().map(|(asset, (count, sum))| {
            let sum = shown_price(&Money { amount: *sum, asset: asset.clone() }, &self.assets);
            format!("{sum} for {count} {}", if *count == 1 { "request" } else { "requests" })
        });
        match each.collect::<Vec<_>>() {
            each if each.is_empty() => "dry run: would have paid nothing".to_owned(),
            each => format!("dry run: would have paid {}", each.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::policy::well_known;
    use crate::proxy::pay::dry_run::*;

    #[test]
    fn payments_add_up_per_asset() {
        let known = well_known();
        let dry_run = DryRun::new(known.clone().into());
        assert_eq!(dry_run.summary(), "dry run: would have paid nothing");
        let price = |amount: u64, asset: &AssetId| Money { amount: amount.into(), asset: asset.clone() };
        let usdc = &known[3].asset;
        let refusal = dry_run.would_pay(&price(50_000, usdc));
        assert_eq!(refusal.to_string(), "dry run: would pay 0.05 USDC");
        dry_run.would_pay(&price(150_000, usdc));
        dry_run.would_pay(&price(7, &AssetId::ChannelToken));
        assert_eq!(
            dry_run.summary(),
            "dry run: would have paid 7 units of the channel contract's token for 1 request, 0.2 USDC for 2 requests"
        );
    }
}

//! What the user of the dashboard wants done.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::amounts::number;
use crate::channels::{Channels, Operation};
use crate::payments::Payments;
use crate::protocol::policy::KnownAsset;
use crate::protocol::{Address, Amount, AssetId, ChannelId, decimal};
use crate::proxy::frontend::DashboardError;

/// Something to do.
#[derive(Debug)]
pub(super) enum DashboardChange {
    Decide(PaymentDecision),
    Revoke(NamedApproval),
    Resume(NamedHost),
    Freeze(SigningSwitch),
    Plan(WantedOperation),
    Operate(WantedOperation),
}

/// Whether to pay what waits for approval.
#[derive(Debug, Deserialize)]
pub(super) struct PaymentDecision {
    id: u64,
    approve: bool,
    /// Also approves further payments like it for this time, in seconds.
    #[serde(default)]
    always_for_s: Option<u64>,
}

/// A standing approval.
#[derive(Debug, Deserialize)]
pub(super) struct NamedApproval {
    id: u64,
}

/// A paused host.
#[derive(Debug, Deserialize)]
pub(super) struct NamedHost {
    host: String,
}

/// Whether anything is signed.
#[derive(Debug, Deserialize)]
pub(super) struct SigningSwitch {
    frozen: bool,
}

/// An operation on channels. Amounts are in whole tokens if the token is known, as the page shows them.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum WantedOperation {
    Open { receiver: String, deposit: String },
    TopUp { channel: String, added: String },
    CloseTogether { channel: String },
    CloseAlone { channel: String },
    Settle { channel: String },
    Sync,
}

impl DashboardChange {
    /// Reads what is wanted under this name.
    pub(super) fn read(name: &str, wanted: Value) -> Result<Self, DashboardError> {
        Ok(match name {
            "decide" => Self::Decide(of(wanted)?),
            "revoke" => Self::Revoke(of(wanted)?),
            "resume" => Self::Resume(of(wanted)?),
            "freeze" => Self::Freeze(of(wanted)?),
            "plan" => Self::Plan(of(wanted)?),
            "operate" => Self::Operate(of(wanted)?),
            _ => return Err(DashboardError::Unknown),
        })
    }
}

fn of<T: DeserializeOwned>(wanted: Value) -> Result<T, DashboardError> {
    serde_json::from_value(wanted).map_err(|error| DashboardError::Invalid(error.to_string()))
}

/// Does it.
pub(super) async fn apply(channels: &Channels, change: DashboardChange) -> Result<Value, DashboardError> {
    let payments = channels.payments();
    let asset = channel_asset(payments);
    match change {
        DashboardChange::Decide(PaymentDecision { id, approve: true, always_for_s: Some(seconds) }) => {
            let decided = payments.approve_always(id, Duration::from_secs(seconds)).await;
            Ok(json!(decided.map_err(failed)?))
        }
        DashboardChange::Decide(PaymentDecision { id, approve, .. }) => {
            Ok(json!(payments.approvals().decide(id, approve).map_err(failed)?))
        }
        DashboardChange::Revoke(NamedApproval { id }) => {
            payments.revoke_approval(id).await.map_err(failed)?;
            Ok(json!({}))
        }
        DashboardChange::Resume(NamedHost { host }) => {
            payments.resume(&host).await.map_err(failed)?;
            Ok(json!({}))
        }
        DashboardChange::Freeze(SigningSwitch { frozen }) => {
            payments.freeze(frozen).await.map_err(failed)?;
            Ok(json!({ "frozen": frozen }))
        }
        DashboardChange::Plan(wanted) => {
            let plan = channels.plan(&wanted.operation(&asset)?).await.map_err(failed)?;
            let fees = plan.wei.as_deref().and_then(|wei| decimal::parse(wei, 0).ok());
            let fees = fees.map(|wei| format!("at most {} of the chain's own coin", decimal::show(wei, 18)));
            Ok(json!({ "text": plan.action.describe(|amount| asset.show(amount)), "fees": fees }))
        }
        DashboardChange::Operate(wanted) => {
            let done = channels.operate(wanted.operation(&asset)?).await.map_err(failed)?;
            Ok(json!({ "text": done.outcome.describe(|amount| asset.show(amount)) }))
        }
    }
}

fn failed(error: impl std::error::Error) -> DashboardError {
    DashboardError::Failed(error.to_string())
}

/// The token of channels, as the page shows its amounts.
pub(super) struct ChannelAsset(Option<KnownAsset>);

/// The token of channels, once it is known, with the symbol and decimals that were last reloaded.
pub(super) fn channel_asset(payments: &Payments) -> ChannelAsset {
    let token = payments.known_asset(&AssetId::ChannelToken);
    let assets = payments.approvals().assets();
    ChannelAsset(assets.iter().find(|known| known.asset == token).cloned())
}

impl ChannelAsset {
    /// An amount with its symbol, or in base units.
    pub(super) fn show(&self, amount: Amount) -> String {
        self.0.as_ref().map_or_else(|| format!("{amount} units"), |known| known.show(amount))
    }

    /// What amounts are in.
    pub(super) fn unit(&self) -> &str {
        self.0.as_ref().map_or("base units", |known| &known.symbol)
    }

    /// Which part of the whole it is.
    pub(super) fn part(&self, amount: Amount, whole: Amount) -> f64 {
        let (amount, whole) = (number(amount, 0), number(whole, 0));
        if whole > 0.0 { (amount / whole).min(1.0) } else { 0.0 }
    }

    /// Reads an amount in that unit.
    fn read(&self, text: &str) -> Result<Amount, DashboardError> {
        let decimals = self.0.as_ref().map_or(0, |known| known.decimals);
        let invalid = |error: String| {
            DashboardError::Invalid(format!("{text:?} is not an amount in {}: {error}", self.unit()))
        };
        let units = decimal::parse(text.trim(), decimals).map_err(|error| invalid(error.to_string()))?;
        Amount::try_from(units).map_err(|error| invalid(error.to_string()))
    }
}

impl WantedOperation {
    fn operation(self, asset: &ChannelAsset) -> Result<Operation, DashboardError> {
        let channel = |text: &str| -> Result<ChannelId, DashboardError> {
            text.trim().parse().map_err(|error| DashboardError::Invalid(format!("{text:?}: {error}")))
        };
        Ok(match self {
            Self::Open { receiver, deposit } => {
                let address = receiver.trim().parse::<Address>();
                let address =
                    address.map_err(|error| DashboardError::Invalid(format!("{receiver:?}: {error}")))?;
                Operation::Open { receiver: address, deposit: asset.read(&deposit)? }
            }
            Self::TopUp { channel: id, added } => {
                Operation::TopUp { channel: channel(&id)?, added: asset.read(&added)? }
            }
            Self::CloseTogether { channel: id } => {
                Operation::CloseTogether { channel: channel(&id)?, seller: None }
            }
            Self::CloseAlone { channel: id } => {
                Operation::CloseAlone { channel: channel(&id)?, total: None, below_promised: false }
            }
            Self::Settle { channel: id } => Operation::Settle { channel: channel(&id)? },
            Self::Sync => Operation::Sync,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_in_the_unit_that_the_page_shows() {
        let known = KnownAsset::new("TOY", "eip155:1", Address::default(), 2, None);
        let (toy, unknown) = (ChannelAsset(Some(known)), ChannelAsset(None));
        assert_eq!(toy.read(" 1.5 "), Ok(150.into()));
        assert_eq!((toy.show(150.into()).as_str(), toy.unit()), ("1.5 TOY", "TOY"));
        assert_eq!(unknown.read("150"), Ok(150.into()));
        assert_eq!(unknown.show(150.into()), "150 units");
        for (asset, text) in [(&toy, "1.555"), (&toy, "-1"), (&unknown, "1.5"), (&unknown, "")] {
            assert!(matches!(asset.read(text), Err(DashboardError::Invalid(_))), "{text}");
        }
        assert_eq!(toy.part(1.into(), 4.into()), 0.25);
        assert_eq!(toy.part(0.into(), 0.into()), 0.0);
    }

    #[test]
    fn what_is_wanted_has_to_be_said_in_full() {
        let receiver = Address::default().to_string();
        let open = json!({ "do": "open", "receiver": receiver, "deposit": "5" });
        let Ok(DashboardChange::Plan(wanted)) = DashboardChange::read("plan", open) else { panic!() };
        let expected = Operation::Open { receiver: Address::default(), deposit: 5.into() };
        assert_eq!(wanted.operation(&ChannelAsset(None)), Ok(expected));
        for (name, wanted) in [
            ("operate", json!({ "do": "open", "receiver": receiver })),
            ("operate", json!({ "do": "steal" })),
            ("freeze", json!({})),
            ("decide", json!({ "id": 1 })),
        ] {
            assert!(matches!(DashboardChange::read(name, wanted), Err(DashboardError::Invalid(_))), "{name}");
        }
        assert!(matches!(DashboardChange::read("other", json!({})), Err(DashboardError::Unknown)));
    }
}

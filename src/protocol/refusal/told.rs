//! What a program is told about a refusal: its code, and when to try again.

use std::time::Duration;

use super::{Awaited, Refusal};
use crate::protocol::ReasonCode;
use crate::protocol::budget::OverBudget;

/// When to try again if time helps, but it is not known how much.
const SOON: Duration = Duration::from_secs(5);

impl Refusal {
    /// The reason for programs.
    pub fn reason(&self) -> ReasonCode {
        match self {
            Self::NoRule { .. } => ReasonCode::NoRule,
            Self::NoClientRule { .. } => ReasonCode::NoClientRule,
            Self::ClientRemoved { .. } => ReasonCode::WrongToken,
            Self::Denied { .. } => ReasonCode::DeniedByRule,
            Self::AnotherSite { .. } => ReasonCode::AnotherSite,
            Self::Prefetch { .. } => ReasonCode::Prefetch,
            Self::Preflight => ReasonCode::Preflight,
            Self::Browser { .. } => ReasonCode::Browser,
            Self::OtherUser { .. } => ReasonCode::OtherUser,
            Self::UnknownUser { .. } => ReasonCode::UnknownUser,
            Self::PlainHttp { .. } => ReasonCode::PlainHttp,
            Self::UnknownScheme | Self::Compressed { .. } => ReasonCode::UnknownScheme,
            Self::Malformed(_) => ReasonCode::OfferMalformed,
            Self::OfferTooLarge { .. } => ReasonCode::OfferTooLarge,
            Self::OfferTooSlow => ReasonCode::OfferTooSlow,
            Self::OfferBroken => ReasonCode::OfferIncomplete,
            Self::NotReplayable(_) => ReasonCode::NotReplayable,
            Self::BoundConnection => ReasonCode::BoundConnection,
            Self::OtherProtocol => ReasonCode::OtherProtocol,
            Self::NoWallet => ReasonCode::NoWallet,
            Self::NoChain => ReasonCode::NoChain,
            Self::NotReady(_) => ReasonCode::NotReady,
            Self::Busy => ReasonCode::Busy,
            Self::PriceZero => ReasonCode::PriceZero,
            Self::TooExpensive { .. } => ReasonCode::AboveMaxPrice,
            Self::ForeignAsset { .. } => ReasonCode::AssetNotAllowed,
            Self::OverBudget(over) => match **over {
                OverBudget::Amount { .. } | OverBudget::Payments { .. } => ReasonCode::OverBudget,
                OverBudget::Asset { .. } => ReasonCode::BudgetCannotCount,
            },
            Self::ForeignReceiver(_) => ReasonCode::ReceiverNotAllowed,
            Self::ForeignContract { .. } | Self::ContractChanged(_) => ReasonCode::OtherContract,
            Self::ForeignToken { .. } => ReasonCode::OtherToken,
            Self::ReceiverChanged(_) => ReasonCode::ReceiverChanged,
            Self::ForeignState => ReasonCode::OtherPayer,
            Self::UnprovenTotal { .. } => ReasonCode::UnprovenTotal,
            Self::NotAccepted => ReasonCode::NotAccepted,
            Self::NoProgress => ReasonCode::NoProgress,
            Self::PaidAnswerLost { .. } => ReasonCode::PaidAnswerLost,
            Self::PaidNotDelivered { .. } => ReasonCode::PaidNotDelivered,
            Self::OutcomeUnclear { .. } | Self::StillUnclear { .. } => ReasonCode::PaymentInDoubt,
            Self::SellerRefused { .. } => ReasonCode::SellerRefused,
            Self::NoAllowance { .. } => ReasonCode::NoAllowance,
            Self::SchemeNotAllowed { .. } => ReasonCode::SchemeNotAllowed,
            Self::ClockSkew { .. } => ReasonCode::ClockSkew,
            Self::UnsupportedOffers { .. } => ReasonCode::UnsupportedOffers,
            Self::NoTokenDomain { .. } => ReasonCode::NoTokenName,
            Self::TokenNamedWrongly { .. } => ReasonCode::WrongTokenName,
            Self::TooManyOpen => ReasonCode::TooManyOpen,
            Self::AnswerUnreadable => ReasonCode::AnswerUnreadable,
            Self::SecondPrice { .. } => ReasonCode::SecondPrice,
            Self::Rounds { .. } => ReasonCode::MaxAttempts,
            Self::HookAborts { .. } => ReasonCode::HookAborts,
            Self::HookGaveUp { .. } => ReasonCode::HookGaveUp,
            Self::ChannelExists { .. } => ReasonCode::ChannelDenied,
            Self::NotWanted => ReasonCode::NotWanted,
            Self::NoApprover { .. } => ReasonCode::NoApprover,
            Self::ApproverRefused { .. } => ReasonCode::ApproverRefused,
            Self::DryRun { .. } => ReasonCode::DryRun,
            Self::ApprovalTimedOut { .. } => ReasonCode::ApprovalTimedOut,
            Self::ApprovalDenied { .. } => ReasonCode::ApprovalDenied,
            Self::TooManyApprovals { .. } => ReasonCode::TooManyApprovals,
            Self::TermsNeedApproval => ReasonCode::TermsNeedApproval,
            Self::AnswerAborts { .. } => ReasonCode::AnswerWithheld,
            Self::Deadline { .. } => ReasonCode::PayTimeout,
            Self::DepositCap { .. } => ReasonCode::ChannelLimit,
            Self::DepositLimit { .. } => ReasonCode::DepositLimit,
            Self::FundFailed { .. } => ReasonCode::FundingFailed,
            Self::FundedOnce => ReasonCode::FundedOnce,
            Self::TooManyDeposits { .. } => ReasonCode::TooManyDeposits,
            Self::DepositUnseen { .. } => ReasonCode::DepositUnseen,
            Self::Paused { .. } => ReasonCode::HostPaused,
            Self::RunOver(_) => ReasonCode::RunOver,
            Self::UnknownRun(_) => ReasonCode::UnknownRun,
            Self::Frozen => ReasonCode::Frozen,
            Self::SignerRefused(_) => ReasonCode::SignerRefused,
            Self::SignerUnavailable(_) => ReasonCode::SignerUnavailable,
            Self::SignerUnclear(_) => ReasonCode::SignerUnclear,
            Self::StoreFailed(_) => ReasonCode::JournalUnwritable,
            Self::ClientLeft => ReasonCode::ClientLeft,
            Self::ShuttingDown => ReasonCode::ShuttingDown,
        }
    }

    /// The time after which the same request may be paid, if time alone helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OverBudget(over) => over.free_in(),
            Self::FundFailed { retry, .. } => Some(retry.next),
            Self::PaidNotDelivered { retry_after } | Self::OutcomeUnclear { retry_after } => {
                Some(*retry_after)
            }
            Self::TooManyDeposits { free_in, .. } => *free_in,
            Self::Deadline { waited_for } => match waited_for {
                Awaited::Channel | Awaited::Funding | Awaited::Journal | Awaited::Start => Some(SOON),
                // The request or the seller would have to change.
                Awaited::Seller | Awaited::Request => None,
            },
            Self::NotReady(_)
            | Self::Busy
            | Self::TooManyApprovals { .. }
            | Self::FundedOnce
            | Self::UnknownRun(_)
            | Self::TooManyOpen
            | Self::StillUnclear { .. }
            | Self::SignerUnavailable(_)
            | Self::ShuttingDown => Some(SOON),
            _ => None,
        }
    }
}

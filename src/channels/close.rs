//! Closes channels: together with the seller, who signs the final total, or without. The channel is locked meanwhile,
//! so that no payment is in flight.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::approver::CloseApprovalRequest;
use super::error::OperationError;
use super::operate::Operation;
use super::seller::{SellerError, SellerState};
use super::service::Channels;
use super::totals::{is_unused, on_chain, unilateral_total};
use crate::payments::{ChainContext, ChangedChannel, ClosingSignature, ListedChannel};
use crate::protocol::policy::CloseDenied;
use crate::protocol::schemes::microraiden::proof;
use crate::protocol::{Account, Address, Amount, Channel, ChannelId, ChannelOp, Phase};

/// How many sellers' channels are closed concurrently.
const CONCURRENT_SELLERS: usize = 8;

impl Channels {
    /// Closes all open channels that were ever used together with their sellers, and logs each outcome.
    ///
    /// # Errors
    /// The first [`OperationError::Denied`]: a seller did not sign, and the policy says to stop there. The channels of
    /// other sellers are still closed.
    pub async fn close_all(&self) -> Result<(), OperationError> {
        let channels = self.payments.list().await.map_or(Vec::new(), |listing| listing.channels);
        let mut sellers: BTreeMap<Address, Vec<ListedChannel>> = BTreeMap::new();
        for channel in channels.into_iter().filter(|channel| channel.phase == Phase::Open.name()) {
            sellers.entry(channel.receiver).or_default().push(channel);
        }
        let closing = stream::iter(sellers.into_values()).map(|channels| self.close_all_of_seller(channels));
        let closed: Vec<_> = closing.buffer_unordered(CONCURRENT_SELLERS).collect().await;
        closed.into_iter().collect()
    }

    /// Closes the channels of one seller one after the other, as transactions for one receiver must be.
    async fn close_all_of_seller(&self, channels: Vec<ListedChannel>) -> Result<(), OperationError> {
        for channel in channels {
            let id = channel.id();
            if channel.promised.is_zero() {
                tracing::info!(channel = %id, "keeping a channel open that was never used");
                continue;
            }
            match self.operate(Operation::CloseTogether { channel: id, seller: None }).await {
                Ok(report) => {
                    tracing::info!(channel = %id, ?report, "closed a channel, or started its challenge period")
                }
                Err(error) => {
                    tracing::warn!(channel = %id, reason = %error, "closing a channel failed");
                    if matches!(error, OperationError::Denied(_)) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn close_together(
        &self,
        context: &ChainContext,
        id: ChannelId,
        seller: Option<String>,
    ) -> Result<ChangedChannel, OperationError> {
        let (_lock, locked) = self.payments.lock_channel(id).await?;
        self.close_locked(context, id, locked, seller).await
    }

    /// Closes a channel that the caller has locked, together with its seller.
    pub(super) async fn close_locked(
        &self,
        context: &ChainContext,
        id: ChannelId,
        locked: Channel,
        seller: Option<String>,
    ) -> Result<ChangedChannel, OperationError> {
        let on_chain = on_chain(context, id).await?;
        let url = self.seller_url(id, seller);
        let locked = match &url {
            // A recreated journal does not know what was paid. If the seller does not respond, the channel counts as
            // unused.
            Ok(url) if is_unused(&locked) => self.correct(context, id, locked, url).await.unwrap_or(locked),
            Ok(url) if locked.is_uncertain() => self.correct(context, id, locked, url).await?,
            Ok(_) | Err(_) => locked,
        };
        if is_unused(&locked) {
            let total = unilateral_total(&locked, &on_chain, None, false)?;
            return Ok(self.payments.start_op(ChannelOp::CloseAlone { channel: id, total }).await?);
        }
        let url = url?;
        let ClosingSignature { total, signature } =
            match self.closing_signature(context, id, locked, &url).await {
                Ok(signature) => signature,
                Err(denied) => {
                    self.approve_unilateral_close(id, &url, denied).await?;
                    // Meanwhile, the seller may have proven that more was promised.
                    let known = self.payments.channel(id).await?;
                    let total = unilateral_total(&known, &on_chain, None, false)?;
                    return Ok(self.payments.start_op(ChannelOp::CloseAlone { channel: id, total }).await?);
                }
            };
        let request = proof::balance_request(id, total, context.account.contract);
        let balance_signature = context.signer.sign(&request, context.signer.turn(None).await?).await?;
        let op =
            ChannelOp::CloseTogether { channel: id, total, balance_signature, closing_signature: signature };
        let changed = self.payments.start_op(op).await?;
        self.payments.forget_closing_signature(&id);
        Ok(changed)
    }

    /// Applies the policy for a seller that did not sign.
    ///
    /// # Errors
    /// The channel stays open.
    async fn approve_unilateral_close(
        &self,
        channel: ChannelId,
        seller_url: &str,
        denied: OperationError,
    ) -> Result<(), OperationError> {
        let hook = self.payments.close_denied();
        match hook.action {
            CloseDenied::Keep => return Err(denied),
            CloseDenied::Abort => return Err(OperationError::Denied(denied.to_string())),
            CloseDenied::CloseAlone => {}
        }
        if let Some(webhook) = &hook.webhook {
            let status = match denied {
                OperationError::Seller(SellerError::Refused { status, .. }) => Some(status),
                _ => None,
            };
            let request = CloseApprovalRequest { seller_url, channel, status };
            match self.approver.approve(webhook, request).await {
                Ok(CloseDenied::CloseAlone) => {}
                Ok(CloseDenied::Keep) => return Err(denied),
                Ok(CloseDenied::Abort) => return Err(OperationError::Denied(denied.to_string())),
                Err(reason) => return Err(OperationError::Denied(format!("{denied}; {reason}"))),
            }
        }
        tracing::warn!(%channel, reason = %denied, "closing unilaterally, as configured in hooks.cooperative_close_denied");
        Ok(())
    }

    pub(super) async fn close_alone(
        &self,
        context: &ChainContext,
        id: ChannelId,
        total: Option<Amount>,
        below_promised: bool,
    ) -> Result<ChangedChannel, OperationError> {
        let (_lock, locked) = self.payments.lock_channel(id).await?;
        let on_chain = on_chain(context, id).await?;
        let known = self.best_known(context, id, locked).await;
        let total = unilateral_total(&known, &on_chain, total, below_promised)?;
        Ok(self.payments.start_op(ChannelOp::CloseAlone { channel: id, total }).await?)
    }

    /// The channel, corrected by the seller's proof if its total is in doubt or no payment is known.
    pub(super) async fn best_known(&self, context: &ChainContext, id: ChannelId, known: Channel) -> Channel {
        let Ok(url) = self.seller_url(id, None) else { return known };
        // A recreated journal does not know what was paid.
        if !known.is_uncertain() && !is_unused(&known) {
            return known;
        }
        match self.seller_state(context, id, known, &url).await {
            Ok((channel, _)) => channel,
            Err(error) => {
                tracing::warn!(channel = %id, reason = %error, "could not determine the promised total");
                known
            }
        }
    }

    /// The seller's signature for closing on the total that it holds.
    async fn closing_signature(
        &self,
        context: &ChainContext,
        id: ChannelId,
        locked: Channel,
        url: &str,
    ) -> Result<ClosingSignature, OperationError> {
        let kept = self.payments.closing_signature(&id);
        if let Some(kept) = kept.filter(|kept| kept.total == locked.acknowledged) {
            return Ok(kept);
        }
        let total = locked.acknowledged;
        let refusal = match self.request_closing_signature(context, id, url, total).await {
            Err(refusal @ OperationError::Seller(SellerError::Refused { .. })) => refusal,
            other => return other,
        };
        // The seller may hold a different total than recorded: retry with the total that our own signature proves.
        match self.correct(context, id, locked, url).await {
            Ok(known) if known.acknowledged != total => {
                self.request_closing_signature(context, id, url, known.acknowledged).await
            }
            Err(unproven @ OperationError::Unproven(_)) => Err(unproven),
            Ok(_) | Err(_) => Err(refusal),
        }
    }

    async fn request_closing_signature(
        &self,
        context: &ChainContext,
        id: ChannelId,
        url: &str,
        total: Amount,
    ) -> Result<ClosingSignature, OperationError> {
        let Account { contract, payer, .. } = context.account;
        let signature = self.seller.closing_signature(url, payer, id.open_block, total).await?;
        let digest = proof::closing_digest(payer, id.open_block, total, contract);
        if proof::recover(digest, &signature) != Some(id.receiver) {
            return Err(OperationError::ForeignSignature);
        }
        let signature = ClosingSignature { total, signature };
        self.payments.keep_closing_signature(id, signature).await?;
        Ok(signature)
    }

    /// Corrects a locked channel by the seller's state.
    async fn correct(
        &self,
        context: &ChainContext,
        id: ChannelId,
        locked: Channel,
        url: &str,
    ) -> Result<Channel, OperationError> {
        let (channel, proven) = self.seller_state(context, id, locked, url).await?;
        self.payments.correct(id, channel.acknowledged, proven).await?;
        Ok(channel)
    }

    /// The channel with the total that the seller reports, and whether our own signature proves it. A reported total of
    /// zero proves nothing: what may have been signed stays in doubt.
    async fn seller_state(
        &self,
        context: &ChainContext,
        id: ChannelId,
        known: Channel,
        url: &str,
    ) -> Result<(Channel, bool), OperationError> {
        let Account { contract, payer, .. } = context.account;
        let SellerState { total, signature } = self.seller.state(url, payer, id.open_block).await?;
        let is_ours =
            |signature| proof::recover(proof::balance_digest(id, total, contract), &signature) == Some(payer);
        let proven = !total.is_zero() && signature.is_some_and(is_ours);
        if !total.is_zero() && !proven {
            return Err(OperationError::Unproven(total));
        }
        let mut channel = known;
        channel.correct(total, proven);
        Ok((channel, proven))
    }

    fn seller_url(&self, id: ChannelId, given: Option<String>) -> Result<String, OperationError> {
        given.or_else(|| self.payments.seller_url(id)).ok_or(OperationError::NoSeller(id))
    }
}

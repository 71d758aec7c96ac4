//! Closing channels: together with the seller, who is asked for its signature, or alone. No payment is on its way
//! meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::{mpsc, oneshot};

use super::operate::{Means, Operation, Trouble, alone_on, is_unused, on_chain};
use super::seller::{Denied, SellerError, SellerState};
use super::{Funded, ListedChannel, Manager, Message, lock};
use crate::protocol::policy::CloseDenied;
use crate::protocol::schemes::microraiden::proof;
use crate::protocol::{Address, Amount, Channel, ChannelId, Facts, Order, Phase, Signature};

/// Names a hold to the manager's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HoldId(u64);

/// Gets the channel once it is lent to nobody.
pub(super) type HoldReply = oneshot::Sender<Result<Channel, Trouble>>;

/// Closing signatures that were not used yet, by channel, and the totals they stand under: a seller gives one once.
pub(super) type Consents = HashMap<ChannelId, (Amount, Signature)>;

/// A channel that is lent to nobody as long as this lives.
pub(super) struct Hold {
    channel: ChannelId,
    hold: HoldId,
    slot: Option<mpsc::OwnedPermit<Message>>,
}

/// How many channels are closed at the same time at the end.
const CLOSED_AT_ONCE: usize = 8;

impl Manager {
    /// Closes all open channels that were ever used together with their sellers; says in the log what became of each.
    ///
    /// # Errors
    /// The first [`Trouble::Denied`]: a seller did not sign, and the policy says to stop there. Channels of other
    /// sellers are closed all the same.
    pub async fn close_all(&self) -> Result<(), Trouble> {
        let channels = self.list().await.map_or(Vec::new(), |listing| listing.channels);
        let mut sellers: BTreeMap<Address, Vec<ListedChannel>> = BTreeMap::new();
        for channel in channels.into_iter().filter(|channel| channel.phase == Phase::Open.name()) {
            sellers.entry(channel.receiver).or_default().push(channel);
        }
        let closing = stream::iter(sellers.into_values()).map(|channels| self.close_all_of_one(channels));
        let closed: Vec<_> = closing.buffer_unordered(CLOSED_AT_ONCE).collect().await;
        closed.into_iter().collect()
    }

    /// The same for the channels of one seller, one after the other: its openings and endings are so, too.
    async fn close_all_of_one(&self, channels: Vec<ListedChannel>) -> Result<(), Trouble> {
        for channel in channels {
            let id = channel.id();
            if channel.promised.is_zero() {
                tracing::info!(channel = %id, "nothing was ever paid on it: it stays open");
                continue;
            }
            match self.operate(Operation::CloseTogether { channel: id, seller: None }).await {
                Ok(report) => tracing::info!(channel = %id, "{}", report.text),
                Err(trouble) => {
                    tracing::warn!(channel = %id, reason = %trouble, "the channel is not closed");
                    if matches!(trouble, Trouble::Denied(_)) {
                        return Err(trouble);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) async fn close_together(
        &self,
        means: &Means,
        id: ChannelId,
        seller: Option<String>,
    ) -> Result<Funded, Trouble> {
        let (_hold, held) = self.hold(id).await?;
        self.close_held(means, id, held, seller).await
    }

    /// Closes a channel that is held together with its seller.
    pub(super) async fn close_held(
        &self,
        means: &Means,
        id: ChannelId,
        held: Channel,
        seller: Option<String>,
    ) -> Result<Funded, Trouble> {
        let on_chain = on_chain(means, id).await?;
        let gateway = self.gateway(id, seller);
        let held = match &gateway {
            // A journal that was lost knows nothing of what was paid; a seller that says nothing was paid nothing.
            Ok(gateway) if is_unused(&held) => self.clear_up(means, id, held, gateway).await.unwrap_or(held),
            Ok(gateway) if held.is_uncertain() => self.clear_up(means, id, held, gateway).await?,
            Ok(_) | Err(_) => held,
        };
        if is_unused(&held) {
            let total = alone_on(&held, &on_chain, None, false)?;
            return self.order(Order::CloseAlone { channel: id, total }).await;
        }
        let gateway = gateway?;
        let (total, closing_signature) = match self.consent(means, id, held, &gateway).await {
            Ok(consent) => consent,
            Err(denied) => {
                self.may_close_alone(id, &gateway, denied).await?;
                // The seller may have proven meanwhile that more was promised.
                let now = self.known(id).await?;
                let total = alone_on(&now, &on_chain, None, false)?;
                return self.order(Order::CloseAlone { channel: id, total }).await;
            }
        };
        let digest = proof::balance_digest(id, total, means.facts.contract);
        let balance_signature = means.signer.sign(digest)?;
        let order = Order::CloseTogether { channel: id, total, balance_signature, closing_signature };
        let done = self.order(order).await?;
        lock(&self.consents).remove(&id);
        Ok(done)
    }

    /// What the policy says where a seller did not sign; `Err` where the channel is not to be closed without it.
    async fn may_close_alone(
        &self,
        channel: ChannelId,
        gateway: &str,
        denied: Trouble,
    ) -> Result<(), Trouble> {
        match self.close_denied.action {
            CloseDenied::Keep => return Err(denied),
            CloseDenied::Abort => return Err(Trouble::Denied(denied.to_string())),
            CloseDenied::CloseAlone => {}
        }
        if let Some(webhook) = &self.close_denied.webhook {
            let status = match denied {
                Trouble::Seller(SellerError::Refused { status, .. }) => Some(status),
                _ => None,
            };
            let question = Denied { gateway, channel, status };
            match self.seller.may_close_alone(webhook, question).await {
                Ok(CloseDenied::CloseAlone) => {}
                Ok(CloseDenied::Keep) => return Err(denied),
                Ok(CloseDenied::Abort) => return Err(Trouble::Denied(denied.to_string())),
                Err(reason) => return Err(Trouble::Denied(format!("{denied}; {reason}"))),
            }
        }
        tracing::warn!(%channel, reason = %denied, "closing alone, as the policy says");
        Ok(())
    }

    pub(super) async fn close_alone(
        &self,
        means: &Means,
        id: ChannelId,
        total: Option<Amount>,
        below_promised: bool,
    ) -> Result<Funded, Trouble> {
        let (_hold, held) = self.hold(id).await?;
        let on_chain = on_chain(means, id).await?;
        let held = self.best_known(means, id, held).await;
        let total = alone_on(&held, &on_chain, total, below_promised)?;
        self.order(Order::CloseAlone { channel: id, total }).await
    }

    /// The channel with what the seller can prove of it, where that is in doubt or nothing is known to be paid, and the
    /// seller tells.
    pub(super) async fn best_known(&self, means: &Means, id: ChannelId, held: Channel) -> Channel {
        let Ok(gateway) = self.gateway(id, None) else { return held };
        // A journal that was lost knows nothing of what was paid.
        if !held.is_uncertain() && !is_unused(&held) {
            return held;
        }
        match self.ask_state(means, id, held, &gateway).await {
            Ok((channel, _)) => channel,
            Err(trouble) => {
                tracing::warn!(channel = %id, reason = %trouble, "what was promised stays in doubt");
                held
            }
        }
    }

    /// The seller's signature to close on the total that it holds, and that total.
    async fn consent(
        &self,
        means: &Means,
        id: ChannelId,
        held: Channel,
        gateway: &str,
    ) -> Result<(Amount, Signature), Trouble> {
        let kept = lock(&self.consents).get(&id).copied();
        if let Some(kept) = kept.filter(|(total, _)| *total == held.acknowledged) {
            return Ok(kept);
        }
        let total = held.acknowledged;
        let refusal = match self.ask_to_close(means, id, gateway, total).await {
            Err(refusal @ Trouble::Seller(SellerError::Refused { .. })) => refusal,
            other => return other,
        };
        // The seller may hold another total than we believe: on what our own signature proves it is asked once more.
        match self.clear_up(means, id, held, gateway).await {
            Ok(now) if now.acknowledged != total => {
                self.ask_to_close(means, id, gateway, now.acknowledged).await
            }
            Err(unproven @ Trouble::Unproven(_)) => Err(unproven),
            Ok(_) | Err(_) => Err(refusal),
        }
    }

    async fn ask_to_close(
        &self,
        means: &Means,
        id: ChannelId,
        gateway: &str,
        total: Amount,
    ) -> Result<(Amount, Signature), Trouble> {
        let Facts { contract, payer, .. } = means.facts;
        let signature = self.seller.closing_signature(gateway, payer, id.open_block, total).await?;
        let digest = proof::closing_digest(payer, id.open_block, total, contract);
        if proof::recover(digest, &signature) != Some(id.receiver) {
            return Err(Trouble::ForeignSignature);
        }
        lock(&self.consents).insert(id, (total, signature));
        // On record before anything is made of it: after a crash the seller would give no other one.
        let (reply, recorded) = oneshot::channel();
        self.send(Message::Consented { channel: id, total, signature, reply }).await?;
        recorded.await.map_err(|_| Trouble::ShuttingDown)?;
        Ok((total, signature))
    }

    /// Brings the truth about a held channel back from the seller's own state.
    async fn clear_up(
        &self,
        means: &Means,
        id: ChannelId,
        held: Channel,
        gateway: &str,
    ) -> Result<Channel, Trouble> {
        let (channel, proven) = self.ask_state(means, id, held, gateway).await?;
        self.send(Message::Learned { channel: id, total: channel.acknowledged, proven }).await?;
        Ok(channel)
    }

    /// The channel with what the seller says that it holds, and whether our own signature proves that. A seller that claims
    /// to hold nothing proves nothing: what may have been signed stays in doubt.
    async fn ask_state(
        &self,
        means: &Means,
        id: ChannelId,
        held: Channel,
        gateway: &str,
    ) -> Result<(Channel, bool), Trouble> {
        let Facts { contract, payer, .. } = means.facts;
        let SellerState { total, signature } = self.seller.state(gateway, payer, id.open_block).await?;
        let is_ours =
            |signature| proof::recover(proof::balance_digest(id, total, contract), &signature) == Some(payer);
        let proven = !total.is_zero() && signature.is_some_and(is_ours);
        if !total.is_zero() && !proven {
            return Err(Trouble::Unproven(total));
        }
        let mut channel = held;
        channel.correct(total, proven);
        Ok((channel, proven))
    }

    fn gateway(&self, id: ChannelId, given: Option<String>) -> Result<String, Trouble> {
        given.or_else(|| self.gateway_of(id)).ok_or(Trouble::NoSeller(id))
    }

    /// Waits until no payment of the channel is on its way, and keeps it so.
    pub(super) async fn hold(&self, channel: ChannelId) -> Result<(Hold, Channel), Trouble> {
        let slot = self.mailbox.clone().reserve_owned().await.map_err(|_| Trouble::ShuttingDown)?;
        let id = HoldId(self.next.fetch_add(1, Ordering::Relaxed));
        let hold = Hold { channel, hold: id, slot: Some(slot) };
        let (reply, answer) = oneshot::channel();
        self.send(Message::Hold { channel, hold: id, reply }).await?;
        let held = answer.await.map_err(|_| Trouble::ShuttingDown)??;
        Ok((hold, held))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.send(Message::Release { channel: self.channel, hold: self.hold });
        }
    }
}

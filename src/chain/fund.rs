//! Putting money into a channel: by the token's own transfer where it has ERC-223's, else by an allowance.

use ethers_core::types::{H160, U256};

use crate::chain::confirm::Sent;
use crate::chain::contracts;
use crate::chain::contracts::{AllowanceCall, ApproveCall, CreateChannelCall, TopUpCall, TransferCall};
use crate::chain::error::{ChainError, OrderError, Underfunded};
use crate::chain::journal::Journal;
use crate::chain::order::both;
use crate::chain::rpc::{At, CallRequest};
use crate::chain::send::Step;
use crate::chain::{Chain, Ground};
use crate::protocol::{Address, Amount, ChannelId, Order};

/// What stands for the gas of an `approve` in an estimate.
const APPROVE_GAS: u64 = 60_000;
/// What stands in an estimate for the gas of a call that fetches tokens: it cannot be tried before it is allowed.
const FETCH_GAS: u64 = 150_000;

impl Chain {
    /// Sends what puts the money of `order` into its channel. Answers the last transaction, and the fee in wei of
    /// those before it, if known.
    pub(super) async fn fund(
        &self,
        order: &Order,
        amount: Amount,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<(Sent, Option<U256>), OrderError> {
        self.can_spend(amount, ground).await?;
        if !self.transfers_with_data(ground.token).await? {
            return self.spend_allowance(order, amount, ground, journal).await;
        }
        let request = self.transfer_request(order, amount, ground);
        let before = self.deposit_before(order).await?;
        let sent = self.send(order, Step { request, moves: true, before }, ground, journal).await?;
        Ok((sent, Some(U256::zero())))
    }

    /// The most gas that it takes to put the money of `order` into its channel.
    pub(super) async fn gas_to_fund(
        &self,
        order: &Order,
        amount: Amount,
        ground: Ground,
    ) -> Result<U256, OrderError> {
        self.can_spend(amount, ground).await?;
        if self.transfers_with_data(ground.token).await? {
            return self.gas_limit(order, &self.transfer_request(order, amount, ground)).await;
        }
        let allowed = self.allowance(ground).await?;
        if allowed >= U256::from(amount) {
            return self.gas_limit(order, &self.fetch_request(order, amount)).await;
        }
        let approvals = if allowed.is_zero() { 1 } else { 2 };
        Ok(U256::from(approvals * APPROVE_GAS + FETCH_GAS))
    }

    /// The deposit that a top up adds to.
    async fn deposit_before(&self, order: &Order) -> Result<Option<Amount>, ChainError> {
        let Order::TopUp { channel, .. } = order else { return Ok(None) };
        Ok(self.channel(*channel).await?.map(|now| now.deposit))
    }

    async fn can_spend(&self, needs: Amount, ground: Ground) -> Result<(), OrderError> {
        let has = self.tokens(ground.token).await?;
        if has < needs {
            let (payer, token) = (self.payer(), ground.token);
            return Err(OrderError::Underfunded(Box::new(Underfunded::Token { payer, token, has, needs })));
        }
        Ok(())
    }

    fn transfer_request(&self, order: &Order, amount: Amount, ground: Ground) -> CallRequest {
        let call = contracts::transfer_call(self.0.settings.channel_manager, self.payer(), order, amount);
        self.request(ground.token, call)
    }

    /// The call that has the contract fetch tokens that it is allowed to take.
    fn fetch_request(&self, order: &Order, amount: Amount) -> CallRequest {
        let (contract, amount) = (self.0.settings.channel_manager, U256::from(amount));
        let receiver = H160::from(order.receiver());
        match order {
            Order::TopUp { channel: ChannelId { open_block, .. }, .. } => {
                self.request(contract, TopUpCall { receiver, open_block: *open_block, added: amount })
            }
            _ => self.request(contract, CreateChannelCall { receiver, deposit: amount }),
        }
    }

    async fn allowance(&self, ground: Ground) -> Result<U256, ChainError> {
        let contract = self.0.settings.channel_manager;
        let call = AllowanceCall { owner: self.payer().into(), spender: contract.into() };
        self.view(ground.token, call, At::Latest).await
    }

    /// The way of a plain token: approve, then have the contract fetch the tokens. It answers once that is mined.
    async fn spend_allowance(
        &self,
        order: &Order,
        amount: Amount,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<(Sent, Option<U256>), OrderError> {
        let _allowance = self.0.allowance.lock().await;
        let (units, allowed) = (U256::from(amount), self.allowance(ground).await?);
        let mut fee = Some(U256::zero());
        if allowed < units {
            // An allowance must be 0 before it can be changed.
            if !allowed.is_zero() {
                fee = both(fee, self.approve(order, U256::zero(), ground, journal).await?);
            }
            fee = both(fee, self.approve(order, units, ground, journal).await?);
        }
        let before = self.deposit_before(order).await?;
        let step = Step { request: self.fetch_request(order, amount), moves: true, before };
        let sent = self.send(order, step, ground, journal).await?;
        match self.confirm(&sent, 1, journal).await {
            // The order is not decided before its earlier attempts are.
            Err(OrderError::Replaced { .. }) if !sent.earlier.is_empty() => {}
            confirmed => drop(confirmed?),
        }
        Ok((sent, fee))
    }

    /// Answers the fee in wei, if known.
    async fn approve(
        &self,
        order: &Order,
        value: U256,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<Option<U256>, OrderError> {
        let call = ApproveCall { spender: self.0.settings.channel_manager.into(), value };
        let step = Step { request: self.request(ground.token, call), moves: false, before: None };
        let sent = self.send(order, step, ground, journal).await?;
        let mined = self.confirm(&sent, 1, journal).await?;
        self.succeeded(&sent, &mined).await?;
        Ok(mined.fee(&sent.intent))
    }

    /// Whether the token has ERC-223's transfer and it reaches the channel contract. A trial call must succeed,
    /// and one with data that the contract refuses must not: a token that swallows unknown calls would take both.
    async fn transfers_with_data(&self, token: Address) -> Result<bool, ChainError> {
        let contract = self.0.settings.channel_manager;
        // The trial opens a channel to the contract itself, which no real order does.
        let one = Amount::from(1);
        let trial = Order::Open { receiver: contract, deposit: one };
        let ask = || async {
            let good = contracts::transfer_call(contract, self.payer(), &trial, one);
            let bad = TransferCall { data: vec![0].into(), ..good.clone() };
            Ok(self.would_succeed(token, good).await? && !self.would_succeed(token, bad).await?)
        };
        self.0.transfers_with_data.get_or_try_init(ask).await.copied()
    }

    async fn would_succeed(&self, to: Address, call: TransferCall) -> Result<bool, ChainError> {
        match self.0.rpc.call(&self.request(to, call), At::Latest).await {
            Ok(_) => Ok(true),
            Err(ChainError::Reverted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

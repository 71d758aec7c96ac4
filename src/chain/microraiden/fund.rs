//! Moves money into a channel: by ERC-223's `transfer` if the token has it, otherwise by an allowance.

use ethers_core::types::U256;

use crate::chain::Chain;
use crate::chain::client::ContractConstants;
use crate::chain::contract_call::ContractCall;
use crate::chain::erc20;
use crate::chain::error::{ChainError, OpError, Underfunded};
use crate::chain::microraiden::contracts;
use crate::chain::microraiden::execute::both;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::rpc::{At, CallRequest};
use crate::chain::send::TransactionStep;
use crate::chain::sent::SentTx;
use crate::protocol::{Address, Amount, ChannelOp};

/// The assumed gas of an `approve`.
const APPROVE_GAS: u64 = 60_000;
/// The assumed gas of the call that pulls approved tokens: it cannot be estimated before the approval is mined.
const FETCH_GAS: u64 = 150_000;

impl Chain {
    /// Sends the transactions that move the money of `op` into its channel. Returns the last one, and the fee in wei of
    /// those before it, if known.
    pub(in crate::chain) async fn fund(
        &self,
        op: &ChannelOp,
        amount: Amount,
        pinned: ContractConstants,
        recorder: &impl TransactionRecorder,
    ) -> Result<(SentTx, Option<U256>), OpError> {
        self.can_spend(amount, pinned).await?;
        if !self.transfers_with_data(pinned.token).await? {
            return self.spend_allowance(op, amount, pinned, recorder).await;
        }
        let request = self.transfer_request(op, amount, pinned);
        let before = self.deposit_before(op).await?;
        let sent = self.send(op, TransactionStep { request, moves: true, before }, pinned, recorder).await?;
        Ok((sent, Some(U256::zero())))
    }

    /// The most gas that moving the money of `op` into its channel takes.
    pub(in crate::chain) async fn gas_to_fund(
        &self,
        op: &ChannelOp,
        amount: Amount,
        pinned: ContractConstants,
    ) -> Result<U256, OpError> {
        self.can_spend(amount, pinned).await?;
        if self.transfers_with_data(pinned.token).await? {
            return self.gas_limit(op, &self.transfer_request(op, amount, pinned)).await;
        }
        let allowed = self.allowance(pinned).await?;
        if allowed >= U256::from(amount) {
            return self.gas_limit(op, &self.fetch_request(op, amount)).await;
        }
        let approvals = if allowed.is_zero() { 1 } else { 2 };
        Ok(U256::from(approvals * APPROVE_GAS + FETCH_GAS))
    }

    /// The deposit before a top-up.
    async fn deposit_before(&self, op: &ChannelOp) -> Result<Option<Amount>, ChainError> {
        let ChannelOp::TopUp { channel, .. } = op else { return Ok(None) };
        Ok(self.channel(*channel).await?.map(|now| now.deposit))
    }

    async fn can_spend(&self, needs: Amount, pinned: ContractConstants) -> Result<(), OpError> {
        let has = self.tokens(pinned.token).await?;
        if has < needs {
            let (payer, token) = (self.payer(), pinned.token);
            return Err(OpError::Underfunded(Box::new(Underfunded::Token { payer, token, has, needs })));
        }
        Ok(())
    }

    fn transfer_request(&self, op: &ChannelOp, amount: Amount, pinned: ContractConstants) -> CallRequest {
        let data = contracts::transfer_data(self.payer(), op);
        let call = contracts::transfer(self.0.settings.channel_manager, amount, data);
        self.request(pinned.token, &call)
    }

    /// The call with which the channel contract pulls the approved tokens.
    fn fetch_request(&self, op: &ChannelOp, amount: Amount) -> CallRequest {
        let call = match op {
            ChannelOp::TopUp { channel, .. } => contracts::top_up(*channel, amount),
            _ => contracts::create_channel(op.receiver(), amount),
        };
        self.request(self.0.settings.channel_manager, &call)
    }

    async fn allowance(&self, pinned: ContractConstants) -> Result<U256, ChainError> {
        let contract = self.0.settings.channel_manager;
        self.view(pinned.token, erc20::allowance(self.payer(), contract), At::Latest).await
    }

    /// Funds from a plain ERC-20 token: approves, then has the contract pull the tokens. Returns once that is mined.
    async fn spend_allowance(
        &self,
        op: &ChannelOp,
        amount: Amount,
        pinned: ContractConstants,
        recorder: &impl TransactionRecorder,
    ) -> Result<(SentTx, Option<U256>), OpError> {
        let _allowance = self.0.allowance.lock().await;
        let (units, allowed) = (U256::from(amount), self.allowance(pinned).await?);
        let mut fee = Some(U256::zero());
        if allowed < units {
            // An allowance must be 0 before it can be changed.
            if !allowed.is_zero() {
                fee = both(fee, self.approve(op, U256::zero(), pinned, recorder).await?);
            }
            fee = both(fee, self.approve(op, units, pinned, recorder).await?);
        }
        let before = self.deposit_before(op).await?;
        let step = TransactionStep { request: self.fetch_request(op, amount), moves: true, before };
        let sent = self.send(op, step, pinned, recorder).await?;
        match self.confirm(&sent, 1, recorder).await {
            // `finish` decides, which also resumes the earlier attempts.
            Err(OpError::Replaced { .. }) if !sent.earlier.is_empty() => {}
            confirmed => drop(confirmed?),
        }
        Ok((sent, fee))
    }

    /// Returns the fee in wei, if known.
    async fn approve(
        &self,
        op: &ChannelOp,
        value: U256,
        pinned: ContractConstants,
        recorder: &impl TransactionRecorder,
    ) -> Result<Option<U256>, OpError> {
        let call = erc20::approve(self.0.settings.channel_manager, value);
        let step = TransactionStep { request: self.request(pinned.token, &call), moves: false, before: None };
        let sent = self.send(op, step, pinned, recorder).await?;
        let mined = self.confirm(&sent, 1, recorder).await?;
        self.succeeded(&sent, &mined).await?;
        Ok(mined.fee(&sent.intent))
    }

    /// Whether the token has ERC-223's `transfer` and passes the call on to the channel contract. A trial call must
    /// succeed, and one with data that the contract rejects must fail: a token that ignores unknown calls would accept
    /// both.
    async fn transfers_with_data(&self, token: Address) -> Result<bool, ChainError> {
        let contract = self.0.settings.channel_manager;
        // The trial opens a channel to the contract itself, which no real operation does.
        let one = Amount::from(1);
        let trial = ChannelOp::Open { receiver: contract, deposit: one };
        let ask = || async {
            let trial_with = |data| contracts::transfer(contract, one, data);
            let (good, bad) =
                (trial_with(contracts::transfer_data(self.payer(), &trial)), trial_with(vec![0]));
            Ok(self.would_succeed(token, &good).await? && !self.would_succeed(token, &bad).await?)
        };
        self.0.transfers_with_data.get_or_try_init(ask).await.copied()
    }

    async fn would_succeed(&self, to: Address, call: &ContractCall) -> Result<bool, ChainError> {
        match self.0.rpc.call(&self.request(to, call), At::Latest).await {
            Ok(_) => Ok(true),
            Err(ChainError::Reverted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

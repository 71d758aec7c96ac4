//! Carrying out an order: open a channel or top one up, and take up what a crash interrupted.

use std::time::Duration;

use ethers_core::types::{H160, U256};
use ethers_core::utils::keccak256;

use crate::chain::confirm::{Mined, Sent};
use crate::chain::contracts::{self, AllowanceCall, ApproveCall, CreateChannelCall, TopUpCall, TransferCall};
use crate::chain::error::{ChainError, FundError, NotRecorded, TransactionHash, Underfunded};
use crate::chain::fees::{self, Fees};
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::{At, CallRequest};
use crate::chain::{Chain, Ground};
use crate::fault;
use crate::protocol::{Address, Amount, ChannelId, Intent, OnChain, Order};

/// Where intents are kept.
pub trait Journal: Send + Sync {
    /// Keeps `intent` so that it survives a crash. The transaction is sent only after this has answered `Ok`.
    fn record(&self, intent: Intent) -> impl Future<Output = Result<(), NotRecorded>> + Send;
}

/// What became of the intents of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The order was carried out: which channel, and what the contract says of it.
    Funded(ChannelId, OnChain),
    /// Only approvals were on their way; the order may be given anew.
    NothingMoved,
}

/// One call on the way to an order's end.
struct Step {
    request: CallRequest,
    moves: bool,
}

/// How often a transaction is made anew because its nonce was taken in between.
const NONCE_ATTEMPTS: usize = 3;

impl Chain {
    /// Carries out `order` and waits until it is confirmed. Orders to one receiver must come one after the other:
    /// two openings in one block revert. On an error that [`FundError::is_unclear`], [`Chain::resume`] must
    /// settle the recorded intents first.
    pub async fn fund(
        &self,
        order: &Order,
        journal: &impl Journal,
    ) -> Result<(ChannelId, OnChain), FundError> {
        let ground = self.ground().await?;
        let (needs, has) = (contracts::amount(order), self.tokens(ground.token).await?);
        if has < needs {
            let (payer, token) = (self.payer(), ground.token);
            return Err(FundError::Underfunded(Box::new(Underfunded::Token { payer, token, has, needs })));
        }
        let sent = if self.transfers_with_data(ground.token).await? {
            let call = contracts::transfer_call(self.0.settings.channel_manager, self.payer(), order);
            let step = Step { request: self.request(ground.token, call), moves: true };
            self.send(order, step, ground, journal).await?
        } else {
            self.spend_allowance(order, ground, journal).await?
        };
        self.settle(&sent).await
    }

    /// Takes up the recorded intents of one order after a restart: what is mined is confirmed, what is not is
    /// sent again, byte by byte, and waited for. The intents may come in any order.
    pub async fn resume(&self, intents: &[Intent]) -> Result<Resolution, FundError> {
        let mut intents: Vec<&Intent> = intents.iter().collect();
        intents.sort_by_key(|intent| intent.nonce);
        for intent in intents.iter().filter(|intent| intent.moves) {
            let mined = self.0.rpc.receipt(intent.hash).await.map_err(|error| unclear(intent, error))?;
            if mined.is_some() {
                return self.take_up(intent).await;
            }
        }
        // Of several that would move the money, all but the last were refused by the node when they were made:
        // sending them again could move it twice.
        let last = intents.iter().rev().find(|intent| intent.moves);
        for intent in intents.iter().filter(|intent| !intent.moves) {
            match self.take_up(intent).await {
                // An approval that failed or lost its place moves nothing, and the next order sets its own.
                Ok(_) | Err(FundError::TransactionFailed { .. } | FundError::Replaced { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match last {
            Some(intent) => self.take_up(intent).await,
            None => Ok(Resolution::NothingMoved),
        }
    }

    async fn take_up(&self, intent: &Intent) -> Result<Resolution, FundError> {
        let turn = self.0.nonces.turn().await;
        let in_flight = turn.take(intent.nonce);
        // Not known yet: the wait looks for it first, and sends it where it is in no block.
        let sent = Sent { intent: intent.clone(), is_known: false, _in_flight: in_flight };
        drop(turn);
        if intent.moves {
            return self.settle(&sent).await.map(|(channel, on_chain)| Resolution::Funded(channel, on_chain));
        }
        let mined = self.confirm(&sent, 1).await?;
        self.succeeded(&sent, &mined).await?;
        Ok(Resolution::NothingMoved)
    }

    /// Waits for the transaction that moves the money, and reads the channel it made.
    async fn settle(&self, sent: &Sent) -> Result<(ChannelId, OnChain), FundError> {
        let mined = self.confirm(sent, self.0.settings.confirmations).await?;
        self.succeeded(sent, &mined).await?;
        let channel = match sent.intent.order {
            Order::Open { receiver, .. } => ChannelId { receiver, open_block: self.block_of(&mined)? },
            Order::TopUp { channel, .. } => channel,
        };
        let on_chain = self.read_back(sent.hash(), channel, mined.head).await?;
        Ok((channel, on_chain))
    }

    async fn succeeded(&self, sent: &Sent, mined: &Mined) -> Result<(), FundError> {
        if mined.receipt.status.is_some_and(|status| status.is_zero()) {
            let why = self.why_failed(&sent.intent, mined).await;
            return Err(FundError::TransactionFailed { hash: sent.hash(), why });
        }
        Ok(())
    }

    /// Block numbers are 32 bits in the contract.
    fn block_of(&self, mined: &Mined) -> Result<u32, ChainError> {
        u32::try_from(mined.receipt.block_number.as_u64()).map_err(|_| ChainError::NotUnderstood {
            node: self.0.rpc.shown().into(),
            method: "eth_getTransactionReceipt",
            why: format!("block {} does not fit the contract's 32 bits", mined.receipt.block_number),
        })
    }

    /// The way of a plain token: approve, then have the contract fetch the tokens. It answers once that is mined.
    async fn spend_allowance(
        &self,
        order: &Order,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<Sent, FundError> {
        let contract = self.0.settings.channel_manager;
        let amount = U256::from(contracts::amount(order));
        let _allowance = self.0.allowance.lock().await;
        let call = AllowanceCall { owner: self.payer().into(), spender: contract.into() };
        let allowed: U256 = self.view(ground.token, call, At::Latest).await?;
        if allowed < amount {
            // An allowance must be 0 before it can be changed.
            if !allowed.is_zero() {
                self.approve(order, U256::zero(), ground, journal).await?;
            }
            self.approve(order, amount, ground, journal).await?;
        }
        let request = match order {
            Order::Open { receiver, .. } => {
                self.request(contract, CreateChannelCall { receiver: H160::from(*receiver), deposit: amount })
            }
            Order::TopUp { channel: ChannelId { receiver, open_block }, .. } => {
                let (receiver, open_block) = (H160::from(*receiver), *open_block);
                self.request(contract, TopUpCall { receiver, open_block, added: amount })
            }
        };
        let sent = self.send(order, Step { request, moves: true }, ground, journal).await?;
        self.confirm(&sent, 1).await?;
        Ok(sent)
    }

    async fn approve(
        &self,
        order: &Order,
        value: U256,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<(), FundError> {
        let call = ApproveCall { spender: self.0.settings.channel_manager.into(), value };
        let step = Step { request: self.request(ground.token, call), moves: false };
        let sent = self.send(order, step, ground, journal).await?;
        let mined = self.confirm(&sent, 1).await?;
        self.succeeded(&sent, &mined).await
    }

    /// Signs, journals and sends one step; alone, so that nonces follow each other.
    async fn send(
        &self,
        order: &Order,
        step: Step,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<Sent, FundError> {
        let Step { request, moves } = step;
        let turn = self.0.nonces.turn().await;
        let (mut at_least, mut attempt) = (0, 1);
        loop {
            let nonce = turn.next(self.0.rpc.nonce_of(request.from, true).await?, at_least);
            let (raw, cost) = self.sign(order, &request, ground.chain_id, nonce).await?;
            let intent = Intent { order: *order, moves, nonce, hash: keccak256(&raw), raw };
            journal.record(intent.clone()).await?;
            fault::point("transaction about to be sent");
            let (kind, error) = match self.submit(&intent.raw).await {
                Ok(is_known) => {
                    fault::point("transaction sent");
                    return Ok(Sent { intent, is_known, _in_flight: turn.take(nonce) });
                }
                Err(refusal) => refusal,
            };
            match kind {
                SendRefusal::InsufficientFunds => return Err(self.too_little_ether(cost, error).await?),
                SendRefusal::NonceTooLow | SendRefusal::Underpriced if attempt < NONCE_ATTEMPTS => {
                    (at_least, attempt) = (nonce.saturating_add(1), attempt + 1);
                }
                _ => return Err(error.into()),
            }
        }
    }

    /// The signed bytes of a step, and the most that it can cost in wei.
    async fn sign(
        &self,
        order: &Order,
        request: &CallRequest,
        chain_id: u64,
        nonce: u64,
    ) -> Result<(Vec<u8>, U256), FundError> {
        let gas = match self.0.rpc.estimate_gas(request).await {
            Ok(estimate) => fees::with_margin(estimate),
            Err(ChainError::Reverted { message }) => {
                return Err(FundError::WouldFail { why: self.why_refused(order, &message).await });
            }
            Err(error) => return Err(error.into()),
        };
        let fees = Fees::current(&self.0.rpc).await?;
        let cost = fees.worst(gas);
        let has = self.0.rpc.ether_of(request.from).await?;
        if has < cost {
            return Err(self.underfunded(has, cost));
        }
        let transaction = fees.transaction(request, chain_id, nonce, gas);
        let raw = self.0.signer.sign_transaction(&transaction).map_err(ChainError::from)?;
        Ok((raw.to_vec(), cost))
    }

    /// What the node's refusal for want of ether means: it counts what waits to be mined as well.
    async fn too_little_ether(&self, needs: U256, refusal: ChainError) -> Result<FundError, ChainError> {
        let has = self.0.rpc.ether_of(self.payer().into()).await?;
        Ok(if has < needs { self.underfunded(has, needs) } else { refusal.into() })
    }

    fn underfunded(&self, has: U256, needs: U256) -> FundError {
        FundError::Underfunded(Box::new(Underfunded::Ether { payer: self.payer(), has, needs }))
    }

    /// Whether the token has ERC-223's transfer and it reaches the channel contract. A trial call must succeed,
    /// and one with data that the contract refuses must not: a token that swallows unknown calls would take both.
    async fn transfers_with_data(&self, token: Address) -> Result<bool, ChainError> {
        let contract = self.0.settings.channel_manager;
        // The trial opens a channel to the contract itself, which no real order does.
        let trial = Order::Open { receiver: contract, deposit: Amount::from(1) };
        let ask = || async {
            let good = contracts::transfer_call(contract, self.payer(), &trial);
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

/// Nothing is known of `intent`, because the node could not be asked.
fn unclear(intent: &Intent, error: ChainError) -> FundError {
    FundError::StillPending {
        hash: TransactionHash(intent.hash),
        waited: Duration::ZERO,
        last: Some(Box::new(error)),
    }
}

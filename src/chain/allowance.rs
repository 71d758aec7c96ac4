//! Lets a contract move a stated amount of one of the payer's tokens (ERC-20's `approve`), on any network.
//!
//! Such a transaction moves no money. It is recorded before it is sent; one whose outcome is not known when its wait ends is
//! not sent again: the account's next transaction comes after it, or takes its nonce.

use std::fmt;
use std::time::{Duration, Instant};

use ethers_core::abi::AbiDecode as _;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{H160, U256};
use ethers_core::utils::keccak256;
use tokio::time::timeout;

use crate::chain::Chain;
use crate::chain::confirm::{poll, submit};
use crate::chain::contract_call::ContractCall;
use crate::chain::daily_fees::DailyFees;
use crate::chain::erc20;
use crate::chain::error::{AllowanceError, ChainError, NotRecorded, TransactionHash};
use crate::chain::fees::{Caps, Fees, with_margin};
use crate::chain::free_nonce::NonceView;
use crate::chain::network::Network;
use crate::chain::nonces::{InFlight, Nonces};
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::{At, CallRequest, Rpc, TxReceipt};
use crate::chain::transaction;
use crate::chain::wallet_signer::WalletSigner;
use crate::failpoint;
use crate::protocol::{Address, Wei};

/// How often to look for a new block or a receipt on a network without channels.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// More gas than an `approve` is assumed to use that cannot be estimated yet.
const APPROVE_GAS: u64 = 100_000;
/// Send a transaction that is not mined again once in this many polls.
const RESEND_EVERY: u32 = 10;

/// The limits of transactions on a network.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits {
    /// The highest fee per unit of gas.
    pub max_fee_per_gas: Wei,
    /// The highest fee of one transaction.
    pub max_fee: Wei,
    /// The highest sum of the fees of one day.
    pub max_fees_per_day: Wei,
    /// How long to wait for the confirmation of a sent transaction.
    pub confirm_timeout: Duration,
}

/// The payer's account on a network without channels: nothing but allowances is sent there.
pub struct NetworkAccount {
    network: Network,
    limits: TransactionLimits,
    nonces: Nonces,
    daily_fees: DailyFees,
}

/// A transaction that is about to be sent or, with an external signer, about to be signed.
#[derive(Clone, Debug)]
pub struct AllowanceTransaction {
    /// The network's chain ID.
    pub chain_id: u64,
    /// The payer.
    pub payer: Address,
    /// Its nonce.
    pub nonce: u64,
    /// What was signed, or what the signer is asked for.
    pub raw: Vec<u8>,
}

/// Stores allowance transactions durably.
pub trait AllowanceRecorder: Send + Sync {
    /// Stores a transaction so that it survives a crash. It is sent only after this returns `Ok`.
    ///
    /// # Errors
    /// [`NotRecorded`] if the write failed; the transaction is not sent.
    fn record(
        &self,
        transaction: AllowanceTransaction,
    ) -> impl Future<Output = Result<(), NotRecorded>> + Send;
}

/// An allowance: which contract may move how much of which token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The token.
    pub token: Address,
    /// The contract that may move it.
    pub spender: Address,
    /// How much, in base units.
    pub amount: U256,
}

/// What it takes to set an allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowancePlan {
    /// The allowance now.
    pub present: U256,
    /// The values to set, one transaction each; none if the allowance is as wanted.
    pub steps: Vec<U256>,
    /// The most that the transactions can cost together, in wei.
    pub wei: U256,
}

/// The payer's allowances on one network.
pub struct Allowances<'a> {
    rpc: Rpc,
    nonces: &'a Nonces,
    daily_fees: &'a DailyFees,
    caps: Caps,
    signer: &'a WalletSigner,
    chain_id: u64,
    confirmations: u32,
    poll_every: Duration,
    confirm_timeout: Duration,
}

impl NetworkAccount {
    /// The account on `network`, whose node is not contacted yet.
    #[must_use]
    pub fn new(network: Network, limits: TransactionLimits) -> Self {
        let daily_fees = DailyFees::new("network", limits.max_fees_per_day);
        Self { network, limits, nonces: Nonces::default(), daily_fees }
    }

    /// The network's chain ID.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.network.chain_id()
    }

    /// Counts the fees of transactions that were signed before this start, by their age; once.
    pub fn remember_fees(&self, earlier: &[(Duration, U256)]) {
        self.daily_fees.restore(earlier, Instant::now());
    }

    /// The allowances of the account of `signer`.
    ///
    /// # Errors
    /// The node follows another network, or gives no usable answer.
    pub async fn allowances<'a>(&'a self, signer: &'a WalletSigner) -> Result<Allowances<'a>, ChainError> {
        let TransactionLimits { max_fee_per_gas, max_fee, confirm_timeout, .. } = self.limits;
        Ok(Allowances {
            rpc: self.network.checked().await?.clone(),
            nonces: &self.nonces,
            daily_fees: &self.daily_fees,
            caps: Caps { table: "network", per_gas: max_fee_per_gas, whole: max_fee },
            signer,
            chain_id: self.network.chain_id(),
            confirmations: self.network.confirmations(),
            poll_every: POLL_EVERY.min(confirm_timeout),
            confirm_timeout,
        })
    }
}

impl Chain {
    /// The payer's allowances on the network of the channels.
    ///
    /// # Errors
    /// The node follows another chain than before, or gives no usable answer.
    pub async fn allowances(&self) -> Result<Allowances<'_>, ChainError> {
        let settings = &self.0.settings;
        Ok(Allowances {
            chain_id: self.chain_id().await?,
            rpc: self.0.rpc.clone(),
            nonces: &self.0.nonces,
            daily_fees: &self.0.daily_fees,
            caps: Caps::of(settings),
            signer: &self.0.signer,
            confirmations: settings.confirmations,
            poll_every: settings.poll_every,
            confirm_timeout: settings.confirm_timeout,
        })
    }
}

impl Allowances<'_> {
    /// The payer.
    #[must_use]
    pub fn owner(&self) -> Address {
        self.signer.address()
    }

    /// The allowance of `spender` for a token of the payer.
    ///
    /// # Errors
    /// The node gives no usable answer, or there is no such token.
    pub async fn present(&self, token: Address, spender: Address) -> Result<U256, AllowanceError> {
        let call = erc20::allowance(self.owner(), spender);
        let answer = self.rpc.call(&self.request(token, &call), At::Latest).await?;
        U256::decode(&answer).map_err(|_| AllowanceError::NoToken {
            token,
            chain_id: self.chain_id,
            node: self.rpc.shown().into(),
        })
    }

    /// What it takes to set an allowance.
    ///
    /// # Errors
    /// As for [`Self::present`]; or the transaction would fail, the fees exceed a limit, or there is no contract to allow
    /// anything to.
    pub async fn plan(&self, wanted: Allowance) -> Result<AllowancePlan, AllowanceError> {
        let Allowance { token, spender, amount } = wanted;
        let present = self.present(token, spender).await?;
        if !amount.is_zero() && !self.rpc.has_code(spender.into()).await? {
            return Err(AllowanceError::NoSpender { spender, chain_id: self.chain_id });
        }
        let steps = self.steps(wanted, present).await?;
        let mut wei = U256::zero();
        for (place, step) in steps.iter().enumerate() {
            // What follows a step is possible only after it.
            let gas = match place {
                0 => self.gas(Allowance { amount: *step, ..wanted }).await?,
                _ => APPROVE_GAS.into(),
            };
            wei = wei.saturating_add(Fees::current(&self.rpc, self.caps, gas).await?.worst(gas));
        }
        Ok(AllowancePlan { present, steps, wei })
    }

    /// Sets an allowance, and waits until it is confirmed. Returns the allowance that the token shows then, and the
    /// transactions that were sent.
    ///
    /// # Errors
    /// [`AllowanceError::StillPending`] and [`AllowanceError::UnclearSignature`], also within
    /// [`AllowanceError::LeftAtZero`]: it may still be set. Otherwise it is not.
    pub async fn set(
        &self,
        wanted: Allowance,
        recorder: &impl AllowanceRecorder,
    ) -> Result<(U256, Vec<TransactionHash>), AllowanceError> {
        let AllowancePlan { steps, .. } = self.plan(wanted).await?;
        let mut sent = Vec::with_capacity(steps.len());
        for amount in steps {
            let set = self.approve(Allowance { amount, ..wanted }, recorder).await;
            sent.push(set.map_err(|why| match sent.len() {
                0 => why,
                _ => AllowanceError::LeftAtZero { why: Box::new(why) },
            })?);
        }
        Ok((self.present(wanted.token, wanted.spender).await?, sent))
    }

    /// The values to set, one after the other. Some tokens want an allowance to be 0 before they change it.
    async fn steps(&self, wanted: Allowance, present: U256) -> Result<Vec<U256>, AllowanceError> {
        if present == wanted.amount {
            return Ok(Vec::new());
        }
        let whole = vec![wanted.amount];
        if present.is_zero() || wanted.amount.is_zero() {
            return Ok(whole);
        }
        match self.gas(wanted).await {
            Ok(_) => Ok(whole),
            Err(AllowanceError::WouldFail { .. }) => Ok(vec![U256::zero(), wanted.amount]),
            Err(error) => Err(error),
        }
    }

    /// The gas limit of the transaction that sets an allowance.
    async fn gas(&self, Allowance { token, spender, amount }: Allowance) -> Result<U256, AllowanceError> {
        let call = erc20::approve(spender, amount);
        match self.rpc.estimate_gas(&self.request(token, &call)).await {
            Ok(estimate) => Ok(with_margin(estimate)),
            Err(ChainError::Reverted { message }) => Err(AllowanceError::WouldFail { why: message }),
            Err(error) => Err(error.into()),
        }
    }

    async fn approve(
        &self,
        allowance: Allowance,
        recorder: &impl AllowanceRecorder,
    ) -> Result<TransactionHash, AllowanceError> {
        let call = erc20::approve(allowance.spender, allowance.amount);
        let request = self.request(allowance.token, &call);
        let turn = self.nonces.turn().await;
        let view = NonceView {
            rpc: &self.rpc,
            nonces: self.nonces,
            payer: self.payer(),
            poll_every: self.poll_every,
        };
        let nonce = view.free(&turn, 0).await?;
        let gas = self.gas(allowance).await?;
        let fees = Fees::current(&self.rpc, self.caps, gas).await?;
        let (needs, has) = (fees.worst(gas), self.rpc.ether_of(self.payer()).await?);
        if has < needs {
            return Err(AllowanceError::Underfunded { payer: self.signer.address(), has, needs });
        }
        self.daily_fees.count(needs, Instant::now())?;
        let unsigned = fees.transaction(&request, self.chain_id, nonce, gas);
        let raw = self.signed(&unsigned, nonce, recorder).await?;
        self.record(nonce, raw.clone(), recorder).await?;
        let hash = TransactionHash(keccak256(&raw));
        failpoint::point("allowance about to be sent");
        if let Err((kind, error)) = submit(&self.rpc, &raw).await {
            match kind {
                // Only an answer from the chain says that it was not sent. A gateway may have submitted it twice, and return
                // the error of the copy.
                SendRefusal::AlreadyKnown
                | SendRefusal::NonceTooLow
                | SendRefusal::Underpriced
                | SendRefusal::Unclear => {
                    tracing::warn!(%error, transaction = %hash, "the node may have the transaction that it rejected; waiting for it");
                }
                SendRefusal::InsufficientFunds | SendRefusal::Invalid => return Err(error.into()),
            }
        }
        tracing::info!(
            transaction = %hash, chain_id = self.chain_id, token = %allowance.token, spender = %allowance.spender,
            amount = %allowance.amount, "setting an allowance"
        );
        let in_flight = turn.take(nonce);
        drop(turn);
        let receipt = self.confirmed(hash, nonce, &raw, in_flight).await?;
        if receipt.status.is_some_and(|status| status.is_zero()) {
            return Err(AllowanceError::Failed { hash });
        }
        Ok(hash)
    }

    /// Signs a transaction. An external signer is asked only after the journal has what it is asked for.
    async fn signed(
        &self,
        unsigned: &TypedTransaction,
        nonce: u64,
        recorder: &impl AllowanceRecorder,
    ) -> Result<Vec<u8>, AllowanceError> {
        if self.signer.is_external() {
            let asked = transaction::to_json(unsigned)
                .map_err(|error| AllowanceError::Unreadable(error.to_string()))?;
            self.record(nonce, asked.to_string().into_bytes(), recorder).await?;
        }
        match self.signer.sign_transaction(unsigned).await {
            Ok(raw) => Ok(raw.to_vec()),
            Err(why) if why.is_certain() => Err(ChainError::from(why).into()),
            Err(why) => Err(AllowanceError::UnclearSignature { nonce, why }),
        }
    }

    async fn record(
        &self,
        nonce: u64,
        raw: Vec<u8>,
        recorder: &impl AllowanceRecorder,
    ) -> Result<(), AllowanceError> {
        let (chain_id, payer) = (self.chain_id, self.signer.address());
        Ok(recorder.record(AllowanceTransaction { chain_id, payer, nonce, raw }).await?)
    }

    /// Waits until the transaction has enough confirmations, whether it succeeded or not.
    async fn confirmed(
        &self,
        hash: TransactionHash,
        nonce: u64,
        raw: &[u8],
        _in_flight: InFlight,
    ) -> Result<TxReceipt, AllowanceError> {
        let mut last = None;
        match timeout(self.confirm_timeout, self.wait(hash, nonce, raw, &mut last)).await {
            Ok(receipt) => Ok(receipt),
            Err(_) => Err(AllowanceError::StillPending {
                hash,
                waited: self.confirm_timeout,
                last: last.map(Box::new),
            }),
        }
    }

    /// Absence is no verdict: whatever else the node says, only the receipt ends the wait.
    async fn wait(
        &self,
        hash: TransactionHash,
        nonce: u64,
        raw: &[u8],
        last: &mut Option<ChainError>,
    ) -> TxReceipt {
        let rpc = self.rpc.with_retry_window(self.poll_every);
        let (mut poll, mut unseen) = (poll(self.poll_every), 0_u32);
        loop {
            poll.tick().await;
            let seen = async {
                let head = rpc.head().await?;
                Ok::<_, ChainError>((head, rpc.receipt(hash.0).await?))
            };
            match seen.await {
                Ok((head, Some(receipt))) => {
                    unseen = 0;
                    let depth = head.saturating_sub(receipt.block_number.as_u64()) + 1;
                    if depth >= u64::from(self.confirmations) {
                        self.nonces.confirmed(nonce);
                        return receipt;
                    }
                }
                Ok((_, None)) => {
                    unseen = unseen.wrapping_add(1);
                    if unseen.is_multiple_of(RESEND_EVERY)
                        && let Err((_, error)) = submit(&rpc, raw).await
                    {
                        *last = Some(error);
                    }
                }
                Err(error) => *last = Some(error),
            }
        }
    }

    fn payer(&self) -> H160 {
        self.signer.address().into()
    }

    fn request(&self, to: Address, call: &ContractCall) -> CallRequest {
        CallRequest { from: self.payer(), to: to.into(), data: call.data() }
    }
}

impl fmt::Debug for NetworkAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)
    }
}

impl fmt::Debug for Allowances<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{} {:?}", self.chain_id, self.signer)
    }
}

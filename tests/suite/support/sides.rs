//! Both sides of channels on a [`Rig`]: our chain layer, a receiver with a key, and their balances.

use ethers_core::abi::Token as Value;
use ethers_core::types::U256;
use tollpass::chain::signer::Signer;
use tollpass::chain::{Chain, ChainSettings, OpError, OpResult};
use tollpass::devnet::accounts;
use tollpass::devnet::contracts::channel_manager;
use tollpass::protocol::UnmetPrecondition;
use tollpass::protocol::schemes::microraiden::proof;
use tollpass::protocol::{Address, Amount, ChannelId, ChannelOp, Signature};

use super::rig::{Fund, Notes, Rig};

/// The receiver's development account.
const RECEIVER: usize = 2;

/// Both sides.
pub struct Sides {
    pub rig: Rig,
    pub chain: Chain,
    /// The recorded intents.
    pub notes: Notes,
}

impl Sides {
    pub async fn new(url: &str) -> Self {
        Self::over(Rig::new(url).await)
    }

    pub fn over(rig: Rig) -> Self {
        Self { chain: rig.chain(), notes: Notes::new(), rig }
    }

    pub fn with(self, settings: ChainSettings) -> Self {
        Self { chain: self.rig.chain_with(settings), ..self }
    }

    /// Opens a channel to the receiver.
    pub async fn open(&self, deposit: u64) -> ChannelId {
        let op = ChannelOp::Open { receiver: receiver().address(), deposit: deposit.into() };
        self.chain.fund(&op, &Notes::new()).await.unwrap().0
    }

    pub async fn execute(&self, op: ChannelOp) -> Result<OpResult, OpError> {
        self.chain.execute(&op, &self.notes).await
    }

    /// Why an operation is refused before anything is recorded or sent.
    pub async fn unmet(&self, op: ChannelOp) -> UnmetPrecondition {
        let before = self.notes.all().len();
        let Err(OpError::Precondition(estimated)) = self.chain.estimate(&op).await else {
            panic!("{op:?} has a price")
        };
        let error = self.execute(op).await.unwrap_err();
        assert!(!error.is_unclear(), "{error}");
        let OpError::Precondition(unmet) = error else { panic!("{error}") };
        assert_eq!((self.notes.all().len(), estimated), (before, unmet));
        unmet
    }

    /// A cooperative close at a total that both have signed.
    pub fn together(&self, channel: ChannelId, total: u64) -> ChannelOp {
        let (balance_signature, closing_signature) = self.signatures(channel, total.into());
        ChannelOp::CloseTogether { channel, total: total.into(), balance_signature, closing_signature }
    }

    /// The receiver withdraws up to `total`.
    pub async fn withdraw(&self, channel: ChannelId, total: u64) {
        let proof = self.signatures(channel, total.into()).0;
        let arguments = [
            Value::Uint(channel.open_block.into()),
            Value::Uint(total.into()),
            Value::Bytes(proof.0.to_vec()),
        ];
        self.receiver_calls("withdraw", &arguments).await;
    }

    /// The receiver closes the channel at a total that the payer has signed.
    pub async fn receiver_closes(&self, channel: ChannelId, total: u64) {
        let (balance, closing) = self.signatures(channel, total.into());
        let arguments = [
            Value::Address(channel.receiver.into()),
            Value::Uint(channel.open_block.into()),
            Value::Uint(total.into()),
            Value::Bytes(balance.0.to_vec()),
            Value::Bytes(closing.0.to_vec()),
        ];
        self.receiver_calls("cooperativeClose", &arguments).await;
    }

    /// The token balances of the payer, the receiver and the channel contract.
    pub async fn holdings(&self) -> (u64, u64, u64) {
        let held = async |owner| self.rig.tokens_of(owner).await;
        (held(payer().address()).await, held(receiver().address()).await, held(self.rig.manager).await)
    }

    /// Executes `op`; the ether spent must match the estimate and the reported fee.
    pub async fn paid(&self, op: ChannelOp) -> OpResult {
        let (cost, before) = (self.chain.estimate(&op).await.unwrap(), self.rig.ether().await);
        let done = self.execute(op).await.unwrap();
        let fee = before - self.rig.ether().await;
        assert_eq!(done.fee, Some(fee), "{op:?}");
        assert!(fee > U256::zero() && fee <= cost.wei, "{op:?}: {fee} of {cost:?}");
        assert!((30_000..400_000).contains(&cost.gas), "{op:?}: {cost:?}");
        done
    }

    async fn receiver_calls(&self, name: &str, arguments: &[Value]) {
        let data = channel_manager().call(name, arguments).unwrap();
        self.rig.as_account(RECEIVER, self.rig.manager, data).await;
    }

    /// The payer's signature of a total, and the receiver's closing signature.
    fn signatures(&self, channel: ChannelId, total: Amount) -> (Signature, Signature) {
        let contract: Address = self.rig.manager;
        let balance = proof::balance_digest(channel, total, contract);
        let closing = proof::closing_digest(payer().address(), channel.open_block, total, contract);
        (payer().sign(balance).unwrap(), receiver().sign(closing).unwrap())
    }
}

pub fn alone(channel: ChannelId, total: u64) -> ChannelOp {
    ChannelOp::CloseAlone { channel, total: total.into() }
}

pub fn settle(channel: ChannelId) -> ChannelOp {
    ChannelOp::Settle { channel }
}

fn payer() -> Signer {
    Signer::new(&accounts::key(1).unwrap()).unwrap()
}

fn receiver() -> Signer {
    Signer::new(&accounts::key(RECEIVER).unwrap()).unwrap()
}

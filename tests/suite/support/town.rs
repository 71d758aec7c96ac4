//! A chain with contracts, an honest seller, and Alice with a wallet, with their balances.

use std::time::Duration;

use ethers_core::abi::Token as Value;
use http::{Request, StatusCode};
use tollpass::chain::signer::Signer;
use tollpass::channels::Operation;
use tollpass::devnet::accounts;
use tollpass::devnet::contracts::channel_manager;
use tollpass::devnet::origin::Origin;
use tollpass::payments::ListedChannel;
use tollpass::protocol::schemes::microraiden::proof;
use tollpass::protocol::{Amount, ChannelId, Signature};

use super::fair::{PRICE, empty, settings_at};
use super::payer::{Alice, KEY, PATIENCE, Running};
use super::rig::Rig;
use super::wire::{Got, ask};
use crate::pays::QUICK;

/// The seller's development account, which sends its own transactions.
const SELLER: usize = 2;

pub struct Town {
    pub rig: Rig,
    pub origin: Origin,
    pub alice: Alice,
}

impl Town {
    /// `more` is appended to Alice's configuration.
    pub async fn on(url: &str, more: &str) -> Self {
        let rig = Rig::new(url).await;
        let mut settings = settings_at(url, rig.manager, rig.token);
        settings.key = accounts::key(SELLER).unwrap();
        let origin = Origin::spawn(settings).await.unwrap();
        let rule = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n";
        let alice = Alice::at(url, rig.manager, rig.token, &format!("{rule}{QUICK}{more}")).await;
        Self { rig, origin, alice }
    }

    /// Has Alice open a channel to the seller, so that a request that loses it may still open one of its own.
    pub async fn open_by_hand(&self, proxy: &Running) {
        let opening = Operation::Open { receiver: self.origin.receiver(), deposit: (10 * PRICE).into() };
        proxy.channels.operate(opening).await.unwrap_or_else(|trouble| panic!("{trouble}"));
    }

    pub fn paid(&self) -> Request<super::wire::Body> {
        Request::get(format!("{}/paid", self.origin.url())).body(empty()).unwrap()
    }

    pub async fn ask(&self, proxy: &Running) -> Got {
        tokio::time::timeout(PATIENCE, ask(proxy.address, self.paid())).await.expect("no answer")
    }

    pub async fn buy(&self, proxy: &Running, times: u64) {
        for _ in 0..times {
            let got = self.ask(proxy).await;
            assert_eq!(got.status, StatusCode::OK, "{got:?}");
        }
    }

    /// The token balances of Alice, the seller and the channel contract.
    pub async fn holdings(&self) -> (u64, u64, u64) {
        let rig = &self.rig;
        let (alice, seller) = (rig.tokens_of(self.alice.address), rig.tokens_of(self.origin.receiver()));
        (alice.await, seller.await, rig.tokens_of(rig.manager).await)
    }

    /// The seller withdraws up to `total`, as if Alice had paid that much.
    pub async fn withdraw(&self, channel: ChannelId, total: u64) {
        let arguments = [
            Value::Uint(channel.open_block.into()),
            Value::Uint(total.into()),
            bytes(self.balance(channel, total)),
        ];
        self.seller_calls("withdraw", &arguments).await;
    }

    /// The seller closes at `total`.
    pub async fn seller_closes(&self, channel: ChannelId, total: u64) {
        let (payer, contract) = (self.alice.address, self.rig.manager);
        let digest = proof::closing_digest(payer, channel.open_block, total.into(), contract);
        let closing = Signer::new(&accounts::key(SELLER).unwrap()).unwrap().sign(digest).unwrap();
        // The payer is identified by the signature only.
        let arguments = [
            Value::Address(channel.receiver.into()),
            Value::Uint(channel.open_block.into()),
            Value::Uint(total.into()),
            bytes(self.balance(channel, total)),
            bytes(closing),
        ];
        self.seller_calls("cooperativeClose", &arguments).await;
    }

    /// Alice's signature of a total.
    pub fn balance(&self, channel: ChannelId, total: u64) -> Signature {
        let digest = proof::balance_digest(channel, Amount::from(total), self.rig.manager);
        Signer::new(&KEY).unwrap().sign(digest).unwrap()
    }

    async fn seller_calls(&self, name: &str, arguments: &[Value]) {
        let data = channel_manager().call(name, arguments).unwrap();
        self.rig.as_account(SELLER, self.rig.manager, data).await;
    }
}

/// The only channel.
pub async fn only(proxy: &Running) -> ListedChannel {
    let mut channels = proxy.channels().await;
    assert_eq!(channels.len(), 1, "{channels:?}");
    channels.remove(0)
}

/// Waits until a channel is in this state.
pub async fn until_phase(proxy: &Running, channel: ChannelId, phase: &str) {
    let waiting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        loop {
            looks.tick().await;
            let channels = proxy.channels().await;
            if channels.iter().any(|listed| listed.id() == channel && listed.phase == phase) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{channel} is not {phase}"));
}

fn bytes(signature: Signature) -> Value {
    Value::Bytes(signature.0.to_vec())
}

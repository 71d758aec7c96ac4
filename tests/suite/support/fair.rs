//! A chain, a seller on it, and a payer with a channel who signs by hand.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use tollpass::chain::signer::Signer;
use tollpass::devnet::origin::{Kind, Origin, Resource, SellerSettings};
use tollpass::protocol::schemes::microraiden::{headers as rdn, proof};
use tollpass::protocol::{Address, Amount, ChannelId, Signature};

use crate::support::market::{Market, account};
use crate::support::wire::{Body, Got, ask, whole};

/// The price of everything.
pub const PRICE: u64 = 1000;
/// The seller's key.
pub const SELLER_KEY: [u8; 32] = [0x5e; 32];

/// A chain, a seller on it, and a payer with a channel.
pub struct Fair {
    pub origin: Origin,
    pub market: Market,
}

/// A client with a channel to the seller.
pub struct Buyer {
    pub address: SocketAddr,
    pub signer: Signer,
    pub channel: ChannelId,
    pub contract: Address,
}

impl Fair {
    pub async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut SellerSettings)) -> Self {
        let market = Market::open().await;
        let mut settings = settings(&market);
        change(&mut settings);
        let origin = Origin::spawn(settings).await.unwrap();
        Self { origin, market }
    }

    /// Opens a channel from the first account and waits until the seller knows it.
    pub async fn buyer(&self, deposit: u64) -> Buyer {
        let open_block = self.market.open_channel(0, self.origin.receiver(), deposit).await;
        self.origin.await_poll().await;
        self.buyer_of(open_block)
    }

    pub fn buyer_of(&self, open_block: u32) -> Buyer {
        Buyer {
            address: self.origin.address(),
            signer: account(0),
            channel: ChannelId { receiver: self.origin.receiver(), open_block },
            contract: self.market.manager,
        }
    }
}

/// A seller of the demo's assortment and some unusual resources, which polls the chain every 5 ms.
pub fn settings(market: &Market) -> SellerSettings {
    settings_at(&market.chain.url(), market.manager, market.token)
}

/// The same on any chain.
pub fn settings_at(url: &str, channel_manager: Address, token: Address) -> SellerSettings {
    let mut resources = Resource::assortment(Amount::from(PRICE));
    for status in [402, 404, 409, 500] {
        let kind = Kind::Status(StatusCode::from_u16(status).unwrap());
        resources.push(Resource { path: format!("/status/{status}"), price: Amount::from(PRICE), kind });
    }
    resources.push(Resource {
        path: "/size".to_owned(),
        price: Amount::from(PRICE),
        kind: Kind::Size(200_001),
    });
    resources.push(Resource {
        path: "/free".to_owned(),
        price: Amount::ZERO,
        kind: Kind::Text("free\n".to_owned()),
    });
    SellerSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        secure: None,
        authorized: None,
        rpc_url: url.to_owned(),
        channel_manager,
        token,
        key: SELLER_KEY,
        confirmations: 0,
        poll_every: Duration::from_millis(5),
        resources,
    }
}

impl Buyer {
    pub fn sign(&self, total: u64) -> Signature {
        self.sign_on(self.channel, total)
    }

    pub fn sign_on(&self, channel: ChannelId, total: u64) -> Signature {
        self.signer.sign(proof::balance_digest(channel, Amount::from(total), self.contract)).unwrap()
    }

    /// A request with the four headers that matter.
    pub fn request(&self, path: &str, total: u64) -> http::request::Builder {
        let signature = self.sign(total).to_hex();
        self.request_with(path, &self.channel.open_block.to_string(), &total.to_string(), &signature)
    }

    pub fn request_with(
        &self,
        path: &str,
        block: &str,
        total: &str,
        signature: &str,
    ) -> http::request::Builder {
        Request::get(path)
            .header(&rdn::SENDER_ADDRESS, self.signer.address().to_string())
            .header(&rdn::OPEN_BLOCK, block)
            .header(&rdn::BALANCE, total)
            .header(&rdn::BALANCE_SIGNATURE, signature)
    }

    pub async fn pay(&self, total: u64) -> Got {
        self.ask(self.request("/paid", total)).await
    }

    pub async fn ask(&self, request: http::request::Builder) -> Got {
        ask(self.address, request.body(empty()).unwrap()).await
    }
}

pub fn empty() -> Body {
    whole("")
}

//! A mixed run on each network: clients pay honest, failing and cheating sellers while the program is killed and started
//! again. Once all channels are settled, the ledger adds up to what the chain paid out, for each payee.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ethers_core::abi::Token as Value;
use ethers_core::rand::rngs::StdRng;
use ethers_core::rand::{Rng as _, SeedableRng as _};
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::timeout;
use tollpass::admin;
use tollpass::devnet::accounts;
use tollpass::devnet::contracts::channel_manager;
use tollpass::devnet::origin::Origin;
use tollpass::payments::{ListedChannel, Listing};
use tollpass::protocol::ChannelId;
use tollpass::protocol::schemes::microraiden::proof;

use super::*;
use crate::program::{Ran, run, text};
use crate::support::chains::{Network, each_network};
use crate::support::fair::settings_at;
use crate::support::rig::Rig;

/// How often the program is killed.
const LIVES: u64 = 6;
/// The requests of each client in one life.
const REQUESTS: usize = 8;
/// The challenge period of the contract, in blocks.
const CHALLENGE: u64 = 500;
/// The time limit on one network; a run takes a few seconds.
const WITHIN: Duration = Duration::from_secs(120);
/// The development account of the seller that closes its own channels.
const CLOSER: usize = 2;
/// The price of the seller that cheats.
const CHEATED: u64 = 7;
const CHEAT: Address = Address([0x3a; 20]);

/// A seller of the paid resources, also of those that fail once they are paid.
const PATHS: [&str; 5] = ["/paid", "/paid/html", "/status/500", "/status/404", "/status/402"];

struct Square {
    rig: Rig,
    /// The second one closes its own channels.
    sellers: Arc<[Origin; 2]>,
    cheat: Mallory,
    alice: Alice,
}

#[tokio::test]
async fn after_kills_and_closing_everything_the_ledger_adds_up_to_what_the_chain_paid_out() {
    each_network(async |network| {
        let done = timeout(WITHIN, async {
            for seed in [1, 2] {
                Square::open(network).await.live(network, seed).await;
            }
        });
        assert!(done.await.is_ok(), "not done within {WITHIN:?} on {}", network.name);
    })
    .await;
}

impl Square {
    async fn open(network: &Network) -> Self {
        let rig = Rig::new(&network.url).await;
        let seller = async |account: usize| {
            let mut settings = settings_at(&network.url, rig.manager, rig.token);
            settings.key = accounts::key(account).unwrap();
            Origin::spawn(settings).await.unwrap()
        };
        let sellers = Arc::new([seller(CLOSER + 1).await, seller(CLOSER).await]);
        let demand = Demand { contract: rig.manager, receiver: CHEAT, token: rig.token };
        let cheat = Mallory::spawn(cheats::shown_as_old(demand, CHEATED)).await;
        let client = |name: &str| format!("[[client]]\nname = \"{name}\"\ntoken_file = \"{name}\"\n");
        let rest = format!(
            "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\n{QUICK}{}{}[deposit]\nchannels = 2\n\
             [limits]\nsign_ahead = 5\nundelivered_payments = 0\n",
            client("a"),
            client("b"),
        );
        let alice = Alice::at(&network.url, rig.manager, rig.token, &rest).await;
        for name in ["a", "b"] {
            write_private(&alice.directory.path().join(name), &format!("the-token-of-the-client-{name}"));
        }
        Self { rig, sellers, cheat, alice }
    }

    async fn live(self, network: &Network, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut served = 0;
        for life in 0..LIVES {
            let program = self.alice.serve(&[]).await;
            // In the middle of the requests, or after them.
            let after = random.gen_range(0..4 * REQUESTS as u64 + 4);
            let (count, mut counted) = watch::channel(0);
            let count = Arc::new(count);
            let clients: Vec<_> = (0..4)
                .map(|client| {
                    let random = StdRng::seed_from_u64(seed * 1000 + life * 10 + client);
                    tokio::spawn(self.client(client, program.address, random, Arc::clone(&count)))
                })
                .collect();
            drop(count);
            // An error: all requests have ended.
            let _ = counted.wait_for(|count| *count >= after).await;
            program.kill().await;
            for client in clients {
                served += client.await.unwrap();
            }
            if life == LIVES / 2 {
                self.seller_closes().await;
            }
        }
        self.close_everything(network).await;
        self.expect_sums(network, seed, served).await;
    }

    /// Sends requests one after the other until one of them gets no response; returns how many were served.
    fn client(
        &self,
        number: u64,
        proxy: SocketAddr,
        mut random: StdRng,
        count: Arc<watch::Sender<u64>>,
    ) -> impl Future<Output = u64> + use<> {
        let sellers = Arc::clone(&self.sellers);
        let cheat = format!("{}/x", self.cheat.url());
        let credentials = match number {
            0 => String::new(),
            1 | 2 => basic("a"),
            _ => basic("b"),
        };
        async move {
            let mut served = 0;
            for _ in 0..REQUESTS {
                let seller = random.gen_range(0..3);
                let path = PATHS[random.gen_range(0..PATHS.len())];
                let url = sellers.get(seller).map_or_else(|| cheat.clone(), |seller| seller.url() + path);
                if let (Some(seller), 0) = (sellers.get(seller), random.gen_range(0..5)) {
                    let is_registered = random.gen_bool(0.5);
                    seller.lose_next_answer(match is_registered {
                        true => Lose::AfterRegistering,
                        false => Lose::BeforeRegistering,
                    });
                }
                let Some(status) = crate::recovers::ask_as(proxy, url, &credentials).await else { break };
                served += u64::from(status == 200);
                count.send_modify(|count| *count += 1);
            }
            served
        }
    }

    /// The second seller closes its channels at what it has registered, while the program does not run.
    async fn seller_closes(&self) {
        let seller = &self.sellers[1];
        for channel in self.listed().await.iter().filter(|channel| channel.receiver == seller.receiver()) {
            let (id, payer) = (channel.id(), self.alice.address);
            let Some(total) = seller.registered(payer, id.open_block) else { continue };
            let balance = proof::balance_digest(id, total, self.rig.manager);
            let balance = Signer::new(&KEY).unwrap().sign(balance).unwrap();
            let closing = proof::closing_digest(payer, id.open_block, total, self.rig.manager);
            let closing = Signer::new(&accounts::key(CLOSER).unwrap()).unwrap().sign(closing).unwrap();
            let ChannelId { receiver, open_block } = id;
            let arguments = [
                Value::Address(receiver.into()),
                Value::Uint(open_block.into()),
                Value::Uint(total.into()),
                Value::Bytes(balance.0.to_vec()),
                Value::Bytes(closing.0.to_vec()),
            ];
            let data = channel_manager().call("cooperativeClose", &arguments).unwrap();
            self.rig.as_account(CLOSER, self.rig.manager, data).await;
        }
    }

    /// The operator closes all channels: together with their sellers, and the rest alone.
    async fn close_everything(&self, network: &Network) {
        let program = self.alice.serve(&[]).await;
        let socket = admin::socket(&self.alice.state_dir());
        let ready = async { while admin::channels(&socket).await.unwrap().unwrap().owner.is_none() {} };
        timeout(PATIENCE, ready).await.expect("it does not become ready");
        // The cheat has no interface to close with, and a seller does not close what it has no payment for.
        self.command(&["channels", "close", "--all", "--yes"]).await;
        for channel in self.listed().await.iter().filter(|channel| channel.phase == "open") {
            // What the seller has received: after a kill, the program knows no more than the bounds.
            let total = self.received(channel.id()).to_string();
            let id = channel.id().to_string();
            let alone =
                ["channels", "close", &id, "--yes", "--unilateral", "--below-promised", "--total", &total];
            let closed = self.command(&alone).await;
            assert_eq!(closed.code, 0, "{closed:?}");
        }
        network.mine(CHALLENGE + 1).await;
        let settled = self.command(&["channels", "settle", "--all", "--yes"]).await;
        assert_eq!(settled.code, 0, "{settled:?}");
        let open: Vec<_> =
            self.listed().await.into_iter().filter(|channel| channel.phase != "gone").collect();
        assert!(open.is_empty(), "{open:?}");
        // What a channel paid out is known once the program has read the block.
        let is_settled = |rows: &[LedgerRow], channel: &str| {
            rows.iter().any(|row| row.state == LedgerState::Settled && row.parties.channel == channel)
        };
        await_rows(&self.alice, |rows| {
            let channels = rows.iter().map(|row| row.parties.channel.as_str());
            channels.filter(|channel| !channel.is_empty()).all(|channel| is_settled(rows, channel))
        })
        .await;
        program.terminate();
        let (status, log) = program.ended().await;
        assert!(status.success(), "{log}");
    }

    /// The highest total that a seller has received on a channel.
    fn received(&self, channel: ChannelId) -> Amount {
        let seller = self.sellers.iter().find(|seller| seller.receiver() == channel.receiver);
        if let Some(seller) = seller {
            return seller.registered(self.alice.address, channel.open_block).unwrap_or(Amount::ZERO);
        }
        let presented = self.cheat.presented();
        let payments = presented.iter().filter_map(|presented| presented.payment);
        let totals = payments.filter(|payment| payment.open_block == channel.open_block);
        totals.map(|payment| payment.total).max().unwrap_or(Amount::ZERO)
    }

    async fn expect_sums(&self, network: &Network, seed: u64, served: u64) {
        let place = format!("seed {seed} on {}", network.name);
        let mut by_payee: BTreeMap<String, LedgerSum> = BTreeMap::new();
        let rows = rows(&self.alice);
        rows.iter().for_each(|row| by_payee.entry(row.parties.payee.clone()).or_default().add(row));
        let mut all = 0;
        let payees = self.sellers.iter().map(Origin::receiver).chain([CHEAT]);
        for payee in payees {
            let held = self.rig.tokens_of(payee).await;
            let sum = by_payee.remove(&payee.to_string()).unwrap_or_default();
            assert_eq!(sum.total(), Amount::from(held).into(), "{payee}, {place}: {sum:?} {rows:#?}");
            assert_eq!(sum.in_flight, Amount::ZERO.into(), "{payee}, {place}: {sum:?}");
            all += held;
        }
        assert!(by_payee.values().all(|sum| *sum == LedgerSum::default()), "{place}: {by_payee:?}");
        assert!(served > 10 && all >= served * CHEATED, "{served} {all} {place}");
        let asset = self.command(&["ledger", "--json", "--by", "asset"]).await;
        let sums: Json = serde_json::from_str(&asset.out).unwrap_or_else(|_| panic!("{asset:?}"));
        assert_eq!(
            (sums.as_array().unwrap().len(), &sums[0]["total"]),
            (1, &all.to_string().into()),
            "{place}"
        );
        let is_recovered = |row: &LedgerRow| row.state == LedgerState::Recovered;
        assert!(rows.iter().any(is_recovered), "no kill lost a row: {place}");
        let verified = self.command(&["ledger", "verify"]).await;
        assert!(verified.code == 0 && verified.out.contains("is unchanged, from row 1"), "{verified:?}");
        // The contract holds nothing of Alice's any more.
        assert_eq!(self.rig.tokens_of(self.rig.manager).await, 0, "{place}");
    }

    async fn listed(&self) -> Vec<ListedChannel> {
        let ran = self.command(&["channels", "--json"]).await;
        let listings: Vec<Listing> = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
        listings.into_iter().flat_map(|listing| listing.channels).collect()
    }

    async fn command(&self, arguments: &[&str]) -> Ran {
        let path = self.alice.config_path();
        let (command, rest) = arguments.split_first().unwrap();
        run(&[&[*command, "--config", text(&path)], rest].concat()).await
    }
}

fn basic(name: &str) -> String {
    format!(
        "Proxy-Authorization: {}\r\n",
        crate::tells::basic(name, &format!("the-token-of-the-client-{name}"))
    )
}

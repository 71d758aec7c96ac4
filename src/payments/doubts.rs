//! Asks the nodes of networks whether payments were used: first those whose outcome is unclear, and then those that were
//! served, where only the seller says so. There is one task per network. Only an answer about a confirmed block counts: whatever
//! else a node says, or does not say, is asked again later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::message::Message;
use super::shared_engine::SharedEngine;
use crate::chain::{ConfirmedBlock, Network};
use crate::failpoint;
use crate::limits::Limits;
use crate::protocol::Terms;
use crate::protocol::engine::{Input, UnclearAuthorization, UseDoubt};

/// After this many doublings a pause stays the same.
const LONGEST_PAUSE: u32 = 6;

/// Asks the node of one network.
pub(super) struct DoubtWatcher {
    network: Network,
    engine: Arc<SharedEngine>,
    mailbox: mpsc::WeakSender<Message>,
    /// The pause between two rounds.
    every: Duration,
    /// How many questions are asked at once.
    at_once: usize,
    /// How many of a round are about payments that were served.
    served: usize,
    /// When to ask about a payment again.
    asked: HashMap<[u8; 32], AskedBefore>,
    /// How many rounds in a row have failed.
    failures: u32,
    /// Whether the last round got no answer about any payment.
    is_silent: bool,
}

/// An earlier question without an answer.
#[derive(Clone, Copy)]
struct AskedBefore {
    times: u32,
    next: Instant,
    had_expired: bool,
}

impl DoubtWatcher {
    pub(super) fn new(
        network: Network,
        engine: Arc<SharedEngine>,
        mailbox: mpsc::WeakSender<Message>,
        limits: &Limits,
    ) -> Self {
        Self {
            network,
            engine,
            mailbox,
            every: limits.chain_check_every,
            at_once: limits.chain_checks,
            served: limits.served_checks,
            asked: HashMap::new(),
            failures: 0,
            is_silent: false,
        }
    }

    /// Runs as long as the payment service.
    pub(super) async fn run(mut self) {
        loop {
            sleep(self.pause(self.failures)).await;
            if self.mailbox.upgrade().is_none_or(|mailbox| mailbox.is_closed()) {
                return;
            }
            let due = self.due(Instant::now());
            if due.is_empty() {
                continue;
            }
            match self.network.confirmed_block().await {
                Ok(block) => {
                    if std::mem::take(&mut self.failures) > 0 {
                        tracing::info!(network = ?self.network, "the node can be asked again");
                    }
                    self.ask(due, block).await;
                }
                Err(error) => {
                    if self.failures == 0 {
                        tracing::warn!(
                            %error,
                            "cannot ask whether payments were taken; retrying, and meanwhile they count as spent"
                        );
                    }
                    self.failures = self.failures.saturating_add(1);
                }
            }
        }
    }

    /// Those to ask about now.
    fn due(&mut self, now: Instant) -> Vec<UseDoubt> {
        let mut doubts = self.engine.doubts(self.network.chain_id());
        for UnclearAuthorization { terms, host, valid_before, .. } in
            self.engine.take_given_up(self.network.chain_id())
        {
            let Terms { price, payee, .. } = terms;
            tracing::warn!(
                %host, %payee, amount = %price.amount, asset = %price.asset, valid_before, network = ?self.network,
                "the node has not shown whether this payment was taken, and is not asked any more (limits.chain_check_for and \
                 open_authorizations): it stays counted as spent"
            );
        }
        let nonces: HashSet<[u8; 32]> = doubts.iter().map(|doubt| doubt.nonce).collect();
        let longest = self.pause(LONGEST_PAUSE);
        // One that was served has been confirmed if it is not asked about again.
        self.asked.retain(|nonce, asked| nonces.contains(nonce) || asked.next + longest > now);
        let is_due = |nonce: &[u8; 32], has_expired: bool| {
            self.asked.get(nonce).is_none_or(|asked| {
                // Once it has expired, the chain can also show that it was not used.
                asked.next <= now || (has_expired && !asked.had_expired)
            })
        };
        doubts.retain(|doubt| is_due(&doubt.nonce, doubt.has_expired));
        doubts.extend(self.engine.served(self.network.chain_id(), self.served, is_due));
        doubts
    }

    async fn ask(&mut self, due: Vec<UseDoubt>, block: ConfirmedBlock) {
        let network = &self.network;
        let asking = due.into_iter().map(|doubt| async move {
            let word = network.word(doubt.query.contract, &doubt.query.call, &block).await;
            (doubt, word)
        });
        let mut answers = stream::iter(asking).buffer_unordered(self.at_once);
        let mut unanswered: Vec<UseDoubt> = Vec::new();
        let (mut has_answered, mut last_error) = (false, None);
        while let Some((doubt, word)) = answers.next().await {
            match word {
                Ok(word) => {
                    has_answered = true;
                    self.engine.show_usage(doubt.nonce, doubt.query.is_used(&word), &block);
                }
                Err(error) => last_error = Some(error),
            }
            unanswered.push(doubt);
        }
        drop(answers);
        if let Some(error) = last_error {
            let was_silent = std::mem::replace(&mut self.is_silent, !has_answered);
            if self.is_silent && !was_silent {
                tracing::warn!(
                    %error,
                    network = ?self.network,
                    "the node does not say whether payments were taken; retrying, and meanwhile they count as spent: it has to \
                     answer eth_call by block hash (EIP-1898)"
                );
            } else {
                tracing::debug!(%error, "no answer whether a payment was taken");
            }
        } else {
            self.is_silent = false;
        }
        // Those that have been answered are not asked about again, and forgotten with the next round.
        for UseDoubt { nonce, has_expired, .. } in unanswered {
            let before = self.asked.get(&nonce).filter(|asked| asked.had_expired == has_expired);
            let times = before.map_or(0, |asked| asked.times);
            let next = Instant::now() + self.pause(times);
            let asked = AskedBefore { times: times.saturating_add(1), next, had_expired: has_expired };
            self.asked.insert(nonce, asked);
        }
    }

    /// The pause after this many attempts in a row without a result.
    fn pause(&self, attempts: u32) -> Duration {
        self.every.saturating_mul(1 << attempts.min(LONGEST_PAUSE))
    }
}

impl SharedEngine {
    /// Tells the engine what a node has answered about a payment.
    fn show_usage(&self, nonce: [u8; 32], is_used: bool, block: &ConfirmedBlock) {
        failpoint::point("usage known");
        let was_open = self.lock().engine.has_open_authorization(&nonce);
        self.submit(Input::UsageShown { nonce, is_used, block_time: block.timestamp });
        if !is_used && was_open && !self.lock().engine.has_open_authorization(&nonce) {
            self.freed.insert(nonce);
        }
    }
}

//! Payments that were signed but never sent: they cost one price when they are presented, whatever happened in between.

use http::{Request, StatusCode, header};
use tollpass::protocol::Address;
use tollpass::protocol::schemes::microraiden::headers as rdn;

use super::QUICK;
use crate::support::fair::{PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Presented};
use crate::support::market::Market;
use crate::support::payer::{Alice, Program};
use crate::support::ports::ReservedPort;
use crate::support::wire::{Got, ask};

/// Keeps no connection open, so that none can carry a payment to it once it is gone.
fn honest(demand: Demand) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |presented| {
        let answer = match presented.payment {
            Some(_) => Answer::new(StatusCode::OK, "here you are\n"),
            None => demand.base(PRICE),
        };
        answer.header(&header::CONNECTION, "close")
    }
}

/// Claims the total of each payment as an earlier one, with the signature that it has just received.
fn greedy(demand: Demand) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |presented| match presented.payment {
        Some(payment) => demand
            .base(PRICE)
            .with_state(payment.sender, payment.total, Some(payment.signature))
            .complain(&rdn::INVALID_AMOUNT),
        None => demand.base(PRICE),
    }
}

async fn get(program: &Program, url: &str) -> Got {
    ask(program.address, Request::get(url).body(empty()).unwrap()).await
}

#[tokio::test]
async fn a_payment_that_could_not_be_sent_costs_one_price_after_each_kind_of_restart() {
    for (sign_ahead, is_killed) in [(0, true), (0, false), (256, true), (256, false)] {
        let market = Market::open().await;
        let demand = Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token };
        let limits = format!("{QUICK}[limits]\nsign_ahead = {sign_ahead}\n");
        let alice = Alice::with(&market, &limits).await;
        let program = alice.serve(&[]).await;
        let port = ReservedPort::new();
        let (bob, url) = (Mallory::spawn_at(&port, honest(demand)).await, format!("{}/x", port.url()));
        for _ in 0..3 {
            assert_eq!(get(&program, &url).await.status, StatusCode::OK);
        }
        let held = bob.highest();
        drop(bob);
        assert_eq!(get(&program, &url).await.status, StatusCode::BAD_GATEWAY, "the connection is refused");
        if is_killed {
            program.kill().await;
        } else {
            program.terminate();
            assert!(program.ended().await.0.success());
        }

        let program = alice.serve(&[]).await;
        let mallory = Mallory::spawn_at(&port, greedy(demand)).await;
        let got = get(&program, &url).await;
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
        let most = held.checked_add(PRICE.into()).unwrap();
        assert!(mallory.highest() <= most, "{} for {PRICE} above {held}: {sign_ahead}", mallory.highest());
        assert!(mallory.presented().len() > 1, "it was asked, and shown a payment");
        program.terminate();
        program.ended().await;
    }
}

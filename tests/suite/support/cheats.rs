//! Mallory's scripts: each asks for a price like an honest seller, and cheats once it is paid.

use http::{HeaderName, StatusCode};
use tollpass::chain::signer::Signer;
use tollpass::protocol::schemes::microraiden::{headers as rdn, proof};
use tollpass::protocol::{Amount, ChannelId, Signature};

use super::mallory::{Answer, Content, Demand, Payment, Presented};

/// 2^200, which no total can reach.
pub const TWO_TO_THE_200: &str = "1606938044258990275541962092341162602522202993782792835301376";

/// The signature that comes with a total that was never signed.
#[derive(Clone, Copy, Debug)]
pub enum Forgery {
    /// None.
    Bare,
    /// 65 random bytes.
    Garbage,
    /// A valid signature of another key.
    OtherKey,
}

/// Honest until it is paid, then follows the script.
pub fn once_paid(
    demand: Demand,
    price: u64,
    mut cheat: impl FnMut(&Payment) -> Answer + Send + 'static,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |presented| match &presented.payment {
        Some(payment) => cheat(payment),
        None => demand.base(price),
    }
}

/// Doubles the price with each payment, and complains about the old one.
pub fn price_rises(demand: Demand, price: u64) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let mut asked = price;
    once_paid(demand, price, move |payment| {
        let held = payment.total.saturating_sub(Amount::from(asked));
        asked = asked.saturating_mul(2);
        demand.base(asked).with_state(payment.sender, held, None).complain(&rdn::INVALID_AMOUNT)
    })
}

/// Claims to hold `from`, and one price less with each payment, down to nothing.
pub fn total_falls(
    demand: Demand,
    price: u64,
    from: u64,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let mut next = Amount::from(from);
    once_paid(demand, price, move |payment| {
        let held = next;
        next = next.saturating_sub(Amount::from(price));
        demand.base(price).with_state(payment.sender, held, None).complain(&rdn::INVALID_AMOUNT)
    })
}

/// Claims that the latest payment is an old one.
pub fn shown_as_old(demand: Demand, price: u64) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    once_paid(demand, price, move |payment| {
        demand.base(price).with_state(payment.sender, payment.total, Some(payment.signature))
    })
}

/// Claims to hold ten prices more than was signed.
pub fn total_rises(
    demand: Demand,
    price: u64,
    forgery: Forgery,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    once_paid(demand, price, move |payment| {
        let claimed = payment.total.saturating_add(Amount::from(price).saturating_mul(10));
        let signature = match forgery {
            Forgery::Bare => None,
            Forgery::Garbage => Some(Signature([0x5a; 65])),
            Forgery::OtherKey => Some(signed_by_another(demand, payment.open_block, claimed)),
        };
        demand.base(price).with_state(payment.sender, claimed, signature).complain(&rdn::INVALID_AMOUNT)
    })
}

/// Asks for payment on one contract or receiver, and once paid on another.
pub fn switches(
    demand: Demand,
    other: Demand,
    price: u64,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    once_paid(demand, price, move |_| other.base(price))
}

/// Repeats the same complaint forever; without one, "the deposit is not known yet".
pub fn never_content(
    demand: Demand,
    price: u64,
    complaint: Option<&'static HeaderName>,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    once_paid(demand, price, move |payment| {
        let held = payment.total.saturating_sub(Amount::from(price));
        let refused = demand.base(price);
        match complaint {
            None => refused.with_state(payment.sender, held, None),
            Some(name) if *name == rdn::INVALID_AMOUNT => {
                refused.with_state(payment.sender, held, None).complain(name)
            }
            Some(name) => refused.complain(name),
        }
    })
}

/// Always asks for this price, which need not be a number.
pub fn asks(demand: Demand, price: &'static str) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |_| demand.base(price)
}

/// Every 402 has this body: a flood of a hundred megabytes, an endless trickle, a cut.
pub fn demands_with(
    demand: Demand,
    price: u64,
    content: Content,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    move |_| demand.base(price).with_content(content.clone())
}

/// Honest until paid, then does this with every payment: [`Answer::CutBeforeHead`], [`Answer::Never`], a truncated 200,
/// any status with or without RDN headers.
pub fn takes_and(
    demand: Demand,
    price: u64,
    answer: Answer,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    once_paid(demand, price, move |_| answer.clone())
}

/// A 409, 500 or any status, with the headers of a demand.
pub fn demand_as(demand: Demand, price: u64, status: StatusCode) -> Answer {
    demand.base(price).with_status(status)
}

fn signed_by_another(demand: Demand, open_block: u32, total: Amount) -> Signature {
    let channel = ChannelId { receiver: demand.receiver, open_block };
    let digest = proof::balance_digest(channel, total, demand.contract);
    another().sign(digest).unwrap()
}

fn another() -> Signer {
    Signer::new(&[0x66; 32]).unwrap()
}

mod tests {
    use std::time::Duration;

    use http::{Request, header};
    use http_body_util::BodyExt;
    use tollpass::protocol::Address;

    use super::*;
    use crate::support::mallory::Mallory;
    use crate::support::wire::{Got, Wire, ask, whole};

    const DEMAND: Demand =
        Demand { contract: Address([1; 20]), receiver: Address([2; 20]), token: Address([3; 20]) };
    const PRICE: u64 = 10;

    fn paying(total: u64) -> Request<crate::support::wire::Body> {
        let signer = Signer::new(&[0x11; 32]).unwrap();
        let channel = ChannelId { receiver: DEMAND.receiver, open_block: 7 };
        let digest = proof::balance_digest(channel, Amount::from(total), DEMAND.contract);
        Request::post("/thing?q")
            .header(&rdn::SENDER_ADDRESS, signer.address().to_string())
            .header(&rdn::OPEN_BLOCK, "7")
            .header(&rdn::BALANCE, total.to_string())
            .header(&rdn::BALANCE_SIGNATURE, signer.sign(digest).unwrap().to_hex())
            .body(whole("body"))
            .unwrap()
    }

    /// Sends one request without a payment, and one with each of the totals.
    async fn play(mallory: &Mallory, totals: &[u64]) -> Vec<Got> {
        let first = ask(mallory.address(), Request::get("/thing").body(whole("")).unwrap()).await;
        assert_eq!(first.status, 402);
        assert_eq!(first.header(&rdn::CONTRACT_ADDRESS), Some(&*DEMAND.contract.to_string()));
        let mut all = Vec::new();
        for total in totals {
            all.push(ask(mallory.address(), paying(*total)).await);
        }
        all
    }

    fn shown<'a>(got: &'a [Got], name: &HeaderName) -> Vec<Option<&'a str>> {
        got.iter().map(|got| got.header(name)).collect()
    }

    #[tokio::test]
    async fn all_that_is_presented_is_written_down() {
        let mallory = Mallory::spawn(shown_as_old(DEMAND, PRICE)).await;
        assert_eq!((mallory.highest(), mallory.presented().len()), (Amount::ZERO, 0));
        let got = play(&mallory, &[30, 20]).await;
        mallory.await_presented(3).await;
        let presented = mallory.presented();
        assert_eq!(mallory.highest(), Amount::from(30));
        assert_eq!((presented[0].number, presented[2].number), (0, 2));
        assert_eq!((presented[0].payment, &*presented[0].target), (None, "/thing"));
        assert_eq!((&presented[1].method, &*presented[1].target), (&http::Method::POST, "/thing?q"));
        assert_eq!(
            (&*presented[1].body, &presented[1].headers[header::CONTENT_LENGTH]),
            (&b"body"[..], &"4".parse().unwrap())
        );
        let payment = presented[1].payment.unwrap();
        assert_eq!((payment.open_block, payment.total), (7, Amount::from(30)));
        assert_eq!(got[0].header(&rdn::BALANCE_SIGNATURE), Some(&*payment.signature.to_hex()));
        assert_eq!(shown(&got, &rdn::SENDER_BALANCE), [Some("30"), Some("20")]);
        assert_eq!(mallory.url(), format!("http://{}", mallory.address()));
    }

    #[tokio::test]
    async fn prices_and_totals_move_as_they_please() {
        let rising = play(&Mallory::spawn(price_rises(DEMAND, PRICE)).await, &[10, 20, 40]).await;
        assert_eq!(shown(&rising, &rdn::PRICE), [Some("20"), Some("40"), Some("80")]);
        assert_eq!(shown(&rising, &rdn::SENDER_BALANCE), [Some("0"); 3]);
        let falling = play(&Mallory::spawn(total_falls(DEMAND, PRICE, 15)).await, &[30, 25, 15]).await;
        assert_eq!(shown(&falling, &rdn::SENDER_BALANCE), [Some("15"), Some("5"), Some("0")]);
        for price in ["0", "-5", TWO_TO_THE_200, "cheap"] {
            let asking = play(&Mallory::spawn(asks(DEMAND, price)).await, &[10]).await;
            assert_eq!(shown(&asking, &rdn::PRICE), [Some(price)]);
        }
        let other = Demand { contract: Address([9; 20]), ..DEMAND };
        let switched = play(&Mallory::spawn(switches(DEMAND, other, PRICE)).await, &[10]).await;
        assert_eq!(shown(&switched, &rdn::CONTRACT_ADDRESS), [Some(&*other.contract.to_string())]);
    }

    #[tokio::test]
    async fn raised_totals_are_not_signed_by_the_payer() {
        let channel = ChannelId { receiver: DEMAND.receiver, open_block: 7 };
        let payer = Signer::new(&[0x11; 32]).unwrap().address();
        for (forgery, is_signed) in
            [(Forgery::Bare, false), (Forgery::Garbage, true), (Forgery::OtherKey, true)]
        {
            let got = play(&Mallory::spawn(total_rises(DEMAND, PRICE, forgery)).await, &[10]).await;
            assert_eq!(shown(&got, &rdn::SENDER_BALANCE), [Some("110")]);
            let signature =
                got[0].header(&rdn::BALANCE_SIGNATURE).map(|text| Signature::parse(text).unwrap());
            assert_eq!(signature.is_some(), is_signed, "{forgery:?}");
            let digest = proof::balance_digest(channel, Amount::from(110), DEMAND.contract);
            let signed_by = signature.and_then(|signature| proof::recover(digest, &signature));
            // Any 65 bytes may recover to some address.
            assert_ne!(signed_by, Some(payer));
            if matches!(forgery, Forgery::OtherKey) {
                assert_eq!(signed_by, Some(another().address()));
            }
        }
    }

    #[tokio::test]
    async fn complaints_never_end() {
        let complaints = [
            &rdn::INSUFFICIENT_CONFIRMATIONS,
            &rdn::NONEXISTING_CHANNEL,
            &rdn::INVALID_BALANCE_PROOF,
            &rdn::INVALID_AMOUNT,
        ];
        for complaint in complaints.map(Some).into_iter().chain([None]) {
            let got = play(&Mallory::spawn(never_content(DEMAND, PRICE, complaint)).await, &[10, 20]).await;
            assert!(got.iter().all(|got| got.status == 402));
            for name in complaints {
                let expected = (Some(name) == complaint).then_some("1");
                assert_eq!(shown(&got, name), [expected; 2]);
            }
            let has_state = complaint.is_none_or(|name| *name == rdn::INVALID_AMOUNT);
            assert_eq!(
                shown(&got, &rdn::SENDER_BALANCE),
                [has_state.then_some("0"), has_state.then_some("10")]
            );
        }
    }

    #[tokio::test]
    async fn bodies_are_too_long_too_slow_or_torn() {
        let flood = Mallory::spawn(demands_with(DEMAND, PRICE, Content::Flood(1_000_001))).await;
        assert_eq!(play(&flood, &[10]).await[0].body.len(), 1_000_001);
        let request = || Request::get("/").body(whole("")).unwrap();
        let torn = Mallory::spawn(demands_with(DEMAND, PRICE, Content::Cut)).await;
        let mut wire = Wire::connect(torn.address()).await;
        let head = wire.head(request()).await.expect("the head comes before the cut");
        assert_eq!(
            (head.status().as_u16(), &head.headers()[header::CONTENT_LENGTH]),
            (402, &"100".parse().unwrap())
        );
        head.into_body().collect().await.expect_err("the body is cut");
        let drip = Mallory::spawn(demands_with(DEMAND, PRICE, Content::Drip(Duration::from_millis(1)))).await;
        let mut wire = Wire::connect(drip.address()).await;
        let dripping = tokio::time::timeout(Duration::from_millis(50), wire.ask(request()));
        dripping.await.expect_err("it has no end");
    }

    #[tokio::test]
    async fn payments_are_answered_with_anything_or_nothing() {
        for status in [StatusCode::CONFLICT, StatusCode::INTERNAL_SERVER_ERROR] {
            let bare = Mallory::spawn(takes_and(DEMAND, PRICE, Answer::new(status, "no\n"))).await;
            let got = play(&bare, &[10]).await;
            assert_eq!((got[0].status, got[0].rdn().len()), (status, 0));
            let dressed = Mallory::spawn(takes_and(DEMAND, PRICE, demand_as(DEMAND, PRICE, status))).await;
            let got = play(&dressed, &[10]).await;
            assert_eq!((got[0].status, got[0].rdn().len()), (status, 5));
        }
        let cut = Mallory::spawn(takes_and(DEMAND, PRICE, Answer::CutBeforeHead)).await;
        play(&cut, &[]).await;
        Wire::connect(cut.address()).await.ask(paying(10)).await.expect_err("no head comes");
        assert_eq!(cut.highest(), Amount::from(10));
        let silent = Mallory::spawn(takes_and(DEMAND, PRICE, Answer::Never)).await;
        let mut wire = Wire::connect(silent.address()).await;
        tokio::select! {
            got = wire.ask(paying(10)) => panic!("{got:?}"),
            () = silent.await_presented(1) => {}
        }
    }
}

//! Each answer of a signer, and whether it is certain then that nothing was signed.

use std::time::{Duration, Instant};

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Eip1559TransactionRequest, H160, TransactionRequest};
use http::StatusCode;
use tollpass::chain::WalletSigner;
use tollpass::chain::external::{ExternalSettings, ExternalSigner, SignerPlace};
use tollpass::chain::signer::{NotSigned, Signer};
use tollpass::protocol::schemes::microraiden::proof;
use tollpass::protocol::{Address, ChannelId, SigningRequest};
use zeroize::Zeroizing;

use crate::support::notary::{Does, Notary, PAYMENTS, TRANSACTIONS};
use crate::support::payer::{KEY, PATIENCE};
use crate::support::ports::ReservedPort;

/// A time that is over soon, but not before a program has started.
const BRIEF: Duration = Duration::from_secs(2);

fn signer(place: SignerPlace, timeout: Duration) -> WalletSigner {
    let address = Signer::new(&KEY).unwrap().address();
    let settings = ExternalSettings { place, address, timeout, requests: 1 };
    ExternalSigner::new(settings, Zeroizing::new([1; 32])).unwrap().into()
}

fn command(notary: &Notary) -> SignerPlace {
    SignerPlace::Command(notary.command().split(' ').map(str::to_owned).collect())
}

fn payment() -> SigningRequest {
    let channel = ChannelId { receiver: Address([0xbb; 20]), open_block: 4_000_000_000 };
    proof::balance_request(channel, (u64::MAX).into(), Address([0xcc; 20]))
}

fn transactions() -> [TypedTransaction; 2] {
    let (from, to) = (Signer::new(&KEY).unwrap().address(), H160([0xdd; 20]));
    let new = Eip1559TransactionRequest::new().from(from).to(to).data(vec![1, 2]).value(0).chain_id(31337);
    let old = TransactionRequest::new().from(from).to(to).data(vec![1, 2]).value(0).chain_id(31337);
    [
        new.nonce(0).gas(30_000).max_fee_per_gas(200).max_priority_fee_per_gas(7).into(),
        old.nonce(3).gas(30_000).gas_price(200).into(),
    ]
}

/// How an attempt ended: `Ok` for the same signature as the key's own.
async fn attempt(signer: &WalletSigner) -> Result<(), NotSigned> {
    let (own, request) = (Signer::new(&KEY).unwrap(), payment());
    let signing = async { signer.sign(&request, signer.turn(None).await?).await };
    let signature = tokio::time::timeout(PATIENCE, signing).await.expect("no answer")?;
    assert_eq!(signature, own.sign(request.digest).unwrap());
    Ok(())
}

fn shape(outcome: &Result<(), NotSigned>) -> &'static str {
    match outcome {
        Ok(()) => "signed",
        Err(NotSigned::Refused(why)) if why.contains("too much") => "refused",
        Err(NotSigned::NotAsked(_)) => "not asked",
        Err(NotSigned::Unclear(_)) => "unclear",
        Err(_) => "other",
    }
}

#[tokio::test]
async fn only_a_refusal_is_certain_whatever_else_a_signer_does() {
    let notary = Notary::new();
    let endpoint = notary.endpoint().await;
    let cases = [
        (Does::Sign, "signed", "signed", ""),
        (Does::SignHigh, "signed", "signed", ""),
        (Does::Refuse, "refused", "refused", ""),
        // A connection has no signals.
        (Does::RefuseKilled, "unclear", "unclear", ""),
        (Does::Fail, "unclear", "unclear", "error -32000: no idea"),
        (Does::Garbage, "unclear", "unclear", ""),
        (Does::Nothing, "unclear", "unclear", ""),
        (Does::Huge, "unclear", "unclear", "65536"),
        (Does::Kill, "unclear", "unclear", ""),
        (Does::OtherKey, "unclear", "unclear", "wallet.address is"),
        (Does::OtherDigest, "unclear", "unclear", "wallet.address is"),
        (Does::Both, "unclear", "unclear", "both"),
    ];
    let (program, remote) =
        (signer(command(&notary), PATIENCE), signer(SignerPlace::Endpoint(endpoint.url().into()), PATIENCE));
    for (does, of_program, of_endpoint, why) in cases {
        notary.does(PAYMENTS, does);
        for (signer, expected) in [(&program, of_program), (&remote, of_endpoint)] {
            let outcome = attempt(signer).await;
            assert_eq!(shape(&outcome), expected, "{does:?} {signer:?}: {outcome:?}");
            let text = outcome.map_or_else(|error| error.to_string(), |()| String::new());
            assert!(
                text.contains(why) || why == "65536" && text.contains("length limit"),
                "{does:?}: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_signer_that_does_not_answer_in_time_is_killed_and_the_outcome_unclear() {
    let notary = Notary::new();
    notary.does(PAYMENTS, Does::Hang);
    let outcome = attempt(&signer(command(&notary), BRIEF)).await;
    assert_eq!(shape(&outcome), "unclear", "{outcome:?}");
    let process = notary.asked(PAYMENTS)[0]["process"].as_u64().unwrap();
    let gone = async {
        // Until it is reaped, it is a zombie.
        let runs = || {
            std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
        };
        while runs() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it runs on");
}

#[tokio::test]
async fn what_provably_reached_no_signer_was_not_signed() {
    let notary = Notary::new();
    let closed = ReservedPort::new();
    for place in [
        SignerPlace::Command(vec!["/nowhere/signer".to_owned()]),
        SignerPlace::Endpoint(format!("http://{}/", closed.address()).into()),
    ] {
        let outcome = attempt(&signer(place, PATIENCE)).await;
        assert_eq!(shape(&outcome), "not asked", "{outcome:?}");
    }
    // One request at a time: the second does not get its turn.
    notary.does(PAYMENTS, Does::Hang);
    let busy = signer(command(&notary), BRIEF);
    let request = payment();
    let first = async { busy.sign(&request, busy.turn(None).await?).await };
    let second = async {
        notary.await_asked(PAYMENTS, 1).await;
        busy.turn(Some(Instant::now())).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(matches!(first, Err(NotSigned::Unclear(_))), "{first:?}");
    assert!(
        matches!(&second, Err(NotSigned::NotAsked(why)) if why.contains("signer_requests")),
        "{second:?}"
    );
    busy.freeze(true);
    let frozen = busy.sign(&request, busy.turn(None).await.unwrap()).await;
    assert_eq!((frozen.unwrap_err(), notary.asked(PAYMENTS).len()), (NotSigned::Frozen, 1));
}

#[tokio::test]
async fn an_endpoint_is_judged_by_its_body_and_never_followed() {
    let notary = Notary::new();
    let endpoint = notary.endpoint().await;
    let remote = signer(SignerPlace::Endpoint(endpoint.url().into()), PATIENCE);
    for (status, does, expected) in [
        (StatusCode::FORBIDDEN, Does::Refuse, "refused"),
        (StatusCode::INTERNAL_SERVER_ERROR, Does::Sign, "signed"),
        (StatusCode::FORBIDDEN, Does::Garbage, "unclear"),
        (StatusCode::TEMPORARY_REDIRECT, Does::Garbage, "unclear"),
    ] {
        *endpoint.status.lock().unwrap() = status;
        notary.does(PAYMENTS, does);
        let outcome = attempt(&remote).await;
        assert_eq!(shape(&outcome), expected, "{status} {does:?}: {outcome:?}");
    }
    // A redirect would have led to another path, which the endpoint does not expect.
    assert_eq!(notary.asked(PAYMENTS).len(), 4);
    // Neither in an error nor in `Debug` is there more of the URL than its origin.
    let shown = format!("{remote:?} {:?}", attempt(&remote).await);
    assert!(shown.contains(&endpoint.address.to_string()) && !shown.contains("/sign"), "{shown}");
}

#[tokio::test]
async fn transactions_come_back_as_signatures_or_whole_and_are_the_same() {
    let notary = Notary::new();
    let (own, program) = (Signer::new(&KEY).unwrap(), signer(command(&notary), PATIENCE));
    for transaction in transactions() {
        let expected = own.sign_transaction(&transaction).unwrap();
        for does in [Does::Sign, Does::SignHigh, Does::SignWhole] {
            notary.does(TRANSACTIONS, does);
            assert_eq!(program.sign_transaction(&transaction).await.unwrap(), expected, "{does:?}");
        }
        notary.does(TRANSACTIONS, Does::OtherKey);
        let outcome = program.sign_transaction(&transaction).await;
        assert!(matches!(outcome, Err(NotSigned::Unclear(_))), "{outcome:?}");
    }
    let kinds: Vec<_> = notary.asked(TRANSACTIONS);
    assert_eq!(
        (&kinds[0]["request"]["params"][0]["type"], &kinds[4]["request"]["params"][0]["type"]),
        (&"0x2".into(), &"0x0".into())
    );
}

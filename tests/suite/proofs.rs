//! Digests, signatures and recovery against independently generated vectors (`vectors/microraiden.json`).

use ethers_core::types::H256;
use ethers_core::utils::keccak256;
use serde_json::Value as Json;
use tollpass::chain::signer::Signer;
use tollpass::devnet::accounts::DevWallet;
use tollpass::protocol::schemes::microraiden::proof::{balance_digest, closing_digest, recover};
use tollpass::protocol::{Address, ChannelId, Signature};

fn vectors() -> Json {
    serde_json::from_str(include_str!("vectors/microraiden.json")).unwrap()
}

fn text<'a>(vector: &'a Json, name: &str) -> &'a str {
    vector[name].as_str().unwrap()
}

fn address(vector: &Json, name: &str) -> Address {
    text(vector, name).parse().unwrap()
}

fn open_block(vector: &Json) -> u32 {
    vector["open_block_number"].as_u64().unwrap().try_into().unwrap()
}

fn bytes(vector: &Json, name: &str) -> [u8; 32] {
    ethers_core::utils::hex::decode(text(vector, name)).unwrap().try_into().unwrap()
}

/// The digest matches the vector, our signature is byte for byte the same, and both forms of it recover to the signer.
fn check(vector: &Json, digest: [u8; 32]) {
    assert_eq!(digest, bytes(vector, "message_hash"), "{vector}");
    let signer = Signer::new(&bytes(vector, "signer_private_key")).unwrap();
    assert_eq!(signer.address(), address(vector, "signer_address"));
    assert_eq!(signer.sign(digest).unwrap().to_hex(), text(vector, "signature"));
    for form in ["signature", "signature_v01"] {
        let signature = Signature::parse(text(vector, form)).unwrap();
        assert_eq!(recover(digest, &signature), Some(signer.address()), "{form}");
        let mut other = digest;
        other[31] ^= 1;
        assert_ne!(recover(other, &signature), Some(signer.address()), "{form}");
    }
}

#[test]
fn balance_proofs_are_those_of_the_original() {
    let vectors = vectors();
    let proofs = vectors["balance_proofs"].as_array().unwrap();
    assert!(!proofs.is_empty());
    for vector in proofs {
        let channel = ChannelId { receiver: address(vector, "receiver"), open_block: open_block(vector) };
        let total = text(vector, "balance").parse().unwrap();
        check(vector, balance_digest(channel, total, address(vector, "contract")));
    }
}

#[test]
fn closing_signatures_are_those_of_the_original() {
    let vectors = vectors();
    let signatures = vectors["closing_signatures"].as_array().unwrap();
    assert!(!signatures.is_empty());
    for vector in signatures {
        let total = text(vector, "balance").parse().unwrap();
        let (sender, contract) = (address(vector, "sender"), address(vector, "contract"));
        check(vector, closing_digest(sender, open_block(vector), total, contract));
    }
}

/// Two libraries check each other: libsecp256k1 signs, k256 recovers and signs the same bytes itself.
#[test]
fn another_library_signs_and_recovers_the_same() {
    let key = [0x5e; 32];
    let signer = Signer::new(&key).unwrap();
    let other = DevWallet::new(&key).unwrap();
    let mut digest = [0; 32];
    for _ in 0..200 {
        digest = keccak256(digest);
        let signature = signer.sign(digest).unwrap();
        assert_eq!(signature.0, <[u8; 65]>::from(other.sign(H256(digest)).unwrap()));
        assert_eq!(recover(digest, &signature), Some(signer.address()));
    }
}

#[test]
fn a_signature_of_the_wrong_shape_is_invalid() {
    let vectors = vectors();
    let good = text(&vectors["balance_proofs"][0], "signature");
    for wrong in ["", "0x", &good[..131], &format!("{good}00"), &good.replace("0x2", "0xz")] {
        assert_eq!(Signature::parse(wrong), None, "{wrong}");
    }
    let strange = Signature::parse(&format!("{}02", &good[..130])).unwrap();
    assert_eq!(recover(bytes(&vectors["balance_proofs"][0], "message_hash"), &strange), None);
}

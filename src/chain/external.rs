//! An external signer: a program or an HTTP endpoint that has the key, which tollpass never sees.
//!
//! # Protocol
//!
//! One JSON-RPC 2.0 request and its response for each signature. A command is started for each request, without a shell,
//! reads the request from standard input, which then ends, and writes the response to standard output. An endpoint gets the
//! request as the body of a POST, and the response is the body of its answer, whatever the status. The methods are those of
//! wallets, so that an adapter for an existing one only passes them on:
//!
//! - `eth_signTypedData` signs a payment on a channel, or the end of one. The parameters are a list of `type`, `name` and
//!   `value`, and the address. This is the first version of the method, as in MetaMask; EIP-712 came later, with another
//!   digest. The result is the signature, 65 bytes in hexadecimal digits.
//! - `eth_signTypedData_v4` signs a payment without a channel. The parameters are the address, and an object as in EIP-712.
//! - `personal_sign` proves to a seller who pays, and moves no money. The parameters are the text in hexadecimal digits, as
//!   in EIP-4361, and the address.
//! - `eth_signTransaction` signs a transaction. The parameter is the transaction. The result is the signed transaction, or
//!   an object that has it as `raw`, or only its signature.
//! - `eth_accounts` is asked by `tollpass check`. The result is a list of addresses.
//!
//! ```json
//! {"jsonrpc": "2.0", "id": 1, "method": "eth_signTypedData",
//!  "params": [[{"type": "string", "name": "message_id", "value": "Sender balance proof signature"},
//!              {"type": "address", "name": "receiver", "value": "0xaf29…"},
//!              {"type": "uint32", "name": "block_created", "value": "5"},
//!              {"type": "uint192", "name": "balance", "value": "1000"},
//!              {"type": "address", "name": "contract", "value": "0xe7f1…"}], "0x2331…"],
//!  "digest": "0x…"}
//! {"jsonrpc": "2.0", "id": 1, "result": "0x…"}
//! {"jsonrpc": "2.0", "id": 1, "error": {"code": 4001, "message": "too much"}}
//! ```
//!
//! `digest` is what the signature must be of, for signers that sign nothing else; others should compute it from the
//! parameters. `jsonrpc` and `id` of a response are not looked at. The exit code of a command does not matter, but a signal
//! that ends it makes a refusal unclear.
//!
//! # What counts as signed
//!
//! Only an error with the code 4001, "user rejected" of EIP-1193, means that nothing was signed; so does a program or an
//! endpoint that provably did not get the request, because it could not be started or connected to. Everything else,
//! such as no answer in time, a lost connection, another error, or a signature of another key, counts as signed:
//! [`NotSigned::is_certain`].

mod command;
mod endpoint;
mod reply;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, Signature as EthersSignature, U256};
use ethers_core::utils::hex;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use zeroize::Zeroizing;

use self::command::CommandSigner;
use self::endpoint::EndpointSigner;
use self::reply::SignerReply;
use self::transport::Unanswered;
pub use self::transport::UnusableSigner;
use crate::chain::signer::{FreezeSwitch, NotSigned, derived};
use crate::chain::transaction;
use crate::protocol::{Address, Signature, SigningRequest, TypedData};

/// Where an external signer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerPlace {
    /// A program with its arguments.
    Command(Vec<String>),
    /// The URL of an endpoint, http or https. It may contain a secret.
    Endpoint(Zeroizing<String>),
}

/// How to use an external signer.
#[derive(Clone, Debug)]
pub struct ExternalSettings {
    /// Where it is.
    pub place: SignerPlace,
    /// The account that it signs for.
    pub address: Address,
    /// How long it may take for one signature.
    pub timeout: Duration,
    /// How many requests it gets at once.
    pub requests: usize,
}

/// An external signer.
pub struct ExternalSigner {
    channel: SignerChannel,
    address: Address,
    timeout: Duration,
    permits: Arc<Semaphore>,
    requests: usize,
    /// Keys for other purposes are derived from it; it signs nothing.
    secret: Zeroizing<[u8; 32]>,
    frozen: FreezeSwitch,
}

/// The right to ask an external signer now.
#[derive(Debug)]
pub(super) struct SignerTurn {
    _permit: OwnedSemaphorePermit,
    /// When the answer is needed.
    by: Option<Instant>,
}

/// How requests reach the signer.
enum SignerChannel {
    Command(CommandSigner),
    Endpoint(Box<EndpointSigner>),
}

/// What `eth_accounts` showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerState {
    /// It has the account.
    Ready,
    /// It answers, and lists other accounts only.
    OtherAccounts,
    /// It answers, but does not list its accounts, for this reason.
    Silent(String),
}

impl ExternalSigner {
    /// Connects to nothing. `secret` is for [`ExternalSigner::derive`].
    ///
    /// # Errors
    /// The URL is not valid, or the system's root certificates cannot be read.
    pub fn new(settings: ExternalSettings, secret: Zeroizing<[u8; 32]>) -> Result<Self, UnusableSigner> {
        let ExternalSettings { place, address, timeout, requests } = settings;
        let channel = match place {
            SignerPlace::Command(command) => SignerChannel::Command(CommandSigner::new(command)),
            SignerPlace::Endpoint(url) => SignerChannel::Endpoint(Box::new(EndpointSigner::new(&url)?)),
        };
        let (permits, frozen) = (Arc::new(Semaphore::new(requests)), FreezeSwitch::default());
        Ok(Self { channel, address, timeout, permits, requests, secret, frozen })
    }

    /// The account that it signs for.
    pub fn address(&self) -> Address {
        self.address
    }

    pub(super) fn freeze(&self, is_frozen: bool) {
        self.frozen.set(is_frozen);
    }

    pub(super) fn derive(&self, purpose: &str) -> [u8; 32] {
        derived(&self.secret, purpose)
    }

    pub(super) async fn sign(
        &self,
        request: &SigningRequest,
        turn: SignerTurn,
    ) -> Result<Signature, NotSigned> {
        // Each version of the method has an order of its own.
        let (method, params) = match &request.typed {
            TypedData::Values(values) => ("eth_signTypedData", json!([values, self.address])),
            TypedData::Eip712(typed) => ("eth_signTypedData_v4", json!([self.address, typed])),
            TypedData::Message(text) => ("personal_sign", json!([hex::encode_prefixed(text), self.address])),
        };
        let answer = self.ask_to_sign(method, params, request.digest, turn).await?;
        let signature = match answer.try_into() {
            Ok(bytes) => self.verified(bytes, request.digest),
            Err(answer) => Err(format!("its signature has {} bytes instead of 65", answer.len())),
        };
        signature.map_err(|why| self.unclear(&why))
    }

    pub(super) async fn sign_transaction(&self, transaction: &TypedTransaction) -> Result<Bytes, NotSigned> {
        let params =
            transaction::to_json(transaction).map_err(|error| NotSigned::Failed(error.to_string()))?;
        let digest = transaction.sighash().0;
        let turn = self.turn(None).await?;
        let answer = self.ask_to_sign("eth_signTransaction", json!([params]), digest, turn).await?;
        let signature =
            reply::signature_of_transaction(answer).and_then(|bytes| self.verified(bytes, digest));
        let Signature(bytes) = signature.map_err(|why| self.unclear(&why))?;
        let parity = u64::from(bytes[64] - 27);
        let v = match (transaction, transaction.chain_id()) {
            // EIP-155.
            (TypedTransaction::Legacy(_), Some(chain_id)) => chain_id.as_u64() * 2 + 35 + parity,
            (TypedTransaction::Legacy(_), None) => 27 + parity,
            _ => parity,
        };
        let [r, s] = [&bytes[..32], &bytes[32..64]].map(U256::from_big_endian);
        Ok(transaction.rlp_signed(&EthersSignature { r, s, v }))
    }

    /// Asks for its accounts, which signs nothing.
    ///
    /// # Errors
    /// It does not answer, for this reason.
    pub async fn probe(&self) -> Result<SignerState, String> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_accounts", "params": []});
        let deadline = tokio::time::Instant::now() + self.timeout;
        let asked = timeout_at(deadline, self.channel.ask(body.to_string().into_bytes())).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unanswered::NotAsked(why) | Unanswered::Unclear(why))) => return Err(why),
            Err(_) => return Err(self.too_late()),
        };
        Ok(match reply::parse(&answer)? {
            SignerReply::Result(accounts) => match serde_json::from_value::<Vec<String>>(accounts) {
                Ok(accounts) if accounts.iter().any(|one| one.parse() == Ok(self.address)) => {
                    SignerState::Ready
                }
                Ok(_) => SignerState::OtherAccounts,
                Err(_) => SignerState::Silent("its result for eth_accounts is not a list".to_owned()),
            },
            SignerReply::Refused(why) | SignerReply::Failed(why) => SignerState::Silent(why),
        })
    }

    /// Waits until it may be asked, until `by` at the latest. If this is dropped, it is not asked.
    ///
    /// # Errors
    /// It is busy all the time.
    pub(super) async fn turn(&self, by: Option<Instant>) -> Result<SignerTurn, NotSigned> {
        let within = tokio::time::Instant::now() + self.timeout;
        let deadline = by.map_or(within, |by| within.min(tokio::time::Instant::from_std(by)));
        match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(SignerTurn { _permit: permit, by }),
            Ok(Err(_)) | Err(_) => Err(NotSigned::NotAsked(format!(
                "{self}: it is busy with {} requests (wallet.signer_requests)",
                self.requests
            ))),
        }
    }

    /// Asks for one signature; returns the bytes of the result.
    async fn ask_to_sign(
        &self,
        method: &'static str,
        params: Value,
        digest: [u8; 32],
        turn: SignerTurn,
    ) -> Result<Vec<u8>, NotSigned> {
        let digest = hex::encode_prefixed(digest);
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params, "digest": digest});
        let within = tokio::time::Instant::now() + self.timeout;
        let deadline = turn.by.map_or(within, |by| within.min(tokio::time::Instant::from_std(by)));
        // It may have been frozen meanwhile.
        self.frozen.check()?;
        tracing::debug!(signer = %self, method, digest, "asking for a signature");
        let answer = match timeout_at(deadline, self.channel.ask(body.to_string().into_bytes())).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Unanswered::NotAsked(why))) => return Err(NotSigned::NotAsked(format!("{self}: {why}"))),
            Ok(Err(Unanswered::Unclear(why))) => return Err(self.unclear(&why)),
            Err(_) => return Err(self.unclear(&self.too_late())),
        };
        let result = match reply::parse(&answer).map_err(|why| self.unclear(&why))? {
            SignerReply::Refused(why) => return Err(NotSigned::Refused(format!("{self}: {why}"))),
            SignerReply::Failed(why) => return Err(self.unclear(&why)),
            SignerReply::Result(result) => result,
        };
        reply::bytes_of(&result)
            .ok_or_else(|| self.unclear("its result is neither hexadecimal digits nor has `raw`"))
    }

    /// The signature in its usual form, if it is one of the account's key over `digest`.
    fn verified(&self, bytes: [u8; 65], digest: [u8; 32]) -> Result<Signature, String> {
        let signature = reply::normalized(bytes).ok_or("its signature is not valid")?;
        match signature.recover(digest) {
            Some(address) if address == self.address => Ok(signature),
            Some(other) => Err(format!(
                "its signature is that of {other}, or of something else; wallet.address is {}",
                self.address
            )),
            None => Err("its signature is not valid".to_owned()),
        }
    }

    fn unclear(&self, why: &str) -> NotSigned {
        NotSigned::Unclear(format!("{self}: {why}"))
    }

    fn too_late(&self) -> String {
        "no answer in time (wallet.signer_timeout)".to_owned()
    }
}

impl SignerChannel {
    async fn ask(&self, body: Vec<u8>) -> Result<Vec<u8>, Unanswered> {
        match self {
            Self::Command(command) => command.ask(&body).await,
            Self::Endpoint(endpoint) => endpoint.ask(body).await,
        }
    }
}

/// The program, or scheme, host and port of the endpoint.
impl fmt::Display for ExternalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.channel {
            SignerChannel::Command(command) => f.write_str(command.name()),
            SignerChannel::Endpoint(endpoint) => f.write_str(endpoint.name()),
        }
    }
}

impl fmt::Debug for ExternalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalSigner({} for {})", self, self.address)
    }
}

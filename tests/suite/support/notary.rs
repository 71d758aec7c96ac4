//! An external signer with Alice's key: a program, or an endpoint in this process. It checks that it can compute what it is
//! asked to sign from the description, and does what the test says.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ethers_core::types::transaction::eip712::{Eip712 as _, TypedData};
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes as RawBytes, U256};
use ethers_core::utils::{hex, keccak256};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tollpass::chain::signer::Signer;
use tollpass::protocol::Address;

use super::payer::{Alice, KEY};

/// Names its directory to the program.
const DIRECTORY: &str = "NOTARY_DIRECTORY";
/// The order of the curve.
const ORDER: &str = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

/// A signer that does what it is told.
pub struct Notary {
    directory: TempDir,
}

/// It listens until this is dropped.
pub struct Endpoint {
    pub address: SocketAddr,
    /// The status of its responses.
    pub status: Arc<Mutex<StatusCode>>,
    _stop: DropGuard,
}

/// What the notary does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Sign,
    /// Signs with a high s and v 0 or 1.
    SignHigh,
    /// Returns the signed transaction instead of a signature.
    SignWhole,
    Refuse,
    /// Refuses, and is killed at once.
    RefuseKilled,
    Fail,
    Garbage,
    Nothing,
    Huge,
    Kill,
    Hang,
    OtherKey,
    OtherDigest,
    Both,
    /// Waits until it is told something else.
    Wait,
}

impl Does {
    const ALL: [Self; 15] = [
        Self::Sign,
        Self::SignHigh,
        Self::SignWhole,
        Self::Refuse,
        Self::RefuseKilled,
        Self::Fail,
        Self::Garbage,
        Self::Nothing,
        Self::Huge,
        Self::Kill,
        Self::Hang,
        Self::OtherKey,
        Self::OtherDigest,
        Self::Both,
        Self::Wait,
    ];
}

/// What the notary is asked for.
pub const PAYMENTS: &str = "eth_signTypedData";
pub const TRANSACTIONS: &str = "eth_signTransaction";
/// Payments without a channel, in EIP-712.
pub const AUTHORIZATIONS: &str = "eth_signTypedData_v4";
/// Proofs of who pays.
pub const MESSAGES: &str = "personal_sign";

impl Notary {
    /// Signs everything.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        let script = format!(
            "exec 3>&1\n{DIRECTORY}='{}' exec '{}' --exact support::notary::as_a_program --nocapture >/dev/null\n",
            directory.path().display(),
            program.display(),
        );
        std::fs::write(directory.path().join("signer.sh"), script).unwrap();
        let notary = Self { directory };
        notary.does(PAYMENTS, Does::Sign);
        notary.does(TRANSACTIONS, Does::Sign);
        notary.does(AUTHORIZATIONS, Does::Sign);
        notary.does(MESSAGES, Does::Sign);
        notary
    }

    /// The command, for `[wallet] signer`.
    pub fn command(&self) -> String {
        format!("sh {}", self.directory.path().join("signer.sh").display())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has Alice's proxy ask it; `more` goes below `[wallet]`.
    pub fn serves(&self, alice: &mut Alice, more: &str) {
        self.serves_at(alice, &self.command(), more);
    }

    /// The same with another value of `signer`.
    pub fn serves_at(&self, alice: &mut Alice, signer: &str, more: &str) {
        let address = Signer::new(&KEY).unwrap().address();
        let wallet = format!("signer = \"{signer}\"\naddress = \"{address}\"\n{more}");
        alice.change("key_file = \"key\"", &wallet);
        std::fs::remove_file(alice.directory.path().join("key")).unwrap();
    }

    /// From now on.
    pub fn does(&self, method: &str, what: Does) {
        // At once, for the program that reads it.
        let new = self.path("new");
        std::fs::write(&new, format!("{what:?}")).unwrap();
        std::fs::rename(new, self.path(method)).unwrap();
    }

    /// Everything that it was asked with this method, in order.
    pub fn asked(&self, method: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        // The last line may still be written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let asked = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        asked.filter(|asked| asked["request"]["method"] == method).collect()
    }

    /// Waits until it was asked so often.
    pub async fn await_asked(&self, method: &str, count: usize) {
        let asked = async {
            while self.asked(method).len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(super::payer::PATIENCE, asked).await.expect("it is not asked");
    }

    /// Does the same as an endpoint.
    pub async fn endpoint(&self) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, directory) = (CancellationToken::new(), self.directory.path().to_owned());
        let status = Arc::new(Mutex::new(StatusCode::OK));
        let accepting = {
            let (status, stop) = (Arc::clone(&status), stop.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (directory, status) = (directory.clone(), *status.lock().unwrap());
                    let service = service_fn(move |request| respond(request, directory.clone(), status));
                    let serving = async move {
                        // Connections are cut on purpose.
                        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    };
                    tokio::spawn(stop.clone().run_until_cancelled_owned(serving));
                }
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Endpoint { address, status, _stop: stop.drop_guard() }
    }
}

impl Endpoint {
    pub fn url(&self) -> String {
        format!("http://{}/sign", self.address)
    }
}

async fn respond(
    request: Request<Incoming>,
    directory: PathBuf,
    status: StatusCode,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/sign"));
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let asked = tokio::task::spawn_blocking(move || answer(&directory, &body));
    let Ok(Reply::Text(text)) = asked.await else { return Err(std::io::Error::other("cut on purpose")) };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    if status.is_redirection() {
        response.headers_mut().insert(header::LOCATION, "/elsewhere".parse().unwrap());
    }
    Ok(response)
}

/// What the notary says.
enum Reply {
    Text(String),
    Killed(String),
}

/// Not a test: the program that [`Notary::command`] starts, which is this test binary.
#[test]
fn as_a_program() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).unwrap();
    let mut output = std::fs::File::options().write(true).open("/dev/fd/3").unwrap();
    match answer(Path::new(&directory), &request) {
        Reply::Text(text) => output.write_all(text.as_bytes()).unwrap(),
        Reply::Killed(text) => {
            output.write_all(text.as_bytes()).unwrap();
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    }
    eprintln!("a word of the notary");
    std::process::exit(3);
}

fn answer(directory: &Path, request: &[u8]) -> Reply {
    let request: Value = serde_json::from_slice(request).unwrap();
    let method = request["method"].as_str().unwrap().to_owned();
    let variables: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let line = json!({"request": request, "process": std::process::id(), "variables": variables});
    let mut log = OpenOptions::new().create(true).append(true).open(directory.join("asked")).unwrap();
    log.write_all(format!("{line}\n").as_bytes()).unwrap();
    let told = || {
        let text = std::fs::read_to_string(directory.join(&method)).unwrap_or_default();
        Does::ALL.into_iter().find(|does| format!("{does:?}") == text)
    };
    if method == "eth_accounts" {
        let accounts = std::fs::read_to_string(directory.join("eth_accounts"));
        let own = Signer::new(&KEY).unwrap().address().to_string();
        return result(json!([accounts.unwrap_or(own)]));
    }
    let (digest, transaction) = match method.as_str() {
        PAYMENTS => (typed_digest(&request["params"][0]), None),
        AUTHORIZATIONS => {
            assert_eq!(request["params"][0], Signer::new(&KEY).unwrap().address().to_string());
            let typed: TypedData = serde_json::from_value(request["params"][1].clone()).unwrap();
            (typed.encode_eip712().unwrap(), None)
        }
        MESSAGES => {
            assert_eq!(request["params"][1], Signer::new(&KEY).unwrap().address().to_string());
            let text = hex::decode(request["params"][0].as_str().unwrap()).unwrap();
            (ethers_core::utils::hash_message(text).0, None)
        }
        TRANSACTIONS => {
            let read: TypedTransaction = serde_json::from_value(request["params"][0].clone()).unwrap();
            (read.sighash().0, Some(read))
        }
        other => panic!("{other}"),
    };
    assert_eq!(request["digest"], hex::encode_prefixed(digest), "it can be computed");
    while told() == Some(Does::Wait) {
        std::thread::yield_now();
    }
    let sign = |key: &[u8; 32], digest| Signer::new(key).unwrap().sign(digest).unwrap().0;
    match told().unwrap() {
        Does::Sign => result(json!(hex::encode_prefixed(sign(&KEY, digest)))),
        Does::SignHigh => {
            let mut bytes = sign(&KEY, digest);
            let s = U256::from_str_radix(ORDER, 16).unwrap() - U256::from_big_endian(&bytes[32..64]);
            s.to_big_endian(&mut bytes[32..64]);
            bytes[64] = 28 - bytes[64];
            result(json!(hex::encode(bytes)))
        }
        Does::SignWhole => {
            let raw = Signer::new(&KEY).unwrap().sign_transaction(&transaction.unwrap()).unwrap();
            result(json!({"raw": RawBytes::from(raw.to_vec()), "tx": {}}))
        }
        Does::Refuse => Reply::Text(refusal()),
        Does::RefuseKilled => Reply::Killed(refusal()),
        Does::Fail => Reply::Text(json!({"error": {"code": -32000, "message": "no idea"}}).to_string()),
        Does::Garbage => Reply::Text("signed, I think".to_owned()),
        Does::Nothing => Reply::Text(String::new()),
        Does::Huge => Reply::Text(format!("{{\"result\": \"0x{}\"}}", "00".repeat(100_000))),
        Does::Kill => Reply::Killed(String::new()),
        Does::Hang => loop {
            std::thread::park();
        },
        Does::OtherKey => result(json!(hex::encode_prefixed(sign(&[7; 32], digest)))),
        Does::OtherDigest => result(json!(hex::encode_prefixed(sign(&KEY, [7; 32])))),
        Does::Both => {
            let signature = hex::encode_prefixed(sign(&KEY, digest));
            Reply::Text(json!({"result": signature, "error": {"code": 4001, "message": "no"}}).to_string())
        }
        Does::Wait => unreachable!("it has waited"),
    }
}

fn result(value: Value) -> Reply {
    Reply::Text(json!({"jsonrpc": "2.0", "id": 1, "result": value}).to_string())
}

fn refusal() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 4001, "message": "too\nmuch"}}).to_string()
}

/// As MetaMask computes it in the first version of `eth_signTypedData`.
pub fn typed_digest(values: &Value) -> [u8; 32] {
    let (mut schema, mut packed) = (String::new(), Vec::new());
    for value in values.as_array().unwrap() {
        let [kind, name, value] = ["type", "name", "value"].map(|key| value[key].as_str().unwrap());
        schema += &format!("{kind} {name}");
        match kind {
            "string" => packed.extend(value.bytes()),
            "address" => packed.extend(value.parse::<Address>().unwrap().0),
            "bytes32" => packed.extend(hex::decode(value).unwrap()),
            _ => {
                let bits: usize = kind.strip_prefix("uint").unwrap().parse().unwrap();
                let mut bytes = [0; 32];
                U256::from_dec_str(value).unwrap().to_big_endian(&mut bytes);
                packed.extend(&bytes[32 - bits / 8..]);
            }
        }
    }
    keccak256([keccak256(schema), keccak256(packed)].concat())
}

//! A relay in front of a JSON-RPC node that the test can cut, stall or make lossy, for every call or, with [`Fault`]s,
//! for some calls of some methods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ethers_core::types::H256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::keccak256;
use ethers_core::utils::rlp::Rlp;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the relay does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards it.
    Pass,
    /// Closes the connection without forwarding.
    Cut,
    /// Never responds.
    Stall,
    /// Never responds to this method.
    StallOf(&'static str),
    /// Forwards it, but closes the connection instead of responding to this method.
    LoseAnswerOf(&'static str),
    /// Forwards it, but responds to this method with a meaningless error.
    GarbleAnswerOf(&'static str),
    /// Closes the connection before this method reaches the node.
    LoseQuestionOf(&'static str),
    /// Returns this number for this method, like a node that is behind.
    Answer(&'static str, u64),
    /// Refuses `eth_getLogs` over more blocks than this.
    MaxLogRange(u64),
    /// Responds to every request like this, like a gateway in front of a node.
    Status(u16),
}

/// A fault for some calls.
#[derive(Clone)]
pub struct Fault {
    /// `None` for every method.
    method: Option<&'static str>,
    /// Only calls whose parameters match.
    admits: fn(&Value) -> bool,
    /// This many calls pass first.
    skip: usize,
    /// Then each n-th such call is affected.
    every: usize,
    /// The most affected calls.
    times: usize,
    act: Act,
    seen: usize,
    hit: usize,
}

/// What happens to a call.
#[derive(Clone)]
pub enum Act {
    /// Returns a JSON-RPC error without forwarding.
    Refuse(i64, &'static str),
    /// Responds with this status, these headers and this body, without forwarding.
    Answer(u16, &'static [(&'static str, &'static str)], &'static [u8]),
    /// The same after forwarding it.
    Mask(u16, &'static [u8]),
    /// Closes the connection without forwarding.
    Cut,
    /// Never responds.
    Stall,
    /// Forwards it, and changes the result.
    Change(Arc<dyn Fn(Value) -> Value + Send + Sync>),
}

impl Fault {
    pub fn on(method: &'static str, act: Act) -> Self {
        Self { method: Some(method), ..Self::on_any(act) }
    }

    pub fn on_any(act: Act) -> Self {
        let admits = |_: &Value| true;
        Self { method: None, admits, skip: 0, every: 1, times: usize::MAX, act, seen: 0, hit: 0 }
    }

    /// Maps the result of each call of `method` with `change`.
    pub fn change(method: &'static str, change: impl Fn(Value) -> Value + Send + Sync + 'static) -> Self {
        Self::on(method, Act::Change(Arc::new(change)))
    }

    /// The result of each call of `method` is `result`.
    pub fn result(method: &'static str, result: Value) -> Self {
        Self::change(method, move |_| result.clone())
    }

    pub fn when(self, admits: fn(&Value) -> bool) -> Self {
        Self { admits, ..self }
    }

    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    pub fn each(self, every: usize) -> Self {
        Self { every, ..self }
    }

    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Whether this call is affected.
    fn hits(&mut self, question: &Value) -> bool {
        if self.method.is_some_and(|method| question["method"] != method)
            || !(self.admits)(&question["params"])
        {
            return false;
        }
        self.seen += 1;
        let is_hit = self.seen > self.skip
            && (self.seen - self.skip).is_multiple_of(self.every)
            && self.hit < self.times;
        self.hit += usize::from(is_hit);
        is_hit
    }
}

/// Stops when dropped.
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    node: String,
    client: Client<HttpConnector, Full<Bytes>>,
    mode: Mutex<Mode>,
    faults: Mutex<Vec<Fault>>,
    questions: watch::Sender<Vec<Value>>,
}

impl Relay {
    pub async fn before(node: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            node: node.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            mode: Mutex::new(Mode::Pass),
            faults: Mutex::default(),
            questions: watch::Sender::new(Vec::new()),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&state))).abort_handle();
        Self { address, state, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock().unwrap() = mode;
    }

    /// Adds a fault; the first that matches a call applies.
    pub fn fault(&self, fault: Fault) {
        self.state.faults.lock().unwrap().push(fault);
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
        self.set(Mode::Pass);
    }

    /// The transactions sent to the node, each once.
    pub fn sent(&self) -> BTreeMap<H256, TypedTransaction> {
        let given = self.questions("eth_sendRawTransaction");
        given
            .iter()
            .map(|params| {
                let raw: ethers_core::types::Bytes = serde_json::from_value(params[0].clone()).unwrap();
                (H256(keccak256(&raw)), TypedTransaction::decode_signed(&Rlp::new(&raw)).unwrap().0)
            })
            .collect()
    }

    /// How many different transactions that fund a channel were sent to the node.
    pub fn fundings(&self) -> usize {
        let moves = ["transfer(address,uint256,bytes)", "createChannel(address,uint192)"];
        let moves = [moves[0], moves[1], "topUp(address,uint32,uint192)"].map(ethers_core::utils::id);
        let data = |sent: &TypedTransaction| sent.data().cloned().unwrap_or_default();
        self.sent().values().filter(|sent| moves.iter().any(|id| data(sent).starts_with(id))).count()
    }

    /// The parameters of every call of `method` so far.
    pub fn questions(&self, method: &str) -> Vec<Value> {
        let questions = self.state.questions.borrow();
        questions
            .iter()
            .filter(|question| question["method"] == method)
            .map(|q| q["params"].clone())
            .collect()
    }

    /// Waits until `method` was called this often.
    pub async fn until_asked(&self, method: &str, count: usize) {
        let asked = |questions: &Vec<Value>| questions.iter().filter(|q| q["method"] == method).count();
        self.state.questions.subscribe().wait_for(|questions| asked(questions) >= count).await.unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(Arc::clone(&state), request));
            // An error here is a connection that the test cut.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

/// An error closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Cut> {
    let body = request.into_body().collect().await.map_err(|_| Cut)?.to_bytes();
    let question: Value = serde_json::from_slice(&body).map_err(|_| Cut)?;
    let mode = *state.mode.lock().unwrap();
    state.questions.send_modify(|questions| questions.push(question.clone()));
    let hit = {
        let mut faults = state.faults.lock().unwrap();
        faults.iter_mut().find_map(|fault| fault.hits(&question).then(|| fault.act.clone()))
    };
    match &hit {
        Some(Act::Cut) => return Err(Cut),
        Some(Act::Stall) => std::future::pending().await,
        Some(Act::Refuse(code, message)) => {
            let error = json!({ "code": code, "message": message });
            let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
            return Ok(Response::new(Full::from(refusal.to_string())));
        }
        Some(Act::Answer(status, fields, body)) => {
            let mut answer = Response::builder().status(*status);
            for (name, value) in *fields {
                answer = answer.header(*name, *value);
            }
            return Ok(answer.body(Full::from(*body)).unwrap());
        }
        Some(Act::Mask(..) | Act::Change(_)) | None => {}
    }
    match mode {
        Mode::Cut => return Err(Cut),
        Mode::Stall => std::future::pending().await,
        Mode::StallOf(method) if question["method"] == method => std::future::pending().await,
        Mode::LoseQuestionOf(method) if question["method"] == method => return Err(Cut),
        Mode::Answer(method, number) if question["method"] == method => {
            let result = format!("{number:#x}");
            let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
            return Ok(Response::new(Full::from(answer.to_string())));
        }
        Mode::Status(status) => {
            return Ok(Response::builder().status(status).body(Full::default()).unwrap());
        }
        Mode::MaxLogRange(most) if question["method"] == "eth_getLogs" && blocks_of(&question) > most => {
            let error = json!({ "code": -32005, "message": format!("at most {most} blocks") });
            let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
            return Ok(Response::new(Full::from(refusal.to_string())));
        }
        _ => {}
    }
    let onward = Request::post(&state.node)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .map_err(|_| Cut)?;
    let response = state.client.request(onward).await.map_err(|_| Cut)?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    match hit {
        Some(Act::Mask(status, body)) => {
            return Ok(Response::builder().status(status).body(Full::from(body)).unwrap());
        }
        Some(Act::Change(change)) => {
            let mut answer: Value = serde_json::from_slice(&body).map_err(|_| Cut)?;
            if let Some(result) = answer.get_mut("result") {
                *result = change(result.take());
            }
            return Ok(Response::new(Full::from(answer.to_string())));
        }
        _ => {}
    }
    match mode {
        Mode::LoseAnswerOf(method) if question["method"] == method => Err(Cut),
        Mode::GarbleAnswerOf(method) if question["method"] == method => {
            let error = json!({ "code": -32603, "message": "internal error" });
            let refusal = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
            Ok(Response::new(Full::from(refusal.to_string())))
        }
        _ => Ok(Response::from_parts(head, Full::from(body))),
    }
}

fn blocks_of(question: &Value) -> u64 {
    let number = |name: &str| {
        let text = question["params"][0][name].as_str().unwrap();
        u64::from_str_radix(&text[2..], 16).unwrap()
    };
    number("toBlock") - number("fromBlock") + 1
}

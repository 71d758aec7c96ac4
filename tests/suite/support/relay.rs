//! A relay in front of a JSON-RPC node that the test can cut, stall or make forgetful.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

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
    /// Hands it on.
    Pass,
    /// Closes the connection, and hands nothing on.
    Cut,
    /// Never answers.
    Stall,
    /// Never answers this method.
    StallOf(&'static str),
    /// Hands it on, and closes the connection instead of answering this method.
    LoseAnswerOf(&'static str),
    /// Hands it on, and answers this method with an error that says nothing.
    GarbleAnswerOf(&'static str),
    /// Closes the connection before this method reaches the node.
    LoseQuestionOf(&'static str),
    /// Answers this method with this number, as a node may that is behind.
    Answer(&'static str, u64),
    /// Refuses `eth_getLogs` over more blocks than this.
    MaxLogRange(u64),
    /// Answers every question like this, as a gateway in front of a node may.
    Status(u16),
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

    /// The parameters of every call of `method` so far.
    pub fn questions(&self, method: &str) -> Vec<Value> {
        let questions = self.state.questions.borrow();
        questions
            .iter()
            .filter(|question| question["method"] == method)
            .map(|q| q["params"].clone())
            .collect()
    }

    /// Waits until `method` was called so often.
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

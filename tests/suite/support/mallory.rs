//! A dishonest seller: an origin on loopback whose responses come from a script, and which records all requests. The
//! scripts are in `cheats`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use futures_util::stream::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount, Signature};

use super::ports::ReservedPort;

/// The largest request body to keep; the connection of a larger one is cut.
const BODY_LIMIT: usize = 64 << 20;

type Body = BoxBody<Bytes, io::Error>;
type Script = Box<dyn FnMut(&Presented) -> Answer + Send>;

/// A server that follows its script. Dropping it cuts all connections.
pub struct Mallory {
    address: SocketAddr,
    stage: Arc<Stage>,
    _stop: DropGuard,
}

struct Stage {
    script: Mutex<Script>,
    presented: watch::Sender<Vec<Presented>>,
}

/// A request as received.
#[derive(Clone, Debug)]
pub struct Presented {
    /// How many requests came before it.
    pub number: usize,
    pub method: Method,
    /// As in the request line.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The payment, if it is complete and valid.
    pub payment: Option<Payment>,
}

/// A payer's promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub sender: Address,
    pub open_block: u32,
    pub total: Amount,
    pub signature: Signature,
}

/// Mallory's response to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    Head {
        status: StatusCode,
        headers: HeaderMap,
        content: Content,
    },
    /// The connection is closed without a response.
    CutBeforeHead,
    /// No response, and the connection stays open.
    Never,
    /// This status and nothing else, after a delay.
    Late(Duration, StatusCode),
    /// That answer, once there is a permit.
    Held(Arc<Semaphore>, Box<Self>),
}

/// The body of a response.
#[derive(Clone, Debug)]
pub enum Content {
    Text(&'static str),
    /// This many bytes, as fast as they are read.
    Flood(u64),
    /// One byte at a time, with a pause before each, endlessly.
    Drip(Duration),
    /// A declared length of a hundred bytes, and then the connection is closed.
    Cut,
}

/// A seller's terms: contract, receiver and token.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    pub contract: Address,
    pub receiver: Address,
    pub token: Address,
}

impl Mallory {
    /// Listens on a free port.
    pub async fn spawn(script: impl FnMut(&Presented) -> Answer + Send + 'static) -> Self {
        Self::listen((Ipv4Addr::LOCALHOST, 0).into(), script).await
    }

    /// Listens on this port.
    pub async fn spawn_at(
        port: &ReservedPort,
        script: impl FnMut(&Presented) -> Answer + Send + 'static,
    ) -> Self {
        Self::listen(port.address(), script).await
    }

    async fn listen(address: SocketAddr, script: impl FnMut(&Presented) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stage =
            Arc::new(Stage { script: Mutex::new(Box::new(script)), presented: watch::Sender::default() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, stage.clone(), stop.clone())));
        Self { address, stage, _stop: stop.drop_guard() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, in order.
    pub fn presented(&self) -> Vec<Presented> {
        self.stage.presented.borrow().clone()
    }

    /// The highest total ever signed for it; 0 if none.
    pub fn highest(&self) -> Amount {
        self.presented()
            .iter()
            .filter_map(|presented| Some(presented.payment?.total))
            .max()
            .unwrap_or_default()
    }

    /// Waits until this many requests have arrived.
    pub async fn await_presented(&self, count: usize) {
        self.stage.presented.subscribe().wait_for(|presented| presented.len() >= count).await.unwrap();
    }
}

impl Demand {
    /// A 402 with the headers that every one has. The price may be any string.
    pub fn base(&self, price: impl ToString) -> Answer {
        Answer::new(StatusCode::PAYMENT_REQUIRED, "pay\n")
            .header(&rdn::GATEWAY_PATH, "/api/1")
            .header(&rdn::CONTRACT_ADDRESS, self.contract)
            .header(&rdn::RECEIVER_ADDRESS, self.receiver)
            .header(&rdn::TOKEN_ADDRESS, self.token)
            .header(&rdn::PRICE, price)
    }
}

impl Answer {
    pub fn new(status: StatusCode, text: &'static str) -> Self {
        Self::Head { status, headers: HeaderMap::new(), content: Content::Text(text) }
    }

    /// Adds, or replaces, a header.
    pub fn header(mut self, name: &HeaderName, value: impl ToString) -> Self {
        if let Self::Head { headers, .. } = &mut self {
            headers.insert(name, HeaderValue::try_from(value.to_string()).unwrap());
        }
        self
    }

    /// Adds the total that the seller claims to hold.
    pub fn with_state(self, sender: Address, balance: Amount, signature: Option<Signature>) -> Self {
        let shown = self.header(&rdn::SENDER_ADDRESS, sender).header(&rdn::SENDER_BALANCE, balance);
        match signature {
            Some(signature) => shown.header(&rdn::BALANCE_SIGNATURE, signature.to_hex()),
            None => shown,
        }
    }

    pub fn complain(self, complaint: &HeaderName) -> Self {
        self.header(complaint, 1)
    }

    pub fn with_status(mut self, new: StatusCode) -> Self {
        if let Self::Head { status, .. } = &mut self {
            *status = new;
        }
        self
    }

    pub fn with_content(mut self, new: Content) -> Self {
        if let Self::Head { content, .. } = &mut self {
            *content = new;
        }
        self
    }
}

async fn accept(listener: TcpListener, stage: Arc<Stage>, stop: CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(stream, stage.clone())));
    }
}

async fn serve(stream: TcpStream, stage: Arc<Stage>) {
    let service = service_fn(|request| perform(request, &stage));
    // The test checks the end of the connection at its own end.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn perform(request: Request<Incoming>, stage: &Stage) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(io::Error::other)?.to_bytes();
    let answer = {
        // The script runs in the order in which requests are recorded.
        let mut script = stage.script.lock().unwrap();
        let presented = Presented {
            number: stage.presented.borrow().len(),
            payment: payment(&head.headers),
            method: head.method,
            target: head.uri.to_string(),
            headers: head.headers,
            body,
        };
        let answer = script(&presented);
        stage.presented.send_modify(|all| all.push(presented));
        answer
    };
    let answer = match answer {
        Answer::Held(permits, answer) => {
            permits.acquire().await.map_err(io::Error::other)?.forget();
            *answer
        }
        answer => answer,
    };
    let (status, headers, content) = match answer {
        Answer::Held(..) => return Err(io::Error::other("held twice")),
        Answer::Head { status, headers, content } => (status, headers, content),
        Answer::CutBeforeHead => return Err(io::Error::other("cut on purpose")),
        Answer::Never => std::future::pending().await,
        Answer::Late(after, status) => {
            tokio::time::sleep(after).await;
            (status, HeaderMap::new(), Content::Text(""))
        }
    };
    let mut response = Response::new(content.body());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if matches!(content, Content::Cut) {
        response.headers_mut().insert("content-length", HeaderValue::from_static("100"));
    }
    Ok(response)
}

impl Content {
    fn body(&self) -> Body {
        const PIECE: &[u8] = &[b'!'; 64 * 1024];
        match *self {
            Self::Text(text) => Full::from(text).map_err(|never| match never {}).boxed(),
            Self::Flood(length) => {
                let pieces = length.div_ceil(PIECE.len() as u64);
                let sizes = stream::iter(0..pieces)
                    .map(move |n| (length - n * PIECE.len() as u64).min(PIECE.len() as u64) as usize);
                streamed(sizes.map(|size| Ok(&PIECE[..size])))
            }
            Self::Drip(pause) => streamed(stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(pause).await;
                Ok(&PIECE[..1])
            })),
            Self::Cut => {
                streamed(stream::iter([Ok(&PIECE[..1]), Err(io::Error::other("cut on purpose"))]).then(
                    |piece| async move {
                        // Flushes what was written before.
                        tokio::task::yield_now().await;
                        piece
                    },
                ))
            }
        }
    }
}

fn streamed(pieces: impl stream::Stream<Item = io::Result<&'static [u8]>> + Send + Sync + 'static) -> Body {
    let frames = pieces.map(|piece| piece.map(|bytes| Frame::data(Bytes::from_static(bytes))));
    BodyExt::boxed(StreamBody::new(frames))
}

fn payment(headers: &HeaderMap) -> Option<Payment> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    Some(Payment {
        sender: text(&rdn::SENDER_ADDRESS)?.parse().ok()?,
        open_block: text(&rdn::OPEN_BLOCK)?.parse().ok()?,
        total: text(&rdn::BALANCE)?.parse().ok()?,
        signature: Signature::parse(text(&rdn::BALANCE_SIGNATURE)?)?,
    })
}

//! The next proxy behind ours: a small handwritten one that records its requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::raw::{Raw, field};

/// What it does with authorised requests.
#[derive(Clone, Copy, Debug)]
pub enum Does {
    /// Forwards everything to this origin, whatever the name.
    PassTo(SocketAddr),
    /// Sends this response.
    Say(&'static str),
}

/// A proxy that runs until it is dropped.
pub struct Next {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Next {
    /// Accepts requests with this `Proxy-Authorization`, or all.
    pub async fn start(does: Does, demands: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&heads);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream.into(), does, demands, Arc::clone(&noted)));
            }
        });
        Self { address, heads, task: task.abort_handle() }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The request lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.heads().iter().filter_map(|head| Some(head.lines().next()?.to_owned())).collect()
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: Raw, does: Does, demands: Option<&'static str>, noted: Arc<Mutex<Vec<String>>>) {
    let head = client.head().await;
    noted.lock().unwrap().push(head.clone());
    if demands.is_some_and(|demands| field(&head, "proxy-authorization") != Some(demands)) {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"next\"\r\n\
                       Content-Length: 0\r\nConnection: close\r\n\r\n";
        return client.send(refusal).await;
    }
    let to = match does {
        Does::PassTo(to) => to,
        Does::Say(answer) => return client.send(answer).await,
    };
    let mut origin: Raw = TcpStream::connect(to).await.unwrap().into();
    if head.starts_with("CONNECT ") {
        client.send("HTTP/1.1 200 Connection established\r\nX-Next: 1\r\n\r\n").await;
    } else {
        origin.send(onward(&head)).await;
    }
    // The test checks the ends of both connections at its own ends.
    let _ = copy_bidirectional(&mut client.stream, &mut origin.stream).await;
}

/// A head in origin form, for one request only.
fn onward(head: &str) -> String {
    let (line, fields) = head.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let rest = target.strip_prefix("http://").expect("absolute form");
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let own = fields.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("proxy-"));
    format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{}", own.collect::<String>())
}

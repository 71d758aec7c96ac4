//! Payments by x402, to a seller that answers at once: what the proxy adds to a call that is paid by hand over one kept
//! connection, with and without a known price. Each authorization is on disk before it is signed.
//!
//! Environment variables change that. `SELLER` is the URL of another seller, at 127.0.0.1, which asks for the same payment;
//! `CALLS` is the number of calls in a round. `CLIENT` names a program to run in each round, with the seller's URL and the number
//! of calls as its arguments, which prints the median time of a call that it pays, in milliseconds. `tests/programs/x402_speed.py`
//! compares the published client so, at the published seller.

use std::fs;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use secp256k1::{Message, Secp256k1, SecretKey};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tollpass::chain::signer::Signer;
use tollpass::protocol::policy::{KnownAsset, TokenDomain};
use tollpass::protocol::schemes;
use tollpass::protocol::schemes::{DrawContext, Payer};
use tollpass::protocol::{Address, Answer, Signature};

use crate::load::{ended_cpu_of, read_answer};
use crate::median;
use crate::proxy::Proxy;

/// The argument that makes this program only this report, and the one that makes it the seller.
pub const NAME: &str = "x402";
pub const ROLE: &str = "x402-seller";

const ROUNDS: usize = 3;
/// Calls of each kind in one round.
const CALLS: usize = 400;
/// What a known price is learned with, and programs warm up with.
const FIRST: usize = 20;
/// The key of the payer.
const KEY: [u8; 32] = [7; 32];
const TOKEN: Address = Address([0x70; 20]);
const OFFER: &str = r#"{"x402Version":2,"error":"Payment required","resource":{"url":"http://localhost/"},"accepts":[{"scheme":"exact","network":"eip155:31337","amount":"1000","asset":"0x7070707070707070707070707070707070707070","payTo":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC","maxTimeoutSeconds":60,"extra":{"name":"Toy Dollar","version":"2"}}]}"#;
const RECEIPT: &str = r#"{"success":true,"transaction":"0x33","network":"eip155:31337"}"#;
/// `localhost` and `127.0.0.1` are the same seller.
const CONFIGURATION: &str = r#"listen = "127.0.0.1:0"
state_dir = "state"
[wallet]
key_file = "key"
[[asset]]
symbol = "TOY"
network = "eip155:31337"
token = "0x7070707070707070707070707070707070707070"
decimals = 6
eip712_name = "Toy Dollar"
eip712_version = "2"
[[pay]]
host = "localhost"
max_price = "0.002 TOY"
send_ahead = false
[[pay]]
host = "127.0.0.1"
max_price = "0.002 TOY"
"#;

/// The times of one kind of call over the rounds, in milliseconds, and the proxy's CPU time for one.
#[derive(Default)]
struct Kind {
    times: Vec<f64>,
    cpu: Vec<f64>,
}

/// Measures all kinds in alternating rounds and prints the medians.
pub async fn report() -> anyhow::Result<()> {
    let given = std::env::var("SELLER").ok();
    let (seller, url) = match given {
        Some(url) => (None, url),
        None => {
            let (seller, address) = start_seller().await?;
            (Some(seller), format!("http://{address}/"))
        }
    };
    let url: Uri = url.parse()?;
    let address: SocketAddr = url.authority().context("a URL without a host")?.as_str().parse()?;
    let calls = std::env::var("CALLS").ok().map_or(Ok(CALLS), |calls| calls.parse())?;
    let proxy = Proxy::with(CONFIGURATION, &KEY).await?;
    let (mut by_hand, mut asked, mut ahead): (Kind, Kind, Kind) = Default::default();
    let (mut syncs, mut others) = (Vec::new(), Vec::new());
    let asked_url = format!("http://localhost:{}{}", address.port(), url.path());
    let ahead_url = url.to_string();
    for round in 0..=ROUNDS {
        // The first one warms up.
        let calls = if round == 0 { FIRST } else { calls };
        let direct = pay_by_hand(address, url.path(), calls).await?;
        let through = [&asked_url, &ahead_url].map(|url| through(&proxy, url, calls));
        let [first, second] = through;
        let (first, second) = (first.await?, second.await?);
        let sync = median(&syncs_in(proxy.directory())?);
        let client = other_client(&ahead_url, calls).await?;
        if round > 0 {
            by_hand.times.push(direct);
            for (kind, (time, cpu)) in [(&mut asked, first), (&mut ahead, second)] {
                kind.times.push(time);
                kind.cpu.push(cpu);
            }
            syncs.push(sync);
            others.extend(client);
        }
    }
    drop(seller);
    let base = median(&by_hand.times);
    println!("\n{:<44} {:>11} {:>11} {:>11}", "a call that is paid by x402", "median", "more", "proxy CPU");
    println!("{:<44} {base:>8.2} ms", "by hand, over one connection");
    for (what, kind) in [("through the proxy", &asked), ("through the proxy, known price", &ahead)] {
        let (time, cpu) = (median(&kind.times), median(&kind.cpu));
        println!("{what:<44} {time:>8.2} ms {:>8.2} ms {cpu:>8.2} ms", time - base);
    }
    if !others.is_empty() {
        let other = median(&others);
        println!("{:<44} {other:>8.2} ms {:>8.2} ms", "by the other client, without the proxy", other - base);
    }
    println!("{:<44} {:>8.2} ms", "fdatasync of 4 KiB, where the journal is", median(&syncs));
    Ok(())
}

async fn start_seller() -> anyhow::Result<(Child, SocketAddr)> {
    let mut child =
        Command::new(std::env::current_exe()?).arg(ROLE).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it has no output")?).lines();
    let address = lines.next_line().await?.context("the seller has ended")?.parse()?;
    Ok((child, address))
}

/// Sells until it is killed.
pub async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let [offer, receipt] = [OFFER, RECEIPT].map(|json| STANDARD.encode(json));
    let asks = format!(
        "HTTP/1.1 402 Payment Required\r\nPAYMENT-REQUIRED: {offer}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let serves =
        format!("HTTP/1.1 200 OK\r\nPAYMENT-RESPONSE: {receipt}\r\nContent-Length: 6\r\n\r\ngoods\n");
    loop {
        let (mut client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let answers = [asks.clone(), serves.clone()];
        tokio::spawn(async move {
            let mut request = Vec::new();
            loop {
                request.clear();
                while !request.ends_with(b"\r\n\r\n") {
                    if client.read_buf(&mut request).await? == 0 {
                        return anyhow::Ok(());
                    }
                }
                request.make_ascii_lowercase();
                let name = b"\r\npayment-signature:";
                let is_paid = request.windows(name.len()).any(|part| part == name);
                client.write_all(answers[usize::from(is_paid)].as_bytes()).await?;
            }
        });
    }
}

/// The median time of a call, in milliseconds, of which each is paid by hand.
async fn pay_by_hand(seller: SocketAddr, path: &str, calls: usize) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(seller).await?;
    stream.set_nodelay(true)?;
    let domain = TokenDomain { name: "Toy Dollar".to_owned(), version: "2".to_owned() };
    let asset = KnownAsset::new("TOY", "eip155:31337", TOKEN, 6, None).with_domain(Some(domain));
    let (curve, key) = (Secp256k1::new(), SecretKey::from_byte_array(KEY)?);
    let payer = Payer { address: Signer::new(&KEY)?.address(), account: None };
    let (mut times, mut answer) = (Vec::new(), Vec::new());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {seller}\r\nAccept: */*\r\n");
    for call in 0..calls {
        let began = Instant::now();
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        read_answer(&mut stream, &mut answer).await?;
        let text = std::str::from_utf8(&answer)?;
        let offer = text.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("payment-required").then_some(value)
        });
        let offer = offer.context("no offer")?;
        let mut headers = HeaderMap::new();
        headers.insert("payment-required", HeaderValue::from_str(offer)?);
        let answered = Answer { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body: None };
        let offer = schemes::read(&answered)?.remove(0);
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&call.to_be_bytes());
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let context = DrawContext { nonce, now, max_validity: 600, asset: Some(&asset) };
        let draft = offer.draw_one_shot(&context)?;
        let digest = draft.digest(&payer).context("no account")?;
        let signed = curve.sign_ecdsa_recoverable(Message::from_digest(digest), &key);
        let (id, signed) = signed.serialize_compact();
        let mut signature = [0; 65];
        signature[..64].copy_from_slice(&signed);
        signature[64] = 27 + u8::try_from(i32::from(id))?;
        let mut headers = HeaderMap::new();
        draft.attach(&payer, &Signature(signature), &mut headers);
        let payment = headers.get("payment-signature").context("no payment")?.to_str()?;
        stream.write_all(format!("{request}PAYMENT-SIGNATURE: {payment}\r\n\r\n").as_bytes()).await?;
        read_answer(&mut stream, &mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not paid");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&times))
}

/// The median time of a call through the proxy, and the CPU time of the proxy for one, both in milliseconds.
async fn through(proxy: &Proxy, url: &str, calls: usize) -> anyhow::Result<(f64, f64)> {
    let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let request = format!("GET {url} HTTP/1.1\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
    let mut stream = TcpStream::connect(proxy.address).await?;
    stream.set_nodelay(true)?;
    let (mut times, mut answer) = (Vec::new(), Vec::new());
    let before = ended_cpu_of(proxy.id()?)?;
    for _ in 0..calls {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        read_answer(&mut stream, &mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "not paid: {}", String::from_utf8_lossy(&answer));
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let cpu = ended_cpu_of(proxy.id()?)?.saturating_sub(before);
    Ok((median(&times), cpu.as_secs_f64() * 1e3 / calls as f64))
}

/// The times of durable writes in this directory, in milliseconds.
fn syncs_in(directory: &std::path::Path) -> anyhow::Result<Vec<f64>> {
    let path = directory.join("sync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[1; 4096])?;
        let began = Instant::now();
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    Ok(times)
}

/// What the other program measures; `None` without one.
async fn other_client(url: &str, calls: usize) -> anyhow::Result<Option<f64>> {
    let Some(program) = std::env::var_os("CLIENT") else { return Ok(None) };
    let command = Command::new(program).arg(url).arg(calls.to_string()).stderr(Stdio::inherit()).output();
    let output = tokio::time::timeout(Duration::from_secs(60), command).await??;
    let text = String::from_utf8(output.stdout)?;
    let time = text.trim().parse().with_context(|| format!("not a time: {text}"))?;
    Ok(Some(time))
}

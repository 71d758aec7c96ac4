//! The seller, in a separate process: a development chain, the paid origin on it, and in front of that origin a relay
//! that sends the head and the body of each response in two segments, with Nagle's algorithm on.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use ethers_core::types::U256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use tollpass::chain::signer::Signer;
use tollpass::devnet::chain;
use tollpass::devnet::chain::DevChain;
use tollpass::devnet::deploy;
use tollpass::devnet::deploy::deploy;
use tollpass::devnet::origin;
use tollpass::devnet::origin::{Kind, Origin, Resource};
use tollpass::protocol::{Address, Amount};

use crate::load;

/// The argument that makes this program the seller.
pub const ROLE: &str = "seller";

/// One ether, or as many tokens, in base units.
const ETHER: u64 = 1_000_000_000_000_000_000;
const PRICE: u64 = 1000;
const TEXT: &str = "What one gets.\n";

/// The key of the wallet for a proxy with this many channels; it only holds play money.
pub fn wallet(channels: u32) -> [u8; 32] {
    [channels as u8; 32]
}

/// The seller's process, stopped when dropped.
pub struct Seller {
    pub rpc: SocketAddr,
    pub contract: Address,
    pub start_block: u64,
    pub origin: SocketAddr,
    /// The relay that writes two segments.
    pub segmented: SocketAddr,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    child: Child,
}

impl Seller {
    /// Starts this program again, as the seller.
    pub async fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let questions = child.stdin.take().context("it has no input")?;
        let mut answers = BufReader::new(child.stdout.take().context("it has no output")?).lines();
        let line = answers.next_line().await?.unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let [rpc, contract, start_block, origin, segmented] = words[..] else {
            anyhow::bail!("not a ready line: {line}");
        };
        Ok(Self {
            rpc: rpc.parse()?,
            contract: contract.parse()?,
            start_block: start_block.parse()?,
            origin: origin.parse()?,
            segmented: segmented.parse()?,
            questions,
            answers,
            child,
        })
    }

    /// Its process ID.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.child.id().context("the seller has ended")
    }

    /// How many requests for resources were received so far.
    pub async fn exchanges(&mut self) -> anyhow::Result<u64> {
        self.ask("exchanges").await
    }

    /// Sets `are_open` once there are this many channels.
    pub async fn await_channels(&mut self, count: u32, are_open: &Cell<bool>) -> anyhow::Result<()> {
        self.ask(&format!("channels {count}")).await?;
        are_open.set(true);
        Ok(())
    }

    async fn ask(&mut self, question: &str) -> anyhow::Result<u64> {
        self.questions.write_all(format!("{question}\n").as_bytes()).await?;
        Ok(self.answers.next_line().await?.context("the seller has ended")?.parse()?)
    }
}

/// Runs the seller until its input ends.
pub async fn serve() -> anyhow::Result<()> {
    let devchain = DevChain::spawn(chain::DevChainSettings::default()).await?;
    let deployed = deploy(&devchain.url(), deploy::Options::default()).await?;
    for channels in [1, crate::CHANNELS] {
        let payer = Signer::new(&wallet(channels))?.address();
        let tokens = [(deployed.token, Amount::from(ETHER))];
        deploy::fund(&devchain.url(), payer, U256::from(ETHER), &tokens).await?;
    }
    let resource = |path: &str, price: u64| Resource {
        path: path.to_owned(),
        price: Amount::from(price),
        kind: Kind::Text(TEXT.to_owned()),
    };
    let origin = Origin::spawn(origin::SellerSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        secure: None,
        authorized: None,
        rpc_url: devchain.url(),
        channel_manager: deployed.channel_manager,
        token: deployed.token,
        key: [0xb0; 32],
        confirmations: 0,
        poll_every: Duration::from_millis(50),
        resources: vec![resource("/paid", PRICE), resource("/free", 0)],
    })
    .await?;
    let segmented = relay(origin.address()).await?;
    println!(
        "{} {} {} {} {segmented}",
        devchain.address(),
        deployed.channel_manager,
        deployed.start_block,
        origin.address()
    );
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    while let Some(question) = questions.next_line().await? {
        if let Some(count) = question.strip_prefix("channels ") {
            origin.await_channels(count.parse()?).await;
        }
        println!("{}", origin.exchanges());
    }
    origin.stop().await;
    devchain.stop().await;
    Ok(())
}

/// Relays to the origin and returns its responses in two segments.
async fn relay(origin: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((payer, _)) = listener.accept().await {
            tokio::spawn(hand_on(payer, origin));
        }
    });
    Ok(address)
}

async fn hand_on(mut payer: TcpStream, origin: SocketAddr) -> anyhow::Result<()> {
    let mut origin = TcpStream::connect(origin).await?;
    origin.set_nodelay(true)?;
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if payer.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        origin.write_all(&request).await?;
        let head = load::read_answer(&mut origin, &mut answer).await?;
        payer.write_all(&answer[..head]).await?;
        payer.write_all(&answer[head..]).await?;
    }
}

//! Whose programs may spend on this machine: without a token, only those of the user who runs tollpass, in all six ways in.
//!
//! One half says that another user runs tollpass. The other half has another user's programs make the requests, which
//! only root can do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderName, Request, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tollpass::devnet::origin;
use tollpass::protocol::Amount;
use tollpass::protocol::policy::LocalSpenders;

use crate::pays::QUICK;
use crate::support::curl::{curl, curl_of};
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, PATIENCE, Running, program, write_private};
use crate::support::secure::Notary;
use crate::support::wire::{Got, Wire, ask};

/// A user that has no files and runs nothing.
const OTHER: u32 = 54_321;
const TOKEN: &str = "a-token-of-the-laptop";
const THROUGH_PROXY: &str = "comes through this proxy, from a client that is not known";
const REASON: HeaderName = HeaderName::from_static("proxy-status");

/// A seller, also over TLS with HTTP/2, and Alice's proxy on loopback, with one client and one route.
struct Scene {
    fair: Fair,
    alice: Alice,
    proxy: Running,
    _notary: Notary,
}

impl Scene {
    async fn open(local: Option<LocalSpenders>) -> Self {
        let notary = Notary::new();
        let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let more = format!(
            "{QUICK}[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n[[route]]\nprefix = \"/seller\"\n\
             origin = \"{}\"\n[upstream]\nca_file = \"{}\"\n",
            fair.origin.url(),
            notary.ca_file().display()
        );
        let alice = Alice::with(&fair.market, &more).await;
        write_private(&alice.directory.path().join("laptop"), TOKEN);
        let proxy = alice.start_with(|config| config.local = local.unwrap_or(config.local)).await;
        Self { fair, alice, proxy, _notary: notary }
    }

    /// Asks for the paid resource by each way in, as the programs of this user.
    async fn ask_all(&self, user: Option<u32>, has_token: bool) -> Vec<(&'static str, Got)> {
        let credentials =
            format!("Proxy-Authorization: Basic {}", BASE64_STANDARD.encode(format!("laptop:{TOKEN}")));
        let mut common = vec!["--insecure"];
        if has_token {
            common.extend(["--proxy-header", &credentials]);
        }
        let [plain, secure] =
            [self.fair.origin.url(), self.fair.origin.secure_url().unwrap()].map(|at| format!("{at}/paid"));
        let blind = plain.replace("127.0.0.1", "localhost");
        let ws = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", &plain];
        let mut got = Vec::new();
        for (way, more) in [
            ("plain", &[plain.as_str()][..]),
            ("tunnel", &["--proxytunnel", &blind]),
            ("HTTP/1.1 in TLS", &["--http1.1", &secure]),
            ("HTTP/2 in TLS", &["--http2", &secure]),
            ("WebSocket", &ws),
        ] {
            let more = [&common[..], more].concat();
            got.push((way, curl_of(user, Some(self.proxy.address), &more).await.got));
        }
        let before = if has_token { self.route_token() } else { String::new() };
        let url = format!("http://{}{before}/seller/paid", self.proxy.address);
        got.push(("route", curl_of(user, None, &[&url]).await.got));
        got
    }

    fn route_token(&self) -> String {
        let token = std::fs::read_to_string(self.alice.state_dir().join("route-token")).unwrap();
        format!("/{}", token.trim_end())
    }

    /// Nothing is paid without a token, by any way in, and everything that can be is with one.
    async fn refuses(&self, user: Option<u32>, reason: &str) {
        let unpaid = curl(None, &[&format!("{}/paid", self.fair.origin.url())]).await.got;
        // The second round knows the price, and would pay with the first request.
        for bought in [0, 4] {
            for (way, got) in self.ask_all(user, false).await {
                assert_eq!((got.status.as_u16(), &got.body), (402, &unpaid.body), "{way}");
                assert_eq!(got.rdn(), unpaid.rdn(), "{way}");
                let told = got.header(&REASON).unwrap_or_default();
                match way {
                    "tunnel" => assert_eq!(told, ""),
                    "WebSocket" => assert!(told.contains("(Upgrade)"), "{told}"),
                    _ => assert!(told.contains(reason) && told.contains("local = "), "{way}: {told}"),
                }
            }
            assert_eq!(self.proxy.promised().await, Amount::from(bought * PRICE));
            for (way, got) in self.ask_all(user, true).await {
                let is_paid = !["tunnel", "WebSocket"].contains(&way);
                assert_eq!(got.status.as_u16(), if is_paid { 200 } else { 402 }, "{way}");
            }
            assert_eq!(self.proxy.promised().await, Amount::from((bought + 4) * PRICE));
        }
    }
}

#[tokio::test]
async fn another_users_tollpass_does_not_pay_without_a_token() {
    let scene = Scene::open(Some(LocalSpenders::User(OTHER))).await;
    let us = rustix::process::geteuid().as_raw();
    let reason =
        format!("belongs to the user {us}, and without a token only those of the user {OTHER} may spend");
    scene.refuses(None, &reason).await;

    // A connection without a token on one request has none on the next.
    let mut wire = Wire::connect(scene.proxy.address).await;
    let request = |token: bool| {
        let mut request = Request::get(format!("{}/paid", scene.fair.origin.url()));
        if token {
            let credentials = BASE64_STANDARD.encode(format!("laptop:{TOKEN}"));
            request = request.header(header::PROXY_AUTHORIZATION, format!("Basic {credentials}"));
        }
        request.body(empty()).unwrap()
    };
    for (token, status) in [(false, 402), (true, 200), (false, 402)] {
        assert_eq!(wire.ask(request(token)).await.unwrap().status, status, "{token}");
    }
    scene.proxy.stop().await;
}

#[tokio::test]
async fn programs_of_the_same_user_and_of_any_if_allowed_need_no_token() {
    for local in [None, Some(LocalSpenders::Any)] {
        let scene = Scene::open(local).await;
        for (way, got) in scene.ask_all(None, false).await {
            let is_paid = !["tunnel", "WebSocket"].contains(&way);
            assert_eq!(got.status.as_u16(), if is_paid { 200 } else { 402 }, "{way} {local:?}");
        }
        assert_eq!(scene.proxy.promised().await, Amount::from(4 * PRICE));
        scene.proxy.stop().await;
    }
}

/// The proxy connects to its own ports as its user: whoever sends it there must not become that user.
#[tokio::test]
async fn a_client_does_not_become_the_proxys_user_by_going_through_the_proxy() {
    let scene = Scene::open(None).await;
    let (proxy, paid) = (scene.proxy.address, format!("{}/paid", scene.fair.origin.url()));
    // A tunnel that is not read.
    let itself = format!("localhost:{}", proxy.port());
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream
        .write_all(format!("CONNECT {itself} HTTP/1.1\r\nHost: {itself}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut heard = String::new();
    while !heard.ends_with("\r\n\r\n") {
        heard.push(stream.read_u8().await.unwrap().into());
    }
    let request = format!("GET {paid} HTTP/1.1\r\nHost: {proxy}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.contains("HTTP/1.1 402") && heard.contains(THROUGH_PROXY), "{heard}");
    // The port is written so that it is not taken for that of the proxy.
    if can_be_another("a_client_does_not_become_the_proxys_user_by_going_through_the_proxy") {
        let url = format!("http://127.0.0.1:0{}/seller/paid", proxy.port());
        let got = curl_of(Some(OTHER), Some(proxy), &[&url]).await.got;
        assert_eq!(got.status, 402, "{got:?}");
    }
    assert_eq!(scene.proxy.promised().await, Amount::ZERO);
    scene.proxy.stop().await;
}

/// Whether programs can run as another user here; says so if not.
fn can_be_another(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: {test}: only root can run programs as another user");
    }
    is_root
}

#[tokio::test]
async fn programs_of_another_user_cannot_spend_without_a_token() {
    if !can_be_another("programs_of_another_user_cannot_spend_without_a_token") {
        return;
    }
    let scene = Scene::open(None).await;
    let own = rustix::process::geteuid().as_raw();
    let reason =
        format!("belongs to the user {OTHER}, and without a token only those of the user {own} may spend");
    scene.refuses(Some(OTHER), &reason).await;
    let paid = Request::get(format!("{}/paid", scene.fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(scene.proxy.address, paid).await.status, 200, "our own programs still do");
    scene.proxy.stop().await;

    let scene = Scene::open(Some(LocalSpenders::Any)).await;
    let url = format!("{}/paid", scene.fair.origin.url());
    assert_eq!(curl_of(Some(OTHER), Some(scene.proxy.address), &[&url]).await.got.status, 200);
    scene.proxy.stop().await;
}

#[tokio::test]
async fn programs_of_another_user_cannot_operate() {
    if !can_be_another("programs_of_another_user_cannot_operate") {
        return;
    }
    let scene = Scene::open(None).await;
    let open = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // The configuration is readable, so that only the socket is in the way.
    open(scene.alice.directory.path().to_owned(), 0o755);
    let socket = scene.alice.state_dir().join("admin.sock");
    let reach = |user: Option<u32>| {
        let socket = socket.clone();
        async move {
            let mut command = Command::new("curl");
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
            command.args(["-q", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30"]);
            command.arg("--unix-socket").arg(&socket).arg("http://admin/channels");
            let output = command.stdin(Stdio::null()).current_dir("/").output();
            let output = tokio::time::timeout(PATIENCE, output).await.expect("curl does not end").unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        }
    };
    let (code, status) = reach(None).await;
    assert!(code == Some(0) && status != "000", "the owner reaches it: {code:?} {status}");
    const CANNOT_CONNECT: Option<i32> = Some(7);
    assert_eq!(reach(Some(OTHER)).await.0, CANNOT_CONNECT);
    // The socket itself is private, too.
    open(scene.alice.state_dir(), 0o755);
    assert_eq!(reach(Some(OTHER)).await.0, CANNOT_CONNECT);
    open(scene.alice.state_dir(), 0o700);

    // The command line says what is wrong, and changes nothing.
    let copy = scene.alice.directory.path().join("tollpass");
    std::fs::copy(env!("CARGO_BIN_EXE_tollpass"), &copy).unwrap();
    let mut command = Command::new(copy);
    command
        .args(["channels", "--state-dir"])
        .arg(scene.alice.state_dir())
        .uid(OTHER)
        .gid(OTHER)
        .current_dir("/");
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(!output.status.success(), "{output:?}");
    let mut command = program(["channels", "--state-dir"]);
    let ours = command.arg(scene.alice.state_dir()).output().await.unwrap();
    assert!(ours.status.success(), "{ours:?}");
    scene.proxy.stop().await;
}

//! `tollpass run` and `tollpass env`: one command with the environment it needs, its exit, and the report.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, UnixListener};
use tokio::process::{Child, ChildStdout, Command};
use tollpass::admin;
use tollpass::devnet::origin;
use tollpass::protocol::schemes::microraiden::headers as rdn;
use tollpass::protocol::{Address, Amount};
use tollpass::tls::{Authority, Leaves};

use super::{only_channel, run, text};
use crate::pays::QUICK;
use crate::support::cheats::once_paid;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Payment};
use crate::support::payer::{Alice, PATIENCE, Program, program, write_private};
use crate::support::ports::ReservedPort;
use crate::support::raw::{Raw, soon};
use crate::support::secure::{Notary, Secure};
use crate::support::wire::ask;

/// Other environment variables that could change what a program does.
const FOREIGN: [&str; 27] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CARGO_HTTP_CAINFO",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
    "BUNDLE_SSL_CA_CERT",
    "COMPOSER_CAFILE",
    "HEX_CACERTS_PATH",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
];

/// A command without proxy and certificate variables in its environment, at home in `home`.
fn bare(home: &Path, mut command: Command) -> Command {
    for name in FOREIGN {
        command.env_remove(name);
    }
    command.env("HOME", home).env_remove("XDG_STATE_HOME").env_remove("XDG_RUNTIME_DIR").kill_on_drop(true);
    command
}

/// `tollpass` with these arguments, in such an environment.
fn tollpass(home: &Path, arguments: &[&str]) -> Command {
    bare(home, program(arguments))
}

/// Default signal handling, as for a program started at a terminal: these tests may run in the background or under
/// `nohup`, where some signals are ignored.
const HEEDING: &str = r#"
import os, signal, sys
for number in [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]:
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// A command with default signal handling.
fn heeding(command: &Command) -> Command {
    let command = command.as_std();
    let mut heeding = Command::new("python3");
    heeding.args(["-c", HEEDING]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => heeding.env(name, value),
            None => heeding.env_remove(name),
        };
    }
    heeding.kill_on_drop(true);
    heeding
}

/// The result of a run, its output, and the log part of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) out: String,
    pub(super) errors: String,
}

pub(super) async fn ended(mut command: Command) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { status: output.status, out: text(output.stdout), errors: text(output.stderr) }
}

/// A run with which the test interacts.
pub(super) struct Talk {
    pub(super) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talk {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(super) async fn hear(&mut self) -> String {
        soon("a line", self.lines.next_line()).await.unwrap().expect("it ended")
    }

    pub(super) async fn say(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(id, signal).unwrap();
    }

    /// The rest of standard error.
    async fn complaint(&mut self) -> String {
        let mut line = String::new();
        let errors = self.child.stderr.as_mut().unwrap();
        soon("a complaint", async {
            while !line.ends_with('\n') {
                line.push(char::from(errors.read_u8().await.unwrap()));
            }
        })
        .await;
        line
    }

    pub(super) async fn end(mut self) -> (ExitStatus, String) {
        drop(self.child.stdin.take());
        let status = soon("the end", self.child.wait()).await.unwrap();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        (status, errors)
    }
}

/// A market, a seller, and Alice who can pay it.
pub(super) struct Scene {
    pub(super) fair: Fair,
    pub(super) alice: Alice,
}

impl Scene {
    pub(super) async fn open() -> Self {
        let fair = Fair::open().await;
        let alice = Alice::with(&fair.market, QUICK).await;
        Self { fair, alice }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.fair.origin.url())
    }

    /// `tollpass run` with options and a command.
    pub(super) fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let config = self.alice.config_path();
        let mut arguments = vec!["run", "--config", text(&config)];
        arguments.extend(options);
        arguments.push("--");
        arguments.extend(command);
        tollpass(self.alice.directory.path(), &arguments)
    }

    /// The payee as shown in a report.
    pub(super) fn payee(&self) -> String {
        let origin = &self.fair.origin;
        format!("{} ({})", origin.address(), origin.receiver())
    }
}

pub(super) const PAID: &str = "This text was paid for. The client that asked did not need to know how.\n";

#[tokio::test]
async fn a_program_pays_and_the_bill_says_to_whom() {
    let scene = Scene::open().await;
    let bill = scene.alice.directory.path().join("bill.json");
    let url = scene.url("/paid");
    let curl = ["curl", "-q", "-sS", "--fail", &url, &url, &url];
    let ran = ended(scene.run(&["--report", text(&bill)], &curl)).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    assert_eq!(ran.out, PAID.repeat(3));
    let payee = scene.payee();
    assert_eq!(ran.errors, format!("tollpass: paid 3000 in 3 requests: 3000 to {payee}\n"));

    let json: Value = serde_json::from_str(&std::fs::read_to_string(&bill).unwrap()).unwrap();
    let paid = json!({ "requests": 3, "amount": "3000" });
    let none = json!({ "requests": 0, "amount": "0" });
    let origin = &scene.fair.origin;
    let payee = json!({
        "host": origin.address().to_string(),
        "receiver": origin.receiver(),
        "paid": paid,
        "unclear": none,
    });
    assert_eq!(json["payees"], json!([payee]));
    assert_eq!((&json["paid"], &json["unclear"], &json["under_way"]), (&paid, &none, &none));
    assert_eq!(json["from"]["token"], json!(scene.fair.market.token));
    assert_eq!(json["complete"], true);

    // The report matches the journal.
    let listed = run(&["channels", "--json", "--state-dir", text(&scene.alice.state_dir())]).await;
    assert_eq!(only_channel(&listed.out), ("3000".to_owned(), "3000".to_owned()));
    // The next command has its own report, and can be silenced.
    let ran = ended(scene.run(&[], &["curl", "-q", "-sS", "--fail", &url])).await;
    assert!(ran.errors.starts_with("tollpass: paid 1000 in 1 request: "), "{ran:?}");
    let ran = ended(scene.run(&["--quiet"], &["curl", "-q", "-sS", "--fail", &url])).await;
    assert_eq!((ran.status.code(), &*ran.out, &*ran.errors), (Some(0), PAID, ""));
    assert_eq!(scene.fair.market.openings().await, 1);
}

#[tokio::test]
async fn https_is_paid_without_a_setting() {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
    let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config };
    let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
    let trusting = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
    // Amounts of a token with a known symbol are not in base units.
    let asset = format!(
        "[[asset]]\nsymbol = \"TKN\"\nnetwork = \"eip155:31337\"\ntoken = \"{}\"\ndecimals = 4\n",
        fair.market.token
    );
    let alice = Alice::with(&fair.market, &format!("{QUICK}{trusting}{asset}")).await;
    let scene = Scene { fair, alice };
    let url = scene.fair.origin.secure_url().unwrap() + "/paid";
    let ran = ended(scene.run(&[], &["curl", "-q", "-sS", "--fail", &url, &url])).await;
    assert_eq!((ran.status.code(), ran.out), (Some(0), PAID.repeat(2)), "{}", ran.errors);
    let payee = scene.payee().replace(&scene.fair.origin.url()[7..], &url[8..url.len() - 5]);
    assert_eq!(ran.errors, format!("tollpass: paid 0.2 TKN in 2 requests: 0.2 TKN to {payee}\n"));
}

#[tokio::test]
async fn the_bill_lists_amounts_in_doubt() {
    let scene = Scene::open().await;
    let (paid, broken) = (scene.url("/paid"), scene.url("/status/500"));
    let ran = ended(scene.run(&[], &["curl", "-q", "-sS", "-o", "/dev/null", &paid, &broken])).await;
    let payee = scene.payee();
    let told = format!(
        "tollpass: paid 1000 in 1 request: 1000 to {payee}; unclear 1000 in 1 request (response lost or failed): 1000 to {payee}\n"
    );
    assert!(ran.errors.ends_with(&told), "{ran:?}");
}

/// A seller that sends another 402 does not show whether it keeps the payment.
#[tokio::test]
async fn the_bill_lists_payments_without_goods() {
    let scene = Scene::open().await;
    let receiver = Address([0x66; 20]);
    let market = &scene.fair.market;
    let demand = Demand { contract: market.manager, receiver, token: market.token };
    let seller = Mallory::spawn(once_paid(demand, PRICE, move |_| demand.base(PRICE))).await;
    let url = format!("{}/", seller.url());
    let ran = ended(scene.run(&[], &["curl", "-q", "-sS", "-o", "/dev/null", &url])).await;
    assert_eq!(seller.highest(), Amount::from(PRICE));
    assert!(ran.errors.contains("; unclear 1000 in 1 request"), "{ran:?}");
}

/// The paid and unclear sums of a JSON report, in total and for its one payee: (requests, amount) of each.
fn sums(bill: &Path) -> [(u64, u64); 2] {
    let json: Value = serde_json::from_str(&std::fs::read_to_string(bill).unwrap()).unwrap();
    assert_eq!(
        (&json["payees"][0]["paid"], &json["payees"][0]["unclear"]),
        (&json["paid"], &json["unclear"])
    );
    assert_eq!((json["payees"].as_array().unwrap().len(), &json["under_way"]["requests"]), (1, &json!(0)));
    ["paid", "unclear"].map(|key| {
        let amount = json[key]["amount"].as_str().unwrap().parse().unwrap();
        (json[key]["requests"].as_u64().unwrap(), amount)
    })
}

/// A seller with one response for each connection, which stops listening with the last one.
async fn closing_shop(answers: Vec<String>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut listener, last) = (Some(listener), answers.len() - 1);
        for (number, answer) in answers.into_iter().enumerate() {
            let mut raw = Raw::from(listener.as_ref().unwrap().accept().await.unwrap().0);
            raw.head().await;
            if number == last {
                listener = None;
            }
            raw.send(answer).await;
            raw.finish().await;
        }
    });
    address
}

#[tokio::test]
async fn the_bill_lists_a_presented_payment_if_the_next_attempt_cannot_connect() {
    let scene = Scene::open().await;
    let market = &scene.fair.market;
    let (contract, token, payer) = (market.manager, market.token, scene.alice.address);
    let complaint = "RDN-Insufficient-Confirmations: 1\r\n".to_owned();
    let other_total = format!("RDN-Sender-Address: {payer}\r\nRDN-Sender-Balance: 0\r\n");
    for (number, price, more) in [(1, PRICE, complaint), (2, 7 * PRICE, other_total)] {
        let receiver = Address([0x60 + number; 20]);
        let demand = |price: u64, more: &str| {
            format!(
                "HTTP/1.1 402 Payment Required\r\nConnection: close\r\nContent-Length: 0\r\n\
                 RDN-Gateway-Path: /api/1\r\nRDN-Contract-Address: {contract}\r\nRDN-Receiver-Address: {receiver}\r\n\
                 RDN-Token-Address: {token}\r\nRDN-Price: {price}\r\n{more}\r\n"
            )
        };
        let seller = closing_shop(vec![demand(PRICE, ""), demand(price, &more)]).await;
        let bill = scene.alice.directory.path().join("bill.json");
        let url = format!("http://{seller}/");
        let curl = ["curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url];
        let ran = ended(scene.run(&["--report", text(&bill)], &curl)).await;
        assert_eq!(ran.out, "502", "{more}: {ran:?}");
        let told = "tollpass: paid nothing; unclear 1000 in 1 request ";
        assert!(ran.errors.contains(told), "{more}: {ran:?}");
        assert_eq!(sums(&bill), [(0, 0), (1, PRICE)], "{more}");
    }
}

#[tokio::test]
async fn the_bill_lists_a_presented_payment_if_the_client_leaves_before_the_next_attempt() {
    let mut scene = Scene::open().await;
    scene.alice.change(
        "insufficient_confirmations = { action = \"retry\", every = \"10ms\", times = 1000, timeout = \"20s\" }",
        "insufficient_confirmations = { action = \"retry\", every = \"4m\", times = 1, timeout = \"5m\" }",
    );
    let market = &scene.fair.market;
    let demand = Demand { contract: market.manager, receiver: Address([0x66; 20]), token: market.token };
    let complaint = move |_: &_| demand.base(PRICE).complain(&rdn::INSUFFICIENT_CONFIRMATIONS);
    let seller = Mallory::spawn(once_paid(demand, PRICE, complaint)).await;
    let (bill, url) = (scene.alice.directory.path().join("bill.json"), format!("{}/", seller.url()));
    let script = r#"curl -q -sS "$0" & read line; kill $!"#;
    let talk = Talk::start(scene.run(&["--report", text(&bill)], &["sh", "-c", script, &url]));
    soon("the payment", seller.await_presented(2)).await;
    let (status, errors) = talk.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.contains("tollpass: paid nothing; unclear 1000 in 1 request "), "{errors}");
    assert_eq!((sums(&bill), seller.highest()), ([(0, 0), (1, PRICE)], PRICE.into()));
}

/// Whatever a seller does with payments: the report contains what it can redeem, and each part of it once.
#[tokio::test]
async fn the_bill_adds_up_to_the_sellers_claims() {
    let scene = Scene::open().await;
    let market = &scene.fair.market;
    type Cheat = Box<dyn FnMut(usize, &Payment) -> Answer + Send>;
    type Case = (&'static str, u64, fn(Demand) -> Cheat, [(u64, u64); 2]);
    let cheats: [Case; 4] = [
        (
            "a lost payment is taken for the next request",
            PRICE,
            |_| {
                Box::new(|number, _| match number {
                    1 => Answer::CutBeforeHead,
                    _ => Answer::new(StatusCode::OK, "paid"),
                })
            },
            [(1, PRICE), (0, 0)],
        ),
        (
            "the price rises",
            PRICE,
            |demand| {
                Box::new(move |number, payment| match number {
                    1 => demand.base(7 * PRICE).with_state(payment.sender, Amount::ZERO, None),
                    _ => Answer::new(StatusCode::OK, "paid"),
                })
            },
            [(1, 7 * PRICE), (0, 0)],
        ),
        (
            "the price falls",
            7 * PRICE,
            |demand| {
                Box::new(move |number, payment| match number {
                    1 => demand.base(PRICE).with_state(payment.sender, Amount::ZERO, None),
                    _ => Answer::new(StatusCode::OK, "paid"),
                })
            },
            [(1, PRICE), (1, 6 * PRICE)],
        ),
        (
            "the payment is shown as an old one",
            PRICE,
            |demand| {
                Box::new(move |_, payment| {
                    demand.base(PRICE).with_state(payment.sender, payment.total, Some(payment.signature))
                })
            },
            [(1, PRICE), (0, 0)],
        ),
    ];
    for (number, (what, price, cheat, expected)) in (1..).zip(cheats) {
        let demand =
            Demand { contract: market.manager, receiver: Address([0x60 + number; 20]), token: market.token };
        let (mut cheat, mut payments) = (cheat(demand), 0);
        let seller = Mallory::spawn(once_paid(demand, price, move |payment| {
            payments += 1;
            cheat(payments, payment)
        }));
        let seller = seller.await;
        let (bill, url) = (scene.alice.directory.path().join("bill.json"), format!("{}/", seller.url()));
        let mut command = vec!["curl", "-q", "-sS", "-o", "/dev/null", &url];
        if number == 1 {
            // A GET would be sent again.
            command.extend(["-X", "POST", "-o", "/dev/null", &url]);
        }
        let ran = ended(scene.run(&["--report", text(&bill)], &command)).await;
        let [(_, paid), (_, unclear)] = sums(&bill);
        assert_eq!(sums(&bill), expected, "{what}: {ran:?}");
        assert_eq!(Amount::from(paid + unclear), seller.highest(), "{what}: {ran:?}");
    }
}

#[tokio::test]
async fn the_ending_is_the_programs_own() {
    let scene = Scene::open().await;
    for (command, code) in [("true", 0), ("exit 3", 3), ("exit 255", 255), ("kill -SEGV $$", 128 + 11)] {
        let ran = ended(scene.run(&["--quiet"], &["sh", "-c", command])).await;
        assert_eq!((ran.status.code(), &*ran.errors), (Some(code), ""), "{command}: {ran:?}");
    }
    for (signal, number) in [("HUP", 1), ("INT", 2), ("KILL", 9), ("PIPE", 13), ("TERM", 15)] {
        let ran =
            ended(heeding(&scene.run(&["--quiet"], &["sh", "-c", &format!("kill -{signal} $$")]))).await;
        assert_eq!(ran.status.signal(), Some(number), "{ran:?}");
    }
    let ran = ended(scene.run(&[], &["no-such-program-anywhere"])).await;
    assert_eq!(ran.status.code(), Some(127), "{ran:?}");
    assert!(ran.errors.starts_with("tollpass: cannot run no-such-program-anywhere: no program"), "{ran:?}");
    let config = scene.alice.config_path();
    let ran = ended(scene.run(&[], &[text(&config)])).await;
    assert_eq!(ran.status.code(), Some(126), "{ran:?}");
    // Errors of tollpass itself are distinguishable from the command's output.
    let nowhere = scene.alice.directory.path().join("nowhere/bill");
    let ran = ended(scene.run(&["--report", text(&nowhere)], &["touch", "x"])).await;
    assert_eq!(ran.status.code(), Some(125), "{ran:?}");
    assert!(ran.errors.contains("bill") && ran.errors.contains(text(&nowhere)), "{ran:?}");
    std::fs::write(scene.alice.directory.path().join("key"), "no key").unwrap();
    let ran = ended(scene.run(&[], &["echo", "begun"])).await;
    assert_eq!((ran.status.code(), &*ran.out), (Some(125), ""), "{ran:?}");
    assert!(ran.errors.contains("cannot open the wallet"), "{ran:?}");
}

#[tokio::test]
async fn input_and_output_are_the_programs_own() {
    let scene = Scene::open().await;
    let mut talk = Talk::start(scene.run(&["--quiet"], &["sh", "-c", "cat; echo >&2 words of its own"]));
    talk.say("one\n").await;
    assert_eq!(talk.hear().await, "one");
    talk.say("two\n").await;
    assert_eq!(talk.hear().await, "two");
    let (status, errors) = talk.end().await;
    assert_eq!((status.code(), &*errors), (Some(0), "words of its own\n"));
}

#[tokio::test]
async fn a_signal_that_is_for_us_alone_is_passed_on() {
    let scene = Scene::open().await;
    for (name, signal) in
        [("TERM", Signal::TERM), ("INT", Signal::INT), ("HUP", Signal::HUP), ("USR1", Signal::USR1)]
    {
        let script = format!("trap 'exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let mut talk = Talk::start(heeding(&scene.run(&["--quiet"], &["sh", "-c", &script])));
        assert_eq!(talk.hear().await, "ready");
        talk.signal(signal);
        let (status, errors) = talk.end().await;
        assert_eq!((status.code(), &*errors), (Some(7), ""), "{name}");
    }
    // A signal that the command does not handle ends both in the same way.
    let mut talk = Talk::start(scene.run(&["--quiet"], &["sh", "-c", "echo ready; exec sleep 60"]));
    assert_eq!(talk.hear().await, "ready");
    talk.signal(Signal::TERM);
    assert_eq!(talk.end().await.0.signal(), Some(15));
}

#[tokio::test]
async fn ignored_signals_stay_ignored() {
    let scene = Scene::open().await;
    let config = scene.alice.config_path();
    let (program, config) = (env!("CARGO_BIN_EXE_tollpass"), text(&config));
    // As under `nohup`. The command notices the end of its input.
    let script = r#"trap '' HUP; exec "$0" run --quiet --config "$1" -- sh -c 'echo ready; cat; echo ended'"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, program, config]).env_remove("XDG_RUNTIME_DIR").kill_on_drop(true);
    let mut talk = Talk::start(command);
    assert_eq!(talk.hear().await, "ready");
    talk.signal(Signal::HUP);
    talk.say("still here\n").await;
    assert_eq!(talk.hear().await, "still here");
    drop(talk.child.stdin.take());
    assert_eq!(talk.hear().await, "ended");
    assert_eq!(talk.end().await.0.code(), Some(0));
}

/// Runs tollpass on a terminal of its own and types Ctrl-C each time it is ready.
const TERMINAL: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen, typed = b"", 0
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    seen += more
    while typed < seen.count(b"ready"):
        os.write(terminal, b"\x03")
        typed += 1
sys.stdout.write(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// Counts how often Ctrl-C reaches it: 30 times from the terminal; then once more, sent to its parent alone. Of two in
/// quick succession one may be lost, but not of all 30 pairs.
const COUNTER: &str = r#"
import os, signal, time
count = 0
passed = 0
def interrupted(*_):
    global count
    count += 1
def asked(*_):
    global passed
    passed += 1
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGUSR1, asked)
for typed in range(30):
    print("ready", flush=True)
    while count <= typed: time.sleep(0.001)
    # Whatever was passed on of this one comes before what follows comes back.
    os.kill(os.getppid(), signal.SIGUSR1)
    while passed <= typed: time.sleep(0.001)
print("from the terminal:", count, flush=True)
os.kill(os.getppid(), signal.SIGINT)
while count < 31: time.sleep(0.001)
print("in all:", count, flush=True)
"#;

#[tokio::test]
async fn the_terminals_interrupt_comes_once() {
    let scene = Scene::open().await;
    let config = scene.alice.config_path();
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_tollpass"), "run", "--config", text(&config), "--"]);
    command.args(["python3", "-c", COUNTER]).stdin(Stdio::null()).kill_on_drop(true);
    command.env_remove("XDG_RUNTIME_DIR");
    let ran = ended(heeding(&command)).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    for line in ["from the terminal: 30\r\n", "in all: 31\r\n", "tollpass: paid nothing\r\n"] {
        assert!(ran.out.contains(line), "no {line:?} in {ran:?}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    // From here on the seller knows the channel.
    let ran = ended(scene.run(&["--quiet"], &["curl", "-q", "-sS", "--fail", &url])).await;
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    scene.fair.origin.hold_answers();
    // The command exits while its payment is in flight, which the proxy waits for.
    let script = r#"curl -q -sS "$0" & echo ${http_proxy#http://}; read line; kill $!; exit 4"#;
    let mut talk = Talk::start(scene.run(&[], &["sh", "-c", script, &url]));
    let address = talk.hear().await;
    soon("the payment", scene.fair.origin.await_payments(2)).await;
    talk.say("go on\n").await;
    let ended = async { while tokio::net::TcpStream::connect(&address).await.is_ok() {} };
    soon("the end of accepting", ended).await;
    talk.signal(Signal::TERM);
    let (status, errors) = talk.end().await;
    scene.fair.origin.release();
    assert_eq!(status.code(), Some(4), "{errors}");
    let payee = scene.payee();
    let told = format!(
        "tollpass: paid nothing; unclear 1000 in 1 request (response lost or failed): 1000 to {payee}\n"
    );
    assert!(errors.ends_with(&told), "{errors}");
}

#[tokio::test]
async fn the_environment_names_the_proxy_and_keeps_exempt_hosts() {
    let scene = Scene::open().await;
    let script = r#"printf '%s\n' "$http_proxy" "$HTTP_PROXY" "$https_proxy" "$HTTPS_PROXY" "$NODE_USE_ENV_PROXY" \
                    "$no_proxy" "$NO_PROXY" "${TOLLPASS_WALLET_PASSWORD-none}" "${ALL_PROXY-none}""#;
    let mut command = scene.run(&["--quiet", "--no-proxy", "c.example"], &["sh", "-c", script]);
    command.env("NO_PROXY", "a.example").env("no_proxy", "b.example");
    command.env("TOLLPASS_WALLET_PASSWORD", "correct horse");
    let ran = ended(command).await;
    let lines: Vec<&str> = ran.out.lines().collect();
    let [one, two, three, four, rest @ ..] = &lines[..] else { panic!("{ran:?}") };
    assert!(one.starts_with("http://127.0.0.1:") && [two, three, four] == [one; 3], "{ran:?}");
    let exempt = "b.example,a.example,c.example";
    assert_eq!(rest, ["1", exempt, exempt, "none", "none"]);

    // Exempt hosts are requested directly, and not paid.
    let url = scene.url("/paid");
    let curl = ["curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url];
    let ran = ended(scene.run(&["--no-proxy", "127.0.0.1"], &curl)).await;
    assert_eq!((&*ran.out, &*ran.errors), ("402", "tollpass: paid nothing\n"), "{ran:?}");
}

#[tokio::test]
async fn a_shell_that_names_a_proxy_of_ours_that_is_gone_does_no_harm() {
    let scene = Scene::open().await;
    let mut command = scene.run(&["--quiet"], &["curl", "-q", "-sS", "http://bob.invalid/"]);
    // As left behind by `tollpass env`, for a `serve` that has exited.
    command.env("TOLLPASS_LISTEN", "127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
    let ran = ended(command).await;
    assert!(ran.out.contains("bob.invalid") && !ran.out.contains("127.0.0.1:9"), "{ran:?}");
    assert!(ran.out.contains("cannot be resolved"), "{ran:?}");
}

#[tokio::test]
async fn a_proxy_that_runs_is_used_and_stays() {
    let scene = Scene::open().await;
    let serving = scene.alice.serve(&[]).await;
    let url = scene.url("/paid");
    let payee = scene.payee();
    for _ in 0..2 {
        // Another program of the proxy pays meanwhile.
        let mut talk =
            Talk::start(scene.run(&[], &["sh", "-c", r#"echo; read line; curl -q -sS "$0""#, &url]));
        assert_eq!(talk.hear().await, "");
        let got = ask(serving.address, http::Request::get(&url).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        talk.say("go on\n").await;
        assert_eq!(talk.hear().await + "\n", PAID);
        let (status, errors) = talk.end().await;
        let told = format!("tollpass: paid 1000 in 1 request: 1000 to {payee}\n");
        assert_eq!((status.code(), errors), (Some(0), told));
    }
    assert_eq!(scene.fair.origin.total_registered(), (4 * PRICE).into());
    // If the proxy stops while the command runs, it is unknown what was paid.
    let mut talk = Talk::start(scene.run(&[], &["sh", "-c", "echo ready; cat"]));
    assert_eq!(talk.hear().await, "ready");
    serving.terminate();
    let (status, log) = soon("the end, whoever uses it", serving.ended()).await;
    assert_eq!(status.code(), Some(0), "{log}");
    let (status, errors) = talk.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.contains("stopped in the meantime: what it paid is unknown"), "{errors}");
}

#[tokio::test]
async fn programs_at_the_same_time_share_a_proxy_that_ends_with_the_last() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    let mut first = Talk::start(scene.run(&[], &["sh", "-c", "echo $http_proxy; cat"]));
    let address = first.hear().await;
    let script = r#"echo $http_proxy; read line; exec curl -q -sS --fail "$0""#;
    let mut second = Talk::start(scene.run(&[], &["sh", "-c", script, &url]));
    // Each has a port of its own.
    assert_ne!(second.hear().await, address);
    // The first command ends; its proxy waits for the second.
    drop(first.child.stdin.take());
    let told = first.complaint().await;
    assert!(told.starts_with("tollpass: another command uses this proxy"), "{told}");
    second.say("go on\n").await;
    assert_eq!(second.hear().await + "\n", PAID);
    let (status, errors) = second.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.contains("paid 1000 in 1 request"), "{errors}");
    let (status, errors) = first.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert_eq!(errors, "tollpass: paid nothing\n");
}

#[tokio::test]
async fn a_proxy_that_exits_in_the_middle_of_a_response_is_replaced() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    let state_dir = scene.alice.state_dir();
    DirBuilder::new().mode(0o700).create(&state_dir).unwrap();
    let socket = admin::socket(&state_dir);
    for response in [
        "",
        "HTTP/1.1 200 OK\r\nTransfer-",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"li",
    ] {
        std::fs::remove_file(&socket).ok();
        let listener = UnixListener::bind(&socket).unwrap();
        let exiting = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            if !response.is_empty() {
                stream.read_u8().await.unwrap();
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        };
        let (ran, ()) = tokio::join!(ended(scene.run(&[], &["curl", "-q", "-sS", "--fail", &url])), exiting);
        assert_eq!((ran.status.code(), &*ran.out), (Some(0), PAID), "{response:?}: {ran:?}");
    }
}

#[tokio::test]
async fn many_at_once_all_pay_over_one_channel() {
    let scene = Scene::open().await;
    let url = scene.url("/paid");
    let all = (0..6).map(|_| ended(scene.run(&["--quiet"], &["curl", "-q", "-sS", "--fail", &url])));
    for ran in futures_util::future::join_all(all).await {
        assert_eq!((ran.status.code(), &*ran.out), (Some(0), PAID), "{ran:?}");
    }
    let listed = run(&["channels", "--json", "--state-dir", text(&scene.alice.state_dir())]).await;
    assert_eq!(only_channel(&listed.out), ("6000".to_owned(), "6000".to_owned()));
}

#[tokio::test]
async fn without_a_wallet_or_a_node_the_program_runs_all_the_same() {
    let mut scene = Scene::open().await;
    let (free, paid) = (scene.url("/free"), scene.url("/paid"));
    let curl = ["run", "curl", "-q", "-sS", "-w", "%{http_code}\n", &free, &paid];
    let ran = ended(tollpass(scene.alice.directory.path(), &curl)).await;
    assert!(ran.out.starts_with("free\n200\n") && ran.out.ends_with("402\n"), "{ran:?}");
    let told = "tollpass: no [wallet] is configured: this proxy never pays\ntollpass: paid nothing\n";
    assert_eq!((ran.status.code(), &*ran.errors), (Some(0), told));

    let closed = ReservedPort::new();
    let node = scene.fair.market.chain.url();
    scene.alice.change(&node, &closed.url());
    let ran = ended(scene.run(&[], &["curl", "-q", "-sS", "--fail", &free])).await;
    assert_eq!((ran.status.code(), &*ran.out), (Some(0), "free\n"), "{ran:?}");
    assert!(ran.errors.ends_with("tollpass: paid nothing\n"), "{ran:?}");
}

#[tokio::test]
async fn a_program_gets_the_credentials_of_a_client() {
    let mut scene = Scene::open().await;
    let client = "[[client]]\nname = \"lap/top@home\"\ntoken_file = \"token\"\n\n[wallet]";
    scene.alice.change("[wallet]", client);
    scene.alice.change("listen =", "auth = \"required\"\nlisten =");
    write_private(
        &scene.alice.directory.path().join("token"),
        "an odd:t/k@n%41 of mine".replace(' ', "?").as_str(),
    );
    let url = scene.url("/paid");
    let curl = ["curl", "-q", "-sS", "--fail", &url];

    // With its own proxy, and with one that runs and listens on every address.
    let ran = ended(scene.run(&["--client", "lap/top@home"], &curl)).await;
    assert_eq!((ran.status.code(), &*ran.out), (Some(0), PAID), "{ran:?}");
    for (options, complaint) in [
        (vec![], "requires the token of a [[client]]; add --client and one of: lap/top@home"),
        (vec!["--client", "other"], "no [[client]] is called other; the names are: lap/top@home"),
    ] {
        let ran = ended(scene.run(&options, &curl)).await;
        assert_eq!((ran.status.code(), &*ran.out), (Some(125), ""), "{ran:?}");
        assert!(ran.errors.contains(complaint), "{ran:?}");
    }
    scene.alice.change(
        "auth = \"required\"\nlisten = \"127.0.0.1:0\"",
        "allow_remote = true\nlisten = \"0.0.0.0:0\"",
    );
    let serving = scene.alice.serve(&[]).await;
    // The port of a run is on loopback.
    for options in [vec![], vec!["--client", "lap/top@home"]] {
        let ran = ended(scene.run(&options, &curl)).await;
        assert_eq!((ran.status.code(), &*ran.out), (Some(0), PAID), "{ran:?}");
    }
    let config = scene.alice.config_path();
    let print = ["env", "--config", text(&config), "--client", "lap/top@home", "--shell", "json"];
    let json = ended(tollpass(scene.alice.directory.path(), &print)).await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let port = serving.address.port();
    let proxy = format!("http://lap%2Ftop%40home:an%3Fodd%3At%2Fk%40n%2541%3Fof%3Fmine@127.0.0.1:{port}");
    assert_eq!(json["https_proxy"], proxy);
    serving.terminate();
    let (_, log) = serving.ended().await;
    assert!(log.contains("unencrypted") && !log.contains("mine"), "{log}");
}

#[tokio::test]
async fn a_shell_evaluates_the_environment() {
    let scene = Scene::open().await;
    let serving = scene.alice.serve(&[]).await;
    let config = scene.alice.config_path();
    let odd = "it's $HOME,\"`x`\\";
    let script = r#"eval "$("$0" env --config "$1" --no-proxy "$2")" || exit 9
                    printf '%s\n' "$http_proxy" "$HTTPS_PROXY" "$no_proxy"; sh -c 'echo "$http_proxy"'
                    eval "$("$0" env --config "$1" --unset)" || exit 9
                    printf '%s\n' "${http_proxy-unset}" "${NODE_USE_ENV_PROXY-unset}" "$no_proxy""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_tollpass"), text(&config), odd]);
    let ran = ended(bare(scene.alice.directory.path(), command)).await;
    let url = format!("http://{}", serving.address);
    assert_eq!(ran.out, format!("{url}\n{url}\n{odd}\n{url}\nunset\nunset\n{odd}\n"), "{ran:?}");
    assert_eq!((ran.status.code(), &*ran.errors), (Some(0), ""));

    let json = ended(tollpass(
        scene.alice.directory.path(),
        &["env", "--config", text(&config), "--shell", "json", "--no-proxy", odd],
    ))
    .await;
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&json["https_proxy"], &json["NO_PROXY"]), (&json!(url), &json!(odd)));
    serving.terminate();
    serving.ended().await;

    // A port chosen at startup cannot be known in advance.
    let ran = ended(tollpass(scene.alice.directory.path(), &["env", "--config", text(&config)])).await;
    assert_eq!((ran.status.code(), &*ran.out), (Some(1), ""), "{ran:?}");
    assert!(ran.errors.contains("tollpass serve"), "{ran:?}");
}

#[tokio::test]
async fn the_environment_of_a_proxy_without_a_wallet_is_the_configured_one() {
    let directory = tempfile::tempdir().unwrap();
    let serving = Program::start(program(["serve", "--listen", "127.0.0.1:0"])).await;
    let listen = serving.address.to_string();
    let mut command = tollpass(directory.path(), &["env"]);
    command.env("TOLLPASS_LISTEN", &listen);
    let ran = ended(command).await;
    assert!(ran.out.contains(&format!("export HTTP_PROXY='http://{listen}'\n")), "{ran:?}");
    assert_eq!((ran.status.code(), &*ran.errors), (Some(0), ""));
    serving.kill().await;
    let mut command = tollpass(directory.path(), &["env"]);
    command.env("TOLLPASS_LISTEN", &listen);
    let ran = ended(command).await;
    assert!(ran.errors.contains(&format!("nothing listens on {listen} yet")), "{ran:?}");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
}

/// A directory with an unusual name, with a configuration that intercepts one host only.
fn odd_place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let odd = directory.path().join("it's a \"$HOME\" \\ `x`");
    std::fs::create_dir(&odd).unwrap();
    let text = "listen = \"127.0.0.1:9\"\nstate_dir = \"state\"\n[intercept]\nhosts = [\"a.example\"]\n";
    std::fs::write(odd.join("proxy.toml"), text).unwrap();
    (directory, odd)
}

#[tokio::test]
async fn paths_with_odd_names_come_through_a_shell() {
    let (directory, odd) = odd_place();
    let script = r#"CURL_CA_BUNDLE=/etc/own.pem; export CURL_CA_BUNDLE
                    eval "$("$0" env --config "$1" 2>"$2")" || exit 9
                    printf '%s\n' "$SSL_CERT_FILE" "$NODE_EXTRA_CA_CERTS" "$SYSTEM_WGETRC"
                    CURL_CA_BUNDLE=/etc/own.pem
                    eval "$("$0" env --config "$1" --unset)" || exit 9
                    printf '%s\n' "${SSL_CERT_FILE-unset}" "${SYSTEM_WGETRC-unset}" "$CURL_CA_BUNDLE""#;
    let mut command = Command::new("sh");
    let errors = directory.path().join("errors");
    command.args([
        "-c",
        script,
        env!("CARGO_BIN_EXE_tollpass"),
        text(&odd.join("proxy.toml")),
        text(&errors),
    ]);
    let ran = ended(bare(directory.path(), command)).await;
    let lines: Vec<&str> = ran.out.lines().collect();
    let [bundle, addition, wgetrc, rest @ ..] = &lines[..] else { panic!("{ran:?}") };
    let state = odd.join("state");
    for (path, start) in [(bundle, "ca-bundle-"), (addition, "ca.pem"), (wgetrc, "wgetrc-")] {
        let name = Path::new(path).strip_prefix(&state).unwrap();
        assert!(text(name).starts_with(start), "{ran:?}");
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "{path}");
    }
    // Variables that are not tollpass's are not unset.
    assert_eq!(rest, ["unset", "unset", "/etc/own.pem"]);
    let errors = std::fs::read_to_string(errors).unwrap();
    assert!(errors.contains("/etc/own.pem, named by CURL_CA_BUNDLE"), "{errors}");
    assert!(errors.contains("nothing listens on 127.0.0.1:9 yet"), "{errors}");
}

/// An https origin whose certificate the CA in `state` has signed.
async fn trusted_origin(state: &Path) -> String {
    let authority = Authority::open(state, &[]).unwrap();
    let leaves = Leaves::new(authority.into(), 1).unwrap();
    let mut config = (*leaves.config_for("127.0.0.1").await.unwrap()).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let origin = Secure::serve(config.into(), async |_| http::Response::new("trusted".to_owned())).await;
    format!("https://{}/", origin.address)
}

#[tokio::test]
async fn programs_trust_the_ca_by_their_environment_alone() {
    let (directory, odd) = odd_place();
    let url = trusted_origin(&odd.join("state")).await;
    let python = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode(), end='')";
    let node = "require('https').get(process.argv[1], got => got.pipe(process.stdout))";
    let programs: [&[&str]; 4] = [
        &["curl", "-q", "-sS", &url],
        &["wget", "-q", "-O", "-", &url],
        &["python3", "-c", python, &url],
        &["node", "-e", node, &url],
    ];
    let config = odd.join("proxy.toml");
    for program in programs {
        let there = Command::new(program[0]).arg("--version").stdout(Stdio::null()).status().await;
        if there.is_err() {
            eprintln!("{} is not there: not tried", program[0]);
            continue;
        }
        let arguments = [&["run", "--quiet", "--config", text(&config), "--"], program].concat();
        let ran = ended(tollpass(directory.path(), &arguments)).await;
        assert_eq!((ran.status.code(), &*ran.out), (Some(0), "trusted"), "{program:?}: {ran:?}");
    }
    // Without the variables, none trusts it.
    let mut command = Command::new("curl");
    command.args(["-q", "-sS", &url]);
    let ran = ended(bare(directory.path(), command)).await;
    assert_eq!(ran.status.code(), Some(60), "{ran:?}");
}

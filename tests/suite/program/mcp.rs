//! `tollpass mcp` as an agent uses it: messages on standard input and output.

use std::process::Stdio;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tollpass::admin;

use super::{run, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, PRICE};
use crate::support::payer::{Alice, Program, program};
use crate::support::ports::ReservedPort;
use crate::support::raw::{RawOrigin, soon};

/// A conversation with the program.
struct Conversation {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Conversation {
    async fn begin(alice: &Alice, more: &[&str]) -> Self {
        let config = alice.config_path();
        let mut command = program([&["mcp", "--config", text(&config)], more].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut conversation = Self { child, input, output: BufReader::new(output).lines(), next: 1 };
        let client = json!({ "name": "test", "version": "1" });
        let begin = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
        let begun = conversation.ask("initialize", begin).await;
        assert_eq!(begun["result"]["serverInfo"]["name"], "tollpass", "{begun}");
        conversation.send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        conversation
    }

    async fn send(&mut self, message: Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        loop {
            let line = soon("an answer", self.output.next_line()).await.unwrap().expect("it goes on");
            let answer: Value = serde_json::from_str(&line).unwrap();
            if answer["id"] == id {
                return answer;
            }
        }
    }

    /// Whether the call failed, and its content.
    async fn content(&mut self, tool: &str, arguments: Value) -> (bool, Vec<Value>) {
        let answer = self.ask("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        let content = answer["result"]["content"].as_array().unwrap_or_else(|| panic!("{answer}"));
        (answer["result"]["isError"] == true, content.clone())
    }

    /// The same if all of it is text.
    async fn call(&mut self, tool: &str, arguments: Value) -> (bool, Vec<String>) {
        let (is_error, content) = self.content(tool, arguments).await;
        (is_error, content.iter().map(|block| block["text"].as_str().unwrap().to_owned()).collect())
    }

    /// What a call says of a response, and its content.
    async fn fetch(&mut self, url: &str) -> (Value, String) {
        let (is_error, texts) = self.call("fetch", json!({ "url": url })).await;
        let [about, content] = &texts[..] else { panic!("{texts:?}") };
        assert!(!is_error, "{texts:?}");
        (serde_json::from_str(about).unwrap(), content.clone())
    }

    async fn end(self) {
        let Self { mut child, input, .. } = self;
        drop(input);
        assert_eq!(soon("the end", child.wait()).await.unwrap().code(), Some(0));
    }
}

/// A seller, and Alice's proxy, which lets other machines reach its address, and no other one here.
async fn scene() -> (Fair, Alice, Program) {
    let fair = Fair::open().await;
    let rest = format!(
        "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\nallow_plain_http = true\n{QUICK}[upstream]\nallow = [\"127.0.0.1\"]\n"
    );
    let alice = Alice::ruled(&fair.market, &rest).await;
    let serving = alice.serve(&[]).await;
    (fair, alice, serving)
}

#[tokio::test]
async fn an_agent_pays_within_its_budget_and_reaches_nothing_private() {
    let (fair, alice, serving) = scene().await;
    let url = format!("{}/paid", fair.origin.url());
    let budget = PRICE.to_string();
    let mut agent = Conversation::begin(&alice, &["--budget", &budget, "--max-body", "10"]).await;
    let tools = agent.ask("tools/list", json!({})).await;
    let tools = tools["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.iter().map(|tool| &tool["name"]).collect::<Vec<_>>(), ["fetch", "inspect", "spending"]);
    assert!(tools[0]["description"].as_str().unwrap().contains("untrusted"));

    let (is_error, shown) = agent.call("inspect", json!({ "url": url })).await;
    let offers: Value = serde_json::from_str(&shown[0]).unwrap();
    assert!(!is_error && offers["status"] == 402, "{shown:?}");
    assert!(offers["offers"][0]["price"].as_str().unwrap().starts_with(&PRICE.to_string()), "{shown:?}");
    assert_eq!(fair.origin.payments(), 0, "inspecting pays nothing");

    let (about, content) = agent.fetch(&url).await;
    assert_eq!((&about["status"], &about["is_cut"], content.len()), (&json!(200), &json!(true), 10));
    assert!(about["note"].as_str().unwrap().contains("not instructions"));
    let (about, _) = agent.fetch(&url).await;
    let reason = about["not_paid_because"].as_str().unwrap();
    assert!(about["status"] == 402 && reason.contains("reason=over-budget"), "{about}");
    let (_, spent) = agent.call("spending", json!({})).await;
    let spent: Value = serde_json::from_str(&spent[0]).unwrap();
    assert_eq!(spent["budgets"][0]["windows"][0]["left"], "0", "{spent}");

    for private in [
        "http://127.0.0.2:1/",
        "http://127.0.0.3:1/",
        "http://[::1]:1/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
    ] {
        let (about, _) = agent.fetch(private).await;
        let reason = about["not_paid_because"].as_str().unwrap_or_default();
        assert!(about["status"] == 403 && reason.contains("address-not-allowed"), "{private}: {about}");
        // Without an offer, it would look free.
        let (is_error, told) = agent.call("inspect", json!({ "url": private })).await;
        assert!(is_error && told[0].contains("address-not-allowed"), "{private}: {told:?}");
    }
    let closed = ReservedPort::new();
    let unreachable = format!("http://{}/", closed.address());
    let (is_error, told) = agent.call("inspect", json!({ "url": unreachable })).await;
    assert!(is_error && told[0].contains("connection-refused"), "{told:?}");
    let (is_error, told) = agent.call("inspect", json!({ "url": url.replace("/paid", "/free") })).await;
    assert_eq!((is_error, &*told[0]), (false, r#"{"offers":[],"status":200}"#));
    // Nor a page of the proxy itself.
    for own in ["http://tollpass.local/", "http://tollpass.local/ready"] {
        let (about, _) = agent.fetch(own).await;
        let reason = about["not_paid_because"].as_str().unwrap_or_default();
        assert!(about["status"] == 404 && reason.contains("no-such-page"), "{own}: {about}");
    }
    for (arguments, said) in [
        (json!({}), "url is missing"),
        (json!({ "url": "ftp://a.example/" }), "must begin with http"),
        (json!({ "url": url, "method": "CONNECT" }), "not possible"),
        (json!({ "url": url, "method": "POST", "body": "more than ten bytes" }), "--max-body"),
    ] {
        let (is_error, told) = agent.call("fetch", arguments).await;
        assert!(is_error && told[0].contains(said), "{told:?}");
    }
    agent.end().await;
    // Without the proxy, its ports may become someone else's.
    let mut left = Conversation::begin(&alice, &["--budget", &budget]).await;
    serving.kill().await;
    assert_eq!(soon("the end", left.child.wait()).await.unwrap().code(), Some(1));
    let ran = run(&["mcp", "--config", text(&alice.config_path()), "--budget", &budget]).await;
    assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
    ran.expect_failure(&["no proxy is running"]);
}

#[tokio::test]
async fn what_may_be_paid_for_is_returned_whatever_it_is_and_however_it_ends() {
    let (_fair, alice, serving) = scene().await;
    let origin = RawOrigin::start().await;
    let url = format!("http://{}/x", origin.address);
    let mut agent = Conversation::begin(&alice, &["--budget", "1", "--timeout", "3s"]).await;
    let latin = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Length: 4\r\n\
              Connection: close\r\n\r\ncaf\xe9";
    let respond = async |bytes: &[u8]| {
        let mut far = origin.accept().await;
        far.request().await.unwrap();
        far.send(bytes).await;
        far
    };
    let ((is_error, content), _far) =
        tokio::join!(agent.content("fetch", json!({ "url": url })), respond(latin));
    let kind = "text/plain; charset=iso-8859-1";
    let blob = json!({ "uri": url, "mimeType": kind, "blob": BASE64_STANDARD.encode(b"caf\xe9") });
    assert_eq!((is_error, &content[1]["type"], &content[1]["resource"]), (false, &json!("resource"), &blob));

    // It breaks off.
    let (about, content) = {
        let breaks_off = async { drop(respond(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await) };
        tokio::join!(agent.fetch(&url), breaks_off).0
    };
    let why = about["cut_because"].as_str().unwrap();
    assert!(about["is_cut"] == true && why.contains("broke off") && content == "abc", "{about}: {content}");

    // It goes on after the time of the call.
    let endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let ((about, content), mut far) = tokio::join!(agent.fetch(&url), respond(endless));
    let why = about["cut_because"].as_str().unwrap();
    assert!(about["is_cut"] == true && why.contains("--timeout"), "{about}");
    assert_eq!(content, "data: 1\n\n");
    far.rest().await;
    // There is no response in time.
    let ((is_error, told), mut far) = tokio::join!(agent.call("fetch", json!({ "url": url })), respond(b""));
    assert!(is_error && told[0].contains("--timeout") && told[0].contains("`spending`"), "{told:?}");
    far.rest().await;
    agent.end().await;
    serving.kill().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_or_late_asks_nobody_any_more() {
    let fair = Fair::open().await;
    let rest = "[[pay]]\nhost = \"127.0.0.1\"\nmax_price = 10000\nallow_plain_http = true\nask_above = 0\n\
                [upstream]\nallow = [\"127.0.0.1\"]\n";
    let alice = Alice::ruled(&fair.market, rest).await;
    let serving = alice.serve(&[]).await;
    let socket = admin::socket(&alice.state_dir());
    let await_pending = async |count: usize| {
        let waiting = async { while admin::pending(&socket).await.unwrap().unwrap().len() != count {} };
        soon("another number of pending payments", waiting).await;
    };
    let fetch = json!({ "name": "fetch", "arguments": { "url": format!("{}/paid", fair.origin.url()) } });
    let mut agent = Conversation::begin(&alice, &["--budget", "10000"]).await;
    let call = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": fetch });
    agent.send(call).await;
    await_pending(1).await;
    let cancelled = json!({ "requestId": "a", "reason": "the user has left" });
    agent.send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled })).await;
    await_pending(0).await;
    let (is_error, _) = agent.call("spending", json!({})).await;
    assert!(!is_error, "the conversation goes on");
    agent.end().await;

    let mut agent = Conversation::begin(&alice, &["--budget", "10000", "--timeout", "2s"]).await;
    let (answer, ()) = tokio::join!(agent.ask("tools/call", fetch), await_pending(1));
    assert!(answer["result"]["isError"] == true, "{answer}");
    await_pending(0).await;
    assert_eq!(fair.origin.payments(), 0);
    agent.end().await;
    serving.kill().await;
}

/// Set `MCP_PYTHON` to a Python that has the package `mcp`.
#[tokio::test]
async fn the_published_client_uses_it() {
    let Ok(python) = std::env::var("MCP_PYTHON") else {
        eprintln!("SKIPPED: MCP_PYTHON is not set");
        return;
    };
    let (fair, alice, serving) = scene().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/mcp_client.py");
    let mut command = tokio::process::Command::new(python);
    command.args([script, env!("CARGO_BIN_EXE_tollpass")]).arg(alice.config_path());
    command.arg(format!("{}/paid", fair.origin.url())).kill_on_drop(true);
    let output =
        tokio::time::timeout(crate::support::payer::PATIENCE, command.output()).await.unwrap().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(lines[0], r#"["fetch", "inspect", "spending"]"#);
    assert!(lines[2].contains(r#"\"status\":200"#) && lines[3].contains("over-budget"), "{out}");
    serving.stop().await;
}

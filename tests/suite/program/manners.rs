//! What users expect of any command line: where options may stand, where the configuration is, exit codes, JSON,
//! completions, manual pages; and that commands find the proxy that runs.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use http::{Request, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Ran, run, run_with, text};
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::payer::{Alice, PATIENCE, Program, program};
use crate::support::wire::ask;

/// A home directory of its own, in which the program looks for its configuration and its state.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.env("HOME", self.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[]).await
    }

    async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let mut command = self.program(arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: ran.status.code().expect("no signal"), out: text(ran.stdout), errors: text(ran.stderr) }
    }

    /// Writes the default configuration.
    fn configure(&self, content: &str) {
        let directory = self.path().join(".config/tollpass");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("proxy.toml"), content).unwrap();
    }
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test]
async fn the_configuration_is_where_init_puts_it() {
    let home = Home::new();
    let password = home.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    let made = home.run(&["init", "--pay", "api.example.com", "--password-file", text(&password)]).await;
    let file = home.path().join(".config/tollpass/proxy.toml");
    assert_eq!(made.code, 0, "{made:?}");
    assert!(made.out.contains(text(&file)) && made.out.contains("3. tollpass check\n"), "{made:?}");
    let checked = home.run(&["check"]).await;
    assert!(checked.out.contains(&format!("ok     config    {}", text(&file))), "{checked:?}");
    assert!(checked.out.contains("api.example.com: at most $0.05"), "{checked:?}");
    // Nothing is overwritten.
    home.run(&["init"]).await.expect_failure(&["not overwriting", "--dir"]);

    // XDG_CONFIG_HOME comes before, TOLLPASS_CONFIG before that, and --config before all.
    let other = |name: &str| {
        let path = home.path().join(name).join("tollpass/proxy.toml");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("state_dir = \"{name}-state\"\n")).unwrap();
        path
    };
    let (xdg, variable, option) = (other("xdg"), other("variable"), other("option"));
    let xdg_home = text(xdg.parent().unwrap().parent().unwrap());
    let shown = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let ran = home.run_with(&[arguments, &["config", "show", "--json"]].concat(), environment).await;
        json(&ran)["file"].as_str().unwrap().to_owned()
    };
    let all = [("XDG_CONFIG_HOME", xdg_home), ("TOLLPASS_CONFIG", text(&variable))];
    assert_eq!(shown(&[], &[]).await, text(&file));
    assert_eq!(shown(&[], &all[..1]).await, text(&xdg));
    assert_eq!(shown(&[], &all).await, text(&variable));
    assert_eq!(shown(&["--config", text(&option)], &all).await, text(&option));
}

#[tokio::test]
async fn global_options_stand_before_and_after_subcommands() {
    let directory = tempfile::tempdir().unwrap();
    let (config, state) = (directory.path().join("proxy.toml"), directory.path().join("elsewhere"));
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n").unwrap();
    let options = ["--config", text(&config), "--state-dir", text(&state)];
    for arguments in [
        [&["ca", "show"], &options[..]].concat(),
        [&options[..], &["ca", "show"]].concat(),
        [&options[..2], &["ca"], &options[2..], &["show"]].concat(),
    ] {
        let ran = run(&arguments).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.out.contains(text(&state.join("ca.pem"))), "{arguments:?}: {ran:?}");
    }
    for arguments in [
        [&options[..], &["--log-format", "json", "serve"]].concat(),
        [&["serve", "--log-format", "json"], &options[..]].concat(),
    ] {
        let log = Program::start(program(&arguments)).await.stop().await;
        assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
        assert!(state.join("admin.sock").exists() && !directory.path().join("state").exists());
        std::fs::remove_file(state.join("admin.sock")).unwrap();
    }
}

#[tokio::test]
async fn a_proxy_without_a_wallet_is_found_and_says_what_it_is() {
    let home = Home::new();
    home.configure("listen = \"127.0.0.1:0\"\n");
    let serving = Program::start(home.program(&["serve"])).await;
    let listen = serving.address.to_string();
    let status = home.run(&["status"]).await;
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status.out.contains(&format!("listening on {listen}, has no [wallet] and never pays")),
        "{status:?}"
    );
    let status = json(&home.run(&["status", "--json"]).await);
    assert_eq!((&status["never_pays"], status["listen"].as_str()), (&Value::Bool(true), Some(&*listen)));
    let env = home.run(&["env"]).await;
    assert!(env.out.contains(&format!("export https_proxy='http://{listen}'\n")), "{env:?}");
    let ran = home.run(&["run", "--", "sh", "-c", "echo $http_proxy"]).await;
    assert_eq!((ran.code, ran.out.trim()), (0, &*format!("http://{listen}")), "{ran:?}");
    home.run(&["channels"]).await.expect_failure(&["has no [wallet]: it never pays"]);
    // Another one works, too; only commands do not find it.
    let other = Program::start(home.program(&["serve"])).await;
    assert!(other.stop().await.contains("cannot find this proxy by themselves: another tollpass uses"));
    assert!(!home.path().join(".local/state/tollpass/tollpass.db").exists(), "it made a journal");
    serving.stop().await;
    home.run(&["status"]).await.expect_failure(&["no proxy is running on", "tollpass serve"]);
}

#[tokio::test]
async fn run_env_and_ca_trust_the_ca_of_the_proxy_that_runs() {
    let fair = Fair::open().await;
    let own = tempfile::tempdir().unwrap();
    let made = run(&["ca", "show", "--state-dir", text(own.path())]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let files = format!(
        "[intercept]\nhosts = [\"a.example\"]\nca_cert = \"{0}/ca.pem\"\nca_key = \"{0}/ca-key.pem\"\n",
        text(own.path())
    );
    for (more, ca) in [(QUICK.to_owned(), None), (QUICK.to_owned() + &files, Some(own.path()))] {
        let alice = Alice::with(&fair.market, &more).await;
        let serving = alice.serve(&[]).await;
        let ca = ca.map_or_else(|| alice.state_dir(), Path::to_owned).join("ca.pem");
        // The caller has no configuration: only the state directory tells where the proxy is.
        let state = ["--state-dir", text(&alice.state_dir())].map(str::to_owned);
        let with = |arguments: &[&str]| {
            let mut all: Vec<String> = state.to_vec();
            all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
            all
        };
        let run = async |arguments: &[&str]| {
            let arguments = with(arguments);
            run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
        };
        let ran = run(&["run", "--quiet", "--", "sh", "-c", "cat $SSL_CERT_FILE $npm_config_cafile"]).await;
        let pem = std::fs::read_to_string(&ca).unwrap();
        assert_eq!((ran.code, ran.out.matches(&pem).count()), (0, 2), "{ran:?}");
        let env = run(&["env", "--shell", "json"]).await;
        let file = json(&env)["SSL_CERT_FILE"].as_str().unwrap().to_owned();
        assert!(std::fs::read_to_string(file).unwrap().starts_with(&pem), "{env:?}");
        let shown = json(&run(&["ca", "show", "--json"]).await);
        assert_eq!(shown["certificate"].as_str(), Some(text(&ca)));
        serving.stop().await;
    }
}

#[tokio::test]
async fn a_program_without_a_configuration_pays_through_the_proxy_that_runs() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let serving = alice.serve(&[]).await;
    let url = format!("{}/paid", fair.origin.url());
    let state = alice.state_dir();
    let fetch = ["run", "--", "curl", "-q", "-sS", "--noproxy", "", &url];
    let ran = run(&[&["--state-dir", text(&state)], &fetch[..]].concat()).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("paid for") && ran.errors.contains("paid 1000"), "{ran:?}");
    serving.stop().await;
}

#[tokio::test]
async fn a_state_directory_that_does_not_exist_is_an_error_and_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    for command in [
        &["channels"][..],
        &["channels", "sync"],
        &["ledger"],
        &["budget"],
        &["status"],
        &["pending"],
        &["approve", "1"],
        &["deny", "1"],
        &["approvals"],
        &["approvals", "revoke", "1"],
        &["resume"],
        &["resume", "a.example"],
        &["freeze"],
        &["thaw"],
    ] {
        let ran = run(&[command, &["--state-dir", text(&nowhere)]].concat()).await;
        ran.expect_failure(&[text(&nowhere), "does not exist", "--state-dir", "--config"]);
        assert_eq!((ran.code, &*ran.out), (1, ""), "{ran:?}");
        assert!(!nowhere.exists(), "{command:?} made it");
    }
}

/// Runs the program on a terminal, types an answer, and ends with the program's exit code.
const AT_A_TERMINAL: &str = r#"
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
os.write(terminal, sys.argv[1].encode() + b"\n")
try:
    while chunk := os.read(terminal, 4096):
        os.write(1, chunk)
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[tokio::test]
async fn a_question_that_is_declined_or_cannot_be_asked_is_not_success() {
    let directory = tempfile::tempdir().unwrap();
    let state = text(directory.path());
    assert_eq!(run(&["ca", "show", "--state-dir", state]).await.code, 0);
    let before = std::fs::read(directory.path().join("ca.pem")).unwrap();
    let now = || std::fs::read(directory.path().join("ca.pem")).unwrap();
    let ran = run(&["ca", "renew", "--state-dir", state]).await;
    ran.expect_failure(&["not a terminal", "--yes"]);
    assert_eq!((ran.code, now() == before), (3, true), "{ran:?}");
    for (answer, code) in [("n", 3), ("", 3), ("y", 0)] {
        let mut command = Command::new("python3");
        command.args(["-c", AT_A_TERMINAL, answer, env!("CARGO_BIN_EXE_tollpass")]);
        command.args(["ca", "renew", "--state-dir", state]).kill_on_drop(true);
        let ran = tokio::time::timeout(PATIENCE, command.output()).await.expect("it does not end").unwrap();
        let shown = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(ran.status.code(), Some(code), "{answer}: {shown}");
        assert_eq!(
            (shown.contains("declined: nothing was done"), now() == before),
            (code == 3, code == 3),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn an_operation_on_channels_needs_agreement_and_reading_them_does_not() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let serving = alice.serve(&[]).await;
    let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(serving.address, paid).await.status, StatusCode::OK);
    let state = alice.state_dir();
    let run = async |arguments: &[&str]| {
        run(&[&["--state-dir", text(&state), "channels"], arguments].concat()).await
    };
    let synced = run(&["sync"]).await;
    assert_eq!(synced.code, 0, "{synced:?}");
    assert!(synced.out.starts_with("read 1 channel up to"), "{synced:?}");
    let closed = run(&["close", "--all"]).await;
    assert_eq!((closed.code, &*closed.out), (3, ""), "{closed:?}");
    let closed = run(&["close", "--all", "--yes", "--json"]).await;
    assert_eq!(closed.code, 0, "{closed:?}");
    assert!(json(&closed)["text"].is_string(), "{closed:?}");
    serving.stop().await;
}

#[tokio::test]
async fn with_json_there_is_data_and_nothing_else() {
    let fair = Fair::open().await;
    let alice = Alice::with(
        &fair.market,
        &format!("[[budget]]\nname = \"b\"\nper_day = 1000\nwallet = true\n{QUICK}"),
    )
    .await;
    let serving = alice.serve(&[]).await;
    let config = alice.config_path();
    let paid = format!("{}/paid", fair.origin.url());
    for command in [
        &["status", "--json"][..],
        &["channels", "--json"],
        &["ledger", "--json"],
        &["ledger", "--json", "--by", "host"],
        &["ledger", "verify", "--json"],
        &["budget", "--json"],
        &["pending", "--json"],
        &["approvals", "--json"],
        &["resume", "--json"],
        &["freeze", "--json"],
        &["thaw", "--json"],
        &["check", "--json"],
        &["ca", "show", "--json"],
        &["config", "show", "--json"],
        &["config", "schema"],
        &["inspect", "--json", &paid],
        &["env", "--shell", "json"],
    ] {
        let ran = run(&[command, &["--config", text(&config)]].concat()).await;
        assert_eq!(ran.code, 0, "{command:?}: {ran:?}");
        let data = json(&ran);
        assert!(data.is_object() || data.is_array(), "{command:?}: {ran:?}");
    }
    let checked = json(&run(&["check", "--json", "--config", text(&config)]).await);
    assert_eq!(checked["failures"], 0, "{checked}");
    let verdicts =
        checked["checks"].as_array().unwrap().iter().map(|check| check["verdict"].as_str().unwrap());
    assert!(verdicts.into_iter().all(|verdict| ["ok", "note"].contains(&verdict)), "{checked}");
    serving.stop().await;
    // Also if something is wrong: the exit code says so, and the data what.
    std::fs::set_permissions(alice.directory.path().join("key"), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    let ran = run(&["check", "--json", "--config", text(&config)]).await;
    assert_eq!((ran.code, &json(&ran)["failures"]), (1, &Value::from(1)), "{ran:?}");
    assert!(ran.out.contains("\"fail\""), "{ran:?}");
}

#[tokio::test]
async fn completions_know_every_subcommand() {
    for (shell, check) in
        [("bash", &["bash", "-n"][..]), ("zsh", &["zsh", "-n"]), ("fish", &["fish", "--no-execute"])]
    {
        let ran = run(&["completions", shell]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let command = tollpass::cli::command();
        for name in command.get_subcommands().map(clap::Command::get_name) {
            assert!(ran.out.contains(name), "{shell}: no {name}");
        }
        assert!(ran.out.contains("state-dir"), "{shell}");
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), &ran.out).unwrap();
        match Command::new(check[0]).args(&check[1..]).arg(script.path()).status().await {
            Ok(status) => assert!(status.success(), "{shell} does not accept it"),
            Err(_) => eprintln!("{shell} is not there: not tried"),
        }
    }
    let ran = run(&["completions", "sh"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test]
async fn there_is_a_manual_page_for_each_subcommand() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man/man1");
    let ran = run(&["man", text(&pages)]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let page = |name: &str| std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
    assert!(
        page("tollpass").contains("Exit codes") && page("tollpass").starts_with(".ie"),
        "{}",
        page("tollpass")
    );
    for subcommand in tollpass::cli::command().get_subcommands() {
        let page = page(&format!("tollpass-{}", subcommand.get_name()));
        assert!(page.contains(".TH"), "{page}");
    }
    assert!(page("tollpass-channels-close").contains("unilateral"));
}

#[tokio::test]
async fn keys_are_shown_and_set() {
    let home = Home::new();
    home.run(&["config", "set", "listen", "8403"]).await.expect_failure(&["does not exist", "tollpass init"]);
    home.configure(
        "# Mine.\nlisten = \"127.0.0.1:0\" # any\n\n[[pay]]\nhost = \"a.example\"\nmax_price = 5\n",
    );
    let file = home.path().join(".config/tollpass/proxy.toml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let again = "when it is started again";
    for (key, value, when) in [
        ("listen", "8403", again),
        ("pay[0].max_price", "0.02 USDC", "run `tollpass reload`"),
        ("limits.pay_timeout", "7s", again),
    ] {
        let ran = home.run(&["config", "set", key, value]).await;
        assert!(ran.code == 0 && ran.out.contains(when), "{ran:?}");
    }
    let written = "# Mine.\nlisten = 8403 # any\n\n[[pay]]\nhost = \"a.example\"\nmax_price = \"0.02 USDC\"\n\n\
                   [limits]\npay_timeout = \"7s\"\n";
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What would be invalid is not written.
    for (key, value, words) in [
        ("lisen", "1", "did you mean listen?"),
        ("limits.pay_timeout", "soon", "not a valid duration"),
        ("pay[1].host", "a", "the file has no pay[1]"),
        ("a b", "1", "is not the path of a key"),
        ("pay.0.max_price", "1", "did you mean pay[0].max_price?"),
        ("log.filter", "loud", "log.filter is not a valid filter"),
    ] {
        home.run(&["config", "set", key, value]).await.expect_failure(&[words]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    let shown = home.run_with(&["config", "show"], &[("TOLLPASS_WORKERS", "2")]).await;
    let expected = format!(
        "# {}\nlisten = 8403  # line 2\nworkers = \"2\"  # TOLLPASS_WORKERS\npay[0].host = \"a.example\"  # line 5\n\
         pay[0].max_price = \"0.02 USDC\"  # line 6\nlimits.pay_timeout = \"7s\"  # line 9\n",
        text(&file)
    );
    assert_eq!((shown.code, shown.out), (0, expected));
    // A variable overrides what is set, also one whose value is in a file, and is told by its own name.
    let workers = home.path().join("workers");
    std::fs::write(&workers, "3\n").unwrap();
    std::fs::set_permissions(&workers, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (name, value) in [("TOLLPASS_WORKERS", "2"), ("TOLLPASS_WORKERS_FILE", text(&workers))] {
        let variables = [(name, value)];
        let ran = home.run_with(&["config", "set", "workers", "4"], &variables).await;
        assert!(
            ran.code == 0 && ran.out.contains(&format!("the variable {name} is set and overrides it")),
            "{ran:?}"
        );
        let shown = home.run_with(&["config", "show"], &variables).await;
        assert!(shown.out.contains(&format!("\"  # {name}\n")), "{shown:?}");
    }
    std::fs::write(&workers, "none\n").unwrap();
    let ran = home.run_with(&["check"], &[("TOLLPASS_WORKERS_FILE", text(&workers))]).await;
    ran.expect_failure(&["workers: ", "(from TOLLPASS_WORKERS_FILE)"]);
    // A service of another user can read it as before.
    if std::os::unix::fs::chown(&file, Some(12345), Some(23456)).is_ok() {
        let ran = home.run(&["config", "set", "listen", "8404"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let found = std::fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (12345, 23456, 0o600));
    }
    let all = home.run(&["config", "show", "--all"]).await;
    assert!(all.out.contains("\nlimits.max_attempts = ") && all.out.contains("  # default\n"), "{all:?}");
}

/// The words that a shell makes of an example.
fn words(line: &str) -> Vec<String> {
    let inner = line.strip_prefix("eval \"$(").and_then(|rest| rest.strip_suffix(")\"")).unwrap_or(line);
    let inner = inner.split(['|', '>']).next().unwrap();
    let parts = inner.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn the_help_of_each_subcommand_has_examples_that_are_valid() {
    let mut commands = vec![tollpass::cli::command()];
    let mut tried = 0;
    while let Some(mut command) = commands.pop() {
        commands.extend(command.get_subcommands().cloned());
        let name = command.get_name().to_owned();
        let help = command.render_long_help().to_string();
        let examples = help
            .split_once("\nExamples:\n")
            .map(|(_, rest)| rest.lines().take_while(|line| !line.is_empty()));
        for line in examples.into_iter().flatten() {
            let (example, remark) = line.trim().rsplit_once(" # ").unwrap_or_else(|| panic!("{line}"));
            let words = words(example.trim());
            assert!(!remark.is_empty() && words.contains(&name), "{line}");
            let parsed = tollpass::cli::command().try_get_matches_from(&words);
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err().map(|error| error.to_string()));
            tried += 1;
        }
        // The demo prints its own.
        let is_top = tollpass::cli::command().get_subcommands().any(|top| top.get_name() == name);
        let is_without = ["demo", "help", "config"].contains(&&*name);
        assert!(!is_top || is_without || help.contains("\nExamples:\n  "), "{help}");
    }
    assert!(tried > 40, "{tried}");
}

#[tokio::test]
async fn the_exit_code_says_what_kind_of_failure_it_is() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["serve", "--help"], 0),
        (&["--version"], 0),
        (&[], 2),
        (&["sevre"], 2),
        (&["serve", "--lisen", "1"], 2),
        (&["serve", "--config", "/no/such/file"], 1),
    ] {
        let ran = run_with(arguments, &[]).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
    }
    assert!(run(&["sevre"]).await.errors.contains("'serve'"), "it suggests the right one");
}

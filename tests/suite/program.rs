//! The real program as users run it: its output, the files it leaves, and its exit.

mod access;
mod allowances;
mod budgets;
mod ca;
mod channels;
mod checks;
mod clocks;
mod dashboard;
mod demo;
mod descriptors;
mod directories;
mod examples;
mod holds;
mod logs;
mod manners;
mod mcp;
mod metrics;
mod mistakes;
mod probes;
mod reloads;
mod run_budgets;
mod run_limits;
mod run_ports;
mod runs;
mod serves;
mod traces;
mod volume;
mod workers;

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::payer::{PATIENCE, program};

/// The result of a run that ends by itself.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

pub async fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, &[]).await
}

pub async fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = program(arguments);
    command
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let ran = tokio::time::timeout(PATIENCE, command.output()).await;
    let ran = ran.unwrap_or_else(|_| panic!("{arguments:?} does not end")).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code().expect("no signal"), out: text(ran.stdout), errors: text(ran.stderr) }
}

impl Ran {
    /// It failed with these words, and did not panic.
    pub fn expect_failure(&self, words: &[&str]) {
        assert_ne!(self.code, 0, "{self:?}");
        assert_ne!(self.code, 101, "{self:?}");
        let all = format!("{}{}", self.out, self.errors);
        for words in words {
            assert!(all.contains(words), "no {words:?} in {all}");
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The only channel that `channels --json` lists: its promised and acknowledged total.
fn only_channel(json: &str) -> (String, String) {
    let listings: Value = serde_json::from_str(json).unwrap();
    let channels = listings[0]["channels"].as_array().unwrap();
    assert_eq!((listings.as_array().unwrap().len(), channels.len()), (1, 1), "{json}");
    let amount = |name: &str| channels[0][name].as_str().unwrap().to_owned();
    (amount("promised"), amount("acknowledged"))
}

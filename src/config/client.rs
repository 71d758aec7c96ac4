//! Reads `[[client]]`, `auth` and `local`: which programs may use the proxy and spend, and how they prove it. Opens no
//! file.

use std::path::PathBuf;
use std::sync::Arc;

use ::config::Value;

use super::key::{Shape, Table, keys, words};
use super::policy::PayContext;
use super::raw_value::InvalidValue;
use super::section::{Issues, Section, entries};
use super::values::BasePaths;
use super::{budget, policy, values};
use crate::protocol::budget::Budget;
use crate::protocol::policy::{ClientKind, LocalSpenders, ProxyClient, Rule};

const KINDS: [(&str, ClientKind); 2] = [("any", ClientKind::Any), ("program", ClientKind::Program)];
const AUTH: [(&str, AuthRequirement); 2] =
    [("remote", AuthRequirement::Remote), ("required", AuthRequirement::Required)];

/// The values of `local`; true means every local user.
const LOCAL: [(&str, bool); 2] = [("own-user", false), ("any", true)];

pub(super) const MAX_CLIENTS: usize = 1000;
const LONGEST_NAME: usize = 64;
/// The name of a client.
pub(super) const NAME: Shape = Shape::Text("^[!-9;-~]{1,64}$");

/// The values of `auth`.
pub(super) const AUTH_SHAPE: Shape = Shape::Word(&const { words(&AUTH) });

/// The values of `local`.
pub(super) const LOCAL_SHAPE: Shape = Shape::Word(&const { words(&LOCAL) });

/// The keys of one `[[client]]` entry.
pub(super) static CLIENT: Table = Table::new(
    "client",
    "A program that may use the proxy, and the token with which it proves that.",
    keys! {
        /// Its user name for proxy authentication, which logs show: visible ASCII without a colon.
        "name": NAME; required(),
        /// A file that contains its token (chmod 600): 16 to 1024 visible ASCII characters. Each client needs its own.
        "token_file": Shape::Path; required(),
        /// "program" if no browser uses the token: then requests that look like a browser's or another site's are paid, too,
        /// because a page cannot add the token. Else "any".
        "kind": Shape::Word(&const { words(&KINDS) }); or(|| serde_json::json!(KINDS[0].0)),
        /// The names of budgets that its payments count in, in addition to those that apply anyway.
        "budgets": Shape::List(&budget::NAME, 1, budget::MAX_BUDGETS),
        /// What this client may pay for, instead of all global [[pay]] entries, with the same keys; an empty list means
        /// nothing.
        "pay": Shape::Tables(&policy::PAY, policy::MAX_RULES),
    },
);

/// Which connections need the token of a `[[client]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthRequirement {
    /// Those whose peer or listening address is not loopback, if there is a `[[client]]`.
    #[default]
    Remote,
    /// All.
    Required,
}

/// `[[client]]`: a program that may use the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Its name and kind.
    pub client: Arc<ProxyClient>,
    /// A private file that contains its token.
    pub token_file: PathBuf,
}

/// Reads all `[[client]]` entries, with `context` for their rules.
pub(super) fn clients(
    value: Option<Value>,
    context: PayContext<'_>,
    base: &BasePaths,
    issues: &Issues,
) -> Vec<ClientConfig> {
    let mut clients: Vec<ClientConfig> = Vec::new();
    for (index, entry) in entries("client", value, MAX_CLIENTS, issues).into_iter().enumerate() {
        let mut section = Section::new(format!("client[{index}]"), Some(entry), &CLIENT, issues);
        let path = section.path_of("pay");
        let pay = section.take("pay");
        let rules = pay.is_some().then(|| policy::rules(&path, pay, context, issues));
        let Some(client) = client(&section, rules, context.budgets, base) else { continue };
        if clients.iter().any(|other| other.client.name == client.client.name) {
            section.issue("name", "another [[client]] has the same name", "give each client its own");
            continue;
        }
        clients.push(client);
    }
    clients
}

fn client(
    section: &Section<'_>,
    rules: Option<Vec<Rule>>,
    budgets: &[Arc<Budget>],
    base: &BasePaths,
) -> Option<ClientConfig> {
    let budgets = budget::named(section, budgets);
    let name = section.require("name", "\"a-name\"", name);
    let token_file = section.require("token_file", "\"FILE\", with a secret in it", |value| base.path(value));
    let kind = section.read("kind", |value| values::word(value, &KINDS)).unwrap_or_default();
    Some(ClientConfig {
        client: Arc::new(ProxyClient { name: name?, kind, rules, budgets: budgets? }),
        token_file: token_file?,
    })
}

/// Reads `auth`, which needs a `[[client]]` if it is "required".
pub(super) fn auth(top: &Section<'_>, has_clients: bool) -> AuthRequirement {
    let auth = top.read("auth", |value| values::word(value, &AUTH)).unwrap_or_default();
    if auth == AuthRequirement::Required && !has_clients {
        top.issue(
            "auth",
            "\"required\" without a valid [[client]] refuses every request",
            "write a [[client]]",
        );
    }
    auth
}

/// Reads `local`.
pub(super) fn local(top: &Section<'_>) -> LocalSpenders {
    match top.read("local", |value| values::word(value, &LOCAL)) {
        Some(true) => LocalSpenders::Any,
        Some(false) | None => LocalSpenders::User(rustix::process::geteuid().as_raw()),
    }
}

/// The warning about `local` for a proxy with a wallet on a system that does not reveal who owns a connection.
pub(super) fn local_warning(local: LocalSpenders) -> Option<String> {
    let is_checked = cfg!(target_os = "linux") || local == LocalSpenders::Any;
    (!is_checked).then(|| {
        "only on Linux can tollpass find out which user's program makes a request, so it pays only for programs with the \
         token of a [[client]]: write one and auth = \"required\", or local = \"any\" to pay for every user of this machine"
            .to_owned()
    })
}

/// Not quoted in errors: it may be a token that was put into the wrong key.
fn name(value: &Value) -> Result<String, InvalidValue> {
    let text = values::text(value)?;
    let is_valid = text.len() <= LONGEST_NAME
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        && !text.is_empty();
    if !is_valid {
        return Err(InvalidValue::new(
            "not a valid name",
            format!("write 1 to {LONGEST_NAME} visible ASCII characters without a colon"),
        ));
    }
    Ok(text.to_owned())
}

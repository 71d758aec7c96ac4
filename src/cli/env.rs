//! `tollpass env`: prints the environment that programs need, for a shell to evaluate.

use std::ffi::{OsStr, OsString};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};

use super::client_args::ClientArgs;
use super::config_args::ConfigArgs;
use super::environment;
use super::environment::{ADDITIONS, BUNDLES, NODE, PROXY, ProxyPlace, Variable, WGET};
use super::output::{print, tell};
use super::trust;
use crate::admin;
use crate::config::Config;
use crate::tls;

/// What `tollpass env --help` shows below the options.
const AFTER_HELP: &str = "\
The variables are those that `tollpass run` sets: the proxy's address and, if HTTPS
interception is on, files with the local CA in addition to what programs trusted before.
If the proxy speaks TLS (tls_cert), its URL begins with https:// and has a host name of the
certificate; not every program supports such proxies.";

/// Print shell commands that make programs use the proxy
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct EnvArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Whose credentials to print.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Syntax of the output
    #[arg(long, value_enum, default_value = "sh")]
    pub shell: Shell,
    /// Hosts to reach without the proxy, in addition to those in no_proxy
    #[arg(long, value_name = "LIST", conflicts_with = "unset")]
    pub no_proxy: Vec<OsString>,
    /// Print commands that unset the variables (keeps no_proxy)
    #[arg(long)]
    pub unset: bool,
}

/// The syntax of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// sh, bash, zsh, dash or ksh.
    Sh,
    /// fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// One JSON object; null means unset.
    Json,
}

/// How long to wait when checking whether a proxy listens.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Prints the variables.
pub async fn run(args: EnvArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let variables: Vec<(&str, Option<OsString>)> = if args.unset {
        to_unset(&config.state_dir).into_iter().map(|name| (name, None)).collect()
    } else {
        let set = to_set(&config, &args.client, &args.no_proxy).await?;
        set.into_iter().map(|(name, value)| (name, Some(value))).collect()
    };
    let texts = variables.iter().map(|(name, value)| Ok((*name, text(name, value.as_deref())?)));
    let texts = texts.collect::<anyhow::Result<Vec<_>>>()?;
    print(args.shell.print(&texts)?)
}

/// The environment for the running or the configured proxy.
async fn to_set(
    config: &Config,
    client: &ClientArgs,
    no_proxy: &[OsString],
) -> anyhow::Result<Vec<Variable>> {
    let running = admin::status(&admin::socket(&config.state_dir)).await?;
    let (address, is_tls) = match &running {
        Some(status) => (status.listen, status.is_tls),
        None if config.listen.port() == 0 => {
            bail!(
                "no port is configured (listen = \"{}\") and no proxy is running: start `tollpass serve` first",
                config.listen
            )
        }
        None => {
            if TcpStream::connect_timeout(&config.listen, CONNECT_WITHIN).is_err() {
                tell(format_args!(
                    "tollpass: nothing listens on {} yet: start `tollpass serve`",
                    config.listen
                ));
            }
            (config.listen, config.is_tls)
        }
    };
    let place = if is_tls { tls_place(config, address)? } else { ProxyPlace::plain(address) };
    let present = |name: &str| std::env::var_os(name);
    let trust = trust::files(config, running.as_ref(), present)?;
    let user = client.user(config, address)?;
    let user = user.as_ref().map(|user| user.as_str());
    Ok(environment::variables(&place, user, trust.as_ref(), no_proxy, present))
}

/// A proxy with TLS, by a host that its certificate is for.
fn tls_place(config: &Config, listen: SocketAddr) -> anyhow::Result<ProxyPlace> {
    tell(format_args!(
        "tollpass: the proxy speaks TLS: programs must support https:// proxies and trust the issuer of tls_cert; \
         `tollpass run` needs neither"
    ));
    let ip = environment::reachable(listen.ip());
    let host = config.tls.as_ref().map(|files| tls::host_in(&files.certificate, ip)).transpose();
    let host = host.context("cannot read tls_cert")?.unwrap_or_else(|| ip.to_string());
    Ok(ProxyPlace::tls(&host, listen.port()))
}

/// The variables to unset; those of certificate files only if their file is in the state directory.
fn to_unset(state_dir: &Path) -> Vec<&'static str> {
    let is_ours =
        |name: &&str| std::env::var_os(name).is_some_and(|value| environment::is_within(&value, state_dir));
    let files = BUNDLES.into_iter().chain(ADDITIONS).chain([WGET]).filter(is_ours);
    PROXY.into_iter().chain([NODE]).chain(files).collect()
}

fn text<'a>(name: &str, value: Option<&'a OsStr>) -> anyhow::Result<Option<&'a str>> {
    let not_utf8 = |value: &OsStr| {
        let value = value.display();
        anyhow!("{name} would be {value}, which is not UTF-8: use `tollpass run`")
    };
    value.map(|value| value.to_str().ok_or_else(|| not_utf8(value))).transpose()
}

impl Shell {
    fn print(self, variables: &[(&str, Option<&str>)]) -> anyhow::Result<String> {
        if self == Self::Json {
            let object: serde_json::Map<String, serde_json::Value> =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            return Ok(serde_json::to_string_pretty(&object)? + "\n");
        }
        let line = |(name, value): &(&str, Option<&str>)| self.line(name, *value) + "\n";
        Ok(variables.iter().map(line).collect())
    }

    /// The command that sets or unsets one variable.
    fn line(self, name: &str, value: Option<&str>) -> String {
        match (self, value.map(|value| self.quoted(value))) {
            (Self::Sh | Self::Json, Some(value)) => format!("export {name}={value}"),
            (Self::Sh | Self::Json, None) => format!("unset {name}"),
            (Self::Fish, Some(value)) => format!("set -gx {name} {value}"),
            (Self::Fish, None) => format!("set -e {name}"),
            (Self::Powershell, Some(value)) => format!("$Env:{name} = {value}"),
            (Self::Powershell, None) => format!("Remove-Item -ErrorAction Ignore Env:{name}"),
        }
    }

    /// Single-quotes a value, so that the shell interprets nothing in it.
    fn quoted(self, value: &str) -> String {
        let inner = match self {
            Self::Sh | Self::Json => value.replace('\'', r"'\''"),
            Self::Fish => value.replace('\\', r"\\").replace('\'', r"\'"),
            // PowerShell treats all of these as single quotes.
            Self::Powershell => value
                .replace('\'', "''")
                .replace('\u{2018}', "\u{2018}\u{2018}")
                .replace('\u{2019}', "\u{2019}\u{2019}")
                .replace('\u{201a}', "\u{201a}\u{201a}")
                .replace('\u{201b}', "\u{201b}\u{201b}"),
        };
        format!("'{inner}'")
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::env::*;

    #[test]
    fn each_shell_gets_its_own_quotes() {
        let value = "/a b/it's $HOME\\`x`\u{2019}\"";
        let line = |shell: Shell| shell.line("X", Some(value));
        assert_eq!(line(Shell::Sh), "export X='/a b/it'\\''s $HOME\\`x`\u{2019}\"'");
        assert_eq!(line(Shell::Fish), "set -gx X '/a b/it\\'s $HOME\\\\`x`\u{2019}\"'");
        assert_eq!(line(Shell::Powershell), "$Env:X = '/a b/it''s $HOME\\`x`\u{2019}\u{2019}\"'");
    }

    #[test]
    fn json_shows_variables_to_unset_as_null() {
        let text = Shell::Json.print(&[("A", Some("1\n\"")), ("B", None)]).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json, serde_json::json!({ "A": "1\n\"", "B": null }));
    }

    #[test]
    fn each_shell_gets_its_own_commands_to_unset() {
        let lines = [Shell::Sh, Shell::Fish, Shell::Powershell].map(|shell| shell.line("X", None));
        assert_eq!(lines, ["unset X", "set -e X", "Remove-Item -ErrorAction Ignore Env:X"]);
    }
}

//! The options that name the configuration file and the state directory, before or after any subcommand.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use crate::admin;
use crate::app;
use crate::config::Config;
use crate::protocol::policy::{KnownAsset, well_known};

/// The usual name of a configuration file.
const FILE_NAME: &str = "proxy.toml";
/// The default configuration file, in the directory for the user's configuration.
const DEFAULT_FILE: &str = "tollpass/proxy.toml";

#[derive(Clone, Debug, Default, Args)]
pub struct ConfigArgs {
    /// The configuration file; if omitted, $XDG_CONFIG_HOME/tollpass/proxy.toml or ~/.config/tollpass/proxy.toml, if it
    /// exists
    #[arg(long, value_name = "FILE", env = "TOLLPASS_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// The state directory, overriding the configuration
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

impl ConfigArgs {
    /// The configuration file, if there is one.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| default_file().filter(|path| path.exists()))
    }

    /// Loads the configuration.
    pub fn load(&self) -> anyhow::Result<Config> {
        let file = self.file();
        let mut config = Config::load(file.as_deref())?;
        app::check_writers(file.as_deref(), &mut config)?;
        if let Some(directory) = &self.state_dir {
            config.state_dir = std::path::absolute(directory)?;
        }
        config.key_locks = key_locks();
        Ok(config)
    }

    /// Loads the configuration, unless only the state directory is given: a running proxy, or what is stored there, is
    /// enough for many commands.
    pub(super) fn load_unless_state_is_given(&self) -> anyhow::Result<Option<Config>> {
        match (&self.state_dir, &self.config) {
            (Some(_), None) => Ok(None),
            _ => self.load().map(Some),
        }
    }

    /// The tokens with known symbols: those of the configuration or, if it cannot be loaded, the well-known ones. For
    /// commands that need no configuration otherwise.
    pub(super) fn known_assets(&self) -> Arc<[KnownAsset]> {
        match self.load_unless_state_is_given() {
            Ok(Some(config)) => config.assets,
            Ok(None) | Err(_) => well_known().into(),
        }
    }

    /// The state directory of the proxy, also if the configuration is invalid otherwise: what ends all payments must not depend
    /// on a file that is being edited.
    ///
    /// # Errors
    /// The configuration does not tell it, or the directory that the option names does not exist: a command must not
    /// create another one because of a typo.
    pub(super) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        let Some(path) = &self.state_dir else {
            let unknown =
                "the state directory is not known: name it with --state-dir, or correct the configuration";
            let file = self.file();
            // Whoever can write it could lead to another directory, on which a freeze ends nothing.
            file.as_deref().map(app::check_writers_of).transpose().context(unknown)?;
            let (path, is_certain) = Config::state_dir_of(file.as_deref()).context(unknown)?;
            if !is_certain && UnixStream::connect(admin::socket(&path)).is_err() {
                // No proxy runs there: it may run on another directory.
                self.load().context(unknown)?;
            }
            return Ok(path);
        };
        let remedy = "name the right one with --state-dir, or its configuration with --config";
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(std::path::absolute(path)?),
            Ok(_) => bail!("{} is a file, and not a state directory; {remedy}", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "the state directory {} does not exist, so it contains no journal, and no proxy is running on it; {remedy}",
                path.display()
            ),
            Err(error) => bail!("cannot use the state directory {}: {error}; {remedy}", path.display()),
        }
    }

    /// The admin socket of the proxy.
    ///
    /// # Errors
    /// The state directory is not known.
    pub(super) fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(admin::socket(&self.state_dir()?))
    }

    /// A hint if the working directory has a configuration that is not the one that is read.
    pub(super) fn unused(&self) -> Option<String> {
        let here = std::env::current_dir().ok()?.join(FILE_NAME).canonicalize().ok()?;
        let read = self.file().and_then(|file| file.canonicalize().ok());
        (read.as_ref() != Some(&here))
            .then(|| format!("{} is not read: name it with --config if it is meant", here.display()))
    }

    /// What a proxy without a wallet says at its start.
    pub(super) fn without_wallet(&self) -> String {
        match (self.file(), default_file()) {
            (Some(file), _) => format!("{} has no [wallet], so this proxy never pays", file.display()),
            (None, file) => {
                let missing =
                    file.map(|file| format!(" ({} does not exist)", file.display())).unwrap_or_default();
                format!(
                    "started without a configuration{missing}, so this proxy never pays; `tollpass init` creates a key and a \
                     configuration, and --config names another file"
                )
            }
        }
    }
}

/// The file that is read if no other one is named. Its directory may not exist.
pub(super) fn default_file() -> Option<PathBuf> {
    let directory = path_in("XDG_CONFIG_HOME").or_else(|| Some(path_in("HOME")?.join(".config")))?;
    Some(directory.join(DEFAULT_FILE))
}

/// Where a process reserves its key. Set to a path that is not absolute, XDG_RUNTIME_DIR switches that off.
fn key_locks() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    // Without HOME, the one of the user database.
    let home = || std::env::home_dir().filter(|home| home.is_absolute());
    let state = path_in("XDG_STATE_HOME").or_else(|| Some(home()?.join(".local/state")));
    let usual = Path::new("/run/user").join(rustix::process::getuid().as_raw().to_string());
    let usual = if usual.is_dir() { Some(usual) } else { None };
    lock_directories(runtime, state, usual)
}

/// Of a login session, services and jobs of the same user, some have the user's `usual` runtime directory and some none: all
/// meet there or with the user's `state`. Whoever sets another one wants to be apart.
fn lock_directories(
    runtime: Option<PathBuf>,
    state: Option<PathBuf>,
    usual: Option<PathBuf>,
) -> Vec<PathBuf> {
    match runtime {
        Some(runtime) if !runtime.is_absolute() => Vec::new(),
        Some(runtime) if usual.as_ref() != Some(&runtime) => vec![runtime],
        Some(_) | None => state.into_iter().chain(usual).collect(),
    }
}

/// The absolute path that a variable contains.
fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The error if no proxy listens on `socket`.
pub(super) fn not_running(socket: &Path) -> anyhow::Error {
    let directory = socket.parent().unwrap_or(socket);
    anyhow!(
        "no proxy is running on {}; start `tollpass serve`, or name another configuration with --config, or state directory \
         with --state-dir",
        directory.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_and_services_of_a_user_reserve_keys_in_a_common_place() {
        let path = |text: &str| Some(PathBuf::from(text));
        let (state, usual) = (path("/home/a/.local/state"), path("/run/user/7"));
        let at = |runtime: Option<PathBuf>, usual: &Option<PathBuf>| {
            lock_directories(runtime, state.clone(), usual.clone())
        };
        let both: Vec<PathBuf> = state.iter().chain(&usual).cloned().collect();
        assert_eq!(at(usual.clone(), &usual), both);
        assert_eq!(at(None, &usual), both, "a service beside a session");
        assert_eq!(at(None, &None), both[..1], "a service without a session");
        assert_eq!(at(path("/tmp/apart"), &usual), [PathBuf::from("/tmp/apart")]);
        assert_eq!(at(path("none"), &usual), Vec::<PathBuf>::new());
    }
}

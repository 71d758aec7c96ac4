//! The option `--client`: whose credentials a program uses.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use clap::Args;
use zeroize::Zeroizing;

use crate::app;
use crate::config::Config;

/// Whose name and token the program uses.
#[derive(Clone, Debug, Args)]
pub struct ClientArgs {
    /// The client in the configuration whose name and token the program uses
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
}

impl ClientArgs {
    /// The name and token for the URL of a proxy at `listen`, `NAME:TOKEN`.
    ///
    /// # Errors
    /// There is no such client, its token cannot be read, or the proxy needs a client and none is chosen.
    pub(super) fn user(
        &self,
        config: &Config,
        listen: SocketAddr,
    ) -> anyhow::Result<Option<Zeroizing<String>>> {
        let names: Vec<&str> = config.clients.iter().map(|known| known.client.name.as_str()).collect();
        match &self.client {
            Some(name) => {
                let known = config.clients.iter().find(|known| known.client.name == *name);
                let known = known.with_context(|| match names.is_empty() {
                    true => format!("no [[client]] is called {name}: the configuration has none"),
                    false => format!("no [[client]] is called {name}; the names are: {}", names.join(", ")),
                })?;
                Ok(Some(app::client_user(known)?))
            }
            None if config.needs_client(listen) => {
                bail!(
                    "the proxy at {listen} requires the token of a [[client]]; add --client and one of: {}",
                    names.join(", ")
                )
            }
            None => Ok(None),
        }
    }
}

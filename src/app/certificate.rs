//! The certificate of the proxy's own ports, and its renewal while the proxy runs.

use std::time::{Duration, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::config::{Config, ConfigError, ConfigIssue};
use crate::shutdown::Shutdown;
use crate::tls::{Renewal, ServerTls, TlsFileError};

/// Loads the certificate of the ports that speak TLS; `None` if none does. Blocks on the disk.
///
/// # Errors
/// A file cannot be used.
pub fn server_tls(config: &Config) -> Result<Option<ServerTls>, ConfigError> {
    let is_used = config.is_tls || config.routes.iter().any(|route| route.is_tls);
    let Some(files) = config.tls.as_ref().filter(|_| is_used) else { return Ok(None) };
    let loaded = ServerTls::load(&files.certificate, &files.key);
    loaded.map(Some).map_err(|error| ConfigError { file: None, issues: vec![issue(&error)] })
}

fn issue(error: &TlsFileError) -> ConfigIssue {
    let (key, remedy) = match error {
        TlsFileError::OtherKey { .. } => {
            ("tls_key", "name the key of the first certificate in tls_cert, which must be the server's own")
        }
        error if error.is_of_the_key() => {
            ("tls_key", "name the file of the private key of tls_cert, PEM, chmod 600, without a password")
        }
        _ => ("tls_cert", "name a file with the server's certificate and its intermediates, PEM"),
    };
    ConfigIssue::new(key, error.to_string(), remedy)
}

/// Warns of a certificate that clients reject, and returns why they do.
pub(super) fn warn_of_trouble(tls: &ServerTls) -> Option<String> {
    let trouble = tls.trouble(SystemTime::now());
    if let Some(trouble) = &trouble {
        tracing::warn!("{trouble}");
    }
    trouble
}

/// Loads the certificate again when its files have changed, and warns of one that clients reject, unless `told` is why.
/// Looks every `check_every`.
pub(super) async fn watch_certificate(
    tls: ServerTls,
    check_every: Duration,
    mut told: Option<String>,
    shutdown: Shutdown,
) {
    let mut ticks = tokio::time::interval(check_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.stopping() => return,
        }
        let renewed = tls.clone();
        match tokio::task::spawn_blocking(move || renewed.renew()).await {
            Ok(Renewal::Renewed) => tracing::info!("using a new certificate: {}", tls.description()),
            Ok(Renewal::Failed(error)) => {
                let path = tls.path().display();
                tracing::error!(
                    "cannot use the new certificate {path}: {error}; continuing with the earlier one, {}",
                    tls.description()
                );
            }
            // A panic has been logged.
            Ok(Renewal::Unchanged) | Err(_) => {}
        }
        if tls.trouble(SystemTime::now()) != told {
            told = warn_of_trouble(&tls);
        }
    }
}

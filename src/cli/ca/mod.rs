//! `tollpass ca`: shows, exports and renews the CA that signs for intercepted hosts, and prints how to trust it and how
//! to undo that.

mod trust;

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::config_args::ConfigArgs;
use super::confirm::confirm;
use super::output::{print, quoted, tell};
use crate::admin;
use crate::app;
use crate::config;
use crate::tls;
use crate::tls::{Authority, Name};
pub use trust::System;

/// Environment variables that name a file of root certificates for some program.
const ROOTS: [&str; 6] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
];

/// What `tollpass ca --help` shows below the options.
const AFTER_HELP: &str = "\
To pay inside https, tollpass decrypts connections to the hosts of [intercept], by
default exactly those that [[pay]] entries pay. Programs must trust the CA that signs
the certificates for these hosts. tollpass creates one in state_dir when it first needs
it. Anyone who has the CA's key can impersonate any server where the CA is trusted: keep
it private.";

/// Show, export, renew and trust the local CA for HTTPS interception
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct CaArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// The subcommand; `show` if omitted.
    #[command(subcommand)]
    pub command: Option<CaCommand>,
}

/// The subcommands of `tollpass ca`.
#[derive(Clone, Debug, Subcommand)]
pub enum CaCommand {
    /// Show the CA, its validity and what trusts it
    Show {
        /// Write it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the certificate, for programs to trust
    Export(ExportArgs),
    /// Replace the CA with a new one, which programs must then trust; a running proxy uses it after a restart
    Renew {
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Print the commands that make a system or program trust the CA, and those that undo it
    Trust {
        /// Systems and programs; this system if omitted
        #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
        system: Vec<System>,
    },
}

/// Arguments of `tollpass ca export`.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// The format
    #[arg(long, value_enum, default_value = "pem")]
    pub format: Format,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The format of an exported certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// PEM
    Pem,
    /// DER, as Windows and Java expect it
    Der,
    /// PEM with the system's root certificates too, for programs that replace those with one file
    Bundle,
}

/// Runs the subcommand. Blocks, and prompts on the terminal before it replaces a CA.
pub async fn run(args: &CaArgs) -> anyhow::Result<()> {
    let source = Source::find(&args.place).await?;
    match args.command.clone().unwrap_or(CaCommand::Show { json: false }) {
        CaCommand::Show { json: true } => {
            let shown = as_json(&source.open()?, &source.permitted()?);
            print(serde_json::to_string_pretty(&shown)? + "\n")
        }
        CaCommand::Show { json: false } => print(show(&source.open()?, &source.permitted()?)),
        CaCommand::Export(how) => export(&source.open()?, &how),
        CaCommand::Renew { yes } => renew(&source, yes),
        CaCommand::Trust { system } => print(trust::text(&source.open()?, &system, &options(args)?)?),
    }
}

/// The location of the CA.
struct Source {
    config: config::CaSource,
    directory: PathBuf,
}

impl Source {
    /// The CA of the running proxy or, without one, of the configuration.
    async fn find(place: &ConfigArgs) -> anyhow::Result<Self> {
        let made = config::CaSource::Generated { permitted: Vec::new() };
        let (config, directory) = match (place.load_unless_state_is_given()?, &place.state_dir) {
            (Some(config), _) => (config.intercept.authority, config.state_dir),
            // Unlike other commands, this one may create it.
            (None, directory) => (made.clone(), std::path::absolute(directory.clone().unwrap_or_default())?),
        };
        let running = admin::status(&admin::socket(&directory)).await?.and_then(|status| status.ca);
        let config = match (config, running) {
            // One that tollpass has created is in the state directory, and the configuration says which names it permits.
            (config @ config::CaSource::Generated { .. }, Some(ca)) if ca.is_in(&directory) => config,
            (config::CaSource::Files { .. }, Some(ca)) if ca.is_in(&directory) => made,
            (_, Some(admin::CaLocation { certificate, key })) => config::CaSource::Files { certificate, key },
            (config, None) => config,
        };
        Ok(Self { config, directory })
    }

    /// Opens the CA, or creates it and prints a message.
    fn open(&self) -> anyhow::Result<Authority> {
        let authority = app::authority_in(&self.directory, &self.config)?;
        if authority.is_new() {
            tell(format_args!("created a new CA: {}", authority.path().display()));
        }
        Ok(authority)
    }

    fn permitted(&self) -> anyhow::Result<Vec<Name>> {
        match &self.config {
            config::CaSource::Generated { permitted } => Ok(app::names(permitted)?),
            config::CaSource::Files { .. } => Ok(Vec::new()),
        }
    }
}

fn show(authority: &Authority, permitted: &[Name]) -> String {
    let validity = authority.validity();
    let mut text = String::new();
    let mut line = |what: &str, value: &dyn std::fmt::Display| text += &format!("{what:12} {value}\n");
    line("subject", &authority.subject());
    line("fingerprint", &fingerprint(&authority.fingerprint()));
    line("valid", &format_args!("{} to {}", tls::date(validity.start), tls::date(validity.end)));
    line("certificate", &authority.path().display());
    line("key", &format_args!("{} (private; never share it)", authority.key_path().display()));
    line("signs for", &authority.signs_for());
    for (what, trusts) in trusted_by(authority) {
        line("trusted by", &format_args!("{what}: {}", if trusts { "yes" } else { "no" }));
    }
    if let Some((subject, old)) = authority.replaced() {
        line("replaced", &format_args!("{subject}, {}: stop trusting it", fingerprint(&old)));
    }
    for warning in authority.warnings(permitted, SystemTime::now()) {
        line("warning", &warning);
    }
    text + "`tollpass ca trust` shows how to make programs trust it, and how to undo that.\n"
}

/// The same as JSON.
fn as_json(authority: &Authority, permitted: &[Name]) -> serde_json::Value {
    let validity = authority.validity();
    let trusted_by: serde_json::Map<_, _> =
        trusted_by(authority).into_iter().map(|(what, trusts)| (what, trusts.into())).collect();
    json!({
        "subject": authority.subject(),
        "sha256": fingerprint_of(&authority.fingerprint()),
        "valid_from": tls::date(validity.start),
        "valid_until": tls::date(validity.end),
        "certificate": authority.path(),
        "key": authority.key_path(),
        "signs_for": authority.signs_for(),
        "trusted_by": trusted_by,
        "warnings": authority.warnings(permitted, SystemTime::now()),
    })
}

/// The root stores that contain the CA: the system's, and the files named by environment variables.
fn trusted_by(authority: &Authority) -> Vec<(String, bool)> {
    let holds = |roots: &[_]| roots.contains(authority.certificate());
    let system = tls::system(None).is_ok_and(|roots| holds(&roots.certificates));
    let mut all = vec![("the system's roots".to_owned(), system)];
    for name in ROOTS {
        if let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) {
            let trusts = tls::certificates(Path::new(&path)).is_ok_and(|found| holds(&found));
            all.push((format!("{name}={}", path.to_string_lossy()), trusts));
        }
    }
    all
}

fn export(authority: &Authority, how: &ExportArgs) -> anyhow::Result<()> {
    let bytes = match how.format {
        Format::Pem => tls::pem(authority.certificate()).into_bytes(),
        Format::Der => authority.certificate().to_vec(),
        Format::Bundle => {
            let roots = tls::system(None)?;
            for warning in &roots.warnings {
                tell(format_args!("tollpass: {warning}"));
            }
            tls::bundle(&roots, authority).into_bytes()
        }
    };
    let Some(path) = &how.out else {
        if how.format == Format::Der && std::io::stdout().is_terminal() {
            bail!("refusing to write binary DER to a terminal: add --out FILE");
        }
        return print(bytes);
    };
    write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file readable by all users, atomically.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes);
    }
    // Follow a symbolic link instead of replacing it.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|directory| *directory != Path::new("")).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(&path)?;
    Ok(())
}

fn renew(source: &Source, is_agreed: bool) -> anyhow::Result<()> {
    if let config::CaSource::Files { certificate, .. } = &source.config {
        bail!(
            "{} is your own CA, which tollpass does not renew: create a new one the way you created it, or remove \
             intercept.ca_cert and intercept.ca_key",
            certificate.display()
        );
    }
    tell(format_args!(
        "create a new CA in {}: everything that trusts the current one must then trust the new one, and a running proxy \
         uses it after a restart",
        source.directory.display()
    ));
    if !is_agreed {
        confirm()?;
    }
    let authority = Authority::renew(&source.directory, &source.permitted()?)?;
    print(show(&authority, &source.permitted()?))
}

/// The command-line options that select this CA.
fn options(args: &CaArgs) -> anyhow::Result<String> {
    let mut text = String::new();
    for (option, path) in [("--config", &args.place.config), ("--state-dir", &args.place.state_dir)] {
        if let Some(path) = path {
            let path = std::path::absolute(path)?;
            text += &format!(" {option} {}", quoted(&OsString::from(path).to_string_lossy()));
        }
    }
    Ok(text)
}

/// The usual notation of a fingerprint: `AB:CD:…`.
fn fingerprint(bytes: &[u8; 32]) -> String {
    format!("SHA-256 {}", fingerprint_of(bytes))
}

fn fingerprint_of(bytes: &[u8; 32]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

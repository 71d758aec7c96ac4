//! `tollpass inspect`: what a seller offers, and what the proxy would do, without paying.

use anyhow::Context as _;
use clap::Args;
use http::{Method, Uri};

use super::config_args::ConfigArgs;
use super::output::print;
use crate::app;
use crate::app::{InspectedSignIn, Inspection, Preview};

/// What `tollpass inspect --help` shows below the options.
const AFTER_HELP: &str = "\
Sends one request without a payment, under the same restrictions on addresses as the
proxy, and applies the [[pay]] entries to each offer in the response, and the limits of
each [[budget]], ignoring what is already spent. It reads no key and contacts no node, so it
reports what depends on these as a condition. If a 402 has several offers, the proxy
pays the first that it can pay.";

/// Show what a URL costs and what the proxy would do, without paying
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct InspectArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The method of the request
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub method: Method,
    /// Write the result as JSON, with prices in base units
    #[arg(long)]
    pub json: bool,
    /// The http or https URL
    #[arg(value_parser = url)]
    pub url: Uri,
}

/// Parses a URL to inspect; of one without a scheme, it says what to write.
fn url(text: &str) -> Result<Uri, String> {
    let read = |text: &str| text.parse::<Uri>().ok().filter(|url| url.authority().is_some());
    let is_http = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https"));
    read(text).filter(is_http).ok_or_else(|| {
        let meant = format!("https://{text}");
        match !text.contains("://") && read(&meant).is_some() {
            true => format!("not a valid http or https URL; write {meant}"),
            false => "not a valid http or https URL".to_owned(),
        }
    })
}

/// Inspects a URL.
pub async fn run(args: InspectArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let inspection = app::inspect(&config, args.method, &args.url)
        .await?
        .with_context(|| format!("cannot inspect {}", args.url))?;
    if args.json {
        print(serde_json::to_string_pretty(&inspection)? + "\n")
    } else {
        print(lines(&inspection))
    }
}

fn lines(inspection: &Inspection) -> String {
    let Inspection { method, url, status, reason: _, details, offers, chosen, unsupported, sign_in } =
        inspection;
    let mut text = format!("{method} {url}: {status}\n");
    if let Some(details) = details {
        text += &format!("{details}\n");
    }
    for (index, offer) in offers.iter().enumerate() {
        let is_passed_over = chosen.is_some_and(|chosen| chosen != index);
        let would = match offer.would {
            Preview::Pay | Preview::Ask if is_passed_over => "could pay, but prefers another offer",
            Preview::Pay => "would pay",
            Preview::Ask => "would ask",
            Preview::Refuse => "would not pay",
        };
        let details = offer.details.as_ref().map(|details| format!(": {details}")).unwrap_or_default();
        text += &format!("{}: {} to {}: {would}{details}\n", offer.scheme, offer.shown, offer.payee);
    }
    for offer in unsupported {
        text += &format!("{offer}: cannot pay\n");
    }
    if let Some(InspectedSignIn { network, address }) = sign_in {
        let address = address.map_or_else(|| "the address of the wallet".to_owned(), |at| at.to_string());
        text += &format!("no offers: would sign in, and pay nothing: shows {address} on {network}\n");
    }
    text
}

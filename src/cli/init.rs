//! `tollpass init`: creates a key and a configuration that loads. Never overwrites a file.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use http::Uri;

use super::config_args::{ConfigArgs, default_file};
use super::output::{print, quoted};
use crate::chain::keystore;
use crate::chain::keystore::Password;
use crate::protocol::Address;
use crate::protocol::policy::HostPattern;

const EXAMPLE: &str = include_str!("../../proxy.toml");
const KEYSTORE: &str = "keystore.json";
const CONFIG: &str = "proxy.toml";
/// The tables and keys of the example that every paying proxy needs.
const WALLET: &[(&str, &str)] = &[("[wallet]", ""), ("keystore = ", "")];
/// Those that payment channels need, each with a remark.
const CHANNELS: &[(&str, &str)] = &[
    ("[chain]", ""),
    ("rpc_url = ", "FILL IN: the URL of your node."),
    ("channel_manager = ", "FILL IN: the contract that your sellers use, if it differs."),
    ("start_block = ", "FILL IN: the block in which that contract was created, if it differs."),
];

/// What `tollpass init --help` shows below the options.
const AFTER_HELP: &str = "\
Creates keystore.json, a new key under a password, and proxy.toml, a commented
configuration with a budget of a dollar a day, and prints the next steps: in the
directory that all commands read by default, unless --dir or --config says otherwise. It
never overwrites a file. x402 sellers need no node; --channels is for µRaiden sellers, and
adds no budget.";

/// Create a key and a configuration
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct InitArgs {
    /// Directory for keystore.json and proxy.toml, created if it does not exist; by default, that of --config
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The configuration.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// File that contains the password for the new keystore, with mode 600; by default,
    /// TOLLPASS_WALLET_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A host to pay up to 5 cents for each request, such as api.example.com; repeatable
    #[arg(long, value_name = "HOST", value_parser = host)]
    pub pay: Vec<HostPattern>,
    /// Also prepare payment channels (µRaiden), which need a node
    #[arg(long)]
    pub channels: bool,
}

/// Creates both files and prints the address and the next steps. Blocks, and prompts for the password if neither a file
/// nor the environment provides it.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    let config = args.file()?;
    let directory = config.parent().unwrap_or(Path::new(""));
    let keystore = directory.join(KEYSTORE);
    for path in [&keystore, &config] {
        // Checked before the password prompt; both files are also created with O_EXCL below.
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} already exists; not overwriting it; to pay one more host, add a [[pay]] entry to {}; for another key, name \
                 another directory with --dir",
                path.display(),
                config.display()
            );
        }
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(Path::new(".").join(directory))
        .with_context(|| format!("cannot create the directory {}", directory.display()))?;
    let password_file = args.password_file.as_deref().map(std::path::absolute).transpose()?;
    let text = configuration(password_file.as_deref(), &args.pay, args.channels)?;
    let password = Password::obtain_new(args.password_file.as_deref())?;

    let address = keystore::create(&keystore, &password)?;
    write_new(&config, &text).with_context(|| {
        format!(
            "{} was created, but {} could not be written: move the former away before you try again",
            keystore.display(),
            config.display()
        )
    })?;
    print(next_steps(address, (&keystore, &config), args))
}

impl InitArgs {
    /// The configuration file to create.
    fn file(&self) -> anyhow::Result<PathBuf> {
        let named =
            self.dir.as_ref().map(|directory| directory.join(CONFIG)).or_else(|| self.place.config.clone());
        named.or_else(default_file).context("HOME is not set; say with --dir where to create the files")
    }
}

/// Parses a host to pay; of a URL, it says which host to write.
fn host(text: &str) -> Result<HostPattern, String> {
    text.parse::<HostPattern>().map_err(|error| {
        let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri = url.parse::<Uri>().ok();
        let meant = uri.as_ref().and_then(Uri::host).and_then(|host| host.parse::<HostPattern>().ok());
        match meant {
            Some(host) => format!("{error}: write {host}"),
            None => error.to_string(),
        }
    })
}

/// The example with the keys enabled that a paying proxy needs, a budget, and an entry for each host.
fn configuration(
    password_file: Option<&Path>,
    hosts: &[HostPattern],
    has_channels: bool,
) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    let mut wanted: Vec<_> = WALLET.iter().chain(CHANNELS.iter().filter(|_| has_channels)).collect();
    for line in EXAMPLE.lines() {
        let key = line.strip_prefix('#').unwrap_or(line);
        // The first one: later tables have keys of the same names.
        if let Some(found) = wanted.iter().position(|(start, _)| key.starts_with(start)) {
            let (_, remark) = wanted.remove(found);
            if !remark.is_empty() {
                lines.push(format!("# >>> {remark}"));
            }
            lines.push(key.to_owned());
        } else if let (true, Some(path)) = (key.starts_with("password_file = "), password_file) {
            let path = path.to_str().context("the path of the password file is not UTF-8")?;
            lines.push(format!("password_file = {}", toml_text(path)));
        } else {
            lines.push(line.to_owned());
        }
    }
    // A budget in dollars would refuse the µRaiden token, which has no value.
    let mut text = lines.join("\n") + "\n" + if has_channels { "" } else { BUDGET };
    for host in hosts {
        text += &format!("\n[[pay]]\nhost = {}\nmax_price = \"$0.05\"\n", toml_text(&host.to_string()));
    }
    let fill_in = if has_channels { "Fill in the lines below each \"# >>>\". " } else { "" };
    let pays = "Only hosts with a [[pay]] entry are paid: see the end of this file.";
    Ok(text.replace(
        "As it is, this file configures a plain proxy that never pays.",
        &format!("{fill_in}{pays}"),
    ))
}

/// What is added to the example.
const BUDGET: &str = "
# From here on, added by `tollpass init`: all payments together cost a dollar a day at most. Each host to be paid needs an
# entry such as this one:
#
#   [[pay]]
#   host = \"api.example.com\"
#   max_price = \"$0.05\"

[[budget]]
name = \"daily\"
wallet = true
per_day = \"$1\"
";

/// Quotes a TOML basic string.
fn toml_text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// Creates a file that only its owner can read, since an `rpc_url` may contain credentials.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn next_steps(address: Address, (keystore, config): (&Path, &Path), args: &InitArgs) -> String {
    let is_default = default_file().is_some_and(|default| default == config);
    let option = match is_default {
        true => String::new(),
        false => format!(" --config {}", quoted(&config.to_string_lossy())),
    };
    let (keystore, config) = (keystore.display(), config.display());
    let rules = match (args.channels, args.pay.is_empty()) {
        (true, _) => format!(
            "Fill in {config} (the lines below \"# >>>\"), and add [[pay]] entries: which hosts may be paid, and how much."
        ),
        (false, true) => format!("Add [[pay]] entries to {config}: which hosts may be paid, and how much."),
        (false, false) => format!("Look at the [[pay]] entries and the budget at the end of {config}."),
    };
    let ether = if args.channels {
        "For µRaiden, send its tokens, and some ether for the fees."
    } else {
        "You need neither a node nor ether."
    };
    format!(
        "Your address: {address}\n\
         \n\
         {keystore}  the key, encrypted with your password. Back up both: if you lose the file or the password, the funds are gone.\n\
         {config}  the configuration.\n\
         \n\
         Next:\n\
         1. {rules}\n\
         2. Send a few dollars of USDC to {address}, on the network that your sellers name, such as Base. {ether}\n\
         3. tollpass check{option}\n\
         4. tollpass serve{option}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

    use crate::cli::init::*;
    use crate::config::{Config, KeySource};
    use crate::protocol::policy::Allow;

    fn args(directory: &Path, password: &str) -> InitArgs {
        let path = directory.join("a \"pass\\word\"");
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let pay = vec!["api.example.com".parse().unwrap()];
        let dir = Some(directory.join("new/directory"));
        InitArgs { dir, place: ConfigArgs::default(), password_file: Some(path), pay, channels: false }
    }

    #[test]
    fn the_created_files_load_and_open() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(directory.path(), "correct horse\n");
        run(&args).unwrap();

        let config = Config::load(Some(&args.file().unwrap())).unwrap();
        let wallet = config.wallet.unwrap();
        assert_eq!(wallet.password_file, args.password_file);
        let KeySource::Keystore(path) = wallet.source else { panic!("{:?}", wallet.source) };
        assert_eq!(path, args.file().unwrap().with_file_name(KEYSTORE));
        let password = Password::obtain(wallet.password_file.as_deref()).unwrap();
        keystore::open(&path, &password).unwrap();
        assert!(config.chain.is_none(), "it needs no node");
        let rule = config.policy.rule("api.example.com", 443).unwrap();
        let Allow::Pay { max_price, .. } = &rule.allow else { panic!("{rule:?}") };
        assert_eq!(max_price.to_string(), "$0.05");
        assert!(config.policy.rule("another.example", 443).is_none());
        let [budget] = &config.policy.budgets[..] else { panic!("{:?}", config.policy.budgets) };
        assert!(budget.applies_to("another.example"), "{budget:?}");

        let before = fs::read(&path).unwrap();
        for gone in [None, Some(CONFIG)] {
            if let Some(name) = gone {
                fs::remove_file(args.file().unwrap().with_file_name(name)).unwrap();
            }
            let error = run(&args).unwrap_err();
            assert!(error.to_string().contains("not overwriting"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn marks_the_lines_to_fill_in() {
        let text = configuration(None, &[], true).unwrap();
        for (start, remark) in WALLET.iter().chain(CHANNELS) {
            let lines: Vec<_> = text.lines().collect();
            let at =
                lines.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
            assert!(remark.is_empty() || lines[at - 1] == format!("# >>> {remark}"), "{start}");
        }
        assert!(text.contains("\n#password_file"));
        assert!(text.contains("Fill in the lines below each \"# >>>\". Only hosts"));
        let home = BTreeMap::from([("HOME".into(), "/home/x".into())]);
        let config = Config::parse(&text, Path::new("/x"), &home).unwrap();
        assert_eq!(config.chain.unwrap().start_block, 4_958_602);
        assert!(config.policy.budgets.is_empty(), "it would refuse the token of the channels");
        let text = configuration(None, &[], false).unwrap();
        assert!(!text.contains(">>>"));
        assert!(Config::parse(&text, Path::new("/x"), &home).unwrap().chain.is_none());
    }

    #[test]
    fn the_next_steps_are_for_a_shell() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(directory.path(), "correct horse\n");
        let steps = next_steps(
            Address([1; 20]),
            (Path::new("/a/my dir/k"), Path::new("/a/my dir/proxy.toml")),
            &args,
        );
        assert!(steps.contains("tollpass serve --config '/a/my dir/proxy.toml'\n"), "{steps}");
    }

    #[test]
    fn a_refused_password_file_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(directory.path(), "");
        assert!(run(&args).is_err());
        assert_eq!(fs::read_dir(args.dir.unwrap()).unwrap().count(), 0);
    }
}

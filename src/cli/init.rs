//! `tollpass init`: creates a key and a configuration that loads. Never overwrites a file.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::output::print;
use crate::chain::keystore;
use crate::chain::keystore::Password;
use crate::protocol::Address;

const EXAMPLE: &str = include_str!("../../proxy.toml");
const KEYSTORE: &str = "keystore.json";
const CONFIG: &str = "proxy.toml";
/// The tables and keys of the example that a paying proxy needs, each with a remark.
const TO_FILL_IN: &[(&str, &str)] = &[
    ("[wallet]", ""),
    ("keystore = ", ""),
    ("[chain]", ""),
    ("rpc_url = ", "FILL IN: the URL of your node."),
    ("channel_manager = ", "FILL IN: the contract that your sellers use, if it differs."),
    ("start_block = ", "FILL IN: the block in which that contract was created, if it differs."),
];

/// What `tollpass init --help` shows below the options.
const AFTER_HELP: &str = "\
Creates keystore.json, a new key under a password, and proxy.toml, a commented
configuration, and prints the next steps. It never overwrites a file.";

/// Create a key and a configuration
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct InitArgs {
    /// Directory for keystore.json and proxy.toml; created if it does not exist
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// File that contains the password for the new keystore, with mode 600; by default,
    /// TOLLPASS_WALLET_PASSWORD or a prompt
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Creates both files and prints the address and the next steps. Blocks, and prompts for the password if neither a file
/// nor the environment provides it.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    let (keystore, config) = (args.dir.join(KEYSTORE), args.dir.join(CONFIG));
    for path in [&keystore, &config] {
        // Checked before the password prompt; both files are also created with O_EXCL below.
        if path.symlink_metadata().is_ok() {
            bail!("{} already exists; not overwriting it; choose another --dir", path.display());
        }
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("cannot create the directory {}", args.dir.display()))?;
    let password_file = args.password_file.as_deref().map(std::path::absolute).transpose()?;
    let text = configuration(password_file.as_deref())?;
    let password = Password::obtain_new(args.password_file.as_deref())?;

    let address = keystore::create(&keystore, &password)?;
    write_new(&config, &text).with_context(|| {
        format!(
            "{} was created, but {} could not be written: move the former away before you try again",
            keystore.display(),
            config.display()
        )
    })?;
    print(next_steps(address, &keystore, &config))
}

/// The example with the keys enabled that a paying proxy needs.
fn configuration(password_file: Option<&Path>) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for line in EXAMPLE.lines() {
        let key = line.strip_prefix('#').unwrap_or(line);
        if let Some((_, remark)) = TO_FILL_IN.iter().find(|(start, _)| key.starts_with(start)) {
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
    let text = lines.join("\n") + "\n";
    Ok(text.replace(
        "As it is, this file configures a plain proxy that never pays.",
        "Fill in the lines below each \"# >>>\" and add [[pay]] entries: without one, nothing is paid.",
    ))
}

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

fn next_steps(address: Address, keystore: &Path, config: &Path) -> String {
    let (keystore, config) = (keystore.display(), config.display());
    format!(
        "Your address: {address}\n\
         \n\
         {keystore}  the key, encrypted with your password. Back up both: if you lose the file or the password, the funds are gone.\n\
         {config}  the configuration.\n\
         \n\
         Next:\n\
         1. Fill in {config} (the lines below \"# >>>\"), and add [[pay]] rules: which hosts may be paid, and the price limits.\n\
         2. Send tokens, and some ether for the fees, to {address}.\n\
         3. tollpass check --config {config}\n\
         4. tollpass serve --config {config}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _};

    use crate::cli::init::*;
    use crate::config::{Config, KeySource};

    fn args(directory: &Path, password: &str) -> InitArgs {
        let path = directory.join("a \"pass\\word\"");
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        InitArgs { dir: directory.join("new/directory"), password_file: Some(path) }
    }

    #[test]
    fn the_created_files_load_and_open() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(directory.path(), "correct horse\n");
        run(&args).unwrap();

        let config = Config::load(Some(&args.dir.join(CONFIG))).unwrap();
        let wallet = config.wallet.unwrap();
        assert_eq!(wallet.password_file, args.password_file);
        let KeySource::Keystore(path) = wallet.source else { panic!("{:?}", wallet.source) };
        assert_eq!(path, args.dir.join(KEYSTORE));
        let password = Password::obtain(wallet.password_file.as_deref()).unwrap();
        keystore::open(&path, &password).unwrap();
        assert_eq!(config.chain.unwrap().start_block, 4_958_602);

        let before = fs::read(&path).unwrap();
        for gone in [None, Some(CONFIG)] {
            if let Some(name) = gone {
                fs::remove_file(args.dir.join(name)).unwrap();
            }
            let error = run(&args).unwrap_err();
            assert!(error.to_string().contains("not overwriting"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
    }

    #[test]
    fn marks_the_lines_to_fill_in() {
        let text = configuration(None).unwrap();
        for (start, remark) in TO_FILL_IN {
            let lines: Vec<_> = text.lines().collect();
            let at =
                lines.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}"));
            assert!(remark.is_empty() || lines[at - 1] == format!("# >>> {remark}"), "{start}");
        }
        assert!(text.contains("\n#password_file"));
        assert!(text.contains("each \"# >>>\" and add [[pay]] entries"));
        Config::parse(&text, Path::new("/x"), &BTreeMap::from([("HOME".into(), "/home/x".into())])).unwrap();
    }

    #[test]
    fn a_refused_password_file_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let args = args(directory.path(), "");
        assert!(run(&args).is_err());
        assert_eq!(fs::read_dir(&args.dir).unwrap().count(), 0);
    }
}

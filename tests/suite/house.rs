//! Rules for the source: which module may import which, what the core must not use, names, wording and dependencies.

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use tollpass::cli::Arguments;

use self::modules::{Modules, cycles, strings};

/// Each top-level module with the modules that it may import, besides those in `ANYWHERE`.
const ARROWS: [(&str, &[&str]); 24] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "admin",
            "chain",
            "channels",
            "config",
            "devnet",
            "hosts",
            "payments",
            "protocol",
            "shutdown",
            "telemetry",
            "tls",
        ],
    ),
    (
        "app",
        &[
            "admin",
            "chain",
            "channels",
            "config",
            "hosts",
            "limits",
            "payments",
            "private",
            "protocol",
            "proxy",
            "shutdown",
            "telemetry",
            "tls",
            "workers",
        ],
    ),
    ("proxy", &["hosts", "limits", "payments", "protocol", "shutdown", "tls", "workers"]),
    ("admin", &["channels", "payments", "shutdown"]),
    ("payments", &["chain", "limits", "processes", "protocol"]),
    ("channels", &["chain", "payments", "protocol"]),
    ("chain", &["private", "protocol"]),
    ("tls", &["private"]),
    ("private", &[]),
    ("devnet", &["protocol"]),
    ("config", &["hosts", "limits", "private", "protocol"]),
    // Rules name hosts by pattern.
    ("protocol", &["hosts"]),
    ("hosts", &[]),
    ("shutdown", &[]),
    ("workers", &["shutdown"]),
    ("telemetry", &["tls"]),
    ("failpoint", &[]),
    ("limits", &[]),
    ("processes", &[]),
    ("histogram", &[]),
    ("mutex", &[]),
    ("error_chain", &[]),
    ("lib", &[]),
];

/// Modules that every other one may import.
const ANYWHERE: [&str; 4] = ["error_chain", "failpoint", "histogram", "mutex"];

/// Paths that a module must not import although it may import their module: the seller verifies payments with code of
/// its own.
const NOT_EVEN: [(&str, &str); 1] = [("devnet", "crate::protocol::schemes::microraiden::proof")];

/// What the core must not use: time, randomness and answers are its inputs.
const IMPURE: [&str; 15] = [
    "tokio",
    "hyper",
    "tower",
    "jsonrpsee",
    "rusqlite",
    "rand",
    "tracing",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant::now",
];

/// The files that may name a payment scheme: its own, and those of the layers that choose, store, show and test schemes.
const KNOWS_SCHEMES: [&str; 11] = [
    "protocol/schemes/",
    "chain/microraiden/",
    // Declares the directory above.
    "chain/mod.rs",
    "channels/",
    "payments/journal/",
    "config/",
    "cli/",
    "devnet/",
    "app/",
    "app.rs",
    // The overview of the crate.
    "lib.rs",
];

/// The headers of schemes begin with these.
const SCHEME_HEADERS: [&str; 3] = ["rdn-", "test-token-", "x-payment"];

const VAGUE: [&str; 5] = ["utils", "util", "helpers", "common", "misc"];

#[test]
fn modules_import_only_what_their_layer_allows() {
    let mut seen = BTreeSet::new();
    for source in sources() {
        let (_, allowed) = ARROWS
            .iter()
            .find(|(module, _)| *module == source.module)
            .unwrap_or_else(|| panic!("{} is a module without a rule", source.module));
        for path in source.paths() {
            let named = path.split("::").nth(1).unwrap();
            let is_free = named == source.module || ANYWHERE.contains(&named);
            assert!(is_free || allowed.contains(&named), "{} must not import {path}", source.name);
            for (module, kept_out) in NOT_EVEN {
                assert!(
                    module != source.module || !path.starts_with(kept_out),
                    "{} must not import {path}",
                    source.name
                );
            }
            if !is_free {
                seen.insert((source.module.clone(), named.to_owned()));
            }
        }
    }
    // A scan that finds nothing would prove nothing.
    for arrow in [
        ("app", "proxy"),
        ("proxy", "payments"),
        ("payments", "chain"),
        ("devnet", "protocol"),
        ("main", "cli"),
    ] {
        assert!(seen.contains(&(arrow.0.to_owned(), arrow.1.to_owned())), "{arrow:?} was not seen");
    }
}

#[test]
fn no_import_cycle_between_files() {
    let modules = Modules::read(&root().join("src"));
    let edges = modules.edges();
    // A scan that finds nothing would prove nothing.
    assert!(edges.len() > 150, "{}", edges.len());
    // Through an import, a re-export, the parent module, and a module that is itself imported.
    for (from, to) in [
        ("proxy/pay/exchange.rs", "protocol/policy/limit.rs"),
        ("proxy/frontend/mod.rs", "proxy/frontend/upgrade.rs"),
        ("proxy/replay/store.rs", "proxy/replay/limits.rs"),
        ("app/interception.rs", "proxy/interception.rs"),
    ] {
        assert!(edges[from].contains(to), "{from} names {:?}, and not {to}", edges[from]);
    }
    let cycles = cycles(&edges);
    assert!(cycles.is_empty(), "these files import each other: {cycles:?}");
}

#[test]
fn no_type_name_is_defined_twice() {
    let modules = Modules::read(&root().join("src"));
    let types = modules.types();
    // A scan that finds nothing would prove nothing.
    assert!(types.len() > 400, "{}", types.len());
    for (name, file) in [("Offer", "protocol/schemes/mod.rs"), ("HostName", "protocol/host_name.rs")] {
        assert!(types[name].contains(file), "{name} is in {:?}", types[name]);
    }
    let twice: Vec<_> = types.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(twice.is_empty(), "one name must mean one thing: {twice:?}");
}

#[test]
fn no_scheme_is_named_outside_its_places() {
    let mut schemes = BTreeSet::from(["micro_raiden", "x402"].map(str::to_owned));
    for entry in fs::read_dir(root().join("src/protocol/schemes")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            schemes.extend([name.to_owned(), name.replace('_', ""), name.replace('_', "-")]);
        }
    }
    // A scan that finds nothing would prove nothing.
    assert!(schemes.contains("microraiden") && schemes.contains("testtoken"), "{schemes:?}");
    let mut places: BTreeSet<&str> = BTreeSet::new();
    for source in sources() {
        let place = KNOWS_SCHEMES.iter().find(|place| source.name.starts_with(**place));
        for line in source.shipped().lines() {
            let line = line.to_lowercase().replace('µ', "micro");
            let is_named = schemes.iter().any(|scheme| line.contains(scheme))
                || SCHEME_HEADERS.iter().any(|header| line.contains(header));
            assert!(!is_named || place.is_some(), "{} names a scheme: {line}", source.name);
            places.extend(place.filter(|_| is_named).copied());
        }
    }
    for place in ["protocol/schemes/", "chain/microraiden/", "payments/journal/", "devnet/"] {
        assert!(places.contains(&place), "{place} was not seen");
    }
}

#[test]
fn the_core_is_pure() {
    for source in sources().filter(|source| ["protocol", "hosts"].contains(&source.module.as_str())) {
        for word in IMPURE {
            assert!(!source.names(word), "{} uses {word}", source.name);
        }
    }
}

#[test]
fn names_say_what_they_mean() {
    for source in sources() {
        let modules = source.name.split(['/', '.']);
        assert!(!modules.into_iter().any(|module| VAGUE.contains(&module)), "{}", source.name);
        for line in source.code.lines() {
            // A trait of a dependency wants one.
            let is_wanted = line.contains("fn get_info(&self) -> ServerConfig");
            assert!(is_wanted || !line.contains("fn get_"), "{}: {line}", source.name);
            assert!(!line.contains("allow(dead_code)"), "{}: {line}", source.name);
            assert!(!line.contains("unsafe "), "{}: {line}", source.name);
            for vague in VAGUE {
                assert!(!line.contains(&format!("mod {vague}")), "{}: {line}", source.name);
            }
        }
        assert!(source.text.starts_with("//!"), "{} does not say what it is for", source.name);
    }
}

/// Words of a translation. `is no longer` and `is no more than` are English.
const TRANSLATED: [&str; 5] = ["anew", "nobody", "whoever", "for so long", "on record"];

#[test]
fn user_facing_strings_are_plain_english() {
    let mut texts = Vec::new();
    for source in sources() {
        let strings = strings(source.shipped());
        texts.extend(strings.into_iter().map(|text| (format!("a string of {}", source.name), text)));
        // Also the names of the code.
        texts.push((source.name, source.code));
    }
    for name in ["README.md", "CHANGELOG.md", "proxy.toml", "tests/FROM_MICRORAIDEN.md"] {
        // A sentence goes on in the next line of a comment.
        let lines: Vec<String> =
            read(name).lines().map(|line| line.trim_start_matches("# ").to_owned()).collect();
        texts.push((name.to_owned(), lines.join("\n")));
    }
    texts.push(("config schema".to_owned(), tollpass::config::schema().to_string()));
    let mut commands = vec![Arguments::command()];
    while let Some(mut command) = commands.pop() {
        texts.push((format!("{} --help", command.get_name()), command.render_long_help().to_string()));
        commands.extend(command.get_subcommands().cloned());
    }
    assert!(texts.len() > 2000, "{}", texts.len());
    for (name, text) in texts {
        assert_eq!(translation(&text), None, "{name}");
    }
}

/// The first words of a translation in a text, with their context.
fn translation(text: &str) -> Option<String> {
    // Also where a line ends between two words.
    let text = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let around = |at: usize| text[at..].chars().take(80).collect();
    for word in TRANSLATED {
        if let Some(at) = word_at(&text, word) {
            return Some(around(at));
        }
    }
    let mut denials = text.match_indices("is no ").filter(|(at, _)| !text[..*at].ends_with(is_name));
    let is_translated = |rest: &str| !rest.starts_with("longer") && !rest.starts_with("more than");
    denials.find(|(at, denial)| is_translated(&text[at + denial.len()..])).map(|(at, _)| around(at))
}

#[test]
fn a_translation_is_found_across_lines_and_beside_urls() {
    for (text, is_translated) in [
        ("Nobody pays", true),
        ("it is put on\n    record", true),
        ("that is\nno price", true),
        ("see https://example.com; it starts anew", true),
        ("this is no longer so, and is no more than a limit", false),
        ("recorded anew2, in this nowhere", false),
    ] {
        assert_eq!(translation(text).is_some(), is_translated, "{text}");
    }
    let code = "fn f() -> &'static str { /* nobody */ \"see http://a.example: whoever \\\n    pays\" }";
    assert_eq!(strings(code), ["see http://a.example: whoever pays"]);
    assert_eq!(strings("#[error(\"on record\")]\n/// anew\nstruct A;"), ["on record"]);
}

#[test]
fn the_example_is_short_and_uses_what_the_crate_root_exports() {
    let text = read("tests/examples/paying_client.rs");
    assert!(text.lines().count() < 40, "{}", text.lines().count());
    let paths: Vec<String> =
        text.match_indices("tollpass::").flat_map(|(at, begin)| expand(&text[at + begin.len()..])).collect();
    assert!(!paths.is_empty());
    for path in paths {
        // The modules are open to tests only.
        let is_type = path.starts_with(char::is_uppercase) && !path.contains("::");
        assert!(is_type, "the example uses tollpass::{path}");
    }
}

#[test]
fn the_manifest_explains_each_dependency() {
    let manifest = read("Cargo.toml");
    let lines: Vec<&str> = manifest.lines().collect();
    let mut section = "";
    let mut explained = 0;
    for (at, line) in lines.iter().enumerate() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && line.contains(" = ") && !line.starts_with('#') {
            let reason = lines[at - 1].strip_prefix("# ");
            assert!(
                reason.is_some_and(|reason| reason.len() > 3),
                "Cargo.toml does not say why it has {line}"
            );
            explained += 1;
        }
    }
    assert!(explained > 40, "{explained}");
}

#[test]
fn each_part_of_the_older_client_has_a_test() {
    let table = read("tests/FROM_MICRORAIDEN.md");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 30, "{rows:?}");
    let files = rust_files("src").into_iter().chain(rust_files("tests"));
    let tests: String = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    for row in rows {
        let name = row.trim_end_matches([' ', '|']).rsplit('`').nth(1).unwrap();
        assert!(tests.contains(&format!("fn {name}(")), "there is no test {name}: {row}");
    }
}

#[test]
fn each_row_of_the_safety_table_in_the_readme_names_a_test() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| what can go wrong |").unwrap();
    let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() >= 22, "{rows:?}");
    for row in rows {
        let path = row.strip_suffix("` |").and_then(|row| row.rsplit('`').next()).unwrap_or_default();
        assert!(defines_test(path), "there is no test {path}: {row}");
    }
}

/// True if there is a test at this path, such as `pays::unpaid::a_price_above_the_rules_is_not_paid`.
pub fn defines_test(path: &str) -> bool {
    let Some((module, name)) = path.rsplit_once("::") else { return false };
    // Unit tests can be in the file of their module.
    let module = module.strip_suffix("::tests").unwrap_or(module).replace("::", "/");
    let places = ["src", "tests/suite"].map(|top| root().join(top).join(&module));
    rust_files("src").into_iter().chain(rust_files("tests/suite")).any(|path| {
        places.iter().any(|place| path.starts_with(place) || path == place.with_extension("rs"))
            && is_test(&fs::read_to_string(path).unwrap(), name)
    })
}

/// True if the text of a file defines a test with this name.
fn is_test(text: &str, name: &str) -> bool {
    text.split("#[test]\n").skip(1).chain(text.split("#[tokio::test").skip(1)).any(|rest| {
        let declaration = rest.lines().find(|line| line.contains("fn ")).unwrap_or_default();
        declaration.contains(&format!("fn {name}("))
    })
}

#[test]
fn one_of_each_stack_is_locked() {
    let packages = locked("Cargo.lock");
    for name in ["hyper", "http", "http-body", "hyper-util", "rustls", "tokio-rustls", "ring", "tokio"] {
        let versions = packages.get(name).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
    for name in
        ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls", "ethers", "ethers-providers"]
    {
        assert_eq!(packages.get(name), None, "{name} is in the tree");
    }
    let stray = packages.values().flatten().filter(|package| {
        package
            .source
            .as_deref()
            .is_some_and(|source| !source.starts_with("registry+https://github.com/rust-lang/"))
    });
    assert_eq!(stray.count(), 0);
}

#[test]
fn the_fuzzed_dependencies_are_the_shipped_ones() {
    let ours = locked("Cargo.lock");
    let theirs = locked("tests/fuzz/Cargo.lock");
    assert!(theirs.contains_key("tollpass") && theirs.contains_key("hyper"));
    for (name, versions) in theirs {
        // What is built with libFuzzer only is not shipped.
        let Some(ours) = ours.get(&name) else { continue };
        let is_same = versions.iter().all(|version| ours.contains(version));
        assert!(is_same, "{name}: see tests/fuzz/Cargo.toml on how to bring its Cargo.lock up to date");
    }
}

/// A file of the program.
struct Source {
    /// Below `src`.
    name: String,
    /// The top-level module.
    module: String,
    text: String,
    /// Without comments and tests.
    code: String,
}

/// A package as `Cargo.lock` has it.
#[derive(Debug, PartialEq)]
struct Package {
    version: String,
    source: Option<String>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let name = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
        let module = name.split(['/', '.']).next().unwrap().to_owned();
        let text = fs::read_to_string(path).unwrap();
        let lines = without_tests(&text).lines();
        let code = lines.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
        let code = code.collect::<Vec<_>>().join("\n");
        Self { name, module, text, code }
    }

    /// The text without its tests.
    fn shipped(&self) -> &str {
        without_tests(&self.text)
    }

    /// Each path into the program itself: `crate::a::b`, those in braces one by one.
    fn paths(&self) -> Vec<String> {
        // The program itself knows the library by its name.
        let begin = if self.module == "main" { "tollpass::" } else { "crate::" };
        self.code
            .match_indices(begin)
            .filter(|(at, _)| !self.code[..*at].ends_with(is_name))
            .flat_map(|(at, _)| expand(&self.code[at + begin.len()..]))
            .map(|path| format!("crate::{path}"))
            .collect()
    }

    /// True if the code contains a word.
    fn names(&self, word: &str) -> bool {
        has_word(&self.code, word)
    }
}

/// Unit tests are at the end of a file, or in a file of their own.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn has_word(text: &str, word: &str) -> bool {
    word_at(text, word).is_some()
}

fn word_at(text: &str, word: &str) -> Option<usize> {
    let is_whole = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    };
    text.match_indices(word).map(|(at, _)| at).find(|at| is_whole(*at))
}

/// The paths at the start of a text: one, or the members of a group.
fn expand(text: &str) -> Vec<String> {
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0;
        let mut members = vec![0];
        for (at, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => members.push(at + 1),
                _ => {}
            }
        }
        return members.into_iter().flat_map(|at| expand(group[at..].trim_start())).collect();
    }
    let end = text.find(|letter| !is_name(letter)).unwrap_or(text.len());
    let name = &text[..end];
    if name.is_empty() {
        return Vec::new();
    }
    match text[end..].strip_prefix("::") {
        Some(rest) => match expand(rest) {
            inner if inner.is_empty() => vec![name.to_owned()],
            inner => inner.into_iter().map(|inner| format!("{name}::{inner}")).collect(),
        },
        None => vec![name.to_owned()],
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn sources() -> impl Iterator<Item = Source> {
    let files = rust_files("src");
    let tests: BTreeSet<PathBuf> = files.iter().flat_map(|path| test_modules(path)).collect();
    // Also the modules below one for tests.
    let is_test = move |path: &Path| path.ancestors().any(|path| tests.contains(&path.with_extension("rs")));
    files.into_iter().filter(move |path| !is_test(path)).map(|path| Source::read(&path))
}

/// All Rust files below a directory, in order.
fn rust_files(directory: &str) -> Vec<PathBuf> {
    let mut directories = vec![root().join(directory)];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The files of the test-only modules that a file declares.
fn test_modules(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(path).unwrap();
    let directory =
        if path.ends_with("mod.rs") { path.parent().unwrap().to_owned() } else { path.with_extension("") };
    let names = text.split("#[cfg(test)]\nmod ").skip(1);
    let names = names.filter_map(|rest| rest.split_once(';').map(|(name, _)| name));
    names.filter(|name| name.chars().all(is_name)).map(|name| directory.join(format!("{name}.rs"))).collect()
}

fn locked(name: &str) -> BTreeMap<String, Vec<Package>> {
    let mut packages: BTreeMap<String, Vec<Package>> = BTreeMap::new();
    let lock = read(name);
    for block in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        let package = Package { version: value("version").unwrap(), source: value("source") };
        packages.entry(value("name").unwrap()).or_default().push(package);
    }
    packages
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn paths_are_found_in_groups() {
    let text = "{a::{self, b::C}, d,\n    e::F};";
    assert_eq!(expand(text), ["a::self", "a::b::C", "d", "e::F"]);
    assert_eq!(expand("chain::Chain>;"), ["chain::Chain"]);
}

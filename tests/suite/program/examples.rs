//! What `tollpass example` prints: that it parses, that it is a valid configuration, and that its paths and commands are there.
//! And the Dockerfile, as far as it can be checked without an engine.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use clap::Parser as _;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tollpass::cli::Arguments;
use tollpass::config::{Config, KeySource};
use yaml_rust2::{Yaml, YamlLoader};

use super::run;
use crate::support::payer::{Program, program};
use crate::support::raw::soon;

/// The user in the image.
const USER: i64 = 8402;

async fn printed(name: &str) -> String {
    let ran = run(&["example", name]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out
}

/// The variables in `environment`, for a service whose image sets those of the Dockerfile.
fn environment(more: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let dockerfile = include_str!("../../../Dockerfile");
    let mut variables = BTreeMap::new();
    for line in dockerfile.lines().map(|line| line.trim_start_matches("ENV").trim().trim_end_matches(" \\")) {
        if let Some((name, value)) = line.split_once('=').filter(|(name, _)| name.starts_with("TOLLPASS_")) {
            variables.insert(name.to_owned(), value.to_owned());
        }
    }
    assert_eq!(variables.len(), 2, "{variables:?}");
    variables.extend(more);
    variables
}

fn string(value: &Yaml) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value:?}")).to_owned()
}

fn strings(value: &Yaml) -> Vec<String> {
    value.as_vec().unwrap().iter().map(string).collect()
}

/// The words are a command line of tollpass.
fn is_command(words: &[String]) -> bool {
    words[0] == "tollpass" && Arguments::try_parse_from(words).is_ok()
}

#[tokio::test]
async fn the_compose_file_is_a_whole_configuration() {
    let text = printed("compose").await;
    let file = &YamlLoader::load_from_str(&text).unwrap()[0];
    let service = &file["services"]["tollpass"];
    let set = service["environment"].as_hash().unwrap().iter();
    // Compose reads $$ as $.
    let set = set.map(|(name, value)| (string(name), string(value).replace("$$", "$")));
    let config = Config::parse("", Path::new("/"), &environment(set)).unwrap();
    assert!(config.listen.ip().is_unspecified() && config.clients.len() == 1);
    assert_eq!(&config.names[..], ["tollpass"]);
    assert_eq!((config.policy.rules.len(), config.policy.budgets.len()), (1, 1));
    assert_eq!(config.state_dir, Path::new("/var/lib/tollpass"));
    // Each secret that it names is one, and is mounted.
    let mounted = strings(&service["secrets"]);
    for name in &mounted {
        assert!(file["secrets"][name.as_str()]["file"].as_str().is_some(), "{name}");
        assert!(text.contains(&format!(": /run/secrets/{name}\n")), "{name}");
    }
    assert_eq!(text.matches(": /run/secrets/").count(), mounted.len());
    assert_eq!(strings(&service["volumes"]), ["tollpass:/var/lib/tollpass"]);
    assert!(file["volumes"]["tollpass"] == Yaml::Null);
    let proxy = string(&file["services"]["app"]["environment"]["http_proxy"]);
    assert_eq!(proxy, format!("http://{}:${{TOKEN}}@tollpass:8402", config.clients[0].client.name));
}

#[tokio::test]
async fn the_kubernetes_file_is_a_sidecar_that_can_read_what_it_needs() {
    let text = printed("kubernetes").await;
    let documents = YamlLoader::load_from_str(&text).unwrap();
    let of = |kind: &str| documents.iter().find(|document| document["kind"].as_str() == Some(kind)).unwrap();
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    assert_eq!(
        of("Deployment")["spec"]["selector"]["matchLabels"]["app"],
        of("Deployment")["spec"]["template"]["metadata"]["labels"]["app"]
    );
    let named = |list: &'static str, name: &'static str| {
        let found = pod[list].as_vec().unwrap().iter().find(|one| one["name"].as_str() == Some(name));
        found.unwrap_or_else(|| panic!("{list} has no {name}"))
    };
    let proxy = named("initContainers", "tollpass");
    assert_eq!(proxy["restartPolicy"].as_str(), Some("Always"));
    let set = proxy["env"].as_vec().unwrap().iter().map(|one| (string(&one["name"]), string(&one["value"])));
    let config_map = string(&of("ConfigMap")["data"]["proxy.toml"]);
    let mut variables = environment(set);
    assert_eq!(variables.remove("TOLLPASS_CONFIG").as_deref(), Some("/etc/tollpass/proxy.toml"));
    let config = Config::parse(&config_map, Path::new("/etc/tollpass"), &variables).unwrap();
    assert_eq!((config.listen.to_string().as_str(), config.policy.rules.len()), ("127.0.0.1:8402", 1));
    assert!(config.intercept.covers("api.example.com", 443));

    // The key and the state are on volumes of the Pod.
    let mounts = proxy["volumeMounts"].as_vec().unwrap();
    let volume_at = |path: &Path| {
        let mount = mounts.iter().find(|one| path.starts_with(one["mountPath"].as_str().unwrap()));
        let mount = mount.unwrap_or_else(|| panic!("nothing is mounted for {}", path.display()));
        let name = mount["name"].as_str().unwrap();
        pod["volumes"].as_vec().unwrap().iter().find(|one| one["name"].as_str() == Some(name)).unwrap()
    };
    let KeySource::KeyFile(key) = config.wallet.unwrap().source else { panic!("it has no key file") };
    let secret = &volume_at(&key)["secret"];
    assert_eq!(secret["secretName"], of("Secret")["metadata"]["name"]);
    assert!(of("Secret")["stringData"][key.file_name().unwrap().to_str().unwrap()].as_str().is_some());
    // YAML 1.1, which Kubernetes reads, and 1.2 differ in how they write octal numbers.
    assert!(text.contains("defaultMode: 0440\n"));
    assert_eq!(pod["securityContext"]["fsGroup"].as_i64(), Some(USER));
    assert_eq!(proxy["securityContext"]["runAsUser"].as_i64(), Some(USER));
    let claim = &volume_at(&config.state_dir)["persistentVolumeClaim"];
    assert_eq!(claim["claimName"], of("PersistentVolumeClaim")["metadata"]["name"]);
    for path in ["/tmp/x", "/etc/tollpass/proxy.toml"] {
        volume_at(Path::new(path));
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert!(is_command(&strings(&proxy[probe]["exec"]["command"])), "{probe}");
    }
    let export = [vec!["tollpass".to_owned()], strings(&named("initContainers", "ca")["args"])].concat();
    assert!(is_command(&export), "{export:?}");
    let bundle = export.last().unwrap();
    for one in named("containers", "app")["env"].as_vec().unwrap() {
        let (name, value) = (string(&one["name"]), string(&one["value"]));
        let expected = match name.as_str() {
            "NODE_USE_ENV_PROXY" => "1",
            name if name.contains("CERT") || name.contains("BUNDLE") => bundle,
            _ => "127.0.0.1",
        };
        assert!(value.contains(expected), "{name}: {value}");
    }
}

#[tokio::test]
async fn systemd_accepts_the_unit() {
    let unit = printed("systemd").await;
    let command = "/usr/local/bin/tollpass serve --config /etc/tollpass/proxy.toml";
    let words: Vec<String> = command.replace("/usr/local/bin/", "").split(' ').map(str::to_owned).collect();
    assert!(unit.contains(&format!("ExecStart={command}\n")) && is_command(&words));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tollpass.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/tollpass", env!("CARGO_BIN_EXE_tollpass"))).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(&path).stdin(Stdio::null());
    let Ok(verified) = soon("systemd-analyze", verify.output()).await else {
        eprintln!("skipped: this machine has no systemd-analyze");
        return;
    };
    let told = String::from_utf8_lossy(&verified.stderr);
    // It only warns of unknown keys. What other units of the machine lack is not ours.
    let ours: Vec<&str> = told.lines().filter(|line| line.contains("tollpass")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{told}");
}

#[tokio::test]
async fn systemd_is_told_when_it_listens_and_when_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path);
    let proxy = Program::start(command).await;
    let next = async || {
        let mut text = vec![0; 1024];
        let length = soon("a message", socket.recv(&mut text)).await.unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    assert_eq!(next().await, "READY=1\n");
    proxy.terminate();
    assert_eq!(next().await, "STOPPING=1\n");
    assert_eq!(proxy.ended().await.0.code(), Some(0));

    // A service manager that is gone changes nothing.
    drop(socket);
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path);
    let proxy = Program::start(command).await;
    proxy.terminate();
    let (status, log) = proxy.ended().await;
    assert!(status.code() == Some(0) && log.contains("NOTIFY_SOCKET"), "{log}");
}

#[test]
fn the_dockerfile_checks_the_health_with_a_command_and_has_a_numeric_user() {
    let file = include_str!("../../../Dockerfile");
    let json = |start: &str| -> Vec<String> {
        let line = file.lines().find(|line| line.starts_with(start)).unwrap();
        serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
    };
    assert!(is_command(&json("HEALTHCHECK ")));
    assert!(is_command(&[json("ENTRYPOINT "), json("CMD ")].concat()));
    assert!(file.contains(&format!("\nUSER {USER}:{USER}\n")));
    assert!(file.contains(concat!("\nARG VERSION=", env!("CARGO_PKG_VERSION"), "\n")));
    // Each base has an exact version.
    for line in file.lines().filter(|line| line.starts_with("FROM ")) {
        let name = line["FROM ${".len()..].split('}').next().unwrap();
        let base = file.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}="))).unwrap();
        let (_, tag) = base.split_once(':').unwrap();
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()) && tag.contains('.'), "{base}");
    }
}

/// Cargo accepts the manifest with the empty sources of the layer for dependencies: all targets have their files.
#[tokio::test]
async fn the_dockerfile_makes_all_sources_that_the_manifest_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let steps: String = include_str!("../../../Dockerfile")
        .split_once("RUN mkdir -p src")
        .map(|(_, rest)| format!("mkdir -p src{}", rest.split_once("&& cargo build").unwrap().0))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    for name in ["Cargo.toml", "Cargo.lock"] {
        std::fs::copy(root.join(name), directory.path().join(name)).unwrap();
    }
    let script = format!(
        "{} && cargo metadata --no-deps --offline --locked --format-version 1",
        steps.trim_end_matches(" \\\n    ")
    );
    let mut shell = Command::new("sh");
    shell.args(["-ec", &script]).current_dir(directory.path()).stdin(Stdio::null());
    let ran = soon("cargo metadata", shell.output()).await.unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(
        ran.stdout.split(|byte| *byte == b'\n').rfind(|line| line.starts_with(b"{")).unwrap(),
    )
    .unwrap();
    for target in metadata["packages"][0]["targets"].as_array().unwrap() {
        let path = target["src_path"].as_str().unwrap();
        assert!(Path::new(path).exists(), "the Dockerfile does not make {path}");
    }
}

//! Prints the commands that make a system or a program trust the CA, and those that undo it. Changes nothing.

use std::fs;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::cli::output::quoted;
use crate::tls::Authority;

/// A system, or a program with its own trust store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum System {
    /// Debian, Ubuntu and derivatives
    Debian,
    /// Fedora, Red Hat and derivatives
    Fedora,
    /// Arch Linux and derivatives
    Arch,
    /// Alpine Linux
    Alpine,
    /// openSUSE and derivatives
    Suse,
    /// macOS
    Macos,
    /// Windows
    Windows,
    /// Firefox on Linux
    Firefox,
    /// Chrome and Chromium on Linux
    Chrome,
    /// Java
    Java,
    /// Node.js
    Node,
    /// Python
    Python,
    /// curl
    Curl,
    /// GNU Wget
    Wget,
    /// git
    Git,
    /// Programs that read SSL_CERT_FILE: Go, Ruby, and those that use OpenSSL
    Openssl,
}

/// How to trust the CA on one system, and how to undo that.
struct Recipe {
    title: &'static str,
    trust: String,
    undo: String,
}

/// The values that recipes insert, quoted for a shell.
struct Parts {
    /// The path of the certificate.
    certificate: String,
    /// A name that identifies this CA among others.
    name: String,
    /// The CA's common name.
    subject: String,
    /// The path for a bundle of the system's roots and this CA.
    bundle: String,
    /// The command that writes the bundle.
    export: String,
}

/// The instructions for `systems`, or for this system. `options` are those of `tollpass ca` that select the CA.
pub(super) fn text(authority: &Authority, systems: &[System], options: &str) -> anyhow::Result<String> {
    let parts = Parts::of(authority, options)?;
    let own = own_system();
    let chosen = if systems.is_empty() { own.as_slice() } else { systems };
    let mut text = format!(
        "Anything that trusts this CA will accept any certificate it signs. Its key is in {}: trust it only where \
         no one else can read that file.\n",
        authority.key_path().display()
    );
    if chosen.is_empty() {
        text += "\nUnknown system: look up how to add a root certificate.\n";
    }
    for system in chosen {
        let Recipe { title, trust, undo } = parts.recipe(*system);
        text += &format!("\n{title}\n\n  trust it:\n{}\n  undo it:\n{}", indented(&trust), indented(&undo));
    }
    if systems.is_empty() {
        let others = System::value_variants().iter().filter(|system| !chosen.contains(system));
        let names: Vec<_> =
            others.filter_map(|system| Some(system.to_possible_value()?.get_name().to_owned())).collect();
        text += &format!(
            "\nSome programs ignore the system's roots. For these, `tollpass ca trust{options} --system NAME` supports: {}.\n\
             `tollpass run -- COMMAND` sets the variables for one command.\n",
            names.join(", ")
        );
    }
    Ok(text)
}

impl Parts {
    fn of(authority: &Authority, options: &str) -> anyhow::Result<Self> {
        let path = std::path::absolute(authority.path())?;
        let directory = path.parent().context("the CA's certificate has no parent directory")?;
        let bundle = quoted(&directory.join("ca-bundle.pem").to_string_lossy());
        let mark: String = authority.fingerprint().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            certificate: quoted(&path.to_string_lossy()),
            name: format!("tollpass-{mark}"),
            subject: quoted(authority.common_name()),
            export: format!("tollpass ca export{options} --format bundle --out {bundle}"),
            bundle,
        })
    }

    fn recipe(&self, system: System) -> Recipe {
        let Self { certificate, name, subject, .. } = self;
        let anchors = |directory: &str, ending: &str, update: &str, again: &str| {
            let anchor = format!("{directory}/{name}.{ending}");
            let trust = format!("sudo install -m 644 {certificate} {anchor}\nsudo {update}");
            (trust, format!("sudo rm {anchor}\nsudo {again}"))
        };
        let (title, (trust, undo)) = match system {
            System::Debian => {
                let again = "update-ca-certificates --fresh";
                let directory = "/usr/local/share/ca-certificates";
                ("Debian, Ubuntu", anchors(directory, "crt", "update-ca-certificates", again))
            }
            System::Fedora => {
                let update = "update-ca-trust";
                ("Fedora, Red Hat", anchors("/etc/pki/ca-trust/source/anchors", "pem", update, update))
            }
            System::Arch => {
                let store = |option| format!("sudo trust anchor {option} {certificate}");
                ("Arch Linux", (store("--store"), store("--remove")))
            }
            System::Alpine => {
                let trust = format!(
                    "install -m 644 {certificate} /usr/local/share/ca-certificates/{name}.crt\nupdate-ca-certificates"
                );
                let undo =
                    format!("rm /usr/local/share/ca-certificates/{name}.crt\nupdate-ca-certificates --fresh");
                ("Alpine Linux, as root", (trust, undo))
            }
            System::Suse => {
                let update = "update-ca-certificates";
                ("openSUSE", anchors("/etc/pki/trust/anchors", "pem", update, update))
            }
            System::Macos => {
                let keychain = "~/Library/Keychains/login.keychain-db";
                let trust =
                    format!("security add-trusted-cert -r trustRoot -p ssl -k {keychain} {certificate}");
                let undo = format!(
                    "security remove-trusted-cert {certificate}\nsecurity delete-certificate -c {subject} {keychain}"
                );
                ("macOS, for this user", (trust, undo))
            }
            System::Windows => {
                let subject = subject.replace('\'', "\"");
                let trust = "certutil -user -addstore Root ca.pem".to_owned();
                let title = "Windows, for this user, with the certificate copied there as ca.pem";
                (title, (trust, format!("certutil -user -delstore Root {subject}")))
            }
            System::Firefox | System::Chrome | System::Java => self.with_a_store(system),
            System::Node | System::Python | System::Curl | System::Wget | System::Git | System::Openssl => {
                self.with_a_setting(system)
            }
        };
        Recipe { title, trust, undo }
    }

    /// Programs with a certificate store.
    fn with_a_store(&self, system: System) -> (&'static str, (String, String)) {
        let Self { certificate, name, .. } = self;
        match system {
            System::Chrome => {
                let store = "-d \"sql:$HOME/.pki/nssdb\"";
                let make = format!(
                    "mkdir -p ~/.pki/nssdb\n[ -e ~/.pki/nssdb/cert9.db ] || certutil {store} -N --empty-password"
                );
                let trust = format!("{make}\ncertutil {store} -A -t C,, -n {name} -i {certificate}");
                let title = "Chrome and Chromium on Linux (certutil is in libnss3-tools or nss-tools)";
                (title, (trust, format!("certutil {store} -D -n {name}")))
            }
            System::Java => {
                let store = format!("-alias {name} -cacerts -storepass changeit");
                let trust = format!("sudo keytool -importcert -noprompt -file {certificate} {store}");
                ("Java", (trust, format!("sudo keytool -delete {store}")))
            }
            _ => {
                let each = |what: String| {
                    format!(
                        "for profile in ~/.mozilla/firefox/*/ ~/snap/firefox/common/.mozilla/firefox/*/; do\n  \
                         [ -e \"${{profile}}cert9.db\" ] && certutil -d \"sql:$profile\" {what}\ndone"
                    )
                };
                let trust = each(format!("-A -t C,, -n {name} -i {certificate}"));
                let title = "Firefox on Linux, closed (certutil is in libnss3-tools or nss-tools)";
                (title, (trust, each(format!("-D -n {name}"))))
            }
        }
    }

    /// Programs that take root certificates from a variable or a setting.
    fn with_a_setting(&self, system: System) -> (&'static str, (String, String)) {
        let Self { certificate, bundle, export, .. } = self;
        let variables = |names: &[&str]| {
            let set: Vec<_> = names.iter().map(|name| format!("export {name}={bundle}")).collect();
            (format!("{export}\n{}", set.join("\n")), format!("unset {}\nrm {bundle}", names.join(" ")))
        };
        match system {
            System::Node => {
                let trust = format!("export NODE_EXTRA_CA_CERTS={certificate}");
                ("Node.js", (trust, "unset NODE_EXTRA_CA_CERTS".to_owned()))
            }
            System::Python => ("Python: requests, httpx, aiohttp, pip", {
                variables(&["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
            }),
            System::Curl => ("curl", variables(&["CURL_CA_BUNDLE"])),
            System::Wget => {
                let trust = format!("{export}\necho ca_certificate={bundle} >> ~/.wgetrc");
                (
                    "GNU Wget",
                    (trust, format!("sed -i '/^ca_certificate=.*ca-bundle.pem/d' ~/.wgetrc\nrm {bundle}")),
                )
            }
            System::Git => {
                let trust = format!("{export}\ngit config --global http.sslCAInfo {bundle}");
                ("git", (trust, format!("git config --global --unset http.sslCAInfo\nrm {bundle}")))
            }
            _ => ("Go, Ruby, and programs that use OpenSSL", variables(&["SSL_CERT_FILE"])),
        }
    }
}

/// The system that tollpass runs on, if it is supported.
fn own_system() -> Vec<System> {
    if cfg!(target_os = "macos") {
        return vec![System::Macos];
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    named_in(&release).into_iter().collect()
}

/// The system named by os-release(5), in `ID` or `ID_LIKE`.
fn named_in(release: &str) -> Option<System> {
    let value = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\''])
    };
    value("ID").split(' ').chain(value("ID_LIKE").split(' ')).find_map(|name| match name {
        "debian" | "ubuntu" => Some(System::Debian),
        "fedora" | "rhel" | "centos" | "amzn" => Some(System::Fedora),
        "arch" => Some(System::Arch),
        "alpine" => Some(System::Alpine),
        "suse" | "opensuse" | "sles" => Some(System::Suse),
        _ => None,
    })
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use crate::cli::ca::trust::*;

    #[test]
    fn each_system_can_be_trusted_and_undone() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("it's here");
        let authority = Authority::open(&home, &[]).unwrap();
        let path = quoted(&home.join("ca.pem").to_string_lossy());
        assert!(path.contains(r"'\''"), "{path}");
        for system in System::value_variants() {
            let text = text(&authority, &[*system], " --state-dir x").unwrap();
            let (trust, undo) = text.split_once("undo it:").unwrap();
            assert!(trust.contains("trust it:") && undo.lines().count() > 1, "{text}");
            let names_it = trust.contains(&path) || trust.contains("tollpass ca export --state-dir x");
            assert!(names_it || *system == System::Windows, "{text}");
            // No option that switches verification off.
            for word in ["insecure", "-k ca", "verify", "REJECT_UNAUTHORIZED", "no-check"] {
                assert!(!text.contains(word), "{text}");
            }
        }
    }

    #[test]
    fn the_system_is_known_by_its_release() {
        for (release, system) in [
            ("NAME=x\nID=debian\n", Some(System::Debian)),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Some(System::Debian)),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Some(System::Fedora)),
            ("ID=manjaro\nID_LIKE=arch\n", Some(System::Arch)),
            ("ID=alpine\n", Some(System::Alpine)),
            ("ID='opensuse-leap'\nID_LIKE='suse opensuse'\n", Some(System::Suse)),
            ("ID=plan9\n", None),
            ("", None),
        ] {
            assert_eq!(named_in(release), system, "{release}");
        }
    }

    #[test]
    fn words_of_a_shell_are_one_word() {
        for (text, word) in [("/a/b.pem", "/a/b.pem"), ("", "''"), ("a b", "'a b'"), ("a'b$", r"'a'\''b$'")] {
            assert_eq!(quoted(text), word);
        }
    }
}

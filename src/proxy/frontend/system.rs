//! Instructions for each operating system: how all of its programs use the proxy and trust its CA, and how to undo that.
//! Both pages render them.

use serde::Serialize;

/// One operating system.
#[derive(Debug, Serialize)]
pub(super) struct SystemAdvice {
    pub(super) system: &'static str,
    pub(super) steps: Vec<SetupStep>,
    pub(super) undo: Vec<SetupStep>,
}

/// One step.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SetupStep {
    /// In words.
    Do(String),
    /// As commands, one on each line.
    Run(String),
}

/// How a client reaches the proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReachedProxy<'a> {
    /// Its URL.
    pub(super) url: &'a str,
    /// Whether it intercepts HTTPS, so that its CA has to be trusted.
    pub(super) intercepts: bool,
    /// Whether other machines can connect to it.
    pub(super) is_shared: bool,
}

/// The note for devices on which tollpass itself does not run.
const NOT_SHARED: &str = "The proxy listens on this machine only, which the device does not reach. Set listen to the address of \
                          this machine in the network, allow_remote = true, and a [[client]] for the device.";
const SHARED: &str = "The device needs the name and token of a [[client]], which it asks for.";

/// Instructions for each system.
pub(super) fn advice(proxy: ReachedProxy<'_>) -> Vec<SystemAdvice> {
    vec![linux(proxy), macos(proxy), windows(proxy), ios(proxy), android(proxy)]
}

fn run(commands: &[String]) -> SetupStep {
    SetupStep::Run(commands.join("\n"))
}

fn say(text: impl Into<String>) -> SetupStep {
    SetupStep::Do(text.into())
}

/// The steps, those about the CA only if there is one.
fn steps(proxy: ReachedProxy<'_>, always: Vec<SetupStep>, of_ca: Vec<SetupStep>) -> Vec<SetupStep> {
    always.into_iter().chain(of_ca.into_iter().filter(|_| proxy.intercepts)).collect()
}

fn linux(proxy: ReachedProxy<'_>) -> SystemAdvice {
    let ReachedProxy { url, .. } = proxy;
    let set = run(&[
        format!("gsettings set org.gnome.system.proxy autoconfig-url {url}/proxy.pac"),
        "gsettings set org.gnome.system.proxy mode auto".to_owned(),
    ]);
    let anchor = "/usr/local/share/ca-certificates/tollpass.crt";
    let fedora_anchor = "/etc/pki/ca-trust/source/anchors/tollpass.pem";
    let debian = run(&[
        format!("curl -fsS {url}/ca.pem | sudo tee {anchor}"),
        "sudo update-ca-certificates".to_owned(),
    ]);
    let fedora = run(&[
        format!("curl -fsS {url}/ca.pem | sudo tee {fedora_anchor}"),
        "sudo update-ca-trust".to_owned(),
    ]);
    let always = vec![say("For browsers, with GNOME; KDE has the same in its network settings:"), set];
    let of_ca = vec![
        say("Trust the CA with Debian or Ubuntu:"),
        debian,
        say("With Fedora or Red Hat:"),
        fedora,
        say(
            "Chrome and Firefox have stores of their own: `tollpass ca trust --system chrome,firefox` prints the commands.",
        ),
    ];
    let undo = steps(
        proxy,
        vec![run(&["gsettings set org.gnome.system.proxy mode none".to_owned()])],
        vec![
            say("With Debian or Ubuntu:"),
            run(&[format!("sudo rm {anchor}"), "sudo update-ca-certificates --fresh".to_owned()]),
            say("With Fedora or Red Hat:"),
            run(&[format!("sudo rm {fedora_anchor}"), "sudo update-ca-trust".to_owned()]),
            say(
                "From Chrome and Firefox: `tollpass ca trust --system chrome,firefox` prints how to undo it, too.",
            ),
        ],
    );
    SystemAdvice { system: "Linux", steps: steps(proxy, always, of_ca), undo }
}

fn macos(proxy: ReachedProxy<'_>) -> SystemAdvice {
    let ReachedProxy { url, .. } = proxy;
    let keychain = "~/Library/Keychains/login.keychain-db";
    let always = vec![
        say("For browsers and most programs on Wi-Fi:"),
        run(&[format!("networksetup -setautoproxyurl Wi-Fi {url}/proxy.pac")]),
    ];
    let of_ca = vec![
        say("Trust the CA, for this user:"),
        run(&[
            format!("curl -fsS -o tollpass-ca.pem {url}/ca.pem"),
            format!("security add-trusted-cert -r trustRoot -p ssl -k {keychain} tollpass-ca.pem"),
        ]),
    ];
    let undo = steps(
        proxy,
        vec![run(&["networksetup -setautoproxystate Wi-Fi off".to_owned()])],
        vec![run(&[
            "security remove-trusted-cert tollpass-ca.pem".to_owned(),
            // By its fingerprint: other CAs of tollpass may be there.
            format!(
                "security delete-certificate -Z \"$(openssl x509 -in tollpass-ca.pem -noout -fingerprint -sha1 | \
                 sed 's/.*=//' | tr -d :)\" {keychain}"
            ),
        ])],
    );
    SystemAdvice { system: "macOS", steps: steps(proxy, always, of_ca), undo }
}

fn windows(proxy: ReachedProxy<'_>) -> SystemAdvice {
    let ReachedProxy { url, .. } = proxy;
    let settings = r#""HKCU:\Software\Microsoft\Windows\CurrentVersion\Internet Settings""#;
    let always = vec![
        say(
            "tollpass does not run on Windows itself. With WSL, Windows reaches it at the same address; else at that of its machine.",
        ),
        say("For browsers and most programs, in PowerShell:"),
        run(&[format!("Set-ItemProperty {settings} AutoConfigURL \"{url}/proxy.pac\"")]),
    ];
    let of_ca = vec![
        say("Trust the CA, for this user:"),
        run(&[
            format!("curl.exe -fsS -o tollpass-ca.crt {url}/ca.crt"),
            "certutil -user -addstore Root tollpass-ca.crt".to_owned(),
        ]),
    ];
    let undo = steps(
        proxy,
        vec![run(&[format!("Remove-ItemProperty {settings} AutoConfigURL")])],
        vec![say("Remove the CA: certmgr.msc, Trusted Root Certification Authorities, tollpass local CA.")],
    );
    SystemAdvice { system: "Windows", steps: steps(proxy, always, of_ca), undo }
}

/// What a device has to know first.
fn of_device(proxy: ReachedProxy<'_>) -> SetupStep {
    say(if proxy.is_shared { SHARED } else { NOT_SHARED })
}

fn ios(proxy: ReachedProxy<'_>) -> SystemAdvice {
    let ReachedProxy { url, .. } = proxy;
    let always = vec![
        of_device(proxy),
        say("Settings, Wi-Fi, the i beside the network, Configure Proxy, Automatic, and this as the URL:"),
        run(&[format!("{url}/proxy.pac")]),
    ];
    let of_ca = vec![
        say("Open this in Safari, and allow it to download the profile:"),
        run(&[format!("{url}/ca.crt")]),
        say(
            "Settings, General, VPN & Device Management: install the profile. Then Settings, General, About, Certificate \
             Trust Settings: switch on tollpass local CA.",
        ),
    ];
    let undo = steps(
        proxy,
        vec![say("Settings, Wi-Fi, the i beside the network, Configure Proxy, Off.")],
        vec![say("Settings, General, VPN & Device Management: remove the profile.")],
    );
    SystemAdvice { system: "iOS and iPadOS", steps: steps(proxy, always, of_ca), undo }
}

fn android(proxy: ReachedProxy<'_>) -> SystemAdvice {
    let ReachedProxy { url, .. } = proxy;
    let always = vec![
        of_device(proxy),
        say(
            "Settings, Network & internet, Wi-Fi, the network, Edit, Advanced options, Proxy, Proxy auto-config, and this as \
             the PAC URL:",
        ),
        run(&[format!("{url}/proxy.pac")]),
    ];
    let of_ca = vec![
        say("Download this:"),
        run(&[format!("{url}/ca.crt")]),
        say(
            "Settings, Security & privacy, More, Encryption & credentials, Install a certificate, CA certificate. Chrome \
             trusts it then; other apps only if they choose to.",
        ),
    ];
    let undo = steps(
        proxy,
        vec![say("The same settings of the network: Proxy, None.")],
        vec![say("Encryption & credentials, Trusted credentials, User: remove the CA.")],
    );
    SystemAdvice { system: "Android", steps: steps(proxy, always, of_ca), undo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_is_told_how_and_how_to_undo_it_and_of_the_ca_only_if_there_is_one() {
        for (intercepts, is_shared) in [(true, true), (false, false)] {
            let url = "http://127.0.0.1:8402";
            for advice in advice(ReachedProxy { url, intercepts, is_shared }) {
                let text = format!("{advice:?}");
                assert!(text.contains("http://127.0.0.1:8402/proxy.pac"), "{text}");
                assert!(!advice.undo.is_empty(), "{text}");
                assert_eq!(text.contains("/ca."), intercepts, "{text}");
                assert!(!text.contains("-k ") || text.contains("-k ~/Library"), "{text}");
                let undo = format!("{:?}", advice.undo);
                let removed: &[&str] = match advice.system {
                    "Linux" => &[
                        "sudo rm /usr/local/share/ca-certificates/tollpass.crt\\nsudo update-ca-certificates",
                        "sudo rm /etc/pki/ca-trust/source/anchors/tollpass.pem\\nsudo update-ca-trust",
                        "ca trust --system chrome,firefox",
                    ],
                    "macOS" => &[
                        "remove-trusted-cert",
                        "delete-certificate",
                        "~/Library/Keychains/login.keychain-db",
                    ],
                    _ => &[],
                };
                for what in removed {
                    assert_eq!(undo.contains(what), intercepts, "{what} is not as it should be in {undo}");
                }
            }
        }
    }
}

//! Instructions for each program: how to use the proxy, trust its CA, and undo that. The page renders them.

use serde::Serialize;

/// One program.
#[derive(Debug, Serialize)]
pub(super) struct SetupAdvice {
    pub(super) program: &'static str,
    /// The commands, if any.
    pub(super) commands: Vec<String>,
    pub(super) notes: &'static str,
    pub(super) undo: &'static str,
}

/// The command that writes a file with the system's roots and our CA.
pub(super) const BUNDLE: &str = "tollpass ca export --format bundle --out bundle.pem";

/// Instructions for each program, for a proxy with this URL.
pub(super) fn advice(proxy: &str, intercepts: bool) -> Vec<SetupAdvice> {
    let trusting = |text: &str| if intercepts { text.to_owned() } else { String::new() };
    let with = |command: &str, trust: &str| format!("{command}{}", trusting(trust));
    vec![
        SetupAdvice {
            program: "One program",
            commands: vec!["tollpass run -- COMMAND".to_owned()],
            notes: "Sets everything the command needs.",
            undo: "Nothing to undo.",
        },
        SetupAdvice {
            program: "A shell",
            commands: vec!["eval \"$(tollpass env)\"".to_owned()],
            notes: "Applies to every program started from this shell.",
            undo: "eval \"$(tollpass env --unset)\", or close the shell.",
        },
        SetupAdvice {
            program: "curl",
            commands: vec![with(&format!("curl -x {proxy}"), " --cacert bundle.pem") + " URL"],
            notes: "",
            undo: "Drop these options.",
        },
        SetupAdvice {
            program: "wget",
            commands: vec![
                with(
                    &format!("wget -e use_proxy=yes -e http_proxy={proxy} -e https_proxy={proxy}"),
                    " --ca-certificate=bundle.pem",
                ) + " URL",
            ],
            notes: "",
            undo: "Drop these options.",
        },
        SetupAdvice {
            program: "Python (requests, httpx, aiohttp)",
            commands: vec![
                with(
                    &format!("HTTP_PROXY={proxy} HTTPS_PROXY={proxy}"),
                    " SSL_CERT_FILE=bundle.pem REQUESTS_CA_BUNDLE=bundle.pem",
                ) + " python PROGRAM",
            ],
            notes: "aiohttp needs ClientSession(trust_env=True).",
            undo: "Drop these variables.",
        },
        SetupAdvice {
            program: "Node",
            commands: vec![
                with(
                    &format!("NODE_USE_ENV_PROXY=1 HTTP_PROXY={proxy} HTTPS_PROXY={proxy}"),
                    " NODE_EXTRA_CA_CERTS=ca.pem",
                ) + " node PROGRAM",
            ],
            notes: "Node 24, or 22.21 and later.",
            undo: "Drop these variables.",
        },
        SetupAdvice {
            program: "git",
            commands: [
                format!("git config --global http.proxy {proxy}"),
                trusting("git config --global http.sslCAInfo /PATH/TO/bundle.pem"),
            ]
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect(),
            notes: "",
            undo: "The same commands with --unset instead of the value.",
        },
        SetupAdvice {
            program: "Firefox",
            commands: Vec::new(),
            notes: if intercepts {
                "Settings, Network Settings, Automatic proxy configuration URL: the address of the PAC file. Settings, \
                 Certificates, View Certificates, Authorities, Import: ca.crt, to identify websites."
            } else {
                "Settings, Network Settings, Automatic proxy configuration URL: the address of the PAC file."
            },
            undo: "Restore the previous proxy setting; delete the authority from the same list.",
        },
        SetupAdvice {
            program: "Chrome, Chromium, Edge, Safari",
            commands: vec![format!("chromium --proxy-pac-url={proxy}/proxy.pac")],
            notes: if intercepts {
                "Or enter the address of the PAC file in the system's proxy settings. These browsers use the system's trust store: \
                 see `tollpass ca trust`."
            } else {
                "Or enter the address of the PAC file in the system's proxy settings."
            },
            undo: "Remove the address; `tollpass ca trust` explains how to remove the CA, too.",
        },
    ]
}

//! What to do per program, so that it goes through the proxy and trusts it, and how to undo that. Text only: how it is
//! shown is the page's affair.

/// One program.
pub(super) struct Advice {
    pub(super) program: &'static str,
    /// What to type; empty where there is nothing to type.
    pub(super) commands: Vec<String>,
    pub(super) notes: &'static str,
    pub(super) undo: &'static str,
}

/// How to make the file that holds the system's roots and ours.
pub(super) const BUNDLE: &str = "tollpass ca export --format bundle --out bundle.pem";

/// What to do, where the proxy is at `address` and intercepts or not.
pub(super) fn advice(address: &str, intercepts: bool) -> Vec<Advice> {
    let proxy = format!("http://{address}");
    let trusting = |text: &str| if intercepts { text.to_owned() } else { String::new() };
    let with = |command: &str, trust: &str| format!("{command}{}", trusting(trust));
    vec![
        Advice {
            program: "One program",
            commands: vec!["tollpass run -- COMMAND".to_owned()],
            notes: "Starts it with all that it needs.",
            undo: "Nothing is left behind.",
        },
        Advice {
            program: "A shell",
            commands: vec!["eval \"$(tollpass env)\"".to_owned()],
            notes: "For everything that is started from it.",
            undo: "eval \"$(tollpass env --unset)\", or close it.",
        },
        Advice {
            program: "curl",
            commands: vec![with(&format!("curl -x {proxy}"), " --cacert bundle.pem") + " URL"],
            notes: "",
            undo: "Drop these options.",
        },
        Advice {
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
        Advice {
            program: "Python (requests, httpx, aiohttp)",
            commands: vec![
                with(
                    &format!("HTTP_PROXY={proxy} HTTPS_PROXY={proxy}"),
                    " SSL_CERT_FILE=bundle.pem REQUESTS_CA_BUNDLE=bundle.pem",
                ) + " python PROGRAM",
            ],
            notes: "aiohttp looks at them with ClientSession(trust_env=True) only.",
            undo: "Leave the variables out.",
        },
        Advice {
            program: "Node",
            commands: vec![
                with(
                    &format!("NODE_USE_ENV_PROXY=1 HTTP_PROXY={proxy} HTTPS_PROXY={proxy}"),
                    " NODE_EXTRA_CA_CERTS=ca.pem",
                ) + " node PROGRAM",
            ],
            notes: "Node 24, or 22.21 and later.",
            undo: "Leave the variables out.",
        },
        Advice {
            program: "git",
            commands: [
                format!("git config --global http.proxy {proxy}"),
                trusting("git config --global http.sslCAInfo /PATH/TO/bundle.pem"),
            ]
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect(),
            notes: "",
            undo: "The same two commands with --unset in place of the value.",
        },
        Advice {
            program: "Firefox",
            commands: Vec::new(),
            notes: if intercepts {
                "Settings, Network Settings, Automatic proxy configuration URL: the address of the PAC file. Settings, \
                 Certificates, View Certificates, Authorities, Import: ca.crt, to identify websites."
            } else {
                "Settings, Network Settings, Automatic proxy configuration URL: the address of the PAC file."
            },
            undo: "Choose the former proxy setting again; delete the authority in the same list.",
        },
        Advice {
            program: "Chrome, Chromium, Edge, Safari",
            commands: vec![format!("chromium --proxy-pac-url={proxy}/proxy.pac")],
            notes: if intercepts {
                "Or give the system's proxy settings the address of the PAC file. They trust what the system trusts: \
                 `tollpass ca trust` says how, for each system."
            } else {
                "Or give the system's proxy settings the address of the PAC file."
            },
            undo: "Take the address out again; `tollpass ca trust` also says how to undo the trust.",
        },
    ]
}

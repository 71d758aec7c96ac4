//! The examples in the help of each subcommand. They stand in one table; a test parses each of them.

use clap::Command;

/// The path of a subcommand, and what its users type, with a remark.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "run",
        &[
            ("tollpass run -- curl https://api.example.com/x", "prints what it cost"),
            ("tollpass run --budget \"1 USDC\" --for 1h -- ./agent", "and never more than that"),
            ("tollpass run --quiet --report cost.json -- python3 job.py", "the report as JSON"),
        ],
    ),
    (
        "serve",
        &[
            ("tollpass serve", "with the default configuration"),
            ("tollpass --config ~/other/proxy.toml serve --listen 8403", "another one, on 127.0.0.1:8403"),
            ("tollpass serve --dry-run", "signs nothing, and says what it would have cost"),
        ],
    ),
    (
        "report",
        &[
            ("tollpass report", "within `tollpass run`"),
            ("tollpass report --end --json", "pay nothing more for this run"),
        ],
    ),
    (
        "env",
        &[
            ("eval \"$(tollpass env)\"", "sh, bash, zsh"),
            ("tollpass env --shell fish | source", "fish"),
            ("eval \"$(tollpass env --unset)\"", "undo it"),
        ],
    ),
    (
        "init",
        &[
            ("tollpass init --pay api.example.com", "in the default directory"),
            ("tollpass init --dir ~/tollpass --password-file ~/password", "elsewhere, without a prompt"),
        ],
    ),
    (
        "inspect",
        &[
            ("tollpass inspect https://api.example.com/x", "what it costs"),
            ("tollpass inspect --method POST --json https://api.example.com/x", "for scripts"),
        ],
    ),
    (
        "pending",
        &[("tollpass pending", "the payments that wait"), ("tollpass pending --json", "for scripts")],
    ),
    (
        "approve",
        &[
            ("tollpass approve 3", "the payment with the ID 3"),
            ("tollpass approve 3 --always --for 7d", "and others like it for a week"),
        ],
    ),
    ("deny", &[("tollpass deny 3", "the payment with the ID 3")]),
    (
        "approvals",
        &[
            ("tollpass approvals", "what is approved in advance"),
            ("tollpass approvals revoke 2", "end the one with the ID 2"),
        ],
    ),
    (
        "approve-token",
        &[
            ("tollpass approve-token USDT --network eip155:1 --show", "what Permit2 may move"),
            ("tollpass approve-token USDT --network eip155:1 \"20 USDT\"", "let it move 20"),
        ],
    ),
    (
        "channels",
        &[
            ("tollpass channels", "list all channels"),
            ("tollpass channels close --all", "pay out all deposits, together with the sellers"),
        ],
    ),
    (
        "ledger",
        &[
            ("tollpass ledger --since 7d", "the payments of a week"),
            ("tollpass ledger --by host", "sums for each host"),
            ("tollpass ledger --csv", "for a spreadsheet"),
        ],
    ),
    ("budget", &[("tollpass budget", "what is spent and left"), ("tollpass budget --json", "for scripts")]),
    ("status", &[("tollpass status", "whether the proxy pays"), ("tollpass status --json", "for scripts")]),
    (
        "dashboard",
        &[
            ("tollpass dashboard", "then open the link that it prints"),
            ("tollpass dashboard --json", "for scripts"),
        ],
    ),
    ("freeze", &[("tollpass freeze", "sign nothing from now on")]),
    ("thaw", &[("tollpass thaw", "sign again")]),
    (
        "resume",
        &[("tollpass resume", "list the paused hosts"), ("tollpass resume api.example.com", "pay it again")],
    ),
    (
        "reload",
        &[
            ("tollpass reload", "after a change of the configuration"),
            ("tollpass reload --json", "what has changed, for scripts"),
        ],
    ),
    (
        "ca",
        &[
            ("tollpass ca", "what it is, and what trusts it"),
            ("tollpass ca trust --system firefox,java", "the commands for these"),
            ("tollpass ca export --out ca.pem", "the certificate"),
        ],
    ),
    #[cfg(feature = "mcp")]
    ("mcp", &[("tollpass mcp --budget \"1 USDC\"", "the command of a server in the agent's configuration")]),
    (
        "healthcheck",
        &[
            ("tollpass healthcheck", "whether it serves, as in a Dockerfile"),
            ("tollpass healthcheck --ready --timeout 2s", "whether it can pay"),
        ],
    ),
    (
        "example",
        &[
            ("tollpass example compose > compose.yaml", "beside an application"),
            ("tollpass example systemd > /etc/systemd/system/tollpass.service", "as a service"),
        ],
    ),
    (
        "check",
        &[("tollpass check", "everything that payments depend on"), ("tollpass check --json", "for scripts")],
    ),
    ("config schema", &[("tollpass config schema", "a JSON Schema, for editors")]),
    (
        "config show",
        &[
            ("tollpass config show", "what is set, and where"),
            ("tollpass config show --all --json", "with all defaults, for scripts"),
        ],
    ),
    (
        "config set",
        &[
            ("tollpass config set listen 8403", "127.0.0.1:8403"),
            ("tollpass config set 'pay[0].max_price' \"0.02 USDC\"", "in the first [[pay]] entry"),
        ],
    ),
    (
        "completions",
        &[
            ("tollpass completions bash > ~/.local/share/bash-completion/completions/tollpass", "bash"),
            ("tollpass completions zsh > ~/.zfunc/_tollpass", "zsh, if fpath has ~/.zfunc"),
            ("tollpass completions fish > ~/.config/fish/completions/tollpass.fish", "fish"),
        ],
    ),
    ("man", &[("tollpass man ~/.local/share/man/man1", "then: man tollpass")]),
];

/// The command line with its examples.
pub(super) fn with_all(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let names: Vec<&str> = path.split(' ').collect();
        with_examples(command, &names, examples)
    })
}

/// Adds examples to the help of the subcommand at this path.
fn with_examples(command: Command, path: &[&str], examples: &[(&str, &str)]) -> Command {
    let [name, rest @ ..] = path else {
        let width = examples.iter().map(|(line, _)| line.len()).max().unwrap_or_default();
        let lines = examples.iter().map(|(line, remark)| format!("\n  {line:width$}   # {remark}"));
        let before = command.get_after_long_help().map(|help| format!("\n\n{help}")).unwrap_or_default();
        return command.after_long_help(format!("Examples:{}{before}", lines.collect::<String>()));
    };
    command.mut_subcommand(name, |inner| with_examples(inner, rest, examples))
}

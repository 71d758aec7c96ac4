#!/usr/bin/env python3
"""Real programs through the proxy of `tollpass demo`, each by its usual settings: plain, tunnelled, intercepted and
paid, and once more under `tollpass run`, which gives them all of that by itself.

check.py --tollpass BINARY [--python PYTHON] [--node-modules DIR] [--newer-node NODE]

What it needs is installed by .ci/programs. Everything listens on loopback, and ends with this script."""

import argparse
import functools
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRICE = 1000
PATIENCE = 120
PAID = "This text was paid for."
TUNNELLED = "These are the origin's own words.\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tollpass", required=True, type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--node-modules", type=Path)
    parser.add_argument("--newer-node")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollpass-programs-") as directory:
        Check(options, Path(directory)).run()


class Check:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.bought = 0
        self.done = []

    def run(self):
        shop = self.directory / "shop"
        commits = make_repository(shop / "repo.git", self.directory / "work")
        demo = Demo(self.options.tollpass, shop)
        try:
            self.demo = demo
            with tunnelled_origin(self.directory) as (self.elsewhere, self.elsewhere_ca):
                self.by_settings(commits)
                self.by_run()
            demo.expect(self.bought * PRICE)
        finally:
            log = demo.stop()
        print(f"{len(self.done)} programs and ways, {self.bought} payments, not one more or less")
        if "panicked" in log:
            raise SystemExit(log)

    def by_settings(self, commits):
        trust, own = str(self.demo.ca), str(self.elsewhere_ca)
        self.each("curl", ["curl", "-qfsS"], ["--cacert", trust], ["--cacert", own])
        self.each("curl, HTTP/2", ["curl", "-qfsS", "--http2"], ["--cacert", trust], ["--cacert", own])
        self.each("curl, all through CONNECT", ["curl", "-qfsS", "--proxytunnel"], ["--cacert", trust], ["--cacert", own])
        self.each("wget", ["wget", "-qO-"], ["--ca-certificate", trust], ["--ca-certificate", own])
        for name in ["requests", "httpx", "aiohttp"]:
            variable = "REQUESTS_CA_BUNDLE" if name == "requests" else "SSL_CERT_FILE"
            command = [self.options.python, str(HERE / "ask.py"), name]
            self.each(name, command, {variable: trust}, {variable: own})
        for name in ["undici", "fetch"]:
            ca = "NODE_EXTRA_CA_CERTS"
            self.each(f"Node, {name}", self.node("node", name), {ca: trust}, {ca: own})
        if self.options.newer_node:
            command = ["env", "NODE_USE_ENV_PROXY=1", *self.node(self.options.newer_node, "env")]
            trusts = [{"NODE_EXTRA_CA_CERTS": ca} for ca in (trust, own)]
            self.each("Node, by its own variable", command, *trusts)
        self.git(trust, commits)
        self.chromium()

    def each(self, name, command, trusting_us, trusting_it):
        """A page for nothing and a paid one, each in the clear and over https, and one that is not to be read."""
        for what, url, more, expected, pays in [
            ("plain", f"http://{self.demo.origin}/", None, "For sale here", False),
            ("paid", f"http://{self.demo.origin}/paid", None, PAID, True),
            ("tunnelled", f"https://{self.elsewhere}/", trusting_it, TUNNELLED, False),
            ("intercepted", f"https://{self.demo.secure}/", trusting_us, "For sale here", False),
            ("paid over https", f"https://{self.demo.secure}/paid", trusting_us, PAID, True),
        ]:
            options, variables = ([], more) if isinstance(more, dict) else (more or [], {})
            out = self.ask([*command, *options, url], variables)
            self.expect(f"{name}: {what}", out.startswith(expected), out)
            self.bought += pays

    def git(self, trust, commits):
        for what, base, variables in [
            ("paid", f"http://{self.demo.origin}", {}),
            ("paid over https", f"https://{self.demo.secure}", {"GIT_SSL_CAINFO": trust}),
        ]:
            before = self.demo.promised()
            into = self.directory / f"clone of {what}"
            self.ask(["git", "clone", "-q", f"{base}/repo.git", str(into)], variables)
            log = subprocess.check_output(["git", "-C", str(into), "log", "--format=%s"], text=True)
            self.expect(f"git: {what}", log.split() == commits, log)
            # Each object that git fetched has its price.
            fetched, rest = divmod(self.demo.promised() - before, PRICE)
            self.expect(f"git: {what}, by the object", fetched > 3 * len(commits) and rest == 0, fetched)
            self.bought += fetched

    def chromium(self):
        if not shutil.which("chromium"):
            raise SystemExit("chromium is not installed")
        home = self.directory / "home"
        store = home / ".pki/nssdb"
        store.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{store}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        for name, ca in [("ours", self.demo.ca), ("its", self.elsewhere_ca)]:
            subprocess.run([*certutil, "-A", "-t", "C,,", "-n", name, "-i", str(ca)], check=True)
        for what, url, expected, pays in [
            ("plain", f"http://{self.demo.origin}/", "For sale here", False),
            # Over plain http it does not mark who made a request: pages.py.
            ("plain and not free", f"http://{self.demo.origin}/paid/html", "Payment required", False),
            ("tunnelled", f"https://{self.elsewhere}/", TUNNELLED.strip(), False),
            ("intercepted", f"https://{self.demo.secure}/", "For sale here", False),
            ("paid over https", f"https://{self.demo.secure}/paid/html", "This page was paid for.", True),
        ]:
            flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
            flags += " --disable-component-update --disable-sync --virtual-time-budget=5000"
            command = ["chromium", *flags.split(), f"--user-data-dir={self.directory / 'profile'}", "--dump-dom"]
            # Chromium goes to loopback by itself unless it is told not to.
            command += [f"--proxy-server=http://{self.demo.proxy}", "--proxy-bypass-list=<-loopback>", url]
            out = self.ask(command, {"HOME": str(home)}, proxied=False)
            self.expect(f"Chromium: {what}", expected in out, out)
            self.bought += pays

    def by_run(self):
        """`tollpass run`: not one setting of the program's own."""
        wrapper = [str(self.options.tollpass), "run", "--config", str(self.demo.config), "--"]
        python = [self.options.python, str(HERE / "ask.py")]
        programs = {
            "curl": ["curl", "-qfsS"],
            **{name: [*python, name] for name in ["requests", "httpx", "aiohttp"]},
            "Node, fetch": self.node("node", "fetch"),
        }
        if self.options.newer_node:
            programs["Node, by its own variable"] = self.node(self.options.newer_node, "env")
        for name, command in programs.items():
            for url in [f"http://{self.demo.origin}/paid", f"https://{self.demo.secure}/paid"]:
                out = self.ask([*wrapper, *command, url], {}, proxied=False)
                self.expect(f"run {name} {url.split(':')[0]}", out.startswith(PAID), out)
                self.bought += 1

    def node(self, program, how):
        script = HERE / "ask.mjs"
        if self.options.node_modules:
            # Node looks for packages beside the script.
            script = Path(shutil.copy(script, self.options.node_modules.parent))
        return [program, str(script), how]

    def ask(self, command, variables, proxied=True):
        environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
        if proxied:
            proxy = f"http://{self.demo.proxy}"
            environment |= {"http_proxy": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
        done = subprocess.run(
            command, env=environment | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode != 0:
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def expect(self, what, holds, seen):
        if not holds:
            raise SystemExit(f"{what}: {seen!r}")
        print(f"ok  {what}", flush=True)
        self.done.append(what)


class Demo:
    """`tollpass demo` on ports of its own, which also sells a directory."""

    def __init__(self, tollpass, shop):
        ports = ["--port", "--origin-port", "--secure-port", "--rpc-port"]
        command = [str(tollpass), "demo", "--sell", str(shop)]
        command += [word for port in ports for word in (port, "0")]
        self.tollpass = tollpass
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if " channels --state-dir " in line:
                self.state = Path(line.split("--state-dir ")[1].strip())
            if line.startswith("ready "):
                ready = dict(word.split("=", 1) for word in line.split()[1:])
                break
        else:
            raise SystemExit(f"the demo did not start: {self.stop()}")
        self.proxy = ready["proxy"]
        self.origin = ready["origin"].removeprefix("http://")
        self.secure = ready["secure"].removeprefix("https://")
        self.ca = self.state / "ca.pem"
        self.config = self.state.parent / "proxy.toml"

    def channels(self):
        command = [str(self.tollpass), "channels", "--json", "--state-dir", str(self.state)]
        [listing] = json.loads(subprocess.check_output(command, timeout=PATIENCE))
        return listing["channels"]

    def promised(self):
        return sum(int(channel["promised"]) for channel in self.channels())

    def expect(self, total):
        for name in ["promised", "acknowledged"]:
            sum_of = sum(int(channel[name]) for channel in self.channels())
            if sum_of != total:
                raise SystemExit(f"{name} {sum_of}, and {total} was bought")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
        self.log.seek(0)
        return self.log.read()


def is_setting(name):
    """Whether a variable would tell a program of another proxy or of other certificates."""
    return name.lower().endswith(("_proxy", "_ca_bundle", "_ca_certs", "_cainfo")) or name in ("SSL_CERT_FILE", "SSL_CERT_DIR")


def make_repository(bare, work):
    """A repository as a plain web server can hand it out. Gives the subjects of its commits, the newest first."""
    identity = ["-c", "user.name=Bob", "-c", "user.email=bob@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, "init", "-q", str(work)], check=True)
    subjects = ["one", "two", "three"]
    for subject in subjects:
        (work / subject).write_text(subject)
        subprocess.run(["git", "-C", str(work), "add", "."], check=True)
        subprocess.run(["git", *identity, "-C", str(work), "commit", "-qm", subject], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)
    shutil.rmtree(bare / "hooks")
    return subjects[::-1]


def make_certificate(directory, name, names):
    """A certificate that signs itself, and its key."""
    key, certificate, config = (directory / f"{name}.{end}" for end in ("key", "pem", "conf"))
    # The system's own configuration would make it one of an authority, which no server may show.
    config.write_text("[req]\ndistinguished_name = subject\n[subject]\n")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = [*command.split(), "-config", str(config), "-addext", f"subjectAltName={names}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class tunnelled_origin:
    """An https origin called localhost, for which there is no rule: its own certificate is all that a client may see."""

    def __init__(self, directory):
        certificate, key = make_certificate(directory, "elsewhere", "DNS:localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OwnWords)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.certificate = certificate

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"localhost:{self.server.server_port}", self.certificate

    def __exit__(self, *_):
        self.server.shutdown()


class OwnWords(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(TUNNELLED)))
        self.end_headers()
        self.wfile.write(TUNNELLED.encode())

    log_message = functools.partialmethod(lambda self, *_: None)


if __name__ == "__main__":
    main()

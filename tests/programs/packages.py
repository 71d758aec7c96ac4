#!/usr/bin/env python3
"""Package clients through the proxy: pip, npm with and without a `cafile` in .npmrc, cargo and apt fetch the same bytes as
without it, both where it passes https on and where it decrypts it.

packages.py --tollpass BINARY

They fetch small packages from the registries that they are set up for, into empty directories. Only loopback is listened
on."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PATIENCE = 180
# Where certificates are on most systems.
ROOTS = [path for path in (os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt") if path]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tollpass", required=True, type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollpass-packages-") as directory:
        directory = Path(directory)
        clients = [pip, npm, npm_with_cafile, cargo, apt, apt_https]
        plainly = {client.__name__: fetch(client, directory / "plainly", []) for client in clients}
        for way, hosts in [("tunnelled", []), ("intercepted", ["*"])]:
            with Proxy(options.tollpass, directory / way, hosts) as proxy:
                for client in clients:
                    found = fetch(client, directory / way, proxy.wrapper)
                    if found != plainly[client.__name__]:
                        raise SystemExit(f"{way}, {client.__name__}: {found} instead of {plainly[client.__name__]}")
                    print(f"ok  {client.__name__}, {way}", flush=True)
            seen = proxy.handled()
            for host in sorted(seen):
                print(f"    {host}: {', '.join(sorted(seen[host]))}")
            # Plain http is plain either way.
            https = {how for kinds in seen.values() for how in kinds} - {"plain"}
            hosts = {origin for origin, kinds in seen.items() if origin.endswith(":443") and way in kinds}
            # Those of apt, cargo and npm, and two of pip.
            if https != {way} or len(hosts) < 5:
                raise SystemExit(f"{seen} instead of {way}")


def pip(directory, wrapper):
    into = directory / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir", "-d", str(into), "six==1.17.0"]
    run([*wrapper, *command], {"PIP_FIND_LINKS": "", "HOME": str(directory)})
    return into.iterdir()


def npm(directory, wrapper, settings=""):
    (directory / "npmrc").write_text(settings)
    command = ["npm", "pack", "--silent", "--pack-destination", str(directory), "left-pad@1.3.0"]
    variables = {"npm_config_userconfig": str(directory / "npmrc"), "npm_config_cache": str(directory / "cache")}
    run([*wrapper, *command], variables)
    return directory.glob("*.tgz")


def npm_with_cafile(directory, wrapper):
    roots = next(path for path in ROOTS if Path(path).exists())
    return npm(directory, wrapper, f"cafile={roots}\n")


def cargo(directory, wrapper):
    package = directory / "package"
    (package / "src").mkdir(parents=True)
    (package / "src/lib.rs").touch()
    manifest = '[package]\nname = "fetches"\nedition = "2021"\n[dependencies]\nitoa = "=1.0.15"\n'
    (package / "Cargo.toml").write_text(manifest)
    command = ["cargo", "fetch", "-q", "--manifest-path", str(package / "Cargo.toml")]
    run([*wrapper, *command], {"CARGO_HOME": str(directory / "home")})
    return [package / "Cargo.lock", *(directory / "home").glob("registry/cache/*/*.crate")]


def apt(directory, wrapper):
    return apt_by("http", directory, wrapper)


def apt_https(directory, wrapper):
    return apt_by("https", directory, wrapper)


def apt_by(scheme, directory, wrapper):
    """What is new in the lists of Debian, which are signed."""
    shown = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
    targets = [line.split() for line in subprocess.check_output(shown, text=True).splitlines()]
    url, suite = next(target for target in targets if target[1].endswith("-updates"))
    sources, lists = directory / "sources.list", directory / "lists"
    sources.write_text(f"deb {scheme}://{url.split('://')[1]} {suite} main\n")
    (lists / "partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": lists,
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    # apt has a setting for the certificates, and no variable: this one is set by `tollpass run`.
    script = 'if [ -n "$SSL_CERT_FILE" ]; then set -- "$@" -o "Acquire::https::CAInfo=$SSL_CERT_FILE"; fi; exec "$@"'
    run([*wrapper, "sh", "-c", script, "sh", *command, "update"], {})
    return (path for path in lists.iterdir() if path.name.endswith(("InRelease", "Packages", "Packages.lz4")))


def fetch(client, directory, wrapper):
    """The names of what a client fetched, with the hashes of the contents."""
    into = directory / client.__name__
    into.mkdir(parents=True)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in client(into, wrapper)}
    if not found:
        raise SystemExit(f"{client.__name__} fetched nothing")
    return found


def run(command, variables):
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        command, env=environment | variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode != 0:
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


class Proxy:
    """A proxy that pays nothing, and decrypts connections to these hosts."""

    def __init__(self, tollpass, directory, hosts):
        directory.mkdir()
        self.log = directory / "access.log"
        config = directory / "proxy.toml"
        config.write_text(
            f'listen = "127.0.0.1:0"\nstate_dir = "state"\n[intercept]\nhosts = {json.dumps(hosts)}\n'
            f'[log]\naccess = true\nfile = "{self.log}"\n'
        )
        self.command = [str(tollpass), "serve", "--config", str(config)]
        self.wrapper = [str(tollpass), "run", "--quiet", "--config", str(config), "--"]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TOLLPASS_LOG_FORMAT": "json"}
        )
        deadline = threading.Timer(PATIENCE, self.process.kill)
        deadline.start()
        line = self.process.stdout.readline()
        deadline.cancel()
        if not line.startswith("listening on "):
            self.process.kill()
            raise SystemExit(f"the proxy does not listen: {line}")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def handled(self):
        """How requests were handled, by the host."""
        seen = {}
        for line in map(json.loads, self.log.read_text().splitlines()):
            if line["target"] == "tollpass::access":
                seen.setdefault(line["origin"], set()).add(line["handled"])
        return seen


if __name__ == "__main__":
    main()

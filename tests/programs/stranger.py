#!/usr/bin/env python3
"""The path of a stranger: from the wheel to what was paid, with an empty HOME, by what README.md says and nothing else.

stranger.py --wheel WHEEL [--newer-node NODE]

Every option of tollpass that it uses stands in README.md. As root, where the system allows that, it has a network of its
own, so that the ports are those of README.md; otherwise these must be free. Everything listens on loopback, and ends with this script."""

import argparse
import fcntl
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = (HERE.parent.parent / "README.md").read_text()
PATIENCE = 120
PAID = "This text was paid for"
PYTHON = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
NODE = "fetch(process.argv[1]).then((answer) => answer.text()).then((text) => process.stdout.write(text))"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", required=True, type=Path)
    parser.add_argument("--newer-node", default="node")
    parser.add_argument("--isolated", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if os.geteuid() == 0 and not options.isolated and can_isolate():
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv, "--isolated"])
    if options.isolated:
        set_up_loopback()
    with tempfile.TemporaryDirectory(prefix="tollpass-stranger-") as directory:
        Stranger(options, Path(directory)).walk()


class Stranger:
    def __init__(self, options, directory):
        self.options = options
        home = directory / "home"
        home.mkdir()
        self.scripts = directory / "venv/bin"
        venv.create(directory / "venv", with_pip=True)
        path = os.pathsep.join([str(self.scripts), "/usr/local/bin", "/usr/bin", "/bin"])
        self.environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}
        self.running = []

    def walk(self):
        try:
            self.to_the_ledger()
        finally:
            for process in self.running:
                process.terminate()
            for process in self.running:
                try:
                    process.wait(timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()

    def to_the_ledger(self):
        self.do([str(self.scripts / "pip"), "install", "-q", "--no-index", "--disable-pip-version-check", str(self.options.wheel)])
        # The prompt for the password needs a terminal.
        self.environment["TOLLPASS_WALLET_PASSWORD"] = "correct horse battery staple"
        told = self.tollpass("init --pay localhost --pay 127.0.0.1")
        [address] = re.findall(r"^Your address: (0x\w{40})$", told, re.MULTILINE)

        told = self.until(f"demo --fund {address}", "ready ")
        ready = dict(word.split("=", 1) for word in told.splitlines()[-1].split()[1:])
        [script] = re.findall(r"^  \. (\S+)$", told, re.MULTILINE)
        shown = self.do(["bash", "-c", f". {shlex.quote(script)} && env -0"])
        self.environment |= dict(line.split("=", 1) for line in shown.split("\0") if line.startswith("TOLLPASS_"))

        self.tollpass("check")
        self.until("serve", "listening on ")
        secure = f"{ready['secure']}/paid"
        for command in [
            ["curl", "-sS", secure],
            ["python3", "-c", PYTHON, secure],
            [self.options.newer_node, "-e", NODE, secure],
            ["curl", "-sS", f"http://localhost:{ready['origin'].rsplit(':', 1)[1]}/x402"],
        ]:
            out = self.tollpass("run --", *command)
            expect(Path(command[0]).name, out.startswith(PAID), out)
        # Rows of payments from a channel are written a little later.
        until, rows = time.monotonic() + PATIENCE, []
        while sum("paid" in row for row in rows) < 4 and time.monotonic() < until:
            rows = [line.split() for line in self.tollpass("ledger").splitlines()]
        expect("ledger", sum("paid" in row for row in rows) == 4, rows)
        print(self.tollpass("status"))

    def tollpass(self, arguments, *command):
        words = known(arguments)
        return self.do([str(self.scripts / "tollpass"), *words, *command])

    def do(self, command):
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode != 0:
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def until(self, arguments, start):
        """Runs tollpass until it prints a line that starts like this; it goes on running."""
        command = [str(self.scripts / "tollpass"), *known(arguments)]
        log = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        self.running.append(process)
        deadline = threading.Timer(PATIENCE, process.kill)
        deadline.start()
        told = ""
        for line in process.stdout:
            told += line
            if line.startswith(start):
                deadline.cancel()
                # What it prints later must not block it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return told
        deadline.cancel()
        log.seek(0)
        raise SystemExit(f"{command} ended: {told}\n{log.read()}")


def can_isolate():
    """Whether this machine lets us have a network of our own; most containers do not."""
    return subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL).returncode == 0


def known(arguments):
    """The words of a command line, which README.md must have told."""
    words = arguments.split()
    for word in words:
        if word.startswith("-") and word != "--" and not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", README):
            raise SystemExit(f"README.md does not say {word}")
    if not re.search(rf"(\btollpass |`){words[0]}\b", README):
        raise SystemExit(f"README.md does not say tollpass {words[0]}")
    return words


def expect(what, holds, seen):
    if not holds:
        raise SystemExit(f"{what}: {seen!r}")
    print(f"ok  {what}", flush=True)


def set_up_loopback():
    """In a new network, lo is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    main()

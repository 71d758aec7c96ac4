#!/usr/bin/env python3
"""The metrics of `tollpass demo`: promtool finds nothing wrong with them, and a real Prometheus reads what was paid.

metrics.py --tollpass BINARY --promtool BINARY --prometheus BINARY

What it needs is installed by .ci/programs. Everything listens on loopback, and ends with this script."""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

PATIENCE = 120
PAYMENTS = 3


def main():
    parser = argparse.ArgumentParser()
    for name in ["--tollpass", "--promtool", "--prometheus"]:
        parser.add_argument(name, required=True, type=Path)
    options = parser.parse_args()
    metrics, database = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="tollpass-metrics-") as directory:
        directory = Path(directory)
        with open(directory / "log", "w+") as log, Demo(options.tollpass, log) as demo:
            with proxy(options.tollpass, demo.config, directory / "state", metrics, log) as address:
                pay(address, demo.origin)
                url = f"http://127.0.0.1:{metrics}/metrics"
                text = urllib.request.urlopen(url, timeout=PATIENCE).read()
                check = subprocess.run([options.promtool, "check", "metrics"], input=text, capture_output=True)
                told = (check.stdout + check.stderr).decode().strip()
                if check.returncode or told:
                    raise SystemExit(f"promtool: {told}\n{text.decode()}")
                scrape(options.prometheus, directory, metrics, database)
    print("promtool accepts the metrics, and Prometheus has read what was paid")


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


class Demo:
    """The chain and the seller of `tollpass demo`."""

    def __init__(self, tollpass, log):
        ports = ["--port", "--origin-port", "--secure-port", "--rpc-port"]
        command = [str(tollpass), "demo", *(word for port in ports for word in (port, "0"))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def __enter__(self):
        for line in self.process.stdout:
            if line.startswith("The configuration is "):
                self.config = line.removeprefix("The configuration is ").split(". Ctrl-C")[0]
            if line.startswith("ready "):
                self.origin = dict(word.split("=", 1) for word in line.split()[1:])["origin"]
                return self
        raise SystemExit("the demo did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)


@contextlib.contextmanager
def proxy(tollpass, config, state, metrics, log):
    """A proxy with the demo's key and rules, which has metrics. It pays instead of the demo's own."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"},
        "TOLLPASS_STATE_DIR": str(state),
        "TOLLPASS_METRICS_LISTEN": f"127.0.0.1:{metrics}",
    }
    command = [str(tollpass), "serve", "--config", config, "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        yield process.stdout.readline().removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


def pay(address, origin):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{address}"}))
    for _ in range(PAYMENTS):
        with opener.open(f"{origin}/paid", timeout=PATIENCE) as answer:
            if b"was paid for" not in answer.read():
                raise SystemExit("nothing was paid")


def scrape(prometheus, directory, metrics, database):
    config = directory / "prometheus.yml"
    target = f"127.0.0.1:{metrics}"
    jobs = [{"job_name": "tollpass", "static_configs": [{"targets": [target]}]}]
    # JSON is YAML.
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{database}", "--log.level=warn"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        query = urllib.parse.urlencode({"query": "sum(tollpass_payments_total)"})
        url = f"http://127.0.0.1:{database}/api/v1/query?{query}"
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    result = json.load(answer)["data"]["result"]
            except OSError:
                result = []
            if result and float(result[0]["value"][1]) == PAYMENTS:
                return
            if time.monotonic() > until:
                raise SystemExit(f"Prometheus has {result}, and {PAYMENTS} payments were made")
            time.sleep(0.2)
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Origins of HTTP/2 as they are met: nginx, and Node's http2 with what it makes a server do. Each is asked through a
tunnel, a route, and an intercepted connection, and sells.

streams.py --tollpass BINARY --nginx NGINX [--node NODE]

Everything listens on loopback, and ends with this script."""

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from check import HERE, PAID, PATIENCE, PRICE, Demo, is_setting, make_certificate

# How many requests go to an origin that ends its connections again and again, and how many of them at a time.
MANY = 300
AT_A_TIME = 16
SOLD = 40
# So many paused downloads took the whole window of a connection.
PAUSED = 12
ENOUGH = 64 << 10

NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    server {{
        listen 127.0.0.1:{port} ssl http2;
        keepalive_requests 100;
        location / {{ return 200 "$server_protocol $http_host\\n"; }}
        location /paid {{
            proxy_pass {seller};
        }}
    }}
}}
"""

CONFIG = """
listen = "127.0.0.1:0"
state_dir = "state"
[wallet]
key_file = "{key}"
[upstream]
ca_file = "{ca}"
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tollpass", required=True, type=Path)
    parser.add_argument("--nginx", required=True)
    parser.add_argument("--node", default="node")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollpass-streams-") as directory:
        Check(options, Path(directory)).run()


class Check:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.children = []
        self.bought = 0
        self.done = 0

    def run(self):
        self.demo = Demo(self.options.tollpass, self.shop())
        try:
            certificate, key = make_certificate(self.directory, "origin", "DNS:localhost,IP:127.0.0.1")
            self.pem = self.directory / "origin-both.pem"
            self.pem.write_text(certificate.read_text() + key.read_text())
            self.certificate = certificate
            seller = f"http://{self.demo.origin}"
            self.nginx = self.start_nginx(seller)
            command = [self.options.node, str(HERE / "streams.mjs"), str(self.pem), seller]
            self.node, self.ending = self.start(command).stdout.readline().split()
            self.start_proxy()
            for name, port in [("nginx", self.nginx), ("Node", self.node)]:
                self.each_way(name, port)
            for name, port in [("nginx", self.nginx), ("Node", self.ending)]:
                self.connections_that_end(name, port)
            self.large_heads()
            # Its last payment brings the seller's word on those before it.
            self.refused_streams()
            self.paused_downloads()
            self.expect_promised()
        finally:
            for child in reversed(self.children):
                child.terminate()
                child.wait(timeout=PATIENCE)
            self.demo.stop()
        print(f"{self.done} checks with nginx and Node over HTTP/2, {self.bought} payments, not one more or less")

    def shop(self):
        shop = self.directory / "shop"
        shop.mkdir()
        return shop

    def start(self, command, **more):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **more)
        self.children.append(child)
        return child

    def start_nginx(self, seller):
        # Another program may take the port between the two; it is tried again then.
        for _ in range(5):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            config = self.directory / "nginx.conf"
            config.write_text(NGINX.format(directory=self.directory, pem=self.pem, port=port, seller=seller))
            child = self.start([self.options.nginx, "-p", str(self.directory), "-e", str(self.directory / "nginx.log"), "-c", str(config)])
            for _ in range(100):
                if child.poll() is not None:
                    break
                with socket.socket() as knock:
                    if knock.connect_ex(("127.0.0.1", port)) == 0:
                        return str(port)
                time.sleep(0.05)
        raise SystemExit((self.directory / "nginx.log").read_text())

    def start_proxy(self):
        """A proxy beside the demo's, with the same wallet and chain."""
        theirs = self.demo.config.read_text()
        text = CONFIG.format(key=self.demo.config.parent / "key", ca=self.certificate)
        text += theirs[theirs.index("[chain]") : theirs.index("[[pay]]")] + theirs[theirs.index("[hooks]") :]
        for port in [self.nginx, self.node, self.ending]:
            text += f'[[pay]]\nhost = "localhost"\nport = {port}\nmax_price = 10000\n'
            text += f'[[route]]\nprefix = "/{port}"\norigin = "https://127.0.0.1:{port}"\n'
        config = self.directory / "proxy.toml"
        config.write_text(text)
        config.chmod(0o600)
        self.log = (self.directory / "proxy.log").open("w+")
        serving = self.start([str(self.options.tollpass), "serve", "--config", str(config)], stderr=self.log)
        self.proxy = serving.stdout.readline().split()[-1].removeprefix("http://")
        self.state = self.directory / "state"

    def each_way(self, name, port):
        said = f"HTTP/2.0 localhost:{port}\n" if name == "nginx" else "GET 0\n"
        tunnelled = said.replace("localhost", "127.0.0.1")
        ways = ["--cacert", str(self.certificate)]
        self.expect(f"{name}: tunnelled", self.curl(*ways, "--http2", f"https://127.0.0.1:{port}/"), tunnelled)
        self.expect(f"{name}: by a route", self.curl(f"http://{self.proxy}/{port}/", proxied=False), tunnelled)
        for version in ["--http1.1", "--http2"]:
            self.expect(f"{name}: intercepted, {version}", self.ask(port, "/", version), said)
            self.expect(f"{name}: paid, {version}", self.ask(port, "/paid", version)[: len(PAID)], PAID)
            self.bought += 1

    def connections_that_end(self, name, port):
        """Not one request of many is lost, whatever its method."""
        # A connection each at the client's side: curl 7.88 mistakes some ends of streams over HTTP/2 for errors.
        at_once = ["--parallel", "--parallel-max", str(AT_A_TIME), "--write-out", "%{http_code}\n", "--output", "/dev/null"]
        for what, more in [("GET", []), ("POST", ["--data", "some"]), ("PATCH", ["--request", "PATCH", "--data", "some"])]:
            codes = self.ask(port, f"/[1-{MANY}]", "--http1.1", *at_once, *more).split()
            self.expect(f"{name}: connections that end, {what}", codes, ["200"] * MANY)
        codes = self.ask(port, f"/paid?[1-{SOLD}]", "--http1.1", *at_once).split()
        self.expect(f"{name}: connections that end, paid", codes, ["200"] * SOLD)
        self.bought += SOLD

    def refused_streams(self):
        for number, more in enumerate([[], ["--data", "some"], ["--request", "DELETE"]]):
            said = self.ask(self.node, f"/?refuse={number}", "--http2", *more)
            self.expect(f"Node: a refused stream {more}", said.split()[0], ["GET", "POST", "DELETE"][number])
        said = self.ask(self.node, "/paid?refuse=payment", "--http2")
        self.expect("Node: a refused payment", said[: len(PAID)], PAID)
        self.bought += 1

    def large_heads(self):
        status = ["--write-out", "%{http_code}", "--output", "/dev/null"]
        for kib, code in [(20, "200"), (60, "200"), (200, "200"), (300, "502")]:
            # curl itself takes no more over HTTP/2.
            for version in ["--http1.1", "--http2"] if kib < 100 else ["--http1.1"]:
                self.expect(f"Node: a head of {kib} KiB, {version}", self.ask(self.node, f"/?head={kib}", version, *status), code)
        self.expect("Node: paid, a head of 60 KiB", self.ask(self.node, "/paid?head=60", "--http1.1", *status), "200")
        self.expect("Node: paid, a head of 300 KiB", self.ask(self.node, "/paid?head=300", "--http1.1", *status), "502")
        self.bought += 2
        for _ in range(2):
            self.expect("Node: not paid again", self.ask(self.node, "/paid?head=300", "--http1.1", *status), "402")

    def paused_downloads(self):
        address = self.proxy.rsplit(":", 1)
        paused = []
        for _ in range(PAUSED):
            client = socket.create_connection((address[0], int(address[1])), timeout=PATIENCE)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ENOUGH)
            client.sendall(f"GET /{self.node}/large HTTP/1.1\r\nHost: {self.proxy}\r\n\r\n".encode())
            paused.append(client)
            self.expect("Node: a download that pauses", client.recv(12), b"HTTP/1.1 200")
        said = self.curl("--max-time", "20", f"http://{self.proxy}/{self.node}/", proxied=False)
        self.expect("Node: another client beside paused downloads", said, "GET 0\n")
        for client in paused:
            client.close()

    def expect_promised(self):
        command = [str(self.options.tollpass), "channels", "--json", "--state-dir", str(self.state)]
        channels = [c for listing in json.loads(subprocess.check_output(command, timeout=PATIENCE)) for c in listing["channels"]]
        for name in ["promised", "acknowledged"]:
            total = sum(int(channel[name]) for channel in channels)
            self.expect(f"the sum {name}", total, self.bought * PRICE)

    def ask(self, port, path, *more):
        return self.curl("--cacert", str(self.state / "ca.pem"), *more, f"https://localhost:{port}{path}")

    def curl(self, *arguments, proxied=True):
        command = ["curl", "-qsS", "--max-time", str(PATIENCE)]
        command += ["--proxy", f"http://{self.proxy}"] if proxied else ["--noproxy", "*"]
        environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
        done = subprocess.run(
            [*command, *arguments], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * PATIENCE
        )
        if done.returncode != 0:
            self.log.seek(0)
            raise SystemExit(f"curl {arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log.read()}")
        return done.stdout

    def expect(self, what, seen, expected):
        if seen != expected:
            self.log.seek(0)
            raise SystemExit(f"{what}: {seen!r} and not {expected!r}\n{self.log.read()[-4000:]}")
        print(f"ok  {what}", flush=True)
        self.done += 1


if __name__ == "__main__":
    main()

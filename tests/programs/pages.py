#!/usr/bin/env python3
"""Chromium on a hostile page: whatever the page tries, nothing is paid. Then pages that the user opens, and programs.

pages.py --tollpass BINARY

The page comes from another port of this machine, and reaches for a seller over http and https and for a route of the
proxy under each of its names, through the proxy and past it. Everything listens on loopback, and ends with this script."""

import argparse
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from check import PAID, PATIENCE, PRICE, Demo, is_setting

# What a page can do while it stays where it is. URL stands for what it reaches for, and each makes a request of its own.
STAYING = """<!doctype html><body>
<img src="URL?img"><script src="URL?script"></script><link rel=stylesheet href="URL?style">
<img referrerpolicy=no-referrer src="URL?img-without-referrer">
<iframe src="URL?iframe"></iframe><iframe referrerpolicy=no-referrer src="URL?iframe-without-referrer"></iframe>
<iframe sandbox src="URL?sandbox"></iframe><object data="URL?object"></object><embed src="URL?embed">
<video src="URL?video"></video><link rel=icon href="URL?icon">
<link rel=prefetch href="URL?prefetch"><link rel=preload as=script href="URL?preload">
<link rel=modulepreload href="URL?module"><link rel=prerender href="URL?prerender">
<form id=get action="URL" target=a><input name=form value=get></form><iframe name=a></iframe>
<form id=post method=post action="URL?form-post" target=b><input name=x value=y></form><iframe name=b></iframe>
<a id=ping href="#" ping="URL?ping">x</a>
<script>
document.getElementById("get").submit()
document.getElementById("post").submit()
document.getElementById("ping").click()
fetch("URL?no-cors", {mode: "no-cors"})
fetch("URL?no-cors-without-referrer", {mode: "no-cors", referrerPolicy: "no-referrer"})
fetch("URL?no-cors-post", {mode: "no-cors", method: "POST", body: "x"})
fetch("URL?cors").catch(() => 0)
fetch("URL?cors-put", {method: "PUT", headers: {"x-own": "1"}, body: "x"}).catch(() => 0)
navigator.sendBeacon("URL?beacon", "x")
new EventSource("URL?events")
new WebSocket("URL?socket".replace("http", "ws"))
window.open("URL?window")
</script>"""
# What takes the window along.
LEAVING = [
    '<!doctype html><meta http-equiv=refresh content="0;url=URL?refresh">',
    '<!doctype html><script>location = "URL?location"</script>',
    '<!doctype html><meta name=referrer content=no-referrer><script>location.replace("URL?replace")</script>',
    '<!doctype html><form id=f method=post action="URL?post"></form><script>document.getElementById("f").submit()</script>',
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tollpass", required=True, type=Path)
    tollpass = parser.parse_args().tollpass
    with tempfile.TemporaryDirectory(prefix="tollpass-pages-") as directory:
        directory = Path(directory)
        (directory / "shop").mkdir()
        demo = Demo(tollpass, directory / "shop")
        try:
            hostile(tollpass, directory, demo)
            wanted(tollpass, directory, demo)
        finally:
            demo.stop()


def hostile(tollpass, directory, demo):
    with Page() as page, Proxy(tollpass, demo, "hostile") as proxy:
        port = proxy.address.split(":")[1]
        sellers = [f"http://{demo.origin}/paid", f"https://{demo.secure}/paid"]
        hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "tollpass.local"]
        routes = [f"http://{host}:{port}/seller/paid" for host in hosts]
        for way, targets in [("through the proxy", [*sellers, *routes, "http://tollpass.local/seller/paid"]), ("past it", routes)]:
            for url in targets:
                leaving = LEAVING if way == "through the proxy" else LEAVING[:1]
                for text in [STAYING, *leaving]:
                    page.text = text.replace("URL", url)
                    chromium(directory, proxy.address if way == "through the proxy" else None, page.address)
                if proxy.promised():
                    raise SystemExit(f"a page spent {proxy.promised()} at {url}, {way}:\n{proxy.said()}")
                print(f"ok  a hostile page: {url}, {way}", flush=True)
        refused = proxy.said().count("not paid")
        if refused < 20 * len(sellers):
            raise SystemExit(f"only {refused} requests of the page came to a seller:\n{proxy.said()}")
        print(f"ok  {refused} requests of hostile pages met a price, and none was paid", flush=True)


def wanted(tollpass, directory, demo):
    plain, secure = (f"{origin}/paid/html" for origin in (f"http://{demo.origin}", f"https://{demo.secure}"))
    for consent, is_plain_paid in [(None, False), ("any", True)]:
        with Proxy(tollpass, demo, f"wanted-{consent}", consent) as proxy:
            for url, is_paid in [(plain, is_plain_paid), (secure, True)]:
                seen = chromium(directory, proxy.address, url)
                if ("This page was paid for." in seen) != is_paid:
                    raise SystemExit(f"browsers {consent}: {url}: {seen}\n{proxy.said()}")
            bought = 1 + is_plain_paid
            program = ["curl", "-qfsS", "-H", "Accept: text/html", "-x", f"http://{proxy.address}"]
            for url in [f"http://{demo.origin}/paid", f"https://{demo.secure}/paid"]:
                out = run([*program, "--cacert", str(proxy.state / "ca.pem"), url])
                if not out.startswith(PAID):
                    raise SystemExit(f"curl: {out}")
                bought += 1
            if proxy.said().count(f" paid {PRICE} for ") != bought:
                raise SystemExit(f"not {bought} payments:\n{proxy.said()}")
            print(f"ok  pages that the user opens, browsers = {consent}", flush=True)


class Proxy:
    """`tollpass serve` with the demo's wallet, rules and a route; `consent` is what its rules say of browsers, and `change`
    changes its configuration."""

    def __init__(self, tollpass, demo, name, consent=None, change=str):
        text = demo.config.read_text().replace('state_dir = "state"', f'state_dir = "{name}"')
        text = text.replace(f'listen = "{demo.proxy}"', 'listen = "127.0.0.1:0"')
        if consent:
            text = text.replace("max_price = 10000", f'max_price = 10000\nbrowsers = "{consent}"')
        text = change(text)
        text += f'\n[[route]]\nprefix = "/seller"\norigin = "http://{demo.origin}"\n'
        self.tollpass, self.state = tollpass, demo.config.parent / name
        config = demo.config.parent / f"{name}.toml"
        config.write_text(text)
        config.chmod(0o600)
        self.log = tempfile.TemporaryFile("w+")
        command = [str(tollpass), "serve", "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the proxy did not start: {self.said()}")
        self.address = line.split()[-1]

    def promised(self):
        command = [str(self.tollpass), "channels", "--json", "--state-dir", str(self.state)]
        listings = json.loads(subprocess.check_output(command, timeout=PATIENCE))
        return sum(int(channel["promised"]) for listing in listings for channel in listing["channels"])

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)


class Page:
    """A page on a port of its own, which says whatever `text` is."""

    def __enter__(self):
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()


def chromium(directory, proxy, url):
    """Opens a URL as its user does; what the page shows then."""
    profile = directory / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --ignore-certificate-errors --disable-popup-blocking"
    flags += " --timeout=6000 --virtual-time-budget=4000"
    command = ["chromium", *flags.split(), f"--user-data-dir={profile}", "--dump-dom"]
    # Whatever name the page uses, it leads to this machine; Chromium goes there by itself unless it is told not to.
    past = ["--no-proxy-server", "--host-resolver-rules=MAP tollpass.local 127.0.0.1"]
    command += [f"--proxy-server=http://{proxy}", "--proxy-bypass-list=<-loopback>"] if proxy else past
    return run([*command, url])


def run(command):
    environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout


if __name__ == "__main__":
    main()

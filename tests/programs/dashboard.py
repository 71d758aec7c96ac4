#!/usr/bin/env python3
"""The dashboard of a proxy with the demo's wallet, in Chromium: a payment appears within a second, an approval lets a request
through that waits, a hostile page on another port can neither read nor change anything, and nothing is cut on a phone.

dashboard.py --tollpass BINARY [--screenshots DIR]

Chromium is driven through a pipe, by its DevTools protocol. Everything listens on loopback, and ends with this script."""

import argparse
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from check import PAID, PATIENCE, Demo, is_setting
from pages import Page, Proxy

# What a page shows within this time counts as shown at once.
SOON = 1.0
VIEWS = ["now", "history", "channels", "refused", "setup"]
WIDTHS = {1280: 900, 390: 844}

# What a hostile page tries with the dashboard at URL, and what comes of each: "refused" unless it could read something.
HOSTILE = """<!doctype html><title>hostile</title><script>
const results = {}
const attempt = async (name, act) => { try { results[name] = await act() } catch (error) { results[name] = "refused" } }
const json = {"content-type": "application/json"}
const frame = document.createElement("iframe")
const inside = () => { try { return frame.contentDocument ? frame.contentDocument.title || "refused" : "refused" } catch { return "refused" } }
document.addEventListener("DOMContentLoaded", async () => {
  await attempt("read", async () => (await fetch("URL/dashboard/api/now")).text())
  await attempt("read with a header", async () => (await fetch("URL/dashboard/api/now", {headers: {authorization: "Bearer x"}})).text())
  await attempt("read the page", async () => (await fetch("URL/dashboard")).text())
  await attempt("sign in", async () => (await fetch("URL/dashboard/session", {method: "POST", headers: json, body: "{}"})).text())
  await attempt("listen", async () => (await fetch("URL/dashboard/news", {method: "POST", headers: json, body: "{}"})).text())
  // Their response is hidden from the page; that nothing has changed is seen elsewhere.
  for (const name of ["freeze", "decide"]) {
    const body = JSON.stringify({frozen: true, id: IDS, approve: true})
    await attempt(name, () => fetch(`URL/dashboard/api/${name}`, {method: "POST", mode: "no-cors", body}).then((it) => it.type == "opaque" ? "refused" : "read"))
  }
  await attempt("include", () => new Promise((done) => {
    const script = document.createElement("script")
    script.src = "URL/dashboard/api/now"
    script.onload = () => done("loaded")
    script.onerror = () => done("refused")
    document.head.append(script)
  }))
  frame.src = "URL/dashboard"
  document.body.append(frame)
  await new Promise((done) => setTimeout(done, 500))
  results.frame = inside()
  const opened = window.open("URL/dashboard")
  await new Promise((done) => setTimeout(done, 500))
  await attempt("window", () => opened.document.title)
  document.title = JSON.stringify(results)
})
</script>"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tollpass", required=True, type=Path)
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollpass-dashboard-") as directory:
        directory = Path(directory)
        (directory / "shop").mkdir()
        demo = Demo(options.tollpass, directory / "shop")
        try:
            with Proxy(options.tollpass, demo, "dashboard", change=worth_seeing) as proxy, Browser(directory) as browser:
                Check(options, demo, proxy, browser).run()
        finally:
            demo.stop()


def worth_seeing(config):
    """The demo's configuration, with budgets, and an entry that asks."""
    asking = '[[pay]]\nhost = "localhost"\nmax_price = 10000\nask_above = 1\n\n[[pay]]'
    budgets = '\n[[budget]]\nname = "everything"\nwallet = true\nper_day = 50000\npayments = 100\n'
    return config.replace("[[pay]]", asking, 1) + budgets


class Check:
    def __init__(self, options, demo, proxy, browser):
        self.options, self.demo, self.proxy, self.browser = options, demo, proxy, browser
        self.url = f"http://{proxy.address}"

    def run(self):
        page = self.sign_in()
        self.payment_appears(page)
        self.approval_lets_through(page)
        self.hostile_page(page)
        self.channels(page)
        self.keeps_up(page)
        self.refusals(page)
        self.freezes(page)
        self.looks(page)
        self.leaves(page)

    def ok(self, what):
        print(f"ok  the dashboard: {what}", flush=True)

    def link(self):
        command = [str(self.options.tollpass), "dashboard", "--state-dir", str(self.proxy.state)]
        return subprocess.check_output(command, timeout=PATIENCE, text=True, stderr=subprocess.DEVNULL).strip()

    def sign_in(self):
        link = self.link()
        secret = link.split("#")[1]
        page = self.browser.open(link)
        page.until('document.getElementById("state").textContent == "Ready to pay"')
        address, stored = page.run("location.href"), page.run("Object.values(sessionStorage).join()")
        if secret in address or secret in stored or page.run("document.cookie"):
            raise SystemExit(f"the secret or a cookie stays: {address}")
        other = self.browser.open(link)
        other.until('document.querySelector("#view h1")?.textContent == "Not signed in"')
        if "opened before" not in other.text():
            raise SystemExit(f"a link opened twice: {other.text()}")
        other.close()
        self.ok("a link signs in once, and its secret does not stay")
        return page

    def fetch(self, host="127.0.0.1", path="/paid"):
        proxy = urllib.request.ProxyHandler({"http": self.url})
        url = f"http://{self.demo.origin.replace('127.0.0.1', host)}{path}"
        try:
            with urllib.request.build_opener(proxy).open(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def payment_appears(self, page):
        rows = 'document.querySelectorAll("#view tbody tr").length'
        # The first payment opens a channel.
        for count in (1, 2, 3):
            if not self.fetch()[1].startswith(PAID):
                raise SystemExit("not paid")
            begun = time.monotonic()
            page.until(f"{rows} == {count}")
            took = time.monotonic() - begun
            if took > SOON:
                raise SystemExit(f"a payment appeared after {took:.2f} s")
        self.ok(f"a payment appears within a second (the last one after {took:.2f} s)")

    def approval_lets_through(self, page):
        for button, status in [("Deny", 402), ("Approve", 200)]:
            got = []
            waiting = threading.Thread(target=lambda: got.append(self.fetch("localhost")))
            waiting.start()
            page.until('document.querySelector("#view .card.warn h2")')
            if not page.run('document.getElementById("said").textContent.includes("waits for you")'):
                raise SystemExit("a screen reader is not told")
            if button == "Approve":
                self.shoot(page, "approval")
            page.click(button)
            waiting.join(PATIENCE)
            if got[0][0] != status:
                raise SystemExit(f"{button}: {got}")
            page.until('!document.querySelector("#view .card.warn h2")')
        self.ok("an approval lets a request through that waits, a denial does not")

    def hostile_page(self, page):
        got = []
        waiting = threading.Thread(target=lambda: got.append(self.fetch("localhost")))
        waiting.start()
        page.until('document.querySelector("#view .card.warn h2")')
        pending = json.loads(subprocess.check_output([str(self.options.tollpass), "pending", "--json", "--state-dir", str(self.proxy.state)], timeout=PATIENCE))
        with Page() as hostile:
            hostile.text = HOSTILE.replace("URL", self.url).replace("IDS", str(pending[0]["id"]))
            other = self.browser.open(hostile.address)
            other.until('document.title.startsWith("{")')
            results = json.loads(other.run("document.title"))
            other.close()
        if any(result != "refused" for result in results.values()) or len(results) < 10:
            raise SystemExit(f"a hostile page: {results}")
        if got or page.run('document.getElementById("state").textContent') != "Ready to pay":
            raise SystemExit(f"a hostile page has changed something: {got}")
        page.click("Approve")
        waiting.join(PATIENCE)
        if got[0][0] != 200:
            raise SystemExit(f"approved: {got}")
        self.ok(f"a hostile page on another port is refused in {len(results)} ways")

    def channels(self, page):
        page.go("channels")
        page.until('document.querySelector("#view section")')
        page.click("Top up")
        page.run('document.querySelector("#dialog input").value = "500"')
        page.click("Continue", "#dialog")
        page.until('document.querySelector("#dialog").textContent.includes("lock up 500 units more")')
        self.shoot(page, "dialog")
        page.click("Do it", "#dialog")
        page.until('!document.querySelector("#dialog").open')
        self.ok("a channel is topped up once its plan was shown")

    def keeps_up(self, page):
        """Payments come faster than the history and the channels wait before they look again."""
        shown = {"history": 'document.querySelectorAll("#view td[data-label=Claim]").length',
                 "channels": 'document.querySelector("#view section dl")?.textContent'}
        for view, what in shown.items():
            page.go(view)
            page.until(what)
            page.settle()
            before, begun = page.run(what), time.monotonic()
            while page.run(what) == before:
                if time.monotonic() - begun > 5:
                    raise SystemExit(f"{view} waits until no payment comes")
                self.fetch()
                time.sleep(0.1)
        self.ok("the history and the channels follow while payments keep coming")

    def refusals(self, page):
        page.go("history?show=refused")
        page.until('document.querySelector("#view").textContent.includes("approval-denied")')
        page.run('document.querySelector("#view input[type=search]").value = "no such thing"')
        page.run('document.querySelector("#view input[type=search]").dispatchEvent(new Event("input"))')
        page.until('location.hash.includes("text=no+such+thing")')
        page.until('!document.querySelector("#view").textContent.includes("approval-denied")')
        page.until('document.querySelector("#view").textContent.includes("No payment is like that.")')
        # As if the proxy had not searched the whole ledger yet.
        page.run("""{
            const real = window.fetch
            window.fetch = async (url, options) => {
                if (!url.includes("api/ledger")) return real(url, options)
                window.fetch = real
                return new Response(JSON.stringify({rows: [], next: "1.1"}))
            }
        }""")
        page.click("Paid")
        page.until('document.querySelector("#view").textContent.includes("None among the newest payments; show more to search on.")')
        page.click("Show more")
        page.until('document.querySelector("#view").textContent.includes("No payment is like that.")')
        is_told = '[...document.querySelectorAll("#view p.hint")].some((it) => !it.hidden && it.textContent.startsWith("Older payments are not"))'
        if page.run(is_told):
            raise SystemExit("the charts have all payments, and say otherwise")
        page.run("""{
            const real = window.fetch
            window.fetch = async (url, options) => {
                if (!url.includes("api/history")) return real(url, options)
                window.fetch = real
                return new Response(JSON.stringify({...await (await real(url, options)).json(), is_cut: true}))
            }
            const range = document.querySelector("#view select")
            range.value = "90"
            range.dispatchEvent(new Event("change"))
        }""")
        page.until(is_told)
        self.ok("the history has what was refused, and its filters are in the address")

    def freezes(self, page):
        page.go("now")
        page.click("Stop all signing", "header")
        page.click("Stop", "#dialog")
        page.until('document.getElementById("state").textContent.includes("frozen")')
        if self.fetch()[0] != 402:
            raise SystemExit("it pays although it is frozen")
        page.click("Sign again", "header")
        page.until('document.getElementById("state").textContent == "Ready to pay"')
        self.ok("all signing is stopped and allowed again")

    def looks(self, page):
        for width, height in WIDTHS.items():
            for scheme in ("light", "dark"):
                page.resize(width, height, scheme)
                for view in VIEWS:
                    page.go(view)
                    page.until('document.querySelector("#view section")')
                    # What is folded can be cut, too.
                    page.run('document.querySelectorAll("#view details").forEach((it) => { it.open = true })')
                    page.settle()
                    self.cuts_nothing(page, f"{view} at {width}, {scheme}")
                    self.keep(page, f"{view}-{width}-{scheme}")
        self.ok(f"nothing is cut in {len(VIEWS)} views at {' and '.join(map(str, WIDTHS))} px, light and dark")
        # The set-up page, too.
        other = self.browser.open(f"{self.url}/")
        other.resize(390, 844, "light")
        other.settle()
        self.cuts_nothing(other, "the set-up page")
        self.keep(other, "set-up-page-390")
        other.close()

    def shoot(self, page, name):
        """Looks at what does not last, in each width."""
        for width, height in WIDTHS.items():
            page.resize(width, height, "light")
            page.settle()
            self.cuts_nothing(page, f"{name} at {width}")
            self.keep(page, f"{name}-{width}")

    def keep(self, page, name):
        if self.options.screenshots:
            self.options.screenshots.mkdir(parents=True, exist_ok=True)
            (self.options.screenshots / f"{name}.png").write_bytes(page.picture())

    def cuts_nothing(self, page, what):
        """Nothing lies or scrolls beyond the right edge."""
        wide = page.run("""[...document.querySelectorAll("body *")].filter((it) => {
            if (it.closest(".skip, .unseen, thead, dialog:not([open])") || it.closest("svg") !== null && it.tagName !== "svg") return false
            const box = it.getBoundingClientRect()
            return box.width > 0 && (box.right > WIDTH + 1 || it.scrollWidth > it.clientWidth + 1 && it.clientWidth > 0
                && !["visible"].includes(getComputedStyle(it).overflowX))
        }).map((it) => `${it.tagName} ${it.className} ${it.textContent.slice(0, 60)}`)""".replace("WIDTH", str(page.width)))
        # A phone would show a wider page smaller.
        if wide or page.run("Math.max(innerWidth, document.documentElement.scrollWidth)") > page.width:
            raise SystemExit(f"cut in {what}: {wide}")

    def leaves(self, page):
        page.click("Sign out", "header")
        page.until('document.querySelector("#view h1").textContent == "Not signed in"')
        if page.run("sessionStorage.length"):
            raise SystemExit("a token stays")
        if errors := [error for error in page.errors if "favicon" not in error]:
            raise SystemExit(f"the page has failed: {errors}")
        self.ok("signing out leaves nothing")


class Browser:
    """Chromium without a window."""

    def __init__(self, directory):
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        flags += " --disable-component-update --disable-sync --disable-popup-blocking --no-proxy-server --remote-debugging-pipe"
        command = ["chromium", *flags.split(), f"--user-data-dir={directory / 'dashboard-profile'}", "about:blank"]
        if not shutil.which("chromium"):
            raise SystemExit("chromium is not installed")
        # It reads from descriptor 3 and writes to 4.
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        move = f"exec 3<&{theirs_in} 4>&{theirs_out}; exec \"$@\""
        environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
        self.process = subprocess.Popen(["bash", "-c", move, "bash", *command], pass_fds=(theirs_in, theirs_out),
                                        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.input, self.output = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb")
        self.number, self.answers, self.pages = 0, {}, {}
        self.said = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        text = b""
        while part := self.input.read1(1 << 16):
            text += part
            *messages, text = text.split(b"\0")
            for message in map(json.loads, messages):
                with self.said:
                    if "id" in message:
                        self.answers[message["id"]] = message
                    elif page := self.pages.get(message.get("sessionId")):
                        page.heard(message)
                    self.said.notify_all()

    def send(self, method, session=None, **parameters):
        with self.said:
            self.number += 1
            number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self.output.write(json.dumps(message).encode() + b"\0")
        self.output.flush()
        with self.said:
            if not self.said.wait_for(lambda: number in self.answers, PATIENCE):
                raise SystemExit(f"Chromium does not answer {method}")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise SystemExit(f"{method} {parameters}: {answer['error']}")
        return answer["result"]

    def open(self, url):
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        page = Tab(self, target)
        page.call("Page.navigate", url=url)
        return page

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)


class Tab:
    """A tab of Chromium."""

    def __init__(self, browser, target):
        self.browser, self.target, self.errors = browser, target, []
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def heard(self, message):
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
        if message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            entry = message["params"]["entry"]
            # What a user is told anyway is no error of the page.
            if entry.get("source") != "network":
                self.errors.append(f"{entry['text']} {entry.get('url')}")

    def call(self, method, **parameters):
        return self.browser.send(method, self.session, **parameters)

    def run(self, code):
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{code}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def text(self):
        return self.run("document.body.innerText")

    def until(self, condition):
        """Waits until the page is like that; how it changes is up to it, so it is asked again with each frame."""
        code = f"""new Promise((done) => {{
            const began = performance.now()
            // Before the page is there, nothing on it is.
            const holds = () => {{ try {{ return {condition} }} catch {{ return false }} }}
            const look = () => holds() ? done(true) : performance.now() - began > {PATIENCE * 500} ? done(false) : setTimeout(look, 5)
            look()
        }})"""
        try:
            holds = self.run(code)
        except SystemExit:
            # The page was just left for another one.
            holds = self.run(code)
        if not holds:
            raise SystemExit(f"{condition} does not come true: {self.text()} {self.errors}")

    def go(self, view):
        self.run(f"location.hash = {json.dumps('#/' + view)}")
        name = view.split("?")[0]
        self.until(f"""document.querySelector('nav a[aria-current]')?.getAttribute("href") == "#/{name}" """)

    def click(self, name, within="#view"):
        """Clicks a button by its text, as a keyboard or a screen reader would."""
        find = f"[...document.querySelectorAll({json.dumps(within + ' button')})].find((it) => it.textContent == {json.dumps(name)} && !it.disabled)"
        self.until(find)
        self.run(f"{find}.click()")

    def settle(self):
        """Waits for two frames."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(done), 300)))")

    def resize(self, width, height, scheme):
        # A tab behind another one draws nothing.
        self.call("Page.bringToFront")
        self.width = width
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"])

    def close(self):
        self.browser.send("Target.closeTarget", targetId=self.target)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""x402 with its published packages: a facilitator that settles on anvil, and sellers of version 2, of version 1 and in
Python. The reference client buys from each; then programs do through tollpass, without a word of x402 in them.

x402.py --anvil ANVIL --node-modules DIR --python PYTHON [--tollpass BINARY] [--faults [--payer NAME] [--only FAULT,...]]

--faults puts faults between sellers, facilitator and payer, and buys once per fault, as an application that does not
retry and as one that does. tollpass pays or, without it, `reference`, the reference client (which fails: it signs again
for each retry), or `patient`, which keeps payments to present them again (and passes).

What it needs is installed by .ci/programs. Everything listens on loopback, and ends with this script."""

import argparse
import collections
import concurrent.futures
import dataclasses
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

from check import HERE, PATIENCE, is_setting

COMPILED = HERE.parents[1] / "src/devnet/contracts/compiled.json"
COMPILED_HERE = HERE / "x402/contracts/compiled.json"
# Version 1 knows networks by their names only: this one is Base Sepolia to all.
CHAIN = 84532
NETWORK, NETWORK_V1 = f"eip155:{CHAIN}", "base-sepolia"
TOKEN = {"name": "Demo Dollar", "version": "2"}
SYMBOL = "DUSD"
PRICE = 1000
# Accounts of anvil, with ether; the payer has none.
FACILITATORS = [
    "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
]
MINTER = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
# A well-known key, hence worth nothing: that of anvil's fourth account.
PAYER = "0x90F79bf6EB2c4f870365E785982E1f101E93b906"
PAYER_KEY = "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"

# Permit2 as it was created on all networks: by this contract, with this salt, so that its code decides its address.
PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
CREATOR = "0x4e59b44847b379578588920cA78FbF26c0B4956C"
SALT = "0000000000000000000000000000000000000000d3af2663da51c10215000000"
# The contract of x402 that redeems payments by Permit2.
EXACT_PROXY = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
# A token without EIP-3009, of which tollpass knows no name.
STRICT_SYMBOL = "STRICT"

# Milliseconds: a seller waits so long for its facilitator, a facilitator for a receipt, an impatient one for that, and so
# long nothing is said where a fault is silence.
SELLER_PATIENCE, FACILITATOR_PATIENCE, IMPATIENCE, HANG = 3000, 20000, 400, 3600
# With the slow chain, a block each so many seconds; less than sellers wait.
SLOW_BLOCKS = 1
# How often an application retries that does.
RETRIES = 3
# Every time.
ALWAYS = 99
AT_A_TIME = 16
# Seconds within which what is awaited comes.
SOON = 20
# The most purchases that are listed for an assertion.
SHOWN = 30

CONFIG = """
listen = "127.0.0.1:0"
state_dir = "state"
[wallet]
key_file = "key"
[[asset]]
symbol = "{symbol}"
network = "{network}"
token = "{token}"
decimals = 6
eip712_name = "{name}"
eip712_version = "{version}"
[[asset]]
symbol = "{strict_symbol}"
network = "{network}"
token = "{strict}"
decimals = 6
[[network]]
id = "{network}"
rpc_url = "{rpc}"
[[pay]]
host = "127.0.0.1"
port = {permit2_port}
max_price = "{price} units of {strict_symbol}"
[[pay]]
host = "127.0.0.1"
max_price = "{price} units of {symbol}"
[limits]
# All sellers are one host here, and their faults would soon pause it.
undelivered_payments = 0
"""

# Whether a 200 must come in the end, where the fault strikes once. Section 6 of the protocol's facts: what did not settle is
# served if the same payment is presented again, and so is what is not mined yet.
ALONE = "even without a retry"
RETRIED = "after a retry"
LOST = "paid for and lost"


@dataclasses.dataclass
class Fault:
    name: str
    what: str
    served: str
    chain: str = "usual"
    flow: str = "exact"
    # Seconds after which the application gives up. To ask once more after that is to buy once more: who left may want two.
    haste: float = PATIENCE
    sellers: tuple = ("v2", "v1", "python")
    # Whether the payer is killed once its payment has arrived, and started again.
    kills: bool = False


FAULTS = [
    Fault("verify-500", "the facilitator cannot verify", RETRIED),
    Fault("verify-hang", "the facilitator verifies for ever", RETRIED),
    Fault("settle-500-unsettled", "the facilitator fails before it settles", ALONE),
    Fault("settle-cut-unsettled", "the facilitator hangs up before it settles", ALONE),
    Fault("settle-504", "settled, and the facilitator says 504", LOST),
    Fault("settle-cut", "settled, and the facilitator hangs up", LOST),
    Fault("settle-garbage", "settled, and the facilitator talks nonsense", LOST),
    Fault("settle-hang", "settled, and the facilitator falls silent", LOST),
    Fault("settle-denied", "settled, and the facilitator says it was not", LOST),
    Fault("wrong-receipt", "settled, and the receipt is another's", ALONE),
    Fault("slow-chain", f"a block each {SLOW_BLOCKS} s", ALONE, chain="slow"),
    Fault("late", "settled, and the application gives up waiting", LOST, haste=0.5),
    Fault("hasty", "the application gives up while it settles", LOST, chain="slow", haste=0.3),
    # Version 1 asks to settle once more what is on its way, and cannot tell.
    Fault("pending", "not mined until it is presented again", ALONE, chain="manual", sellers=("v2", "python")),
    Fault("pending-mined", "mined after the facilitator gave up", LOST, chain="manual"),
    Fault("resource-500", "the resource fails, nothing settles", RETRIED),
    Fault("upfront-500", "settled, then the resource fails", LOST, flow="upfront", sellers=("v2", "python")),
    Fault("429", "too many requests, nothing settles", RETRIED),
    Fault("503", "unavailable, nothing settles", RETRIED),
    Fault("redirect", "redirected, nothing settles", RETRIED),
    Fault("redirect-settled", "settled, then redirected", LOST),
    Fault("cut-unsettled", "the connection ends, nothing settles", RETRIED),
    Fault("cut-settled", "settled, and the connection ends", LOST),
    Fault("502-settled", "settled, and a gateway says 502", LOST),
    Fault("empty-402", "a 402 that says nothing, nothing settles", RETRIED),
    Fault("empty-402-settled", "settled, and a 402 that says nothing", LOST),
    Fault("html-settled", "settled, and a 402 in HTML", LOST),
    Fault("offer-settled", "settled, and the offer as if unpaid", LOST),
    Fault("duplicate", "the payment is delivered twice at once", LOST),
    Fault("crash", "the payer is killed, nothing settles", RETRIED, kills=True),
    Fault("crash-settled", "settled, and the payer is killed", LOST, kills=True),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--anvil", required=True)
    parser.add_argument("--node", default="node")
    parser.add_argument("--node-modules", required=True, type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--tollpass", type=Path)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--payer", choices=["reference", "patient"], default="reference")
    parser.add_argument("--only", help="the names of some faults")
    options = parser.parse_args()
    # Ends the children, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    with tempfile.TemporaryDirectory(prefix="tollpass-x402-") as directory:
        Check(options, Path(directory)).run()


class Check:
    def __init__(self, options, directory):
        self.options = options
        self.directory = directory
        self.children = []
        self.done = 0

    def run(self):
        try:
            self.start_peers()
            if self.options.faults:
                self.start_payer()
                Faults(self).run()
            else:
                self.by_the_reference()
                if self.options.tollpass:
                    self.start_payer()
                    self.by_programs()
                    self.by_signing_in()
                    self.by_permit2()
            if self.options.tollpass:
                self.expect_ledger()
        finally:
            self.stop()
        print(f"{self.done} checks of x402")

    # The peers

    def start_peers(self):
        self.chain = Chain(self.start_anvil())
        self.token = self.chain.deploy("AuthorizedToken")
        self.chain.mint(self.token, PAYER, 10**12)
        self.place_permit2()
        # Node looks for packages beside the script.
        for script in (HERE / "x402").glob("*.mjs"):
            shutil.copy(script, self.beside())
        facilitators = [
            self.node("facilitator", rpc=self.chain.url, chain=CHAIN, key=key, patience=patience)
            for key, patience in zip(FACILITATORS, [FACILITATOR_PATIENCE, IMPATIENCE])
        ]
        usual, impatient = map(first_line, facilitators)
        faults = self.node("faults", rpc=self.chain.url, facilitator=usual, impatient=impatient, hang=HANG)
        self.facilitator = first_line(faults)
        offer = {"facilitator": self.facilitator, "patience": SELLER_PATIENCE, "token": self.token, "price": PRICE, **TOKEN}
        python = [self.options.python, str(HERE / "x402/seller.py"), json.dumps({**offer, "chain": CHAIN})]
        sellers = {
            "v2": self.node("seller", **offer, chain=CHAIN),
            "v1": self.node("seller_v1", **offer, network=NETWORK_V1),
            "python": self.start("seller.py", python),
        }
        permit2 = self.node("seller", **{**offer, "token": self.strict}, chain=CHAIN, method="permit2")
        self.permit2 = first_line(permit2)
        print(json.dumps({name: first_line(child) for name, child in sellers.items()}), file=faults.stdin, flush=True)
        self.sellers = json.loads(first_line(faults))
        # No fault stands between them: what is signed names the seller's own address.
        self.remembering = first_line(self.node("seller_sign_in", **offer, chain=CHAIN))

    def place_permit2(self):
        """Permit2 itself, the contract that redeems payments by it, and a token that has no other way."""
        code = (self.options.node_modules / f"hardhat-predeploy/bin/{PERMIT2}.bytecode").read_bytes()
        self.chain.send(to=CREATOR, data=f"0x{SALT}{code.hex()}")
        if self.chain.code(PERMIT2) == "0x":
            raise SystemExit("the code of Permit2 is another")
        proxy = self.chain.deploy("ExactProxy", COMPILED_HERE)
        self.chain.call("anvil_setCode", EXACT_PROXY, self.chain.code(proxy))
        self.strict = self.chain.deploy("StrictToken", COMPILED_HERE)
        self.chain.mint(self.strict, PAYER, 10**12)

    def start_payer(self):
        """Starts tollpass or, without it, a payer to compare with."""
        self.paying = self.start_tollpass() if self.options.tollpass else self.start_reference()
        self.payer = address(self.paying)

    def start_reference(self):
        kept = str(self.directory / "kept") if self.options.payer == "patient" else None
        return self.node("payer", key=PAYER_KEY, network=NETWORK, networkV1=NETWORK_V1, kept=kept)

    def start_tollpass(self):
        config = self.directory / "proxy.toml"
        strict = {"strict": self.strict, "strict_symbol": STRICT_SYMBOL, "permit2_port": self.permit2.rsplit(":", 1)[1]}
        network = {"network": NETWORK, "rpc": self.chain.url}
        config.write_text(CONFIG.format(symbol=SYMBOL, token=self.token, price=PRICE, **network, **strict, **TOKEN))
        key = self.directory / "key"
        key.write_text(PAYER_KEY)
        for path in (config, key):
            path.chmod(0o600)
        return self.start("tollpass", [str(self.options.tollpass), "serve", "--config", str(config)])

    def restart_payer(self):
        self.paying.kill()
        self.paying.wait(timeout=PATIENCE)
        self.start_payer()

    def start_anvil(self):
        child = self.start("anvil", [self.options.anvil, "--port", "0", "--chain-id", str(CHAIN)])
        for line in child.stdout:
            if line.startswith("Listening on "):
                # It stops once the pipe is full.
                threading.Thread(target=collections.deque, args=(child.stdout, 0), daemon=True).start()
                return f"http://{line.split()[-1]}"
        raise SystemExit(f"anvil did not start: {child.log.read_text()}")

    def beside(self):
        return self.options.node_modules.parent

    def node(self, program, **settings):
        return self.start(program, [self.options.node, str(self.beside() / f"{program}.mjs"), json.dumps(settings)])

    def start(self, name, command):
        log = self.directory / f"{len(self.children)}-{name}.log"
        # Whatever they keep at home goes with this script.
        environment = usual_environment() | {"HOME": str(self.directory)}
        with log.open("w") as errors:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
            )
        child.log = log
        self.children.append(child)
        return child

    def stop(self):
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            child.wait(timeout=PATIENCE)
        if "panicked" in self.log():
            raise SystemExit(self.log())

    def log(self):
        """What tollpass wrote, also before it was killed."""
        return "".join(log.read_text() for log in sorted(self.directory.glob("*-tollpass.log")))

    # Purchases without faults

    def by_the_reference(self):
        payer = address(self.start_reference())
        for name, seller in self.sellers.items():
            for method in ["GET", "POST"]:
                url, payee = purchase(seller)
                status, body = ask(payer, method, url)
                self.expect(f"{name}: the reference client, {method}", (status, sold(body)), (200, method))
                self.expect(f"{name}: what that moved", self.chain.balance(self.token, payee), PRICE)
            self.at_once(f"{name}: the reference client", payer, seller)

    def at_once(self, what, payer, seller):
        """Equal requests at the same time are a purchase each."""
        url, payee = purchase(seller)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            statuses = list(pool.map(lambda _: ask(payer, "GET", url)[0], range(AT_A_TIME)))
        self.expect(f"{what}, {AT_A_TIME} at once", statuses, [200] * AT_A_TIME)
        self.expect(f"{what}, what these moved", self.chain.balance(self.token, payee), AT_A_TIME * PRICE)

    def by_programs(self):
        proxy = f"http://{self.payer}"
        script = shutil.copy(HERE / "ask.mjs", self.beside())
        programs = {
            "curl": ["curl", "-qfsS"],
            "curl, POST": ["curl", "-qfsS", "--data", "words"],
            "requests": [self.options.python, str(HERE / "ask.py"), "requests"],
            "Node, undici": [self.options.node, str(script), "undici"],
        }
        environment = usual_environment() | {"http_proxy": proxy, "HTTP_PROXY": proxy}
        for seller, origin in self.sellers.items():
            for name, command in programs.items():
                url, payee = purchase(origin)
                # The second time, its price is known.
                for count in [1, 2]:
                    what = f"{seller}: {name} through tollpass, {count}"
                    done = run([*command, url], environment)
                    method = "POST" if "POST" in name else "GET"
                    self.expect(what, (done.returncode, done.stderr, sold(done.stdout)), (0, "", method))
                    self.expect(f"{what}: what that moved", self.chain.balance(self.token, payee), count * PRICE)
            self.at_once(f"{seller}: through tollpass", self.payer, origin)

    def by_signing_in(self):
        """What was bought before is served to whom has bought it."""
        for method in ["GET", "POST"]:
            url, payee = purchase(self.remembering)
            for count in [1, 2, 3]:
                status, body = ask(self.payer, method, url)
                self.expect(f"a seller that remembers, {method}, {count}", (status, sold(body)), (200, method))
                self.expect("what that moved in all", self.chain.balance(self.token, payee), PRICE)

    def by_permit2(self):
        """A token without EIP-3009 is paid once Permit2 has an allowance, with the payment that was refused before."""
        # For the fees of allowances.
        self.chain.send(to=PAYER, value=hex(10**18))
        url, payee = purchase(self.permit2)
        for count in [1, 2]:
            self.expect(f"permit2: without an allowance, {count}", ask(self.payer, "GET", url)[0], 412)
        self.expect("permit2: the reason", "reason=\"no-allowance\"" in self.log(), True)
        self.expect("permit2: what that moved", self.chain.balance(self.strict, payee), 0)
        self.approve(f"0.002 {STRICT_SYMBOL}", 2 * PRICE)
        status, body = ask(self.payer, "GET", url)
        self.expect("permit2: after the approval", (status, sold(body)), (200, "GET"))
        self.expect("permit2: what that moved", self.chain.balance(self.strict, payee), PRICE)
        self.expect("permit2: what is left of the allowance", self.chain.allowance(self.strict, PAYER), PRICE)
        await_that(lambda: [row["state"] for row in self.ledger()[payee]] == ["paid"])
        [row] = self.ledger()[payee]
        nonce = int(row["nonce"], 16)
        self.expect("permit2: its bit on Permit2", self.chain.used(PAYER, nonce >> 8) >> (nonce & 255) & 1, 1)
        # The allowance is used up by the next, and changed before that.
        self.approve(str(PRICE + 1), PRICE + 1)
        second, third = purchase(self.permit2), purchase(self.permit2)
        self.expect("permit2: another purchase", ask(self.payer, "GET", second[0])[0], 200)
        self.expect("permit2: one more, without an allowance", ask(self.payer, "GET", third[0])[0], 412)
        self.approve("unlimited", 2**256 - 1)
        self.expect("permit2: the same after the approval", ask(self.payer, "GET", third[0])[0], 200)
        moved = [self.chain.balance(self.strict, payee) for _, payee in [second, third]]
        self.expect("permit2: what these moved", moved, [PRICE, PRICE])

    def approve(self, amount, expected):
        amount = ["--unlimited"] if amount == "unlimited" else [amount]
        names = [STRICT_SYMBOL, "--network", NETWORK, "--config", str(self.directory / "proxy.toml")]
        command = [str(self.options.tollpass), "approve-token", *names, "--yes", *amount]
        done = run(command, usual_environment())
        self.expect(f"permit2: approve-token {amount[0]}", (done.returncode, done.stderr.count("fees: at most")), (0, 1))
        self.expect("permit2: the allowance", self.chain.allowance(self.strict, PAYER), expected)

    def moved(self, payee):
        return self.chain.balance(self.token, payee) + self.chain.balance(self.strict, payee)

    def expect_ledger(self):
        """The ledger counts at least what moved, and no more where every payment was served."""
        if not self.options.faults:
            # The last rows follow soon after the answers.
            await_that(lambda: not any(row["state"] in ["held", "sent"] for payments in self.ledger().values() for row in payments))
        rows = self.ledger()
        for payee, payments in rows.items():
            counted = sum(int(row["counts"]) for row in payments)
            moved = self.moved(payee)
            if self.options.faults and moved > counted:
                raise SystemExit(f"{moved} moved to {payee}, and the ledger counts {counted}: {payments}")
            if not self.options.faults:
                self.expect(f"the ledger about {payee}", (counted, {row["state"] for row in payments}), (moved, {"paid"}))
        total = sum(self.moved(payee) for payee in rows)
        counted = sum(int(row["counts"]) for payments in rows.values() for row in payments)
        print(f"    {total} moved, and the ledger counts {counted} in {sum(map(len, rows.values()))} payments")

    def ledger(self):
        """The last row of each payment, by payee."""
        command = [str(self.options.tollpass), "ledger", "--json", "--state-dir", str(self.directory / "state")]
        rows = json.loads(subprocess.check_output(command, timeout=PATIENCE))
        last = {row["payment"]: row for row in rows}
        payees = collections.defaultdict(list)
        for row in last.values():
            payees[row["payee"].lower()].append(row)
        return payees

    def expect(self, what, seen, expected):
        if seen != expected:
            raise SystemExit(f"{what}: {seen!r} and not {expected!r}\n{self.log()[-4000:]}")
        print(f"ok  {what}", flush=True)
        self.done += 1


class Faults:
    """Each fault meets purchases of each kind: of an application that does not retry, of one that retries, and of one that
    retries while the fault persists."""

    def __init__(self, check):
        self.check = check
        self.payer_name = "tollpass" if check.options.tollpass else f"the {check.options.payer} payer"
        self.purchases = []

    def run(self):
        names = self.check.options.only.split(",") if self.check.options.only else [fault.name for fault in FAULTS]
        faults = [fault for fault in FAULTS if fault.name in names]
        # What concerns all purchases is done to one at a time.
        groups = {("usual", False): AT_A_TIME, ("slow", False): AT_A_TIME, ("manual", False): 1, ("usual", True): 1}
        for (chain, kills), at_a_time in groups.items():
            self.check.chain.mines(chain)
            group = [fault for fault in faults if (fault.chain, fault.kills) == (chain, kills)]
            plans = [plan for fault in group for plan in self.plans(fault)]
            with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
                self.purchases += pool.map(lambda plan: self.buy(*plan), plans)
            self.check.chain.mines("usual")
        self.look()
        self.report()

    def plans(self, fault):
        for seller in fault.sellers:
            for method in ["GET", "POST"] if seller != "python" else ["GET"]:
                yield fault, seller, method, 1, 0
                yield fault, seller, method, 1, RETRIES
                # Where purchases are made one at a time, this takes long.
                if not fault.kills and (fault.chain != "manual" or (seller, method) == ("v2", "GET")):
                    yield fault, seller, method, ALWAYS, RETRIES

    def buy(self, fault, seller, method, times, retries):
        url, payee = purchase(self.check.sellers[seller], fault.flow, fault.name, times)
        statuses = []
        while 200 not in statuses and len(statuses) <= retries:
            if fault.kills and not statuses:
                statuses.append(self.ask_and_kill(fault, method, url, payee))
            else:
                statuses.append(ask(self.check.payer, method, url, fault.haste)[0])
        if fault.chain == "manual":
            self.check.chain.mine()
        return Purchase(fault, seller, method, times, retries, payee, statuses)

    def ask_and_kill(self, fault, method, url, payee):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, self.check.payer, method, url)
            # Without a payment, the statuses say why.
            if await_that(lambda: payee in self.presented() or asked.done()) and fault.served == LOST:
                await_that(lambda: self.check.chain.balance(self.check.token, payee) or asked.done())
            self.check.restart_payer()
            return asked.result()[0]

    def presented(self):
        """By payee, how often each different payment was presented."""
        with urllib.request.urlopen(f"{self.check.facilitator}/seen", timeout=PATIENCE) as answer:
            return {payee: counts for payee, counts in json.load(answer).items() if counts}

    def look(self):
        """Adds what the chain, the sellers' side and the ledger know of the purchases."""
        presented = self.presented()
        ledger = self.check.ledger() if self.check.options.tollpass else None
        for bought in self.purchases:
            bought.transfers = self.check.chain.balance(self.check.token, bought.payee) / PRICE
            bought.presented = presented.get(bought.payee, [])
            bought.ledger = None if ledger is None else ledger.get(bought.payee, [])

    def report(self):
        self.print_table()
        failed = False
        for assertion in [no_double_payment, one_signature, served_if_it_can_be, ledger_knows]:
            broken = [bought for bought in self.purchases if not assertion(bought)]
            failed |= bool(broken)
            print(f"{'NOT' if broken else 'ok '} {assertion.__doc__}: {len(broken)} of {len(self.purchases)} purchases break it")
            for bought in broken[:SHOWN]:
                print(f"      {bought.describe()}")
            if broken[SHOWN:]:
                print(f"      and {len(broken) - SHOWN} more")
        faults = {bought.fault.name for bought in self.purchases}
        print(f"{len(self.purchases)} purchases by {self.payer_name} met {len(faults)} faults")
        self.check.done += len(self.purchases)
        if failed:
            raise SystemExit(1)

    def print_table(self):
        """A line for each fault and seller; methods with the same outcomes share one."""
        table = collections.defaultdict(lambda: collections.defaultdict(list))
        for bought in self.purchases:
            table[bought.fault.name, bought.seller][bought.method].append(bought.outcome())
        print("Statuses (0: no answer); transfers; different payments x times that one was presented; states in the ledger.")
        plans = ["the fault once, no retry", f"the fault once, {RETRIES} retries", f"the fault always, {RETRIES} retries"]
        print(f"{'fault':22}{'seller':8}{'methods':10}" + "".join(f"{plan:40}" for plan in plans))
        for (fault, seller), methods in table.items():
            lines = collections.defaultdict(list)
            for method, outcomes in methods.items():
                lines[tuple(outcomes)].append(method)
            for outcomes, names in lines.items():
                print(f"{fault:22}{seller:8}{'+'.join(names):10}" + "".join(f"{outcome:39} " for outcome in outcomes))


@dataclasses.dataclass
class Purchase:
    fault: Fault
    seller: str
    method: str
    times: int
    retries: int
    payee: str
    statuses: list

    def most(self):
        """How many times it may be paid for."""
        return 1 if self.fault.haste == PATIENCE else len(self.statuses)

    def outcome(self):
        statuses = " ".join(map(str, self.statuses))
        states = " ".join(row["state"] for row in self.ledger or [])
        return f"{statuses}; {self.transfers:g}; {len(self.presented)}x{max(self.presented, default=0)}; {states}"

    def describe(self):
        often = "once" if self.times == 1 else "always"
        fault = f"{self.fault.name} ({self.fault.what}) {often}"
        return f"{fault}, {self.seller}, {self.method}, {self.retries} retries: {self.outcome()}"


# The assertions


def no_double_payment(bought):
    """no purchase is paid for twice"""
    return bought.transfers <= bought.most()


def one_signature(bought):
    """no purchase has two signatures that both can be redeemed"""
    return len(bought.presented) <= bought.most()


def served_if_it_can_be(bought):
    """what the same payment can still buy is served"""
    if bought.times != 1 or bought.fault.served == LOST:
        return True
    return bought.statuses[-1] == 200 or (bought.fault.served == RETRIED and bought.retries == 0)


def ledger_knows(bought):
    """the ledger counts what moved, and no more than was signed"""
    counted = sum(int(row["counts"]) for row in bought.ledger or [])
    return bought.ledger is None or bought.transfers * PRICE <= counted <= len(bought.presented) * PRICE


# What the rest is made of


class Chain:
    def __init__(self, url):
        self.url = url

    def call(self, method, *parameters):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            said = json.load(answer)
        if "error" in said:
            raise SystemExit(f"{method}: {said['error']}")
        return said["result"]

    def send(self, **transaction):
        receipt = self.call("eth_sendTransactionSync", {"from": MINTER, **transaction})
        if receipt["status"] != "0x1":
            raise SystemExit(f"reverted: {transaction}")
        return receipt

    def deploy(self, name, compiled=COMPILED):
        return self.send(data=json.loads(compiled.read_text())[name]["bytecode"])["contractAddress"]

    def code(self, address):
        return self.call("eth_getCode", address, "latest")

    def mint(self, token, account, amount):
        self.send(to=token, data=f"0x40c10f19{word(account)}{amount:064x}")

    def balance(self, token, account):
        return int(self.call("eth_call", {"to": token, "data": f"0x70a08231{word(account)}"}, "latest"), 16)

    def allowance(self, token, owner):
        data = f"0xdd62ed3e{word(owner)}{word(PERMIT2)}"
        return int(self.call("eth_call", {"to": token, "data": data}, "latest"), 16)

    def used(self, owner, place):
        """256 bits of Permit2, one for each nonce."""
        data = f"0x4fe02b44{word(owner)}{place:064x}"
        return int(self.call("eth_call", {"to": PERMIT2, "data": data}, "latest"), 16)

    def mines(self, when):
        """When it mines: at once, every few seconds, or when it is told to."""
        self.call("evm_setIntervalMining", SLOW_BLOCKS if when == "slow" else 0)
        self.call("evm_setAutomine", when == "usual")
        self.mine()

    def mine(self):
        self.call("evm_mine")


def word(address):
    return address.removeprefix("0x").lower().rjust(64, "0")


def purchase(seller, flow="exact", fault="none", times=0):
    """A URL that is for sale, and the address that its price goes to."""
    payee = f"0x{secrets.token_hex(20)}"
    return f"{seller}/{flow}/{payee}/{fault}/{times}", payee


def ask(proxy, method, url, patience=PATIENCE):
    """The status and body of an answer by a proxy; 0 without one."""
    connection = http.client.HTTPConnection(proxy, timeout=patience)
    try:
        connection.request(method, url, b"words" if method == "POST" else None, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def sold(body):
    """The method that was sold by this answer."""
    try:
        return json.loads(body)["bought"]
    except (ValueError, KeyError, TypeError):
        return body


def run(command, environment):
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )


def await_that(holds):
    """Whether it comes to hold in time."""
    until = time.monotonic() + SOON
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def address(child):
    """Where a program listens that says so, as HOST:PORT."""
    return first_line(child).split()[-1].removeprefix("http://")


def first_line(child):
    """What a program says once it listens."""
    line = child.stdout.readline().strip()
    if not line:
        raise SystemExit(f"{child.args}: exit code {child.wait(timeout=PATIENCE)}\n{child.log.read_text()}")
    return line


def usual_environment():
    """The environment, without what would name another proxy or another user's directories."""
    return {name: value for name, value in os.environ.items() if not is_setting(name) and name != "XDG_RUNTIME_DIR"}


if __name__ == "__main__":
    main()

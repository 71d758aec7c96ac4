#!/usr/bin/env python3
"""What tollpass adds to a call that is paid by x402, beside the published client: all buy from the published seller of version
2, whose facilitator settles nothing, at once. One client by hand is the baseline of all, and everything is in one run, with
durable writes.

x402_speed.py --node-modules DIR [--node NODE] [--calls COUNT] [--proxy BINARY]

.ci/programs installs the packages, in target/programs/x402/node_modules. The machine should do nothing else meanwhile."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from check import HERE

# As in tests/bench/paid/x402.rs.
OFFER = {"chain": 31337, "token": "0x" + "70" * 20, "name": "Toy Dollar", "version": "2", "price": 1000}
KEY = "0x" + "07" * 32
PATH = "/exact/0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC/none/0"
# Milliseconds that the seller waits for its facilitator.
PATIENCE = 3000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--node", default="node")
    parser.add_argument("--node-modules", required=True, type=Path)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--proxy", type=Path, help="another tollpass to measure")
    options = parser.parse_args()
    beside = options.node_modules.absolute().parent
    # Node looks for packages beside the script.
    for script in (HERE / "x402").glob("*.mjs"):
        shutil.copy(script, beside)
    children = []

    def start(program, **settings):
        command = [options.node, str(beside / f"{program}.mjs"), json.dumps(settings)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        line = child.stdout.readline().strip()
        if not line:
            raise SystemExit(f"{program} did not start")
        return line

    with tempfile.TemporaryDirectory(prefix="tollpass-speed-") as directory:
        try:
            facilitator = start("instant", chain=OFFER["chain"])
            seller = start("seller", facilitator=facilitator, patience=PATIENCE, **OFFER)
            settings = json.dumps({"key": KEY, "chain": OFFER["chain"]})
            client = Path(directory) / "client"
            words = shlex.join([options.node, str(beside / "by_fetch.mjs")])
            client.write_text(f'#!/bin/sh\nexec {words} "$1" "$2" {shlex.quote(settings)}\n')
            client.chmod(0o700)
            environment = os.environ | {"SELLER": f"{seller}{PATH}", "CALLS": str(options.calls), "CLIENT": str(client)}
            if options.proxy:
                environment["PROXY"] = str(options.proxy.absolute())
            command = ["cargo", "bench", "--bench", "paid", "x402"]
            subprocess.run(command, cwd=HERE.parents[1], env=environment, check=True)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(timeout=10)


if __name__ == "__main__":
    main()

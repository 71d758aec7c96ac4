"""Makes a wheel that installs a program: wheel.py BINARY VERSION DIRECTORY. Prints its path.

The same binary makes the same wheel."""

import base64
import hashlib
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Wheels cannot have older files.
TIME = (1980, 1, 1, 0, 0, 0)


def main(binary, version, directory):
    name = f"tollpass-{version}"
    wheel = Path(directory) / f"{name}-py3-none-{platform(binary)}.whl"
    files = {
        f"{name}.data/scripts/tollpass": Path(binary).read_bytes(),
        f"{name}.dist-info/METADATA": metadata(version),
        f"{name}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: tollpass\nRoot-Is-Purelib: false\n"
        + f"Tag: py3-none-{platform(binary)}\n".encode(),
        f"{name}.dist-info/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    record = f"{name}.dist-info/RECORD"
    lines = [f"{path},sha256={digest(content)},{len(content)}\n" for path, content in files.items()]
    files[record] = ("".join(lines) + f"{record},,\n").encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, TIME)
            mode = 0o755 if "/scripts/" in path else 0o644
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    print(wheel)


def metadata(version):
    description = re.search(r'^description = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    head = f"Metadata-Version: 2.4\nName: tollpass\nVersion: {version}\nSummary: {description}\n"
    head += "License-Expression: MIT\nLicense-File: LICENSE\nDescription-Content-Type: text/markdown\n\n"
    return head.encode() + (ROOT / "README.md").read_bytes()


def digest(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def platform(binary):
    """Where the program runs: on Linux, with the oldest version of glibc that has all that it uses."""
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if not machine.startswith("linux_"):
        return machine
    symbols = subprocess.run(["objdump", "-T", binary], check=True, capture_output=True, text=True).stdout
    versions = {tuple(map(int, found.split("."))) for found in re.findall(r"\bGLIBC_(\d+\.\d+)", symbols)}
    major, minor = max(versions)
    return f"manylinux_{major}_{minor}_{machine.removeprefix('linux_')}"


main(*sys.argv[1:])

"""Assemble the one-file ``k3s``: a Python zip application that carries the Kubernetes binaries as its payload."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

BINARIES = ("etcd", "etcdctl", "hyperkube", "kube-router")
SHEBANG = b"#!/usr/bin/env python3\n"
SOURCE = Path(__file__).resolve().parent
# Zip's epoch: the output depends on the content only.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)
MAIN = b"""from lab.k3s_standin.cli import main

raise SystemExit(main())
"""


def build(binaries: Path, output: Path) -> Path:
    """Write the executable ``output`` from this package's code and the programs in the folder ``binaries``.

    The same inputs give the same bytes.

    Raises:
        FileNotFoundError: a program of ``BINARIES`` is missing.
        ValueError: the programs do not say their versions.
    """
    missing = [name for name in BINARIES if not (binaries / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{binaries}: {', '.join(missing)} missing")
    contents = {name: (binaries / name).read_bytes() for name in BINARIES}
    total = hashlib.sha256()
    for name, content in contents.items():
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    version, go_version = _versions(binaries / "hyperkube")
    about = {"version": version, "go_version": go_version, "data": total.hexdigest(), "binaries": list(BINARIES)}
    partial = output.with_name(output.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            _add(archive, "__main__.py", MAIN)
            _add(archive, "lab/__init__.py", b"")
            for module in sorted(SOURCE.glob("*.py")):
                if module.name != "build.py":
                    _add(archive, f"lab/k3s_standin/{module.name}", module.read_bytes())
            _add(archive, "payload/about.json", json.dumps(about, sort_keys=True).encode())
            for name, content in contents.items():
                _add(archive, f"payload/{name}", content)
    partial.chmod(0o755)
    partial.rename(output)
    return output


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, TIMESTAMP)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o755) << 16
    archive.writestr(entry, content)


def _versions(hyperkube: Path) -> tuple[str, str]:
    command = [str(hyperkube), "kubectl", "version", "--client", "--output=json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["clientVersion"]
    version, go_version = str(answer["gitVersion"]), str(answer["goVersion"])
    if not re.fullmatch(r"v\d+\.\d+\.\d+\S*", version):
        raise ValueError(f"{hyperkube}: says version {version!r}")
    return version, go_version


def main(arguments: list[str] | None = None) -> int:
    """``python -m lab.k3s_standin.build --binaries DIR --output FILE``."""
    parser = argparse.ArgumentParser(prog="python -m lab.k3s_standin.build", description=__doc__)
    parser.add_argument("--binaries", type=Path, required=True, help=f"folder with {', '.join(BINARIES)}")
    parser.add_argument("--output", type=Path, required=True, help="the executable to write")
    options = parser.parse_args(arguments)
    try:
        build(options.binaries, options.output)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

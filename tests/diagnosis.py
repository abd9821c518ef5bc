"""What a lab looks like when a test that ran on it fails: its log ends before anybody can look."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.machines import Host, run_kubectl

LINES = 12
# The first failures are told from; of a lab that is lost all others fail too, and to ask its hosts takes long.
FAILURES = 3
# What k3s and what it runs warn of, in klog's form and in logrus'.
ON_A_HOST = (
    "uptime; journalctl --unit=k3s --unit=k3s-agent --grep='^[EFW][0-9]|level=(warning|error|fatal)'"
    f" --lines={LINES} --output=cat --no-pager"
)


_told: Counter[Path] = Counter()


def says(lab: Path) -> str:
    """What a lab says after a failure; nothing after the first FAILURES of it."""
    _told[lab] += 1
    return "\n".join(_lines(lab)) if _told[lab] <= FAILURES else ""


def _lines(lab: Path) -> Iterator[str]:
    try:
        hosts = json.loads((lab / "lab.json").read_text())["hosts"]
    except OSError:
        yield "no host is there"
        return
    if (lab / "kubeconfig").exists():
        yield "pods that are not ready or were restarted:"
        yield from filter(_unwell, _kubectl(lab, "get", "pods"))
        yield f"the last {LINES} warnings of the cluster:"
        yield from _kubectl(lab, "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp")[-LINES:]
    for name, address in hosts.items():
        yield f"{name}:"
        try:
            yield Host(name, address, lab).run(ON_A_HOST, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            yield str(error)


def _kubectl(lab: Path, *arguments: str) -> list[str]:
    try:
        answer = run_kubectl(lab, *arguments, "--all-namespaces", "--no-headers", "--request-timeout=10s")
    except (OSError, subprocess.SubprocessError) as error:
        return [str(error)]
    return (answer.stdout or answer.stderr).splitlines()


def _unwell(line: str) -> bool:
    """Whether a line of ``kubectl get pods`` is of a pod that somebody should look at."""
    words = line.split()
    if len(words) < 5:
        return True
    ready, _, count = words[2].partition("/")
    return words[4] != "0" or words[3] not in ("Running", "Completed") or (words[3] == "Running" and ready != count)

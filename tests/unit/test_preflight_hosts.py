"""What preflight says of a host's probe, where no real host is needed to see it."""

from __future__ import annotations

from typing import Any

import pytest
from tradewatch_preflight import hosts

SETTINGS = {
    "supported_systems": ["debian 12"],
    "machine": "x86_64",
    "min_memory_mib": 1800,
    "min_disk_mib": 20480,
    "min_free_disk_mib": 2048,
    "allow_swap": False,
    "max_clock_skew_seconds": 2,
}
OUTPUT = """@@tradewatch user
root
@@tradewatch python
/usr/bin/python3
usable
@@tradewatch os
ID=debian
VERSION_ID="12"
@@tradewatch machine
x86_64
@@tradewatch swaps
Filename Type Size Used Priority
@@tradewatch memory
MemTotal: 4194304 kB
@@tradewatch disk
Filesystem 1024-blocks Used Available Capacity Mounted on
/dev/vda1 41943040 1048576 40894464 3% /
@@tradewatch units
@@tradewatch routes
@@tradewatch end
"""


def probe(output: str = OUTPUT, **values: Any) -> dict[str, Any]:
    """What the probe of a host that is as it should be returns, but for ``values``."""
    given = {"reachable": True, "reason": "", "output": output, "time": "100.5", "time_before": 100, "time_after": 101}
    return {**given, "root": True, "become": False, "become_reason": "", "cluster": "none", "networks": {}, **values}


def check(one: dict[str, Any], **settings: Any) -> list[str]:
    return [problem.line for problem in hosts.check("node-1", one, SETTINGS | settings)]


def test_a_host_as_it_should_be_is_not_named() -> None:
    assert check(probe()) == []


def test_a_probe_that_did_not_run_is_one_line() -> None:
    fix = "log in by SSH and see what the shell prints"
    [line] = check(probe("", reason="This account is currently not available"))
    assert line == (
        "host node-1: the probe did not run to its end (This account is currently not available); "
        "log in by SSH and see what the shell prints"
    )
    [line] = check(probe(OUTPUT.removesuffix("@@tradewatch end\n")))
    assert line == f"host node-1: the probe did not run to its end (no output); {fix}"


@pytest.mark.parametrize("time", ["", "100.N"])
def test_a_clock_that_cannot_be_read(time: str) -> None:
    [line] = check(probe(time=time))
    assert line == "host node-1: its clock cannot be read; see what `date +%s.%N` prints on it"


def test_swap_may_be_allowed() -> None:
    swapping = probe(OUTPUT.replace("Priority\n", "Priority\n/dev/sda2 partition 1000 0 -2\n"))
    [line] = check(swapping)
    assert line.startswith("host node-1: has swap on (/dev/sda2); ")
    assert check(swapping, allow_swap=True) == []


@pytest.mark.parametrize(
    ("part", "unit", "said"),
    [
        ("agent", "k3s.service", "runs a k3s server, and its group makes it a k3s agent"),
        ("server", "k3s-agent.service", "runs a k3s agent, and its group makes it a k3s server"),
        ("agent", "k3s-agent.service", None),
        ("server", "k3s.service", None),
        ("server", "", None),
    ],
)
def test_a_host_stays_what_it_is(part: str, unit: str, said: str | None) -> None:
    probes = {"node-1": probe(OUTPUT.replace("units\n", f"units\n{unit}\n"))}
    found = hosts.check_parts({f"k3s_{part}": ["node-1", "not-probed"]}, probes)
    fix = "move its line back, or remove the host and add it anew (docs/operations.md)"
    assert [problem.line for problem in found] == ([f"host node-1: {said}; {fix}"] if said else [])

"""One line per event on stderr, which systemd takes to the journal: ``level=info component=k3s msg="..."``."""

from __future__ import annotations

import json
import re
import sys

_KLOG = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (.*)$")
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal"}


def log(level: str, message: str, component: str = "k3s-standin") -> None:
    """Write one line; ``level`` is info, warning, error or fatal."""
    print(
        f"level={level} component={component} msg={json.dumps(message, ensure_ascii=False)}",
        file=sys.stderr,
        flush=True,
    )


def relay(component: str, line: str) -> None:
    """Write a line that a child process printed; klog's own time stamp and level become ours."""
    match = _KLOG.match(line)
    if match:
        log(_LEVELS[match[1]], match[2], component)
    else:
        log("info", line, component)

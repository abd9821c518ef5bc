"""The environment in which the lab's tools write below the lab, the venv or the cache, and nowhere else.

``python -m lab.environment COMMAND ...`` runs a command in it; ``python -m lab`` is always in it. Standard library
only: the Makefile uses it before there is a venv. What a tool reads of its user's own configuration (pip.conf, uv.toml,
go/env, .netrc, proxies) stays where it is: only what it writes is moved.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lab import paths

# Linux's limit for a Unix socket's path (108 with the final zero), less what ssh appends to the folder: a slash, ten
# characters that Ansible chooses, a dot and sixteen that ssh chooses while it makes the socket.
CONTROL_FOLDER_BYTES = 107 - (1 + 10 + 1 + 16)
SSH_ARGS = "-o ServerAliveInterval=15"


def variables(lab: Path | None = None) -> dict[str, str]:
    """What to set for any tool that works on the lab in ``lab``, or on this process's own."""
    lab = lab or paths.lab_dir()
    cache = paths.cache_dir()
    tools = paths.VENV_BIN.parent / "tools"
    return {
        "ANSIBLE_HOME": str(lab / "ansible"),
        **_control_path(control_folder(lab)),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(tools / "hypothesis"),
        "KUBECACHEDIR": str(lab / "kube-cache"),
        "PIP_CACHE_DIR": str(cache / "pip"),
        # Kept in the venv, also for who wants no bytecode next to sources: Ansible takes seconds to compile, and each
        # of its commands would do it again.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tools / "pycache"),
        "UV_CACHE_DIR": str(cache / "uv"),
    }


def go_variables() -> dict[str, str]:
    """What to set for Go beside that.

    Its telemetry has no variable of its own and follows XDG_CONFIG_HOME, as the user's ``go/env`` would: GOENV says
    where that is.
    """
    root = paths.cache_dir() / "go"
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {
        "GOCACHE": str(root / "build"),
        "GOENV": os.environ.get("GOENV") or str(configuration / "go" / "env"),
        "GOMODCACHE": str(root / "mod"),
        "GOPATH": str(root / "path"),
        "XDG_CONFIG_HOME": str(root / "config"),
    }


def control_folder(lab: Path) -> Path:
    """Where ssh keeps the connections to a lab's hosts that Ansible's tasks share."""
    return lab / "ssh" / "cp"


def _control_path(folder: Path) -> dict[str, str]:
    """Shared connections in ``folder``, or none where its path is too long for sockets."""
    if len(os.fsencode(folder)) > CONTROL_FOLDER_BYTES:
        return {"ANSIBLE_SSH_ARGS": f"-o ControlMaster=no {SSH_ARGS}"}
    return {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder)}


def enter() -> None:
    """Put this process, and so all that it starts, into the environment."""
    os.environ.update(variables())
    # For this process itself: Python has read the variables already.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"]


def main() -> None:
    """Become the command of the arguments."""
    os.environ.update(variables())
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (no shell: the Makefile gives words)
    except OSError as error:
        raise SystemExit(f"lab: cannot run {sys.argv[1]}: {error.strerror}") from error


if __name__ == "__main__":
    main()

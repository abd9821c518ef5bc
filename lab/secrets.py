"""The lab's own secrets, generated once; production reads a vault instead."""

from __future__ import annotations

import json
import os
import secrets

from lab import paths

NAMES = ("k3s_token", "valkey_password", "prometheus_password")


def ensure() -> None:
    """Write ``secrets.json`` (0600) with a value for each of ``NAMES``; values that are there stay."""
    file = paths.lab_dir() / "secrets.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    values = {name: known.get(name) or secrets.token_hex(24) for name in NAMES}
    if values != known:
        partial = file.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(values, stream)
        partial.rename(file)

"""Where the lab reads and writes. Beside these folders: podman objects with our labels."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# Below the lab directory of the checkout: the tests' own labs.
TESTS_LABS = "tests"
VENV_BIN = REPOSITORY / ".venv" / "bin"


def lab_dir() -> Path:
    """The lab's state: ``$TRADEWATCH_LAB_DIR``, or ``.lab`` in the checkout."""
    return Path(os.environ.get("TRADEWATCH_LAB_DIR") or REPOSITORY / ".lab").resolve()


def cache_dir() -> Path:
    """The artifact cache: ``$TRADEWATCH_CACHE``, or ``~/.cache/tradewatch``."""
    return Path(os.environ.get("TRADEWATCH_CACHE") or Path.home() / ".cache" / "tradewatch").resolve()


def lab_name() -> str:
    """A name for podman's objects that no other checkout's lab has: a hash of the lab directory's path."""
    return "tradewatch-" + hashlib.sha256(str(lab_dir()).encode()).hexdigest()[:8]


def inventories() -> list[Path]:
    """The inventory sources of the lab: ``$TRADEWATCH_LAB_INVENTORY`` (comma list), or ``inventory/lab``."""
    configured = os.environ.get("TRADEWATCH_LAB_INVENTORY", "inventory/lab")
    return [(REPOSITORY / part).resolve() for part in configured.split(",")]

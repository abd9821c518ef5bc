"""SHA-256 of files, and published checksum files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from .model import RefusedError, SourceError

_LINE = re.compile(r"^([0-9a-fA-F]{64})(?:\s+[ *]?(\S+))?\s*$")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def published(text: str, name: str) -> str:
    """The checksum of ``name`` in a sha256sum file, or the only one in a file that holds nothing but a checksum.

    Raises:
        SourceError: the text holds no checksum for ``name``.
    """
    rows = [match for line in text.splitlines() if (match := _LINE.match(line.strip()))]
    for match in rows:
        if match[2] and match[2].rsplit("/", 1)[-1] == name:
            return match[1].lower()
    if len(rows) == 1 and not rows[0][2]:
        return rows[0][1].lower()
    raise SourceError(f"the checksum file has no line for {name}")


def expect(
    path: Path, expected: str, said_by: str, *, shown: str = "", summed: Callable[[Path], str] = sha256_of
) -> str:
    """The file's SHA-256, as ``summed`` says, which must be ``expected``.

    Raises:
        RefusedError: it is another; the message names the file and both.
    """
    got = summed(path)
    if got != expected.lower():
        raise RefusedError(f"checksum mismatch: {shown or path} has sha256 {got}, {said_by} says {expected.lower()}")
    return got

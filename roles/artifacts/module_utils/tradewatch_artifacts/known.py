"""What was found out about files once, kept for as long as the files are the same ones."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class KnownFiles:
    """Results about files, by the file's device, inode, size and times: as git knows what it need not read again.

    Gigabytes of archives are neither summed nor unpacked anew in every run. A file that is written to, replaced or
    copied has other times or another inode, so what was known of it is forgotten.

    Args:
        path: the note; one that cannot be read is an empty one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._changed = False
        try:
            notes = json.loads(path.read_text())
        except (OSError, ValueError):
            notes = {}
        self._notes: dict[str, Any] = notes if isinstance(notes, dict) else {}

    def get(self, file: Path, what: str, find: Callable[[Path], T]) -> T:
        """What ``find`` says of ``file``, from the note where it is there. What it raises is raised, and not kept."""
        identity = _identity(file)
        note = self._notes.get(str(file))
        if isinstance(note, dict) and note.get("identity") == identity and what in note:
            known: T = note[what]
            return known
        found = find(file)
        with self._lock:
            note = self._notes.get(str(file))
            if not isinstance(note, dict) or note.get("identity") != identity:
                note = {"identity": identity}
            # A file that was written to meanwhile was perhaps read half old, half new.
            if _identity(file) == identity:
                self._notes[str(file)] = {**note, what: found}
                self._changed = True
        return found

    def save(self) -> None:
        """Write the note, without the files that are gone; a folder that cannot be written to is no failure."""
        if not self._changed:
            return
        notes = {file: note for file, note in self._notes.items() if os.path.exists(file)}
        try:
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as partial:
                json.dump(notes, partial)
            os.replace(partial.name, self._path)
        except OSError:
            return


def _identity(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

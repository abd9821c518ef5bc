#!/usr/bin/env python3
"""Keep a host's kernel settings as they were found, and put them back.

``kernel.py note FILE NAME...`` adds to FILE the settings that it does not hold yet, as ``name = value`` lines.
``kernel.py restore FILE`` sets every one of them that has another value now, in the file's order, and removes FILE.

Prints a line for each thing done, so that a second run prints nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROC = Path("/proc/sys")


def value(name: str) -> str | None:
    """The setting's value in one line; None where this kernel does not have it, or nobody may read it."""
    try:
        return " ".join((PROC / name.replace(".", "/")).read_text().split())
    except OSError:
        return None


def noted(file: Path) -> dict[str, str]:
    """The settings in ``file``, in its order."""
    if not file.exists():
        return {}
    pairs = (line.partition(" = ") for line in file.read_text().splitlines())
    return {name: found for name, _, found in pairs}


def note(file: Path, names: list[str]) -> None:
    """Add the settings that ``file`` does not hold yet."""
    settings = noted(file)
    new = {name: found for name in names if name not in settings and (found := value(name)) is not None}
    if not new:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text("".join(f"{name} = {found}\n" for name, found in {**settings, **new}.items()))
    partial.chmod(0o644)
    partial.replace(file)
    for name, found in new.items():
        print(f"noted {name} = {found}")


def restore(file: Path) -> None:
    """Put the settings of ``file`` back, and remove it.

    Raises:
        SystemExit: the kernel refused some; it names them, and the file stays.
    """
    refused = []
    for name, found in noted(file).items():
        # None: the module that had the setting is gone, and the setting with it.
        if value(name) in (found, None):
            continue
        try:
            (PROC / name.replace(".", "/")).write_text(found)
        except OSError as error:
            refused.append(f"{name} = {found} ({error.strerror})")
        else:
            print(f"restored {name} = {found}")
    if refused:
        raise SystemExit(f"the kernel refused {', '.join(refused)}; set it by hand and remove {file}")
    if file.exists():
        file.unlink()
        print(f"removed {file}")
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "note":
        note(Path(sys.argv[2]), sys.argv[3:])
    else:
        restore(Path(sys.argv[2]))

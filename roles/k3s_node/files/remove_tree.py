#!/usr/bin/env python3
"""Remove the folders of the arguments with all that is in them; what a disk is mounted on is emptied and stays."""

from __future__ import annotations

import contextlib
import os
import sys


def remove(top: str) -> int:
    """The number of files, links and folders that were removed."""
    removed = 0
    for folder, folders, files in os.walk(top, topdown=False):
        for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            os.unlink(os.path.join(folder, name))
            removed += 1
        # A mount point stays, and so do those that lead to it.
        with contextlib.suppress(OSError):
            os.rmdir(folder)
            removed += 1
    return removed


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if number := remove(argument):
            print(f"removed {number} files and folders of {argument}")

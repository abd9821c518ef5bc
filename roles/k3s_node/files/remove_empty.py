#!/usr/bin/env python3
"""Remove the folders of the arguments, and those below them, where they are empty; prints a line for each."""

from __future__ import annotations

import os
import sys


def remove(top: str) -> None:
    """Remove what is empty, the deepest first."""
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            # It holds something, or a volume is mounted on it.
            continue
        print(f"removed {folder}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        remove(argument)

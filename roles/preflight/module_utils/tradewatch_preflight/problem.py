"""A problem, and the words that several checks share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One line of the report."""

    where: str
    what: str
    fix: str

    @property
    def line(self) -> str:
        """``WHERE: what is wrong; what to do``."""
        return f"{self.where}: {self.what}; {self.fix}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean X?`` when one of the known words is close, else a list of them."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(words)}"


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, sorted."""
    *head, last = sorted(words)
    return f"{', '.join(head)} and {last}" if head else last

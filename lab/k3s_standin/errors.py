"""The one exception that reaches the user."""

from __future__ import annotations


class StandinError(Exception):
    """What is wrong, in one line, without any secret."""

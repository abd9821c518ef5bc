"""What docs/extending.md tells people to write: the tests use its examples, letter by letter."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.commands import REPOSITORY

BLOCK = re.compile(r"^```(yaml|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGE = REPOSITORY / "docs/extending.md"
TABLES = {"tradewatch_namespaces": "main.yml", "tradewatch_services": "services.yml"}


def entries() -> dict[str, list[Any]]:
    """The page's entries, by the list that they are added to."""
    found: dict[str, list[Any]] = {}
    for language, text in BLOCK.findall(PAGE.read_text()):
        if language == "yaml":
            found |= yaml.safe_load(text)
    return found


def dashboard() -> dict[str, Any]:
    """The page's dashboard."""
    (text,) = (text for language, text in BLOCK.findall(PAGE.read_text()) if language == "json")
    found: dict[str, Any] = json.loads(text)
    return found


def edited_tables(inventory: str) -> dict[str, list[Any]]:
    """The tables of namespaces and services of an inventory with the page's entries at their end, templates and all."""
    folder = REPOSITORY / inventory / "group_vars/all"
    return {
        name: [*yaml.safe_load((folder / file).read_text())[name], *entries()[name]] for name, file in TABLES.items()
    }

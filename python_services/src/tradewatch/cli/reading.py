"""What the commands share that look into the store: settings, errors as one line, tables and JSON.

Exit codes: 0 done, 1 the store or a service failed or refused, 2 wrong usage or configuration, 3 not found.
"""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tradewatch.common import settings
from tradewatch.store.database import STORE_ERRORS, DatabaseSettings, Pool

EXIT_OK, EXIT_FAILED, EXIT_BAD_CONFIGURATION, EXIT_NOT_FOUND = 0, 1, 2, 3


def fail(command: str, problem: str, code: int = EXIT_FAILED) -> int:
    """One line on stderr; the exit code is returned."""
    print(f"tradewatch {command}: {problem}", file=sys.stderr)
    return code


def load(command: str, settings_class: type[settings.SettingsT]) -> settings.SettingsT | None:
    """The settings, or None after one line on stderr for each thing that is wrong with them."""
    try:
        return settings.load(settings_class)
    except settings.SettingsError as error:
        for line in error.lines:
            fail(command, line)
        return None


def with_store(command: str, options: Namespace, work: Callable[[Pool, Namespace], Awaitable[int]]) -> int:
    """Run `work` with a connection to the store. Returns the exit code; every failure is one line."""
    loaded = load(command, DatabaseSettings)
    if loaded is None:
        return EXIT_BAD_CONFIGURATION

    async def run() -> int:
        async with loaded.connect("tradewatch-cli") as pool:
            return await work(pool, options)

    try:
        return asyncio.run(run())
    except STORE_ERRORS as error:
        # The type only: messages of the driver hold the address and the user.
        return fail(command, f"the store does not answer: {type(error).__name__}")


def show(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """The rows as a table, or as a JSON array of objects with every column of theirs."""
    if as_json:
        print(json.dumps([dict(row) for row in rows], default=plain, indent=2))
        return
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row[column], Decimal | int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        # As text: what services stored is not markup.
        table.add_row(*(Text(plain(row[column])) for column in columns))
    console().print(table)


def console() -> Console:
    """Where tables go; as wide as the terminal, and wide enough for ids where there is none."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=160)


def plain(value: object) -> str:
    """A value as people read it: times in UTC, decimals without exponents, nothing as a dash."""
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value.normalize() if value.is_finite() else value, "f")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={plain(part)}" for name, part in value.items())
    return " ".join(str(value).split())

"""The part of YAML that k3s configuration files are written in, read strictly (the hosts have no YAML library).

Accepted: one mapping at the top; values are scalars (plain or quoted), lists (block or ``[a, b]``) of scalars, or one
more level of mapping; comments. A whole file in JSON is accepted too. Anything else is refused with file and line.
"""

from __future__ import annotations

import json
import re

from lab.k3s_standin.errors import StandinError

Scalar = str | int | bool | None
Value = Scalar | list[Scalar] | dict[str, Scalar]

_KEY = re.compile(r"^(?P<key>\"[^\"]+\"|'[^']+'|[A-Za-z0-9_.+/-]+)\s*:(?:\s+(?P<rest>.*))?$")
_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_BOOLEANS = {"true": True, "false": False}
_REFUSED_START = tuple("&*!|>%@`{}]?")


def parse(text: str, name: str) -> dict[str, Value]:
    """The mapping in ``text``; ``name`` is the file for messages.

    Raises:
        StandinError: the text is not in the subset.
    """
    if text.lstrip().startswith("{"):
        return _from_json(text, name)
    result: dict[str, Value] = {}
    key: str | None = None
    indent: int | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        where = f"{name}, line {number}"
        if "\t" in raw[: len(raw) - len(raw.lstrip())]:
            raise StandinError(f"{where}: a tab in the indentation")
        line = _uncomment(raw, where)
        if not line.strip() or line == "---":
            continue
        depth = len(line) - len(line.lstrip())
        body = line.strip()
        is_item = body == "-" or body.startswith("- ")
        if depth == 0 and not is_item:
            key, rest = _entry(body, where)
            if key in result:
                raise StandinError(f"{where}: {key!r} is set twice")
            result[key] = _value(rest, where)
            indent = None
            continue
        if key is None:
            raise StandinError(f"{where}: expected 'key: value'")
        if indent is not None and depth != indent:
            raise StandinError(f"{where}: the indentation does not match the line above")
        indent = depth
        result[key] = _nested(result[key], body, is_item, where)
    return result


def _nested(current: Value, body: str, is_item: bool, where: str) -> Value:
    if is_item:
        if current is not None and not isinstance(current, list):
            raise StandinError(f"{where}: a list item below something that is not a list")
        item = body[1:].strip()
        if item.startswith("[") or (_KEY.match(item) and not item.startswith(("'", '"'))):
            raise StandinError(f"{where}: a list may hold only scalars")
        return [*(current or []), _scalar(item, where)]
    if current is not None and not isinstance(current, dict):
        raise StandinError(f"{where}: a mapping below something that is not a mapping")
    inner, rest = _entry(body, where)
    if rest is None or rest.startswith("["):
        raise StandinError(f"{where}: only one level of mapping, with scalars, is understood")
    return {**(current or {}), inner: _scalar(rest, where)}


def _from_json(text: str, name: str) -> dict[str, Value]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise StandinError(f"{name}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise StandinError(f"{name}: is not a mapping")
    for key, entry in value.items():
        inner = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else [entry]
        if not all(item is None or isinstance(item, str | int | bool) for item in inner):
            raise StandinError(f"{name}: {key}: only scalars, lists of scalars and one level of mapping are understood")
    return value


def _entry(body: str, where: str) -> tuple[str, str | None]:
    match = _KEY.match(body)
    if match is None:
        raise StandinError(f"{where}: expected 'key: value'")
    return match["key"].strip("\"'"), match["rest"] or None


def _value(rest: str | None, where: str) -> Value:
    if rest is None:
        return None
    if rest.startswith("["):
        if not rest.endswith("]"):
            raise StandinError(f"{where}: a list in brackets must end on its line")
        return [_scalar(item, where) for item in _split_flow(rest[1:-1], where)]
    if rest == "{}":
        return {}
    return _scalar(rest, where)


def _split_flow(text: str, where: str) -> list[str]:
    items: list[str] = []
    quote = ""
    current = ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[]{}":
            raise StandinError(f"{where}: a list may hold only scalars")
        elif character == ",":
            items.append(current.strip())
            current = ""
            continue
        current += character
    if current.strip() or items:
        items.append(current.strip())
    return items


def _scalar(text: str, where: str) -> Scalar:
    if text.startswith('"'):
        try:
            value = json.loads(text)
        except ValueError:
            raise StandinError(f"{where}: a double-quoted text that does not end, or with an unknown escape") from None
        return str(value)
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'") or "'" in text[1:-1].replace("''", ""):
            raise StandinError(f"{where}: a single-quoted text that does not end")
        return text[1:-1].replace("''", "'")
    if text.startswith(_REFUSED_START) or ": " in text:
        raise StandinError(f"{where}: only plain or quoted scalars and lists are understood here")
    if text in ("", "~", "null"):
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    return int(text) if _INTEGER.match(text) else text


def _uncomment(line: str, where: str) -> str:
    quote = ""
    for position, character in enumerate(line):
        if quote:
            if character == quote and not (quote == '"' and line[position - 1] == "\\"):
                quote = ""
        elif character in "\"'" and (position == 0 or line[position - 1] in " [,"):
            quote = character
        elif character == "#" and (position == 0 or line[position - 1] == " "):
            return line[:position].rstrip()
    if quote:
        raise StandinError(f"{where}: a quoted text that does not end")
    return line.rstrip()

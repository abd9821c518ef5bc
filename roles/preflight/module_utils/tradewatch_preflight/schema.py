"""JSON Schema errors as lines that name the entry, the key and the nearest known one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from .problem import Problem, did_you_mean

_TYPES = {"object": "a mapping", "array": "a list", "integer": "a whole number", "string": "a string"}


def check(
    table: Any, row_schema: Mapping[str, Any], name: str, entry: str
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The rows that have the right shape, and a problem for each thing that has not.

    Args:
        table: the variable's value.
        row_schema: the schema of one row.
        name: the variable's name.
        entry: what a row is called, such as ``service``.
    """
    if not isinstance(table, list):
        return [], [Problem(f"variable {name}", "is not a list", "write it as docs/architecture.md shows")]
    validator = jsonschema.Draft202012Validator(row_schema)
    good: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for number, row in enumerate(table, start=1):
        label = row.get("name") if isinstance(row, dict) else None
        where = f"{entry} {label}" if isinstance(label, str) else f"{name} entry {number}"
        errors = sorted(validator.iter_errors(row), key=lambda error: [str(step) for step in error.absolute_path])
        problems += [problem for error in errors for problem in _problems(error, where)]
        if not errors:
            good.append(row)
    return good, problems


def _problems(error: jsonschema.ValidationError, where: str) -> Iterator[Problem]:
    path = _path(error)
    at = f"{path} " if path else ""
    explain = _EXPLAIN.get(str(error.validator))
    if explain:
        yield from explain(error, where, path)
    else:
        yield Problem(where, f"{at}has a wrong value ({error.message})", "write it as docs/architecture.md shows")


def _path(error: jsonschema.ValidationError) -> str:
    text = ""
    for step in error.absolute_path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _unknown_keys(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    known = list(error.schema["properties"])
    for key in sorted(set(error.instance) - set(known), key=str):
        inside = f" in {path}" if path else ""
        yield Problem(where, f"unknown key {key}{inside}", did_you_mean(str(key), known))


def _required(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    inside = f" in {path}" if path else ""
    # jsonschema reports one missing key an error, and quotes it in the message only.
    key = error.message.split("'")[1]
    yield Problem(where, f"lacks {key}{inside}", "add it")


def _type(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    if "description" in error.schema:
        yield from _pattern(error, where, path)
        return
    wanted = _TYPES.get(str(error.validator_value), str(error.validator_value))
    what = f"{path or 'it'} is {error.instance!r}, not {wanted}"
    yield Problem(where, what, f"write {wanted}")


def _enum(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    yield Problem(where, f"{path} is {error.instance!r}", did_you_mean(str(error.instance), error.validator_value))


def _range(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    low, high = error.schema.get("minimum"), error.schema.get("maximum")
    bounds = f"from {low} to {high}" if high is not None else f"not below {low}"
    yield Problem(where, f"{path} is {error.instance}", f"write a number {bounds}")


def _pattern(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    hint = error.schema.get("description", f"match {error.validator_value}")
    yield Problem(where, f"{path} is {error.instance!r}", hint)


def _any_of(error: jsonschema.ValidationError, where: str, path: str) -> Iterator[Problem]:
    hint = error.schema.get("description", "write it as docs/architecture.md shows")
    yield Problem(where, f"{path or 'it'} has keys that do not belong together", hint)


_EXPLAIN: dict[str, Callable[[jsonschema.ValidationError, str, str], Iterator[Problem]]] = {
    "additionalProperties": _unknown_keys,
    "required": _required,
    "type": _type,
    "enum": _enum,
    "minimum": _range,
    "maximum": _range,
    "pattern": _pattern,
    "oneOf": _any_of,
    "anyOf": _any_of,
}

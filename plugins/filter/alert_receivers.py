"""Whether alert-notifier will take the document of receivers and routes, judged before it is given to it.

What is wrong is told without any value of the document but receivers' names: it holds secrets. Whether Apprise can use
a URL only the service itself knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# As routing.py of alert-notifier has them.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
MAX_RECEIVERS = 50
KEYS = {"receivers", "routes", "default", "escalation"}
ROUTE_KEYS = {"team", "severity", "receivers"}


def tradewatch_alert_receivers(text: str) -> list[str]:
    """The names of the receivers. Raises ValueError with one line that names everything that is wrong."""
    try:
        document = json.loads(text)
    except ValueError as error:
        # Its message holds a place and nothing of the text.
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise ValueError("not a JSON object")
    problems = list(_problems(document))
    if problems:
        raise ValueError("; ".join(problems))
    return [receiver["name"] for receiver in document["receivers"]]


def _problems(document: Mapping[str, Any]) -> Iterator[str]:
    if set(document) - KEYS:
        yield f"has keys other than {', '.join(sorted(KEYS))}"
    receivers = document.get("receivers")
    if not isinstance(receivers, list) or not 1 <= len(receivers) <= MAX_RECEIVERS:
        yield f"receivers is not a list of 1 to {MAX_RECEIVERS}"
        return
    yield from (
        f"receivers[{at}] is not a name of a-z, 0-9 and - and a url"
        for at, receiver in enumerate(receivers)
        if not _is_receiver(receiver)
    )
    names = [receiver["name"] for receiver in receivers if _is_receiver(receiver)]
    yield from (f"two receivers are named {name}" for name in sorted(set(names)) if names.count(name) > 1)
    routes = document.get("routes", [])
    if not isinstance(routes, list):
        yield "routes is not a list"
        routes = []
    for at, route in enumerate(routes):
        if not isinstance(route, Mapping) or set(route) - ROUTE_KEYS:
            yield f"routes[{at}] has keys other than {', '.join(sorted(ROUTE_KEYS))}"
            continue
        if not all(isinstance(route.get(key), str | None) for key in ("team", "severity")):
            yield f"routes[{at}]: team or severity is not a string"
        yield from _unknown(f"routes[{at}].receivers", route.get("receivers"), names)
    yield from _unknown("default", document.get("default"), names)
    if document.get("escalation", []) != []:
        yield from _unknown("escalation", document["escalation"], names)


def _is_receiver(receiver: object) -> bool:
    return (
        isinstance(receiver, Mapping)
        and set(receiver) == {"name", "url"}
        and all(isinstance(value, str) for value in receiver.values())
        and NAME.fullmatch(receiver["name"]) is not None
        and "://" in receiver["url"]
    )


def _unknown(where: str, listed: object, names: list[str]) -> Iterator[str]:
    if not isinstance(listed, list) or not listed:
        yield f"{where} is not a list of receivers' names"
    elif any(name not in names for name in listed):
        # Not the name itself: a URL written in its place is a secret.
        yield f"{where} names a receiver that is none of {', '.join(sorted(set(names)))}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filter by name."""
        return {"tradewatch_alert_receivers": tradewatch_alert_receivers}

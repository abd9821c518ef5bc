"""The document of alert-notifier's receivers, judged before it is deployed: as the service itself will judge it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tradewatch.monitoring.alert_notifier.routing import parse_routing

from plugins.filter.alert_receivers import tradewatch_alert_receivers

SECRET = "hidden-secret-of-the-test"
CHAT = {"name": "chat", "url": f"json://{SECRET}.example/"}
PAGER = {"name": "pager", "url": f"json://{SECRET}.example/pager"}
GOOD: dict[str, Any] = {
    "receivers": [CHAT, PAGER],
    "routes": [{"team": "trading", "severity": "critical", "receivers": ["pager", "chat"]}, {"receivers": ["chat"]}],
    "default": ["chat"],
    "escalation": ["pager"],
}


@pytest.mark.parametrize(
    "document",
    [
        GOOD,
        {"receivers": [CHAT], "default": ["chat"]},
        {**GOOD, "escalation": []},
        {**GOOD, "escalation": ["pager", "chat", "pager"]},
    ],
)
def test_what_the_service_takes_is_taken(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert tradewatch_alert_receivers(text) == list(parse_routing(text).senders)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (f'{{"receivers": "{SECRET}"', "not JSON: "),
        ([SECRET], "not a JSON object"),
        ({**GOOD, SECRET: 1}, "has keys other than default, escalation, receivers, routes"),
        ({**GOOD, "receivers": []}, "receivers is not a list of 1 to 50"),
        ({**GOOD, "receivers": {"chat": SECRET}}, "receivers is not a list of 1 to 50"),
        ({**GOOD, "receivers": [{"name": "chat"}, PAGER]}, "receivers[0] is not a name of a-z, 0-9 and - and a url"),
        ({**GOOD, "receivers": [CHAT, {**PAGER, "name": "Pager"}]}, "receivers[1] is not a name of a-z"),
        ({**GOOD, "receivers": [CHAT, PAGER, {**PAGER, "url": SECRET}]}, "receivers[2] is not a name of a-z"),
        ({**GOOD, "receivers": [CHAT, PAGER, CHAT]}, "two receivers are named chat"),
        ({**GOOD, "routes": {"team": SECRET}}, "routes is not a list"),
        (
            {**GOOD, "routes": [{"teams": "trading", "receivers": ["chat"]}]},
            "routes[0] has keys other than receivers, ",
        ),
        ({**GOOD, "routes": [{"team": 1, "receivers": ["chat"]}]}, "routes[0]: team or severity is not a string"),
        ({**GOOD, "routes": [{"team": "data"}]}, "routes[0].receivers is not a list of receivers' names"),
        ({**GOOD, "default": [SECRET]}, "default names a receiver that is none of chat, pager"),
        ({**GOOD, "default": []}, "default is not a list of receivers' names"),
        ({**GOOD, "escalation": ["chat", SECRET]}, "escalation names a receiver that is none of chat, pager"),
        ({**GOOD, "escalation": None}, "escalation is not a list of receivers' names"),
    ],
)
def test_what_the_service_refuses_is_refused_without_a_value(document: object, said: str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        tradewatch_alert_receivers(text)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)
    with pytest.raises(ValueError):  # noqa: PT011
        parse_routing(text)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"^two receivers are named chat; default is not a list of receivers' names$"):
        tradewatch_alert_receivers(json.dumps({"receivers": [CHAT, CHAT]}))

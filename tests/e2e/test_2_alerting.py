"""From a fault to people: who is told, when, with which links, that it ended, and that nobody is told twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.commands import REPOSITORY
from tests.e2e.alerts import known_to_alertmanager, messages, opened
from tests.e2e.conftest import DATA, SWITCH, Storm
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

# The bar of docs/benchmarks.md: from the fault until the chat has the message of a critical alert.
BAR_SECONDS = 60
# A scrape, an evaluation and the group's interval of 15 s each, with room for a busy machine.
END_SECONDS = 180


@dataclass(frozen=True)
class Expected:
    """Who is told of an alert, with which words, and how many alerts there are."""

    team: str
    channels: set[str]
    summary: str
    description: str
    dashboard: str


EXPECTED = {
    SWITCH: Expected(
        "management",
        {"management"},
        "The kill switch is engaged",
        r"Somebody stopped all trading\. It stays so until released\.",
        "crypto-trading-engine",
    ),
    DATA: Expected(
        "data",
        {"data"},
        "No fresh market data for a product from an exchange",
        r"The newest event of \w+-USD from kraken is (\d+m )?\d+(\.\d+)?s old \(limit 30 s\)\.",
        "unified-system",
    ),
}
BY_ALERT = pytest.mark.parametrize("alert", EXPECTED)


@BY_ALERT
def test_the_right_people_are_told_within_a_minute(
    lab: LabUnderTest, storm: Storm, alert: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [message for message in storm.told(lab, alert) if message.state == "FIRING"]
    assert {message.channel for message in told} == EXPECTED[alert].channels
    seconds = (min(message.received for message in told) - storm.caused[alert]).total_seconds()
    with capsys.disabled():
        print(f"\n{alert}: told {seconds:.1f} s after its cause")
    assert seconds < BAR_SECONDS


@BY_ALERT
def test_a_message_says_what_is_wrong_and_how_bad_it_is(lab: LabUnderTest, storm: Storm, alert: str) -> None:
    expected = EXPECTED[alert]
    for message in storm.told(lab, alert):
        assert message.severity == "critical"
        lines = message.text.splitlines()
        assert lines[0] == expected.summary
        assert re.fullmatch(expected.description, lines[1]), lines[1]
        assert f"team={expected.team}" in message.line("Labels")
        assert message.kind == {"FIRING": "failure", "RESOLVED": "success"}[message.state]
        if message.state == "FIRING":
            assert message.fingerprint in {known["fingerprint"] for known in storm.known[alert]}


@BY_ALERT
def test_every_link_of_a_message_opens(lab: LabUnderTest, storm: Storm, alert: str) -> None:
    message = storm.told(lab, alert)[0]
    assert sorted(re.findall(r"https?://\S+", message.text)) == sorted(message.links.values())
    status, page = opened(lab, message.links["Runbook"])
    assert status == 200
    assert page.strip() == (REPOSITORY / f"docs/runbooks/{alert}.md").read_text().strip()
    dashboard = urlsplit(message.links["Dashboard"])
    assert dashboard.path == f"/d/{EXPECTED[alert].dashboard}"
    assert opened(lab, message.links["Dashboard"])[0] == 200
    # The page is the same for every dashboard; its data is not.
    made = json.loads(opened(lab, f"{dashboard.scheme}://{dashboard.netloc}/api/dashboards/{dashboard.path[3:]}")[1])
    committed = json.loads((REPOSITORY / f"files/dashboards/{dashboard.path[3:]}.json").read_text())
    assert made["title"] == committed["title"]


@BY_ALERT
def test_alertmanager_leads_to_the_expression_in_prometheus(lab: LabUnderTest, storm: Storm, alert: str) -> None:
    assert storm.known[alert]
    for known in storm.known[alert]:
        assert [receiver["name"] for receiver in known["receivers"]] == [EXPECTED[alert].team]
        source = urlsplit(known["generatorURL"])
        assert f"{source.scheme}://{source.netloc}" == lab.endpoints()["prometheus"]["url"]
        [expression] = parse_qs(source.query)["g0.expr"]
        lab.query(expression)


def test_the_command_lists_what_fires_and_who_looks_after_it(storm: Storm) -> None:
    for alert, expected in EXPECTED.items():
        assert storm.listed[alert]
        for row in storm.listed[alert]:
            assert (row["severity"], row["team"]) == ("critical", expected.team)
            assert row["summary"] == expected.summary
            assert {told.split()[0] for told in row["told"].split(", ")} == expected.channels
    assert [row["state"] for row in storm.listed[SWITCH]] == ["firing"]
    said, [row] = storm.acknowledged
    assert said.strip() == f"{SWITCH} acknowledged by e2e"
    assert (row["state"], row["acknowledged_by"]) == ("acknowledged", "e2e")


@BY_ALERT
def test_the_end_is_told_to_whom_the_beginning_was_and_nobody_twice(
    lab: LabUnderTest, storm: Storm, alert: str
) -> None:
    def ended() -> bool:
        states = Counter(message.state for message in storm.told(lab, alert))
        return states["RESOLVED"] >= states["FIRING"]

    wait(ended, f"the end of {alert} is told", END_SECONDS)
    told = storm.told(lab, alert)
    assert set(Counter(message.identity for message in told).values()) == {1}
    begun, over = ({m.identity for m in told if m.state == state} for state in ("FIRING", "RESOLVED"))
    assert {identity[1:] for identity in begun} <= {identity[1:] for identity in over}
    assert not known_to_alertmanager(lab, alert)


def test_the_watchdog_fires_for_the_dead_man_s_switch_alone(lab: LabUnderTest) -> None:
    [watchdog] = known_to_alertmanager(lab, "Watchdog")
    assert [receiver["name"] for receiver in watchdog["receivers"]] == ["watchdog"]
    assert not messages(lab, "Watchdog")

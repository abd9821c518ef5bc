"""One storm for all tests that look at what faults leave behind: in the dashboards, and at people."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.alerts import Message, known_to_alertmanager, messages
from tests.e2e.faults import (
    fault,
    kill_a_container,
    kill_switch_engaged,
    no_faults,
    send_signal,
    story,
    trade,
    tradewatch,
)
from tests.lab_under_test import LabUnderTest
from tests.machines import wait

# The alerts that the storm raises on purpose.
SWITCH, DATA = "KillSwitchEngaged", "MarketDataStale"
# How many of each there are: one for each of the lab's products that an exchange gives.
ALERTS = {SWITCH: 1, DATA: 2}
# Far beyond the bar of 60 s: a test says that somebody was told too late, not a storm that breaks off.
PATIENCE_SECONDS = 240


@dataclass
class Storm:
    """What was seen while its alerts fired, by their names.

    Attributes:
        caused: when the cause was given: before the command for it began.
        known: the alerts that Alertmanager had.
        listed: what `tradewatch alerts list` said of them.
        acknowledged: what `tradewatch alerts ack` said of the kill switch's, and `list` afterwards.
    """

    caused: dict[str, datetime] = field(default_factory=dict)
    known: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    listed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    acknowledged: tuple[str, list[dict[str, Any]]] = ("", [])

    def told(self, lab: LabUnderTest, alert: str) -> list[Message]:
        """The chat's messages of what began to fire after its cause."""
        # A message names the second in which its alert began.
        begin = self.caused[alert].replace(microsecond=0)
        return [message for message in messages(lab, alert) if message.started >= begin]

    def watch(self, lab: LabUnderTest) -> None:
        """Note what is said of the alerts, first by Alertmanager: stale data is over by itself before long."""
        for alert in self.caused:
            self.known[alert] = wait(lambda: all_known(lab, alert), f"{alert} fires", PATIENCE_SECONDS)  # noqa: B023
        for alert in self.caused:
            wait(lambda: self.told(lab, alert), f"somebody is told of {alert}", PATIENCE_SECONDS)  # noqa: B023
            self.listed[alert] = listed(lab, alert, self.known[alert])


def all_known(lab: LabUnderTest, alert: str) -> list[dict[str, Any]]:
    """What Alertmanager has of an alert, once it has all of it: they may come an evaluation after each other."""
    known = known_to_alertmanager(lab, alert)
    return known if len(known) >= ALERTS[alert] else []


def listed(lab: LabUnderTest, alert: str, known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `tradewatch alerts list` says of these alerts of Alertmanager's."""
    rows = json.loads(tradewatch(lab, "alerts", "list", "--limit", "200", "--json"))
    newest = {row["fingerprint"]: row for row in reversed(rows) if row["alert"] == alert}
    return [newest[each["fingerprint"]] for each in known if each["fingerprint"] in newest]


def calm(lab: LabUnderTest) -> bool:
    """Neither alert fires, and of neither the end is still to be told."""
    last = {(message.channel, message.line("Labels")): message.state for message in messages(lab, SWITCH, DATA)}
    return not lab.query(f'ALERTS{{alertname=~"{SWITCH}|{DATA}"}}') and set(last.values()) <= {"RESOLVED"}


@pytest.fixture(scope="session")
def storm(lab: LabUnderTest) -> Storm:
    """Faults of every kind that leaves a mark in the dashboards, over again when this is returned.

    Two of them are told to people: Kraken's feed turns into garbage, so that its data gets stale, and somebody engages
    the kill switch.
    """
    seen = Storm()
    wait(lambda: calm(lab), "calm weather", PATIENCE_SECONDS)
    try:
        trade(lab)
        # A signal that the language model cannot judge.
        fault(lab, "llm-simulator", fault="error", status=503, seconds=60)
        story(lab, send_signal(lab)["decision_id"])
        fault(lab, "exchange-simulator", fault="status", status=503, path="/api/v3/brokerage/accounts", seconds=120)
        fault(lab, "exchange-simulator", fault="sequence_gap", exchange="coinbase", count=3)
        kill_a_container(lab, "technical-indicators")
        # After a minute without an event the collector gives the connection up, and the next one is sound.
        seen.caused[DATA] = datetime.now(UTC)
        fault(lab, "exchange-simulator", fault="malformed", exchange="kraken", count=10_000)
        seen.caused[SWITCH] = datetime.now(UTC)
        with kill_switch_engaged(lab):
            story(lab, send_signal(lab)["decision_id"])
            seen.watch(lab)
            said = tradewatch(lab, "alerts", "ack", seen.known[SWITCH][0]["fingerprint"], "--by", "e2e")
            seen.acknowledged = said, listed(lab, SWITCH, seen.known[SWITCH])
    finally:
        no_faults(lab)
    return seen

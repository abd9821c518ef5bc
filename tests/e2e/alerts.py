"""What people were told of alerts: the chat's messages, and the pages that their links open."""

from __future__ import annotations

import json
import re
import ssl
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.faults import read
from tests.lab_under_test import LabUnderTest

MONITORING = "crypto-monitoring"
# [FIRING] critical: KillSwitchEngaged - The kill switch is engaged
TITLE = re.compile(r"\[(FIRING|ESCALATED|RESOLVED)\] (\w+): (\w+)( - .+)?")
LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Message:
    """One message of the chat: `state` as its title says, `kind` as Apprise calls the severity."""

    channel: str
    kind: str
    received: datetime
    state: str
    severity: str
    alert: str
    text: str

    @property
    def started(self) -> datetime:
        """When the alert began to fire, to the second."""
        return datetime.strptime(self.line("Started"), "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)

    @property
    def fingerprint(self) -> str:
        """What `tradewatch alerts ack` wants; only a critical alert that fires says it."""
        return self.line("Acknowledge").split()[3]

    @property
    def links(self) -> dict[str, str]:
        """The links by the word before them."""
        return {name: self.line(name) for name in ("Runbook", "Dashboard")}

    @property
    def identity(self) -> tuple[str, ...]:
        """What may be there once: this state of this alert for this channel."""
        return self.state, self.channel, self.alert, self.line("Started"), self.line("Labels")

    def line(self, name: str) -> str:
        """What follows the name at the beginning of a line."""
        [found] = [line for line in self.text.splitlines() if line.startswith(f"{name}: ")]
        return found.removeprefix(f"{name}: ")


def told_to_chat(lab: LabUnderTest) -> list[dict[str, Any]]:
    """All that the chat's stand-in was told, oldest first: `title`, `text`, `received` and more of each."""
    found: list[dict[str, Any]] = json.loads(read(lab, "chat-simulator", "/messages", MONITORING))["messages"]
    return found


def messages(lab: LabUnderTest, *alerts: str) -> list[Message]:
    """What the chat was told of alerts of these names, oldest first."""
    found = []
    for row in told_to_chat(lab):
        title = TITLE.fullmatch(row["title"])
        assert title, f"a title of another form: {row['title']}"
        if title[3] in alerts:
            received = datetime.fromisoformat(row["received"])
            found.append(Message(row["channel"], row["type"], received, title[1], title[2], title[3], row["text"]))
    return found


def opened(lab: LabUnderTest, link: str) -> tuple[int, str]:
    """Status and text of a page of the lab, with the credentials and the CA of the endpoint that the link leads to."""
    [endpoint] = [each for each in lab.endpoints().values() if each and link.startswith(f"{each['url']}/")]
    login = f"{endpoint['username']}:{Path(endpoint['password_file']).read_text().strip()}"
    request = urllib.request.Request(link)
    request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    context = ssl.create_default_context(cafile=endpoint["ca_file"])
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return answer.status, answer.read().decode()


def known_to_alertmanager(lab: LabUnderTest, alert: str) -> list[dict[str, Any]]:
    """The alerts of this name that Alertmanager's API lists: those that fire."""
    url = lab.endpoints()["alertmanager"]["url"]
    _, text = opened(lab, f"{url}/api/v2/alerts?{urlencode({'filter': f'alertname={json.dumps(alert)}'})}")
    found: list[dict[str, Any]] = json.loads(text)
    return found

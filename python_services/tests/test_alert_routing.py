"""Receivers, routes and texts of notifications: what needs no server."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tradewatch import cli
from tradewatch.monitoring.alert_notifier.messages import Told, compose, lasted
from tradewatch.monitoring.alert_notifier.routing import parse_receivers, parse_routing
from tradewatch.monitoring.alert_notifier.sender import NotDelivered, Sender

SECRET = "nobody-may-see-this"
DOCUMENT = {
    "receivers": [
        {"name": "chat", "url": f"json://chat.example/{SECRET}"},
        {"name": "slack", "url": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#general"},
        {"name": "mail", "url": f"mailtos://user:{SECRET}@mail.example?to=people@example.com"},
        {"name": "telegram", "url": "tgram://123456789:ABCdefghijkl/12315544/"},
        {"name": "pager", "url": "pagerduty://ABCDEFGHIJKL@INTEGRATION/tradewatch/cluster?action=map"},
    ],
    "routes": [
        {"team": "trading", "severity": "critical", "receivers": ["pager", "chat"]},
        {"severity": "critical", "receivers": ["pager"]},
        {"team": "trading", "receivers": ["chat"]},
    ],
    "default": ["mail"],
    "escalation": ["telegram"],
}


@pytest.mark.parametrize(
    ("team", "severity", "receivers"),
    [
        ("trading", "critical", ("pager", "chat")),
        ("devops", "critical", ("pager",)),
        ("trading", "warning", ("chat",)),
        ("devops", "info", ("mail",)),
        ("none", "none", ("mail",)),
    ],
)
def test_the_first_route_that_takes_an_alert_is_the_one(team: str, severity: str, receivers: tuple[str, ...]) -> None:
    assert parse_routing(json.dumps(DOCUMENT)).receivers(team, severity) == receivers


def test_who_is_named_twice_is_told_once() -> None:
    assert parse_routing(json.dumps({**DOCUMENT, "escalation": ["telegram", "mail", "telegram"]})).escalation == (
        "telegram",
        "mail",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"receivers": []}, "receivers: "),
        ({"default": []}, "default: "),
        ({"default": [f"json://{SECRET}"]}, "routes, default or escalation name a receiver that is none of chat, mail"),
        ({"receivers": [{"name": "chat", "url": f"nonsense://{SECRET}"}]}, "receiver chat: Apprise cannot use its URL"),
        ({"receivers": [{"name": f"json://{SECRET}", "url": "json://x"}]}, "receivers.0.name: "),
        ({"receivers": [{"name": "chat", "urls": SECRET, "url": "json://x"}]}, "receivers.0.urls: "),
        ({"receivers": [{"name": "chat", "url": "json://x"}] * 2, "routes": []}, "two receivers have one name"),
        ({"recievers": []}, "recievers: "),
    ],
)
def test_a_bad_document_is_one_line_without_what_it_holds(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message) as caught:
        parse_routing(json.dumps({**DOCUMENT, **change}))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_bad_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("t" * 20)
    (tmp_path / "receivers").write_text(json.dumps({"receivers": [{"name": "chat", "url": SECRET}]}))
    monkeypatch.setenv("TRADEWATCH_ALERT_WEBHOOK_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TRADEWATCH_WATCHDOG_RECEIVERS_FILE", str(tmp_path / "receivers"))
    assert cli.main(["run", "watchdog-receiver"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "tradewatch run watchdog-receiver: TRADEWATCH_WATCHDOG_RECEIVERS_FILE: "
        "receiver chat: Apprise cannot use its URL\n"
    )


async def test_apprise_lets_no_secret_out(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    document = {"receivers": [{"name": "chat", "url": f"json://u:{SECRET}@127.0.0.1:1/{SECRET}?+X={SECRET}"}]}
    sender = parse_receivers(json.dumps(document))["chat"]
    with pytest.raises(NotDelivered) as caught:
        await sender.send("key", "title", "body", "critical", 10)
    assert str(caught.value) == "refused or not reached"
    out = capfd.readouterr()
    assert SECRET not in out.out + out.err + caplog.text + repr(sender)


def test_a_pager_takes_no_more_than_it_can() -> None:
    assert Sender("pager", "pagerduty://ABCDEFGHIJKL@INTEGRATION/a/b").max_characters == 1024


def told(**changes: object) -> Told:
    started = datetime(2026, 11, 23, 12, tzinfo=UTC)
    fields: dict[str, object] = {
        "fingerprint": "0" * 16,
        "name": "A",
        "severity": "critical",
        "starts_at": started,
        "ends_at": None,
        "labels": {"alertname": "A", "severity": "critical"},
        "annotations": {},
    }
    return Told(**{**fields, **changes})  # type: ignore[arg-type]


def test_what_matters_is_kept_where_there_is_little_room() -> None:
    wordy = told(annotations={"summary": "s" * 50, "description": "d"}, labels={"x": "y" * 5000})
    message = compose(wordy, escalation=False, attempt=1, max_characters=1024)
    assert len(message.title) + len(message.body) <= 1024
    assert "ack 0000000000000000" in message.body


def test_an_alert_without_annotations_is_told_all_the_same() -> None:
    message = compose(told(), escalation=False, attempt=1, max_characters=3500)
    assert message.title == "[FIRING] critical: A"
    assert message.body.splitlines()[-1] == "Labels: none"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (-5, "0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert lasted(timedelta(seconds=seconds)) == text

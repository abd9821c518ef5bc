"""alert-notifier between Alertmanager's calls, PostgreSQL and a chat."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from alert_support import (
    SECRETS,
    STARTED,
    TOKEN,
    WAIT_SECONDS,
    Chat,
    Process,
    Server,
    alert,
    chat,
    notifier,
    receivers,
    repeating,
    webhook,
)
from postgres_support import ROLE_PASSWORD, Database, PostgresServer
from services_support import eventually
from structlog.testing import capture_logs
from tradewatch import cli
from tradewatch.monitoring.alert_notifier.dispatcher import POLL_SECONDS

Command = Callable[..., Awaitable[tuple[int, str]]]
# Long enough for what a test does before it, on a busy machine.
ESCALATE_AFTER = 5


@pytest.fixture
async def room() -> AsyncIterator[Chat]:
    async with chat() as running:
        yield running


@pytest.fixture
async def service(database: Database, room: Chat) -> AsyncIterator[Server]:
    """A notifier that escalates quickly."""
    async with notifier(database, receivers(room), escalate_after=ESCALATE_AFTER) as running:
        yield running


async def test_an_alert_its_repeats_and_its_end(service: Server, room: Chat) -> None:
    begun = time.time()
    await service.reaches("alert_notifier_last_refresh_timestamp_seconds", begun - 60)
    assert await service.metric("alert_notifications_last_sent_timestamp_seconds") == 0
    answer = await service.post("/v1/alerts", webhook(alert()))
    assert (answer.status_code, answer.json()) == (200, {"stored": 1, "repeated": 0})
    (message,) = await room.has(1)
    assert message["channel"] == "devops-chat"
    assert message["type"] == "warning"
    assert message["title"] == "[FIRING] warning: DiskFull - A volume is nearly full"
    for line in (
        "94 % of /data on analytics-1 is used.",
        "Runbook: https://docs.example/runbooks/DiskFull.md",
        "Dashboard: https://grafana.example/d/unified",
        f"Started: {STARTED:%Y-%m-%d %H:%M:%S} UTC",
        "Labels: node=analytics-1, team=devops",
    ):
        assert line in message["text"].splitlines()

    repeats = [webhook(alert()), webhook(alert(), alert("Other", 2)), webhook(alert())]
    answers = await asyncio.gather(*(service.post("/v1/alerts", repeat) for repeat in repeats))
    assert sum(answer.json()["stored"] for answer in answers) == 1
    await room.has(2)

    ended = webhook(alert(resolved_after=3700), status="resolved")
    for _ in range(2):
        assert (await service.post("/v1/alerts", ended)).status_code == 200
    last = (await room.has(3))[-1]
    assert (last["type"], last["title"][:10]) == ("success", "[RESOLVED]")
    assert "it lasted 1 h 1 min" in last["text"]
    await service.reaches('alert_notifications_total{receiver="devops-chat",status="sent"}', 3)
    assert await service.metric('alert_webhook_requests_total{outcome="repeated"}') == 3
    assert await service.metric('alert_notification_delay_seconds_count{since="receipt"}') == 3
    await service.reaches("alert_notifications_last_sent_timestamp_seconds", begun)
    # What is resolved ends in the future here, by this clock.
    assert await service.metric('alert_notification_delay_seconds_sum{since="alert"}') >= 2 * 90


async def test_what_is_forged_or_malformed_is_refused_in_one_line_and_counted(
    service: Server, room: Chat, database: Database
) -> None:
    good = webhook(alert())
    for token in (None, "wrong" * 5, TOKEN[:-1], f"{TOKEN}x", "\xff"):
        assert (await service.post("/v1/alerts", good, token)).status_code == 401
    broken = {
        b"": "invalid_json",
        b"{": "invalid_json",
        b"\xff\xfe": "invalid_json",
        b"[]": "invalid_request",
        b'{"version": "3", "alerts": []}': "invalid_request",
    }
    for body, code in broken.items():
        answer = await service.post("/v1/alerts", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), body
        assert "\n" not in answer.json()["error"]["message"]
    changes: list[tuple[dict[str, object], str]] = [
        ({"fingerprint": "../../etc"}, "alerts.0.fingerprint"),
        ({"startsAt": "2026-11-23T12:00:00"}, "alerts.0.startsAt"),
        ({"labels": {"alertname": 7}}, "alerts.0.labels.alertname"),
        ({"status": "resolved"}, "alerts.0: a resolved alert needs endsAt"),
    ]
    for change, where in changes:
        answer = await service.post("/v1/alerts", webhook({**alert(), **change}))
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(where), answer.text
    huge = webhook({**alert(), "annotations": {"description": "x" * 2_000_000}})
    assert (await service.post("/v1/alerts", huge)).status_code == 413
    for outcome, count in {"unauthorized": 5, "invalid_json": 3, "invalid_request": 6, "too_large": 1}.items():
        assert await service.metric(f'alert_webhook_requests_total{{outcome="{outcome}"}}') == count
    assert await database.fetch("SELECT * FROM alerts") == []
    assert await room.messages() == []


async def test_what_alertmanager_left_out_is_counted_and_logged(service: Server, room: Chat) -> None:
    with capture_logs() as lines:
        answer = await service.post("/v1/alerts", webhook(alert(), truncatedAlerts=23))
    assert (answer.status_code, answer.json()) == (200, {"stored": 1, "repeated": 0})
    assert [line["alerts"] for line in lines if line["event"] == "Alertmanager left alerts out"] == [23]
    assert await service.metric("alert_webhook_truncated_total") == 23
    await room.has(1)


async def test_hostile_text_is_stored_and_told(service: Server, room: Chat) -> None:
    hostile = alert("Nul", 3, team="trading\x00\x1b[31m")
    hostile["annotations"]["description"] = "{{ app_url }} <b>" + "long " * 20_000
    assert (await service.post("/v1/alerts", webhook(hostile))).status_code == 200
    (message,) = await room.has(1)
    assert "{{ app_url }} <b>long long" in message["text"]
    assert len(message["text"]) < 3500
    assert "\x00" not in json.dumps(message)


async def test_a_receiver_that_is_down_for_a_while_gets_everything_in_order_and_holds_up_nobody(
    service: Server, room: Chat
) -> None:
    await room.fault(fault="error", status=500, channel="trading-chat", seconds=60)
    critical = alert("LossLimit", 5, team="trading", severity="critical")
    await service.post("/v1/alerts", webhook(critical))
    ended = alert("LossLimit", 5, team="trading", severity="critical", resolved_after=100)
    await service.post("/v1/alerts", webhook(ended))
    told = await room.has(2, "pager")
    assert [message["title"][:5] for message in told] == ["[FIRI", "[RESO"]
    await service.reaches('alert_notifications_total{receiver="trading-chat",status="failed"}', 2)
    assert await room.messages("trading-chat") == []
    await room.heal()
    late = await room.has(2, "trading-chat")
    assert [message["title"][:5] for message in late] == ["[FIRI", "[RESO"]
    assert "an earlier one was not confirmed" in late[0]["text"]
    assert "Attempt" not in late[1]["text"]
    assert await room.messages("managers") == [], "what is over does not escalate"


async def test_a_store_that_is_away_is_a_503_and_loses_nothing(
    service: Server, postgres: PostgresServer, room: Chat
) -> None:
    postgres.kill()
    assert (await service.post("/v1/alerts", webhook(alert()))).status_code == 503
    await asyncio.to_thread(postgres.start)

    async def taken() -> bool:
        return (await service.post("/v1/alerts", webhook(alert()))).status_code == 200

    await eventually(taken)
    await room.has(1)
    assert await service.metric('alert_webhook_requests_total{outcome="unavailable"}') >= 1


async def test_people_are_told_once_of_what_the_store_cannot_take(
    service: Server, postgres: PostgresServer, database: Database, room: Chat
) -> None:
    def critical(name: str, number: int, resolved_after: float | None = None) -> dict[str, object]:
        return alert(name, number, team="trading", severity="critical", resolved_after=resolved_after)

    known, down, over = critical("Known", 1), critical("PostgresqlDown", 2), critical("PostgresqlDown", 2, 100)
    assert (await service.post("/v1/alerts", webhook(known))).status_code == 200
    await room.has(1, "pager")
    await room.has(1, "trading-chat")
    postgres.kill()
    await room.fault(fault="error", status=500, channel="trading-chat", seconds=60)
    warning = alert("DiskFull", 3)
    assert (await service.post("/v1/alerts", webhook(known, down, warning))).status_code == 503
    await room.has(2, "pager")
    await service.reaches('alert_notifications_total{receiver="trading-chat",status="failed"}', 1)
    await room.heal()
    # Alertmanager tries again, and later tells of the end, too.
    for alerts in ((known, down, warning), (known, over, warning)):
        assert (await service.post("/v1/alerts", webhook(*alerts))).status_code == 503
    for channel in ("pager", "trading-chat"):
        messages = await room.has(3, channel)
        again = ["an earlier one was not confirmed" in message["text"] for message in messages]
        assert again == [False, channel == "trading-chat", False]
        titles = [message["title"].split(" - ")[0] for message in messages]
        assert titles[1:] == ["[FIRING] critical: PostgresqlDown", "[RESOLVED] critical: PostgresqlDown"]
    assert await room.messages("devops-chat") == [], "a warning can wait"

    await asyncio.to_thread(postgres.start)

    async def taken() -> bool:
        answers = [await service.post("/v1/alerts", webhook(*alerts)) for alerts in ((known, down, warning), (over,))]
        return {answer.status_code for answer in answers} == {200}

    await eventually(taken)
    await room.has(1, "devops-chat")
    for channel in ("pager", "trading-chat"):
        await room.has(3, channel)
    routed = "SELECT status, count(*) FROM alert_notifications WHERE reason = 'route' GROUP BY 1"

    async def ended() -> dict[str, int] | None:
        """The chat has a message before the store knows of it."""
        counts = {row["status"]: row["count"] for row in await database.fetch(routed)}
        return None if "pending" in counts else counts

    assert await eventually(ended) == {"sent": 7}


async def test_what_was_not_confirmed_while_the_store_was_away_says_so_when_it_is_back(
    service: Server, postgres: PostgresServer, room: Chat
) -> None:
    critical = webhook(alert("PostgresqlDown", team="trading", severity="critical"))
    await room.fault(fault="error", status=500, channel="pager", seconds=60)

    async def answers(status: int) -> bool:
        return (await service.post("/v1/alerts", critical)).status_code == status

    postgres.kill()
    assert await answers(503)
    await service.reaches('alert_notifications_total{receiver="pager",status="failed"}', 1)
    await room.heal()
    await asyncio.to_thread(postgres.start)
    await eventually(lambda: answers(200))
    (message,) = await room.has(1, "pager")
    assert "an earlier one was not confirmed" in message["text"]
    (message,) = await room.has(1, "trading-chat")
    assert "an earlier one was not confirmed" not in message["text"]


@pytest.mark.timeout(240)
async def test_a_killed_notifier_neither_loses_nor_repeats(tmp_path: Path, database: Database, room: Chat) -> None:
    # The loan of a notification that was being sent is over after 4 s.
    short = {"TRADEWATCH_SEND_TIMEOUT_SECONDS": "3", "TRADEWATCH_LOAN_MARGIN_SECONDS": "1"}
    process = Process(tmp_path, database, receivers(room), **short)
    try:
        await process.start()
        await room.fault(fault="error", status=503, channel="devops-chat", seconds=60)
        names = [f"Alert{number}" for number in range(1, 41)]
        alerts = [alert(name, number) for number, name in enumerate(names, 1)]
        assert (await process.post("/v1/alerts", webhook(*alerts))).json()["stored"] == 40
        await process.reaches('alert_notifications_total{receiver="devops-chat",status="failed"}', 1)
        process.kill()
        await room.heal()
        await process.start()
        for count in (5, 20):

            async def so_many(count: int = count) -> bool:
                return len(await room.messages()) >= count

            await eventually(so_many)
            process.kill()
            await process.start()
        assert (await process.post("/v1/alerts", webhook(*alerts))).json() == {"stored": 0, "repeated": 40}

        async def all_sent() -> bool:
            (row,) = await database.fetch("SELECT count(*) FROM alert_notifications WHERE status <> 'sent'")
            return bool(row["count"] == 0)

        await eventually(all_sent, 2 * WAIT_SECONDS)
        messages = await room.messages()
        told = [message["title"].split()[2] for message in messages]
        assert set(told) == set(names)
        # A kill between the receiver's answer and the mark repeats that one notification, which then says so.
        repeated = [message for message in messages if told.count(message["title"].split()[2]) > 1]
        assert len(messages) - len(names) <= 2
        said = [message for message in repeated if "an earlier one was not confirmed" in message["text"]]
        assert len(said) == len(messages) - len(names)
        assert await process.stop() == 0, process.log()
    finally:
        process.kill()
    assert "refused with 503" in process.log()
    for secret in SECRETS:
        assert secret not in process.log()
    for line in process.log().splitlines():
        assert json.loads(line)["service"] == "alert-notifier"


@pytest.fixture
def command(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `tradewatch` on the notifier's database; gives its exit code and what it printed."""
    (tmp_path / "password").write_text(ROLE_PASSWORD)
    monkeypatch.setenv("TRADEWATCH_DATABASE_URL", database.url)
    monkeypatch.setenv("TRADEWATCH_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(cli.main, arguments)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


async def test_what_nobody_acknowledges_escalates_once(
    service: Server, room: Chat, database: Database, command: Command
) -> None:
    seen_to, left = (alert(name, number, severity="critical") for number, name in ((1, "SeenTo"), (2, "Left")))
    await service.post("/v1/alerts", webhook(seen_to, left, alert("Minor", 3)))

    ack = ("alerts", "ack", "0000000000000001", "--by", "Ada")
    assert await command(*ack) == (0, "SeenTo acknowledged by Ada\n")
    code, text = await command("alerts", "ack", "0000000000000001", "--by", "Bob")
    assert (code, text.startswith("SeenTo was acknowledged by Ada at ")) == (0, True)
    assert (await command("alerts", "ack", "00000000000000ff", "--by", "Ada"))[0] == 3

    async with repeating(service, seen_to, left):
        (message,) = await room.has(1, "managers")
    assert message["title"].startswith("[ESCALATED] critical: Left")
    assert "Nobody has acknowledged this alert." in message["text"]
    assert "Acknowledge: tradewatch alerts ack 0000000000000002 --by NAME" in message["text"]
    await asyncio.sleep(2 * POLL_SECONDS)
    assert await service.metric("alert_escalations_total") == 1
    started = time.monotonic()
    await service.post("/v1/alerts", webhook(left))
    await service.post("/v1/alerts", webhook(alert("Left", 2, severity="critical", resolved_after=60)))
    told = await room.has(2, "managers")
    assert told[1]["title"].startswith("[RESOLVED]")
    assert time.monotonic() - started < 10

    code, text = await command("alerts", "list", "--json")
    listed = {row["alert"]: row for row in json.loads(text)}
    assert {name: row["state"] for name, row in listed.items()} == {
        "SeenTo": "acknowledged",
        "Left": "resolved",
        "Minor": "firing",
    }
    assert listed["SeenTo"]["acknowledged_by"] == "Ada"
    assert "managers sent" in listed["Left"]["told"]
    code, text = await command("alerts", "list", "--open")
    assert "Left" not in text
    assert "Minor" in text
    assert [row["actor"] for row in await database.fetch("SELECT actor FROM audit_log")] == ["Ada"]


async def test_what_began_anew_before_its_end_was_told_is_over(service: Server, room: Chat, command: Command) -> None:
    before, anew = (alert("NodeDown", severity="critical", began_after=after) for after in (0.0, 30.0))
    over = alert("NodeDown", severity="critical", began_after=30.0, resolved_after=60.0)
    for told in (before, anew, over):
        await service.post("/v1/alerts", webhook(told))
    async with repeating(service, before, anew):
        await asyncio.sleep(ESCALATE_AFTER + 2 * POLL_SECONDS)
    assert await service.metric("alert_escalations_total") == 0

    async def measured() -> bool:
        return await service.metric("alerts_unacknowledged") == 0

    await eventually(measured)
    assert await room.messages("managers") == []
    _, text = await command("alerts", "list", "--json")
    assert [row["state"] for row in json.loads(text)] == ["resolved", "began anew"]
    assert "NodeDown" not in (await command("alerts", "list", "--open"))[1]


async def test_whom_it_escalated_to_hears_once_that_it_is_over_after_it_began_anew(service: Server, room: Chat) -> None:
    async def post(**times: float) -> None:
        await service.post("/v1/alerts", webhook(alert("NodeDown", severity="critical", **times)))

    async with repeating(service, alert("NodeDown", severity="critical")):
        await room.has(1, "managers")
    await post(began_after=30.0)
    await post(began_after=30.0, resolved_after=60.0)
    assert [message["title"].split()[0] for message in await room.has(2, "managers")] == ["[ESCALATED]", "[RESOLVED]"]
    await post(began_after=90.0)
    await post(began_after=90.0, resolved_after=120.0)
    await room.has(5, "devops-chat")
    await asyncio.sleep(2 * POLL_SECONDS)
    assert len(await room.messages("managers")) == 2


async def test_what_is_muted_is_neither_escalated_nor_open_until_it_is_told_again(
    database: Database, room: Chat, command: Command
) -> None:
    async def states() -> dict[str, str]:
        _, text = await command("alerts", "list", "--json")
        return {row["alert"]: row["state"] for row in json.loads(text)}

    muted, left = (alert(name, number, severity="critical") for number, name in ((1, "Muted"), (2, "Left")))
    async with notifier(database, receivers(room), escalate_after=1, unseen_after=3) as service:
        await service.post("/v1/alerts", webhook(muted, left, alert("Minor", 3)))
        async with repeating(service, left):
            (message,) = await room.has(1, "managers")
            assert message["title"].startswith("[ESCALATED] critical: Left")

            async def unseen() -> bool:
                return await states() == {"Muted": "unseen", "Left": "escalated", "Minor": "unseen"}

            await eventually(unseen)
            _, text = await command("alerts", "list", "--open")
            assert "Left" in text
            assert "Muted" not in text
            assert "Minor" not in text

            async def measured() -> bool:
                return await service.metric("alerts_unacknowledged") == 1

            await eventually(measured)
            assert len(await room.messages("managers")) == 1
        # The silence is over, and the alert is not.
        await service.post("/v1/alerts", webhook(muted))
        assert (await states())["Muted"] == "firing"
        (row,) = await database.fetch("SELECT seen_since = last_seen AS anew FROM alerts WHERE name = 'Muted'")
        assert row["anew"], "there is time anew to acknowledge it"
        async with repeating(service, muted, left):
            told = await room.has(2, "managers")
        assert told[1]["title"].startswith("[ESCALATED] critical: Muted")
        await service.post("/v1/alerts", webhook(alert("Muted", 1, severity="critical", resolved_after=100)))
        assert (await room.has(3, "managers"))[2]["title"].startswith("[RESOLVED] critical: Muted")
        assert await states() == {"Muted": "resolved", "Left": "escalated", "Minor": "unseen"}
        # What was repeated was told to nobody twice: three beginnings and an end.
        await room.has(4, "devops-chat")


async def test_who_could_not_listen_takes_nothing_for_unseen(
    database: Database, postgres: PostgresServer, room: Chat
) -> None:
    ahead = 0.0
    critical = alert(severity="critical")

    async def marked() -> bool:
        (row,) = await database.fetch("SELECT unseen FROM alerts")
        return row["unseen"] is not None

    async def looked(service: Server) -> None:
        """The alert was not told for two hours, and the notifier has looked."""
        await database.fetch("UPDATE alerts SET last_seen = now() - interval '2 hours'")
        await service.reaches("alert_notifier_last_refresh_timestamp_seconds", time.time())

    async with notifier(
        database, receivers(room), unseen_after=3600, clock=lambda: time.monotonic() + ahead
    ) as service:
        await service.post("/v1/alerts", webhook(critical))
        await looked(service)
        assert not await marked(), "it has just started"
        ahead = 3600
        await eventually(marked)
        await service.post("/v1/alerts", webhook(critical))
        postgres.kill()
        # Until the dispatcher has asked for work.
        await asyncio.sleep(2 * POLL_SECONDS)
        await asyncio.to_thread(postgres.start)
        await looked(service)
        assert not await marked(), "no repeat could be stored"


async def test_what_waits_for_a_receiver_that_is_no_more_is_given_up(database: Database, room: Chat) -> None:
    await room.fault(fault="error", channel="devops-chat", seconds=60)
    document = receivers(room)
    async with notifier(database, document) as service:
        await service.post("/v1/alerts", webhook(alert()))
    document["receivers"] = [receiver for receiver in document["receivers"] if receiver["name"] != "devops-chat"]
    document["default"] = ["pager"]
    async with notifier(database, document):

        async def given_up() -> bool:
            rows = await database.fetch("SELECT status FROM alert_notifications")
            return [row["status"] for row in rows] == ["given_up"]

        await eventually(given_up)

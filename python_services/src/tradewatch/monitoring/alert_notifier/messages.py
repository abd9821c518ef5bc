"""The text of a notification: plain, its links written out, what matters most first."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tradewatch.monitoring.alert_notifier.sender import Kind

MAX_TITLE_CHARACTERS = 200
# Said already in the title, or on every alert alike.
_TITLE_LABELS = frozenset({"alertname", "severity"})


@dataclass(frozen=True)
class Told:
    """What there is to tell of an alert."""

    fingerprint: str
    name: str
    severity: str
    starts_at: datetime
    ends_at: datetime | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Message:
    """What is sent."""

    title: str
    body: str
    kind: Kind


def compose(told: Told, *, escalation: bool, attempt: int, max_characters: int) -> Message:
    """The message to a receiver that takes `max_characters`; the first `attempt` is 1."""
    state = "RESOLVED" if told.ends_at else "ESCALATED" if escalation else "FIRING"
    summary = told.annotations.get("summary", "")
    title = _one_line(f"[{state}] {told.severity}: {told.name}{f' - {summary}' if summary else ''}")
    body = "\n".join(_lines(told, escalation, attempt))
    return Message(_cut(title, MAX_TITLE_CHARACTERS), _cut(body, max_characters - MAX_TITLE_CHARACTERS), _kind(told))


def _lines(told: Told, escalation: bool, attempt: int) -> list[str]:
    lines = []
    if told.ends_at is None and escalation:
        lines.append("Nobody has acknowledged this alert.")
    for name in ("summary", "description"):
        if told.annotations.get(name):
            lines.append(told.annotations[name].strip())
    for name, title in (("runbook_url", "Runbook"), ("dashboard_url", "Dashboard")):
        if told.annotations.get(name):
            lines.append(f"{title}: {_one_line(told.annotations[name])}")
    lines.append(f"Started: {_time(told.starts_at)}")
    if told.ends_at is not None:
        lines.append(f"Resolved: {_time(told.ends_at)}, it lasted {lasted(told.ends_at - told.starts_at)}")
    elif told.severity == "critical":
        lines.append(f"Acknowledge: tradewatch alerts ack {told.fingerprint} --by NAME")
    if attempt > 1:
        lines.append(f"Attempt {attempt}: an earlier one was not confirmed, so you may have this already.")
    shown = {name: value for name, value in sorted(told.labels.items()) if name not in _TITLE_LABELS}
    lines.append(f"Labels: {', '.join(f'{name}={_one_line(value)}' for name, value in shown.items()) or 'none'}")
    return lines


def _kind(told: Told) -> Kind:
    if told.ends_at is not None:
        return "resolved"
    return "critical" if told.severity == "critical" else "warning" if told.severity == "warning" else "info"


def lasted(duration: timedelta) -> str:
    """A duration as people say it: its two largest units."""
    seconds = max(0, round(duration.total_seconds()))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"

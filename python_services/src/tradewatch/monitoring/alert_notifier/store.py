"""Alerts and notifications in PostgreSQL (store/migrations, revisions 0002 and 0004).

A notification is delivered at least once. An attempt is counted and the notification lent to one worker, both stored,
before anything is sent; it is marked as sent once the receiver has confirmed. Who dies between the two leaves a
notification that is sent again when the loan is over, and that says that it may be a repeat.

Alertmanager does not tell that an alert which it silences or inhibits is over, nor that it is muted: it only ceases to
repeat it. What it repeats no more is marked as unseen: not taken for firing until it is told again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tradewatch.monitoring.alert_notifier.messages import Told
from tradewatch.monitoring.alert_notifier.routing import Routing
from tradewatch.monitoring.alert_notifier.webhook import Alert
from tradewatch.store.database import Connection, Pool

Reason = Literal["route", "escalation"]

_INSERT_ALERT = """
INSERT INTO alerts (fingerprint, starts_at, status, ends_at, name, team, severity, labels, annotations)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (fingerprint, starts_at, status) DO NOTHING RETURNING alert_id
"""
# Who mutes an alert has heard of it: once it comes again the time to acknowledge it begins anew.
_SEEN = """
UPDATE alerts SET last_seen = now(), unseen = NULL, seen_since = CASE WHEN unseen IS NULL THEN seen_since ELSE now() END
WHERE fingerprint = $1 AND starts_at = $2 AND status = 'firing'
"""
# What has ended is marked too: so that those which may still fire are few, in a history that is kept for ever.
_MARK_UNSEEN = """
UPDATE alerts SET unseen = now() WHERE alert_id IN (
    SELECT alert_id FROM alerts
    WHERE status = 'firing' AND unseen IS NULL AND last_seen < now() - $1::interval
    FOR UPDATE SKIP LOCKED)
"""
_INSERT_NOTIFICATIONS = """
INSERT INTO alert_notifications (alert_id, fingerprint, receiver, reason, attempts)
SELECT $1, $2, receiver, $5, attempts FROM unnest($3::text[], $4::integer[]) AS waiting (receiver, attempts)
"""
_INSERT_SENT = """
INSERT INTO alert_notifications (alert_id, fingerprint, receiver, reason, status, attempts, finished)
SELECT $1, $2, receiver, 'route', 'sent', attempts, now()
FROM unnest($3::text[], $4::integer[]) AS told (receiver, attempts)
"""
# Who was told that it escalated is told that it is over, at the latest when what it began anew as is.
_ESCALATED_TO = """
SELECT n.receiver FROM alerts AS a JOIN alert_notifications AS n USING (alert_id)
WHERE a.fingerprint = $1 AND a.starts_at <= $2 AND a.status = 'firing' AND n.reason = 'escalation' AND NOT EXISTS (
    SELECT 1 FROM alerts AS over
    WHERE over.fingerprint = a.fingerprint AND over.status = 'resolved'
      AND over.starts_at >= a.starts_at AND over.starts_at < $2)
"""
# In the order of their coming for each alert, so that nobody hears of an end before the beginning; what failed comes
# after what is due for longer, so that one which a receiver never takes holds up no other.
_CLAIM = """
WITH next AS (
    SELECT n.notification_id FROM alert_notifications AS n
    WHERE n.receiver = $1 AND n.status = 'pending' AND n.next_attempt <= now() AND NOT EXISTS (
        SELECT 1 FROM alert_notifications AS earlier
        WHERE earlier.receiver = n.receiver AND earlier.fingerprint = n.fingerprint AND earlier.status = 'pending'
          AND earlier.notification_id < n.notification_id)
    ORDER BY n.next_attempt, n.notification_id LIMIT 1 FOR UPDATE OF n SKIP LOCKED)
UPDATE alert_notifications AS n SET attempts = n.attempts + 1, next_attempt = now() + $2::interval
FROM next, alerts AS a
WHERE n.notification_id = next.notification_id AND a.alert_id = n.alert_id
RETURNING n.notification_id, n.reason, n.attempts, n.created,
          a.fingerprint, a.name, a.severity, a.starts_at, a.ends_at, a.labels, a.annotations, a.received
"""
_FINISH = """
UPDATE alert_notifications SET status = $2, finished = now() WHERE notification_id = $1 AND status = 'pending'
"""
_RETRY = "UPDATE alert_notifications SET next_attempt = now() + $2::interval WHERE notification_id = $1"
_DROP_OTHERS = """
UPDATE alert_notifications SET status = 'given_up', finished = now()
WHERE status = 'pending' AND receiver <> ALL ($1::text[]) RETURNING receiver
"""
# An alert that began anew is over as it was before, though nobody tells that end: who restarts has forgotten it.
# Both ends in one condition would compare every two rows of a fingerprint, in a history that is kept for ever.
_FIRES_UNACKNOWLEDGED = """
a.severity = 'critical' AND a.status = 'firing' AND a.unseen IS NULL AND a.acknowledged IS NULL AND NOT EXISTS (
    SELECT 1 FROM alerts AS over
    WHERE over.fingerprint = a.fingerprint AND over.starts_at = a.starts_at AND over.status = 'resolved')
AND NOT EXISTS (
    SELECT 1 FROM alerts AS later WHERE later.fingerprint = a.fingerprint AND later.starts_at > a.starts_at)
"""
# Not for its age alone: only one that was told again when its time was over is known to be neither over nor muted then.
_ESCALATE = f"""
UPDATE alerts SET escalated = now() WHERE alert_id IN (
    SELECT a.alert_id FROM alerts AS a
    WHERE a.escalated IS NULL AND a.last_seen >= a.seen_since + $1::interval AND {_FIRES_UNACKNOWLEDGED}
    ORDER BY a.alert_id FOR UPDATE SKIP LOCKED)
RETURNING alert_id, fingerprint, name
"""  # noqa: S608
_WAITING = """
SELECT receiver, count(*) AS pending, extract(epoch FROM now() - min(created))::float8 AS oldest_seconds
FROM alert_notifications WHERE status = 'pending' GROUP BY receiver
"""
# By the newest ids, as the history is kept for ever: a receiver that is behind by more confirms again before long.
_LAST_SENT = """
SELECT extract(epoch FROM max(finished))::float8 FROM (
    SELECT finished, status FROM alert_notifications ORDER BY notification_id DESC LIMIT 10000) AS newest
WHERE status = 'sent'
"""
_UNACKNOWLEDGED = f"SELECT count(*) FROM alerts AS a WHERE {_FIRES_UNACKNOWLEDGED}"  # noqa: S608


@dataclass(frozen=True)
class Claimed:
    """A notification lent to one worker."""

    notification_id: int
    reason: Reason
    attempt: int
    created: datetime
    received: datetime
    told: Told


@dataclass(frozen=True)
class Waiting:
    """What a receiver has not been told yet."""

    pending: int
    oldest_seconds: float


async def store(
    pool: Pool,
    alerts: Iterable[Alert],
    routing: Routing,
    told: Callable[[Alert], Sequence[str]],
    attempts: Callable[[Alert], Mapping[str, int]],
) -> list[Alert]:
    """Keep what is new of a webhook, and who is to be told, in one transaction. Returns what was new.

    `told` says which receivers have been told of an alert already, `attempts` how often each was tried.
    """
    new = []
    # In one order, so that two calls that bring the same alerts do not wait for each other in a circle.
    ordered = sorted(alerts, key=lambda alert: alert.key)
    async with pool.acquire() as connection, connection.transaction():
        for alert in ordered:
            if await _store_alert(connection, alert, routing, told(alert), attempts(alert)):
                new.append(alert)
    return new


async def _store_alert(
    connection: Connection, alert: Alert, routing: Routing, told: Sequence[str], attempts: Mapping[str, int]
) -> bool:
    row = (alert.fingerprint, alert.starts_at, alert.status, alert.ended, alert.name, alert.team, alert.severity)
    alert_id = await connection.fetchval(_INSERT_ALERT, *row, alert.labels, alert.annotations)
    if alert_id is None:
        if alert.status == "firing":
            await connection.execute(_SEEN, alert.fingerprint, alert.starts_at)
        return False
    receivers = list(routing.receivers(alert.team, alert.severity))
    if alert.status == "resolved":
        rows = await connection.fetch(_ESCALATED_TO, alert.fingerprint, alert.starts_at)
        receivers += [row["receiver"] for row in rows if row["receiver"] in routing.senders]
    waiting = [name for name in dict.fromkeys(receivers) if name not in told]
    tried = [attempts.get(name, 0) for name in waiting]
    await connection.execute(_INSERT_NOTIFICATIONS, alert_id, alert.fingerprint, waiting, tried, "route")
    if told:
        tried = [attempts.get(name, 1) for name in told]
        await connection.execute(_INSERT_SENT, alert_id, alert.fingerprint, list(told), tried)
    return True


async def claim(pool: Pool, receiver: str, loan: timedelta) -> Claimed | None:
    """Borrow the receiver's next notification that is due, if there is one that nobody has borrowed."""
    row = await pool.fetchrow(_CLAIM, receiver, loan)
    if row is None:
        return None
    fields = ("fingerprint", "name", "severity", "starts_at", "ends_at", "labels", "annotations")
    told = Told(**{field: row[field] for field in fields})
    return Claimed(row["notification_id"], row["reason"], row["attempts"], row["created"], row["received"], told)


async def finish(pool: Pool, notification_id: int, status: Literal["sent", "given_up"]) -> None:
    """It is over with this notification; once it is, it stays so."""
    await pool.execute(_FINISH, notification_id, status)


async def retry(pool: Pool, notification_id: int, after: timedelta) -> None:
    """Give it back, to be taken up again in a while."""
    await pool.execute(_RETRY, notification_id, after)


async def drop_other_receivers(pool: Pool, receivers: Sequence[str]) -> list[str]:
    """Give up what waits for receivers that the settings do not know any more. Returns whose it was."""
    return [row["receiver"] for row in await pool.fetch(_DROP_OTHERS, list(receivers))]


async def escalate(pool: Pool, after: timedelta, receivers: Sequence[str]) -> list[str]:
    """Have the receivers told of each critical alert that is told, unacknowledged, for so long. Returns their names."""
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(_ESCALATE, after)
        for row in rows:
            arguments = (row["alert_id"], row["fingerprint"], list(receivers), [0] * len(receivers), "escalation")
            await connection.execute(_INSERT_NOTIFICATIONS, *arguments)
    return [row["name"] for row in rows]


async def mark_unseen(pool: Pool, after: timedelta) -> None:
    """Take what has not been told for so long for firing no more, until it is told again."""
    await pool.execute(_MARK_UNSEEN, after)


async def waiting(pool: Pool) -> dict[str, Waiting]:
    """What waits, by receiver."""
    return {row["receiver"]: Waiting(row["pending"], row["oldest_seconds"]) for row in await pool.fetch(_WAITING)}


async def last_sent(pool: Pool) -> float:
    """When a receiver last confirmed a notification, in Unix seconds; 0 where none did."""
    return float(await pool.fetchval(_LAST_SENT) or 0)


async def unacknowledged(pool: Pool) -> int:
    """How many critical alerts fire, as far as Alertmanager still tells, that nobody acknowledged."""
    return int(await pool.fetchval(_UNACKNOWLEDGED))

"""`tradewatch alerts list|ack`: what people were told of, and who looks after it."""

from argparse import Namespace

from tradewatch.cli.reading import EXIT_NOT_FOUND, EXIT_OK, fail, plain, show, with_store
from tradewatch.store import audit
from tradewatch.store.database import Pool

# One row an alert, from its beginning to its end; one whose beginning was never told has but an end, and one that began
# anew before its end was told has none. Unseen is what Alertmanager ceased to tell: silenced, inhibited, or over since.
_ALERTS = """
SELECT coalesce(f.starts_at, r.starts_at) AS started, r.ends_at AS ended,
       CASE WHEN r.alert_id IS NOT NULL THEN 'resolved' WHEN anew.began THEN 'began anew'
            WHEN f.unseen IS NOT NULL THEN 'unseen'
            WHEN f.acknowledged IS NOT NULL THEN 'acknowledged' WHEN f.escalated IS NOT NULL THEN 'escalated'
            ELSE 'firing' END AS state,
       coalesce(f.severity, r.severity) AS severity, coalesce(f.team, r.team) AS team,
       coalesce(f.name, r.name) AS alert, coalesce(f.fingerprint, r.fingerprint) AS fingerprint,
       coalesce(f.annotations, r.annotations) ->> 'summary' AS summary,
       f.acknowledged_by, f.acknowledged, f.escalated, f.last_seen, coalesce(f.labels, r.labels) AS labels,
       (SELECT string_agg(n.receiver || ' ' || n.status, ', ' ORDER BY n.notification_id)
        FROM alert_notifications AS n WHERE n.alert_id IN (f.alert_id, r.alert_id)) AS told
FROM (SELECT * FROM alerts WHERE status = 'firing') AS f
FULL JOIN (SELECT * FROM alerts WHERE status = 'resolved') AS r USING (fingerprint, starts_at)
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT 1 FROM alerts AS later
    WHERE later.fingerprint = f.fingerprint AND later.starts_at > f.starts_at) AS began) AS anew
WHERE NOT $1 OR r.alert_id IS NULL AND f.unseen IS NULL AND NOT anew.began
ORDER BY coalesce(f.alert_id, r.alert_id) DESC LIMIT $2
"""
_COLUMNS = ("started", "state", "severity", "team", "alert", "summary", "told", "acknowledged_by", "fingerprint")
_LATEST = """
SELECT a.alert_id, a.name, a.acknowledged, a.acknowledged_by, EXISTS (
    SELECT 1 FROM alerts AS over
    WHERE over.fingerprint = a.fingerprint AND over.starts_at = a.starts_at AND over.status = 'resolved') AS resolved
FROM alerts AS a WHERE a.fingerprint = $1 AND a.status = 'firing' ORDER BY a.starts_at DESC LIMIT 1 FOR UPDATE
"""
_ACKNOWLEDGE = "UPDATE alerts SET acknowledged = now(), acknowledged_by = $2 WHERE alert_id = $1"


def run(options: Namespace) -> int:
    """The command of `options`. Returns the exit code."""
    return with_store(f"alerts {options.action}", options, {"list": _list, "ack": _acknowledge}[options.action])


async def _list(pool: Pool, options: Namespace) -> int:
    rows = await pool.fetch(_ALERTS, options.open, options.limit)
    show("Alerts, newest first", _COLUMNS, rows, options.json)
    return EXIT_OK


async def _acknowledge(pool: Pool, options: Namespace) -> int:
    async with pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(_LATEST, options.fingerprint)
        if row is None:
            return fail("alerts ack", f"no alert {options.fingerprint}", EXIT_NOT_FOUND)
        if row["acknowledged"] is not None:
            when = plain(row["acknowledged"])
            print(f"{row['name']} was acknowledged by {plain(row['acknowledged_by'])} at {when}")
            return EXIT_OK
        if row["resolved"]:
            print(f"{row['name']} is resolved: there is nothing to acknowledge")
            return EXIT_OK
        await connection.execute(_ACKNOWLEDGE, row["alert_id"], options.by)
        details = {"alert": row["name"], "fingerprint": options.fingerprint}
        await audit.append(connection, actor=options.by, action="alert acknowledged", details=details)
    print(f"{row['name']} acknowledged by {options.by}")
    return EXIT_OK

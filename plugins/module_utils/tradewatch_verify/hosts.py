"""What was found on the hosts themselves."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from .cluster import Cluster, Object
from .cron import last_due

# A snapshot of a large etcd takes a while, and k3s looks at the clock once a minute.
SNAPSHOT_GRACE_SECONDS = 600


def host_files_are_private(cluster: Cluster) -> Iterator[str]:
    """Tokens and kubeconfigs on the hosts are for root alone."""
    for name, node in sorted(cluster.parameters["nodes"].items()):
        files = cluster.parameters["host_files"].get(name) or []
        if not files:
            yield f"{name}: no token file was found" if node["version"] else f"{name}: the host was not reached"
        for file in files:
            if int(file["mode"], 8) & 0o077:
                yield f"{name}: {file['path']} has mode {file['mode']}, expected 0600"


def etcd_is_saved(cluster: Cluster) -> Iterator[str]:
    """Every server has the etcd snapshot that its schedule asked for last, unless it is younger than that."""
    for name, state in sorted(cluster.parameters["snapshots"].items()):
        node = cluster.nodes.get(name)
        if node is not None:
            created = datetime.datetime.fromisoformat(node["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
            yield from (f"{name}: {problem}" for problem in snapshot_problems(state, created))


def snapshot_problems(state: Object, created: datetime.datetime) -> Iterator[str]:
    """What is wrong with one server's snapshots.

    Args:
        state: ``schedule`` (cron's five fields), ``now`` (the host's clock, ISO 8601 with its offset from UTC; empty
            where the host was not reached),
            ``newest`` (seconds since 1970 of the newest snapshot, 0 where there is none).
        created: when the server became a node.
    """
    if not state["now"]:
        yield "the host was not reached"
        return
    if not state["schedule"]:
        yield "no etcd snapshots are scheduled"
        return
    now = datetime.datetime.fromisoformat(state["now"])
    due = last_due(state["schedule"], now - datetime.timedelta(seconds=SNAPSHOT_GRACE_SECONDS))
    if due is None or created > due or state["newest"] >= due.timestamp():
        return
    newest = "there is none"
    if state["newest"]:
        newest = datetime.datetime.fromtimestamp(int(state["newest"]), now.tzinfo).isoformat()
    yield (
        f"the newest etcd snapshot ({newest}) is older than the schedule {state['schedule']!r} allows, which asked for "
        f"one at {due.isoformat()}; see the journal of k3s, and take one with k3s etcd-snapshot save"
    )


def audit_log_is_written(cluster: Cluster) -> Iterator[str]:
    """A change asked of each server just now stands in its audit log."""
    for name, problem in sorted(cluster.parameters["audit"].items()):
        if problem:
            yield f"{name}: {problem}"

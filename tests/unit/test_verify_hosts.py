"""When a server's etcd snapshots are too old, and cron's schedules."""

from __future__ import annotations

import datetime

import pytest

from plugins.module_utils.tradewatch_verify import cron, hosts

NOW = "2026-03-04T14:30:00+02:00"  # a Wednesday
LONG_AGO = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def problems(newest: str | None, schedule: str = "0 */6 * * *", created: datetime.datetime = LONG_AGO) -> list[str]:
    state = {"schedule": schedule, "now": NOW, "newest": int(moment(newest).timestamp()) if newest else 0}
    return list(hosts.snapshot_problems(state, created))


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("0 */6 * * *", "2026-03-04T12:00:00+02:00"),
        ("30 14 * * *", "2026-03-04T14:30:00+02:00"),
        ("31 14 * * *", "2026-03-03T14:31:00+02:00"),
        ("5/20 * * * *", "2026-03-04T14:25:00+02:00"),
        ("0 0 * * 0", "2026-03-01T00:00:00+02:00"),
        ("0 0 * * 7", "2026-03-01T00:00:00+02:00"),
        ("0 0 31 * *", "2026-01-31T00:00:00+02:00"),
        ("0 0 2 * 1", "2026-03-02T00:00:00+02:00"),
        ("0 3,4 1-3 12 *", "2025-12-03T04:00:00+02:00"),
    ],
)
def test_last_due(schedule: str, due: str) -> None:
    assert cron.last_due(schedule, moment(NOW)) == moment(due)


def test_a_schedule_that_is_never_due() -> None:
    assert cron.last_due("0 0 31 2 *", moment(NOW)) is None


def test_a_schedule_of_another_form_is_named() -> None:
    with pytest.raises(ValueError, match="'@often' has not the five fields"):
        cron.last_due("@often", moment(NOW))


def test_a_snapshot_since_the_schedule_was_due_last() -> None:
    assert problems("2026-03-04T12:00:02+02:00") == []


def test_an_older_one_is_too_old() -> None:
    [line] = problems("2026-03-04T06:00:02+02:00")
    assert "the newest etcd snapshot (2026-03-04T06:00:02+02:00) is older" in line
    assert "one at 2026-03-04T12:00:00+02:00" in line


def test_none_at_all() -> None:
    [line] = problems(None)
    assert "there is none" in line


def test_a_younger_cluster_has_none_yet() -> None:
    assert problems(None, created=moment("2026-03-04T12:01:00+02:00")) == []


def test_a_snapshot_may_take_its_time() -> None:
    # Due five minutes ago, and a quarter of an hour ago.
    assert problems("2026-03-04T13:26:00+02:00", "25 * * * *") == []
    assert len(problems("2026-03-04T13:26:00+02:00", "15 * * * *")) == 1


def test_no_schedule() -> None:
    assert problems("2026-03-04T14:29:00+02:00", "") == ["no etcd snapshots are scheduled"]


def test_a_host_that_was_not_reached() -> None:
    state = {"schedule": "", "now": "", "newest": 0}
    assert list(hosts.snapshot_problems(state, LONG_AGO)) == ["the host was not reached"]

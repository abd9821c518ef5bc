"""Cron schedules as k3s takes them for etcd snapshots: minute, hour, day, month, weekday; or ``@hourly`` and so on."""

from __future__ import annotations

import datetime

_SHORTHAND = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_SEARCH_MINUTES = 366 * 24 * 60


class Schedule:
    """The minutes at which a cron expression is due.

    Raises:
        ValueError: the expression is not one; the message says which field.
    """

    def __init__(self, expression: str) -> None:
        fields = _SHORTHAND.get(expression, expression).split()
        if len(fields) != len(_FIELDS):
            raise ValueError(f"{expression!r} has not the five fields of a cron expression")
        self._sets = [_values(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
        self._sets[4] = {value % 7 for value in self._sets[4]}
        # crontab(5): when both day fields are restricted, either one matching is enough.
        self._either_day = not fields[2].startswith("*") and not fields[4].startswith("*")

    def due(self, moment: datetime.datetime) -> bool:
        """Whether the minute of ``moment`` is in the schedule."""
        minutes, hours, days, months, weekdays = self._sets
        if moment.minute not in minutes or moment.hour not in hours or moment.month not in months:
            return False
        day, weekday = moment.day in days, moment.isoweekday() % 7 in weekdays
        return (day or weekday) if self._either_day else (day and weekday)

    def after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The first due minute after that of ``moment``; None when there is none within a year."""
        candidate = moment.replace(second=0, microsecond=0)
        for _ in range(_SEARCH_MINUTES):
            candidate += datetime.timedelta(minutes=1)
            if self.due(candidate):
                return candidate
        return None


def _values(text: str, name: str, low: int, high: int) -> set[int]:
    result: set[int] = set()
    for part in text.split(","):
        span, _, step_text = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        elif not dash:
            # cron: "5/15" means from 5 to the end, by 15.
            last = str(high) if step_text else first
        words = [first, last, *([step_text] if "/" in part else [])]
        if not all(word.isdigit() for word in words):
            raise ValueError(f"{text!r} is not a {name} field")
        start, end, step = int(first), int(last), int(step_text or 1)
        if start < low or end > high or start > end or step < 1:
            raise ValueError(f"{text!r} is out of range for {name} ({low} to {high})")
        result.update(range(start, end + 1, step))
    return result

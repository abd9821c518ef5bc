"""When a schedule in cron's five fields was due last."""

from __future__ import annotations

import datetime

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_DAY, _WEEKDAY = 2, 4
_YEAR_DAYS = 366


def last_due(schedule: str, moment: datetime.datetime) -> datetime.datetime | None:
    """The last minute up to ``moment`` that the schedule names, in ``moment``'s offset; None if none within a year.

    Raises:
        ValueError: the schedule has not cron's five fields.
    """
    fields = schedule.split()
    if len(fields) != len(_RANGES):
        raise ValueError(f"{schedule!r} has not the five fields of a cron expression")
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(fields, _RANGES, strict=True))
    # crontab(5): where both are restricted, either may match.
    either = not fields[_DAY].startswith("*") and not fields[_WEEKDAY].startswith("*")
    for back in range(_YEAR_DAYS + 1):
        date = moment.date() - datetime.timedelta(days=back)
        matches = (date.day in days, bool({date.isoweekday(), date.isoweekday() % 7} & weekdays))
        if date.month not in months or not (any(matches) if either else all(matches)):
            continue
        for hour in sorted(hours, reverse=True):
            for minute in sorted(minutes, reverse=True):
                due = datetime.datetime.combine(date, datetime.time(hour, minute), moment.tzinfo)
                if due <= moment:
                    return due
    return None


def _values(field: str, bounds: tuple[int, int]) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = bounds
        else:
            low = int(first)
            high = int(last) if dash else bounds[1] if step else low
        found.update(range(low, high + 1, int(step or 1)))
    return found

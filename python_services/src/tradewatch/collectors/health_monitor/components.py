"""What is known of each watched component: whether it is well, and since when."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from tradewatch.collectors.health_monitor.metrics import HEALTH_SINCE, HEALTH_STATUS
from tradewatch.common.logging import get_logger

_log = get_logger("health")

Status = Literal["well", "not_well", "unknown"]


class ComponentReport(BaseModel):
    """One component of the report; `since` is when its status began, `detail` is for people."""

    component: str
    status: Status
    since: datetime
    detail: str


class HealthReport(BaseModel):
    """The answer of `GET /v1/health`: what is not well comes first, the longest ill at the top."""

    status: Status
    time: datetime
    components: list[ComponentReport]


@dataclass
class _State:
    status: Status
    since: float
    detail: str


class Components:
    """The verdicts on all components; a change of one, and only that, is a line in the log."""

    def __init__(
        self, registry: CollectorRegistry, names: tuple[str, ...], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        now = clock()
        self._states = {name: _State("unknown", now, "not looked at yet") for name in names}
        self._status = HEALTH_STATUS.gauge(registry)
        self._since = HEALTH_SINCE.gauge(registry)

    def judge(self, name: str, well: bool, detail: str) -> None:
        """Take the newest verdict on a component."""
        state = self._states[name]
        status: Status = "well" if well else "not_well"
        state.detail = detail
        if status == state.status:
            return
        now = self._clock()
        tell = _log.info if well else _log.warning
        tell(
            "component is well" if well else "component is not well",
            watched=name,
            detail=detail,
            before=state.status,
            since=_utc(now).isoformat(),
            before_seconds=round(now - state.since, 3),
        )
        state.status, state.since = status, now
        self._status.labels(component=name).set(well)
        self._since.labels(component=name).set(now)

    def report(self) -> HealthReport:
        """All of them as they are now: `not_well` when one is, else `unknown` when one is, else `well`."""
        order: tuple[Status, ...] = ("not_well", "unknown", "well")
        listed = sorted(self._states.items(), key=lambda item: (order.index(item[1].status), item[1].since, item[0]))
        return HealthReport(
            status=listed[0][1].status if listed else "well",
            time=_utc(self._clock()),
            components=[
                ComponentReport(component=name, status=state.status, since=_utc(state.since), detail=state.detail)
                for name, state in listed
            ],
        )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

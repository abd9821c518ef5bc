"""JSON log lines on stdout: one object a line, `timestamp` in ISO 8601 UTC, `service`, `level`, `event`, `trace_id`."""

import logging
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

# Chatty libraries: below a warning they say nothing that an operator acts on, and at debug level they log headers.
_QUIET_LOGGERS = ("aiohttp", "asyncio", "httpcore", "httpx", "openai", "websockets")


def configure(service: str, level: str = "info") -> None:
    """Send structlog's and the standard library's records to stdout as JSON, each with the service's name."""

    def add_service(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
        event_dict["service"] = service
        return event_dict

    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        add_service,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `component=name`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


@contextmanager
def trace(trace_id: str) -> Iterator[None]:
    """Give every log line inside the block this `trace_id`, also in tasks started there."""
    with structlog.contextvars.bound_contextvars(trace_id=trace_id):
        yield


class Throttle:
    """Lets one line per key through in a while, so that a flood of bad input is not a flood of logs.

    `admit` answers how many were held back since the last one let through, or None while holding back. The keys
    must be a bounded set, such as an enumeration.
    """

    def __init__(self, interval_seconds: float = 10.0) -> None:
        self._interval_seconds = interval_seconds
        self._last: MutableMapping[str, float] = {}
        self._held: MutableMapping[str, int] = {}

    def admit(self, key: str) -> int | None:
        """The number held back since the last admitted one, or None when this one is to be held back."""
        now = time.monotonic()
        last = self._last.get(key)
        if last is not None and now - last < self._interval_seconds:
            self._held[key] = self._held.get(key, 0) + 1
            return None
        self._last[key] = now
        return self._held.pop(key, 0)

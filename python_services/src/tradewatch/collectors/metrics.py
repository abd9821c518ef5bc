"""The metrics of market data collection (docs/metrics.md)."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from tradewatch.collectors.exchanges.protocol import FrameReason, ItemReason
from tradewatch.common.metrics import Metric


class FilterReason(StrEnum):
    """Why a well-formed event was not forwarded."""

    DUPLICATE_TRADE = "duplicate_trade"
    STALE_TRADE = "stale_trade"
    STALE_TICKER = "stale_ticker"
    FUTURE_TIMESTAMP = "future_timestamp"


class FeedReason(StrEnum):
    """Errors of a connection that are about no single event."""

    OUT_OF_ORDER = "out_of_order"
    EXCHANGE_ERROR = "exchange_error"


class ReconnectReason(StrEnum):
    """Why a connection was given up and a new one made."""

    SEQUENCE_GAP = "sequence_gap"
    FROZEN = "frozen"
    NO_DATA = "no_data"
    GOING_AWAY = "going_away"
    CLOSED = "closed"
    FRAME_TOO_LARGE = "frame_too_large"
    CONNECT_FAILED = "connect_failed"
    EXCHANGE_ERROR = "exchange_error"


class BackFillFailure(StrEnum):
    """Why a request for past trades gave none, or why trades stayed missing."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    HTTP_OTHER = "http_other"
    TOO_LARGE = "too_large"
    ENCODED = "encoded"
    INVALID = "invalid"
    EXCHANGE_ERROR = "exchange_error"
    BUS = "bus"
    INCOMPLETE = "incomplete"


class Endpoint(StrEnum):
    """What of an exchange is asked."""

    WEBSOCKET = "websocket"
    TRADES = "trades"


RATE_LIMITED = "429"
REQUEST_STATUSES = ("101", "200", RATE_LIMITED, "4xx", "5xx", "other", "timeout", "error")

_EXCHANGE = "the configured exchange"
_ERROR_REASONS = [*FrameReason, *ItemReason, *FilterReason, *FeedReason]


def _values(values: list[StrEnum]) -> str:
    return ", ".join(f"`{value.value}`" for value in values)


MESSAGES = Metric(
    "market_data_messages_total",
    "counter",
    "Market data events accepted and handed to the bus. The exemplar is an event's trace id.",
    "events",
    {
        "exchange": _EXCHANGE,
        "product_id": "a configured product; others are never labels",
        "channel": "a channel of the exchange that carries events",
    },
)
LAST_EVENT = Metric(
    "market_data_last_event_timestamp_seconds",
    "gauge",
    "The exchange's time of the newest accepted event. 0 until the first; `time()` minus it is the data's age.",
    "Unix seconds",
    {"exchange": _EXCHANGE, "product_id": "a configured product"},
)
ERRORS = Metric(
    "collector_errors_total",
    "counter",
    "What came from the exchange and was not forwarded, by reason.",
    "frames or events",
    {"exchange": _EXCHANGE, "reason": _values(list(_ERROR_REASONS))},
)
API_DURATION = Metric(
    "exchange_api_request_duration_seconds",
    "histogram",
    "Time of a request to the exchange; for the endpoint `websocket`, of the handshake. The exemplar is the "
    "trace id of the connection or of the back-fill.",
    "seconds",
    {
        "exchange": _EXCHANGE,
        "endpoint": _values(list(Endpoint)),
        "status": "the HTTP status: " + ", ".join(f"`{status}`" for status in REQUEST_STATUSES),
    },
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0),
)
SEQUENCE_GAPS = Metric(
    "market_data_sequence_gaps_total",
    "counter",
    "Times that messages of a connection were missing; each is repaired by a new connection's snapshot and by REST.",
    "gaps",
    {"exchange": _EXCHANGE},
)
RECONNECTS = Metric(
    "websocket_reconnects_total",
    "counter",
    "Connections given up, by reason; a new one is made after a back-off.",
    "connections",
    {"exchange": _EXCHANGE, "reason": _values(list(ReconnectReason))},
)
BACKFILLED = Metric(
    "market_data_backfilled_total",
    "counter",
    "Trades that the WebSocket left out and REST brought.",
    "trades",
    {"exchange": _EXCHANGE, "product_id": "a configured product"},
)
BACKFILL_FAILURES = Metric(
    "market_data_backfill_failures_total",
    "counter",
    "Requests for missing trades that failed, by reason; `bus` counts starts that could not read which trades are on "
    "the bus, `incomplete` holes that were given up with trades missing.",
    "failures",
    {"exchange": _EXCHANGE, "reason": _values(list(BackFillFailure))},
)
COLLECTION_METRICS = (
    MESSAGES,
    LAST_EVENT,
    ERRORS,
    API_DURATION,
    SEQUENCE_GAPS,
    RECONNECTS,
    BACKFILLED,
    BACKFILL_FAILURES,
)


class CollectionMetrics:
    """The collection metrics of one exchange, every series present from the start so that rates see the first event.

    Of the requests' durations that is 429 alone: an alert counts single ones, and a histogram has many series.
    """

    def __init__(
        self, registry: CollectorRegistry, exchange: str, products: tuple[str, ...], channels: tuple[str, ...]
    ) -> None:
        messages = MESSAGES.counter(registry)
        last_event = LAST_EVENT.gauge(registry)
        errors = ERRORS.counter(registry)
        reconnects = RECONNECTS.counter(registry)
        self.messages: dict[tuple[str, str], Counter] = {
            (product, channel): messages.labels(exchange=exchange, product_id=product, channel=channel)
            for product in products
            for channel in channels
        }
        self.last_event: dict[str, Gauge] = {
            product: last_event.labels(exchange=exchange, product_id=product) for product in products
        }
        self.errors: dict[StrEnum, Counter] = {
            reason: errors.labels(exchange=exchange, reason=reason.value) for reason in _ERROR_REASONS
        }
        self.reconnects: dict[ReconnectReason, Counter] = {
            reason: reconnects.labels(exchange=exchange, reason=reason.value) for reason in ReconnectReason
        }
        self.gaps: Counter = SEQUENCE_GAPS.counter(registry).labels(exchange=exchange)
        backfilled = BACKFILLED.counter(registry)
        failures = BACKFILL_FAILURES.counter(registry)
        self.backfilled: dict[str, Counter] = {
            product: backfilled.labels(exchange=exchange, product_id=product) for product in products
        }
        self.backfill_failures: dict[BackFillFailure, Counter] = {
            reason: failures.labels(exchange=exchange, reason=reason.value) for reason in BackFillFailure
        }
        self._exchange = exchange
        self._durations = API_DURATION.histogram(registry)
        for endpoint in Endpoint:
            self._durations.labels(exchange=exchange, endpoint=endpoint.value, status=RATE_LIMITED)

    def observe_request(self, endpoint: Endpoint, seconds: float, status: str, trace_id: str) -> None:
        """Note a request to the exchange; `status` is one of REQUEST_STATUSES."""
        series = self._durations.labels(exchange=self._exchange, endpoint=endpoint.value, status=status)
        series.observe(seconds, {"trace_id": trace_id})


def status_label(status: int) -> str:
    """One of REQUEST_STATUSES for an HTTP status."""
    if status in (200, 429):
        return str(status)
    return {4: "4xx", 5: "5xx"}.get(status // 100, "other")

"""The metrics of execution (docs/metrics.md)."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.trading.contracts import OrderStatus
from tradewatch.trading.execution.orders import FINAL, Reason

EXCHANGE = "coinbase"
ENDPOINTS = (
    "products",
    "accounts",
    "best_bid_ask",
    "create_order",
    "cancel_orders",
    "get_order",
    "list_orders",
    "list_fills",
)
# Reasons of rejected orders. Their series are there from the start: the first failure of a series that begins with it
# is no increase to Prometheus.
REFUSALS = (
    Reason.HALTED,
    Reason.REDUCING_ONLY,
    Reason.NO_POSITION,
    Reason.TOO_SMALL,
    Reason.TOO_LARGE,
    Reason.PRODUCT_UNAVAILABLE,
    Reason.NEVER_SENT,
    Reason.NEVER_REACHED,
    Reason.THROTTLED,
    Reason.UNREACHABLE,
    Reason.INSUFFICIENT_FUNDS,
    Reason.UNAUTHORIZED,
    Reason.EXCHANGE_REFUSED,
    Reason.EXCHANGE_FAILED,
)
# As above; of the other statuses no alert counts single ones, and a histogram has many series.
RATE_LIMITED = "429"
STATUSES = ("2xx", RATE_LIMITED, "4xx", "5xx", "other", "timeout", "error")

API_DURATION = Metric(
    "exchange_api_request_duration_seconds",
    "histogram",
    "Time of a request to the exchange. The exemplar is the order's trace id.",
    "seconds",
    {
        "exchange": f"`{EXCHANGE}`",
        "endpoint": ", ".join(f"`{name}`" for name in ENDPOINTS),
        "status": "the HTTP status: " + ", ".join(f"`{status}`" for status in STATUSES),
    },
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0),
)
EXECUTIONS = Metric(
    "trade_executions_total",
    "counter",
    "Orders that came to their end. The exemplar is the order's trace id.",
    "orders",
    {
        "status": ", ".join(f"`{status.value}`" for status in sorted(FINAL)),
        "reason": ", ".join(f"`{reason.value}`" for reason in Reason),
    },
)
EXECUTION_DURATION = Metric(
    "trade_execution_duration_seconds",
    "histogram",
    "From the call to the order's end. The exemplar is the order's trace id.",
    "seconds",
    {},
    (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 35.0, 60.0, 300.0),
)
PRICE_IMPROVEMENT = Metric(
    "trade_price_improvement_ratio",
    "histogram",
    "How much better than its limit an order was filled on average, as a part of the limit price.",
    "ratio",
    {"product_id": "a configured product"},
    (0.0, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
)
FEES = Metric(
    "trade_fees_total",
    "counter",
    "Fees of the fills stored.",
    "quote currency",
    {"product_id": "a configured product"},
)
UNKNOWN = Metric(
    "orders_unknown_outcome", "gauge", "Orders of which nobody knows yet whether the exchange has them.", "orders"
)
OPEN = Metric("orders_in_progress", "gauge", "Orders that have not come to their end.", "orders")
RECONCILED = Metric(
    "reconcile_last_success_timestamp_seconds",
    "gauge",
    "When orders, fills and balances were last compared with the exchange's. 0 before the first time.",
    "Unix seconds",
)
RECONCILE_FAILURES = Metric(
    "reconcile_failures_total", "counter", "Comparisons with the exchange that did not succeed.", "comparisons"
)
DRIFT = Metric(
    "position_drift_units",
    "gauge",
    "The exchange's balance less the position kept here. NaN until both are known.",
    "base currency",
    {"product_id": "a configured product"},
)
FOREIGN = Metric("orders_foreign_open", "gauge", "Open orders at the exchange that no row here stands for.", "orders")
ACTIVE = Metric(
    "executor_active", "gauge", "1 while this replica holds the lock without which no order is sent.", "none"
)
EXECUTION_METRICS = (
    API_DURATION,
    EXECUTIONS,
    EXECUTION_DURATION,
    PRICE_IMPROVEMENT,
    FEES,
    UNKNOWN,
    OPEN,
    RECONCILED,
    RECONCILE_FAILURES,
    DRIFT,
    FOREIGN,
    ACTIVE,
)


class ExecutionMetrics:
    """The series of one executor, present from the start where their labels are known."""

    def __init__(self, registry: CollectorRegistry, products: Sequence[str]) -> None:
        self._api = API_DURATION.histogram(registry)
        self.executions = EXECUTIONS.counter(registry)
        self.duration = EXECUTION_DURATION.histogram(registry)
        self.improvement = PRICE_IMPROVEMENT.histogram(registry)
        self.fees = FEES.counter(registry)
        self.unknown = UNKNOWN.gauge(registry)
        self.open = OPEN.gauge(registry)
        self.reconciled = RECONCILED.gauge(registry)
        self.reconcile_failures = RECONCILE_FAILURES.counter(registry)
        self.drift = DRIFT.gauge(registry)
        self.foreign = FOREIGN.gauge(registry)
        self.active = ACTIVE.gauge(registry)
        for endpoint in ENDPOINTS:
            self._api.labels(exchange=EXCHANGE, endpoint=endpoint, status=RATE_LIMITED)
        for reason in REFUSALS:
            self.executions.labels(status=OrderStatus.REJECTED.value, reason=reason.value)
        for product in products:
            self.drift.labels(product_id=product).set(float("nan"))
            self.fees.labels(product_id=product)
            self.improvement.labels(product_id=product)

    def observe_request(self, endpoint: str, status: str, seconds: float, trace_id: str | None) -> None:
        """Note a request; `endpoint` is one of ENDPOINTS, `status` one of STATUSES."""
        series = self._api.labels(exchange=EXCHANGE, endpoint=endpoint, status=status)
        series.observe(seconds, {"trace_id": trace_id} if trace_id else None)

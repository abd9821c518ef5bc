"""The metrics of the exchange simulator."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.simulators.exchange.orders import Liquidity, OrderStatus

CHANNELS = {
    "coinbase": ("ticker", "market_trades", "l2_data", "user", "heartbeats", "subscriptions"),
    "kraken": ("ticker", "trade", "heartbeat", "status"),
}
FAULTS = (
    "sequence_gap",
    "close",
    "freeze",
    "malformed",
    "bad_price",
    "timeout",
    "status",
    "latency",
    "rate_limit",
    "partial_fill",
    "reject",
)
ORDER_STATUSES = tuple(status.value for status in OrderStatus)
LIQUIDITIES = tuple(liquidity.value for liquidity in Liquidity)

CONNECTIONS = Metric("exchange_simulator_connections", "gauge", "Open WebSocket connections.", "connections")
TICKS = Metric(
    "exchange_simulator_ticks_total",
    "counter",
    "Matches made by the price process.",
    "ticks",
    {"product_id": "a configured product"},
)
MESSAGES_SENT = Metric(
    "exchange_simulator_messages_sent_total",
    "counter",
    "Messages of a channel put on the way to WebSocket clients.",
    "messages",
    {
        "exchange": ", ".join(f"`{exchange}`" for exchange in CHANNELS),
        "channel": "; ".join(f"{name}: `{'`, `'.join(channels)}`" for name, channels in CHANNELS.items()),
    },
)
REQUESTS_REFUSED = Metric(
    "exchange_simulator_requests_refused_total", "counter", "WebSocket requests answered with an error.", "requests"
)
SLOW_CONSUMERS = Metric(
    "exchange_simulator_slow_consumers_total",
    "counter",
    "Connections closed because their client did not read fast enough.",
    "connections",
)
FAULTS_APPLIED = Metric(
    "exchange_simulator_faults_total",
    "counter",
    "Faults asked for over HTTP.",
    "faults",
    {"fault": ", ".join(f"`{fault}`" for fault in FAULTS)},
)
REQUESTS = Metric(
    "exchange_simulator_requests_total",
    "counter",
    "REST requests.",
    "requests",
    {
        "endpoint": "the endpoint's name, such as `create_order`, or `unknown`",
        "status": "HTTP status of the answer, or `none` where a fault held it back",
    },
)
ORDERS = Metric(
    "exchange_simulator_orders_total",
    "counter",
    "Orders that came to a status.",
    "orders",
    {"product_id": "a configured product", "status": ", ".join(f"`{status}`" for status in ORDER_STATUSES)},
)
FILLS = Metric(
    "exchange_simulator_fills_total",
    "counter",
    "Fills of orders.",
    "fills",
    {"product_id": "a configured product", "liquidity": ", ".join(f"`{liquidity}`" for liquidity in LIQUIDITIES)},
)
SIMULATOR_METRICS = (
    CONNECTIONS,
    TICKS,
    MESSAGES_SENT,
    REQUESTS_REFUSED,
    SLOW_CONSUMERS,
    FAULTS_APPLIED,
    REQUESTS,
    ORDERS,
    FILLS,
)


class SimulatorMetrics:
    """The simulator's metrics; every series but those of requests is present from the start."""

    def __init__(self, registry: CollectorRegistry, products: tuple[str, ...]) -> None:
        ticks = TICKS.counter(registry)
        sent = MESSAGES_SENT.counter(registry)
        faults = FAULTS_APPLIED.counter(registry)
        self.connections = CONNECTIONS.gauge(registry)
        self.ticks = {product: ticks.labels(product_id=product) for product in products}
        self.sent = {
            (exchange, channel): sent.labels(exchange=exchange, channel=channel)
            for exchange, channels in CHANNELS.items()
            for channel in channels
        }
        self.refused = REQUESTS_REFUSED.counter(registry)
        self.slow_consumers = SLOW_CONSUMERS.counter(registry)
        self.faults = {fault: faults.labels(fault=fault) for fault in FAULTS}
        self.requests = REQUESTS.counter(registry)
        orders = ORDERS.counter(registry)
        self.orders = {
            (product, status): orders.labels(product_id=product, status=status)
            for product in products
            for status in ORDER_STATUSES
        }
        fills = FILLS.counter(registry)
        self.fills = {
            (product, liquidity): fills.labels(product_id=product, liquidity=liquidity)
            for product in products
            for liquidity in LIQUIDITIES
        }

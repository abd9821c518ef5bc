"""The metrics of the exchange simulator."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

CHANNELS = {
    "coinbase": ("ticker", "market_trades", "heartbeats", "subscriptions"),
    "kraken": ("ticker", "trade", "heartbeat", "status"),
}
FAULTS = ("sequence_gap", "close", "freeze", "malformed", "bad_price")

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
SIMULATOR_METRICS = (CONNECTIONS, TICKS, MESSAGES_SENT, REQUESTS_REFUSED, SLOW_CONSUMERS, FAULTS_APPLIED)


class SimulatorMetrics:
    """The simulator's metrics, every series present from the start."""

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

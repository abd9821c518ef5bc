"""The metrics of market-data-aggregator."""

from prometheus_client import CollectorRegistry

from tradewatch.collectors.aggregator.candles import TradeFate
from tradewatch.common.metrics import Metric

_PRODUCT = "a configured product"
_EXCHANGE = "a configured exchange"
_INTERVAL = "length of the candle in seconds, as configured"

CANDLES = Metric(
    "candles_total",
    "counter",
    "Candles closed and handed to the bus. The exemplar is the trace id of the candle's last trade.",
    "candles",
    {"product_id": _PRODUCT, "interval": _INTERVAL},
)
LAST_CANDLE = Metric(
    "candle_last_end_timestamp_seconds",
    "gauge",
    "The end of the newest closed candle. 0 until the first.",
    "Unix seconds",
    {"product_id": _PRODUCT, "interval": _INTERVAL},
)
CLOSE_DELAY = Metric(
    "candle_close_delay_seconds",
    "histogram",
    "Time from a candle's end to its being handed to the bus; candles made again from history are not counted.",
    "seconds",
    {"interval": _INTERVAL},
    (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 30.0),
)
LATE = Metric(
    "candle_late_trades_total",
    "counter",
    "Trades that came after the candle of this interval had been closed and are not in it.",
    "trades",
    {"product_id": _PRODUCT, "interval": _INTERVAL},
)
IGNORED = Metric(
    "candle_ignored_trades_total",
    "counter",
    "Trades that are in no candle, by reason.",
    "trades",
    {
        "exchange": _EXCHANGE,
        "product_id": _PRODUCT,
        "reason": "`duplicate`, `future` (more than 60 s ahead), `outlier` (price too far from the last quote)",
    },
)
OUTLIERS = Metric(
    "market_data_outliers_total",
    "counter",
    "Seconds in which an exchange's quote was left out because its price is far from the others'.",
    "seconds",
    {"exchange": _EXCHANGE, "product_id": _PRODUCT},
)
STALE = Metric(
    "market_data_quote_stale",
    "gauge",
    "1 while an exchange's quote is left out because it is too old or missing, else 0.",
    "none",
    {"exchange": _EXCHANGE, "product_id": _PRODUCT},
)
QUOTES = Metric(
    "quotes_total", "counter", "Quotes over all exchanges handed to the bus.", "quotes", {"product_id": _PRODUCT}
)
MID = Metric(
    "market_data_mid_price",
    "gauge",
    "Mid price of the last quote over all exchanges. Absent until the first.",
    "quote currency",
    {"product_id": _PRODUCT},
)
SPREAD = Metric(
    "market_data_spread_ratio",
    "gauge",
    "Best ask minus best bid over the mid price; negative where the books of two exchanges cross. Absent until the "
    "first quote.",
    "ratio",
    {"product_id": _PRODUCT},
)
IMBALANCE = Metric(
    "market_data_book_imbalance_ratio",
    "gauge",
    "(bid size - ask size) / (bid size + ask size) over the exchanges' best quotes, -1 to 1. Absent until the first "
    "quote.",
    "ratio",
    {"product_id": _PRODUCT},
)
AGGREGATOR_METRICS = (
    CANDLES,
    LAST_CANDLE,
    CLOSE_DELAY,
    LATE,
    IGNORED,
    OUTLIERS,
    STALE,
    QUOTES,
    MID,
    SPREAD,
    IMBALANCE,
)


class AggregatorMetrics:
    """The aggregator's metrics; counters are present from the start so that rates see the first event."""

    def __init__(
        self,
        registry: CollectorRegistry,
        products: tuple[str, ...],
        exchanges: tuple[str, ...],
        intervals_seconds: tuple[int, ...],
    ) -> None:
        candles, last, late = CANDLES.counter(registry), LAST_CANDLE.gauge(registry), LATE.counter(registry)
        delays, ignored = CLOSE_DELAY.histogram(registry), IGNORED.counter(registry)
        outliers, stale, quotes = OUTLIERS.counter(registry), STALE.gauge(registry), QUOTES.counter(registry)
        by_interval = [(product, seconds) for product in products for seconds in intervals_seconds]
        by_exchange = [(exchange, product) for exchange in exchanges for product in products]
        self.candles = {key: candles.labels(product_id=key[0], interval=str(key[1])) for key in by_interval}
        self.last_candle = {key: last.labels(product_id=key[0], interval=str(key[1])) for key in by_interval}
        self.late = {key: late.labels(product_id=key[0], interval=str(key[1])) for key in by_interval}
        self.close_delay = {seconds: delays.labels(interval=str(seconds)) for seconds in intervals_seconds}
        self.ignored = {
            (*key, fate): ignored.labels(exchange=key[0], product_id=key[1], reason=fate.value)
            for key in by_exchange
            for fate in TradeFate
        }
        self.outliers = {key: outliers.labels(exchange=key[0], product_id=key[1]) for key in by_exchange}
        self.stale = {key: stale.labels(exchange=key[0], product_id=key[1]) for key in by_exchange}
        self.quotes = {product: quotes.labels(product_id=product) for product in products}
        # Made with the first quote: a price of 0 would be a lie.
        self.mid = MID.gauge(registry)
        self.spread = SPREAD.gauge(registry)
        self.imbalance = IMBALANCE.gauge(registry)

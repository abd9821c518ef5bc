"""docs/metrics.md, made from the metrics' definitions."""

from tradewatch.collectors.aggregator.metrics import AGGREGATOR_METRICS
from tradewatch.collectors.health_monitor.metrics import HEALTH_METRICS
from tradewatch.collectors.indicators.metrics import INDICATORS_METRICS
from tradewatch.collectors.metrics import COLLECTION_METRICS
from tradewatch.collectors.sentiment.metrics import SENTIMENT_METRICS
from tradewatch.common.bus import BUS_METRICS
from tradewatch.common.consumer import CONSUMER_METRICS
from tradewatch.common.metrics import BUILD_INFO, Area, Metric
from tradewatch.common.stream_reader import STREAM_READER_METRICS
from tradewatch.monitoring.alert_notifier.metrics import NOTIFIER_METRICS
from tradewatch.monitoring.anomaly_detector.metrics import ANOMALY_METRICS
from tradewatch.monitoring.dashboard_report.metrics import DASHBOARD_REPORT_METRICS
from tradewatch.monitoring.watchdog_receiver.metrics import WATCHDOG_METRICS
from tradewatch.simulators.chat.metrics import CHAT_SIMULATOR_METRICS
from tradewatch.simulators.exchange.metrics import SIMULATOR_METRICS
from tradewatch.simulators.llm.metrics import LLM_SIMULATOR_METRICS
from tradewatch.simulators.news.metrics import NEWS_SIMULATOR_METRICS
from tradewatch.trading.execution.metrics import EXECUTION_METRICS
from tradewatch.trading.llm.metrics import LLM_METRICS
from tradewatch.trading.orchestrator.metrics import ORCHESTRATOR_METRICS
from tradewatch.trading.risk.metrics import RISK_METRICS
from tradewatch.trading.signals.metrics import SIGNALS_METRICS

_WRITERS = (
    "market-data-collector",
    "market-data-aggregator",
    "technical-indicators",
    "sentiment-analyzer",
    "signal-generator",
)
_READERS = ("market-data-aggregator", "technical-indicators", "signal-generator", "health-monitor")

AREAS = (
    Area("Every service", ("all",), (BUILD_INFO,)),
    Area("Collection", ("market-data-collector",), COLLECTION_METRICS),
    Area("Aggregation", ("market-data-aggregator",), AGGREGATOR_METRICS),
    Area("Indicators", ("technical-indicators",), INDICATORS_METRICS),
    Area("Health", ("health-monitor",), HEALTH_METRICS),
    Area("Reading streams", _READERS, STREAM_READER_METRICS),
    Area("Bus", _WRITERS, BUS_METRICS),
    Area("Consumer groups", ("trade-orchestrator", "health-monitor"), CONSUMER_METRICS),
    Area("Sentiment", ("sentiment-analyzer",), SENTIMENT_METRICS),
    Area("Signals", ("signal-generator",), SIGNALS_METRICS),
    Area("Pipeline", ("trade-orchestrator",), ORCHESTRATOR_METRICS),
    Area("LLM validation", ("llm-validator",), LLM_METRICS),
    Area("LLM simulator", ("llm-simulator",), LLM_SIMULATOR_METRICS),
    Area("Execution", ("trade-executor",), EXECUTION_METRICS),
    Area("News simulator", ("news-simulator",), NEWS_SIMULATOR_METRICS),
    Area("Risk", ("risk-manager",), RISK_METRICS),
    Area("Notifications", ("alert-notifier",), NOTIFIER_METRICS),
    Area("Watchdog", ("watchdog-receiver",), WATCHDOG_METRICS),
    Area("Chat simulator", ("chat-simulator",), CHAT_SIMULATOR_METRICS),
    Area("Dashboards", ("dashboard-report",), DASHBOARD_REPORT_METRICS),
    Area("Anomalies", ("anomaly-detector",), ANOMALY_METRICS),
    Area("Exchange simulator", ("exchange-simulator",), SIMULATOR_METRICS),
)

_HEAD = """# Metrics

Made by `tradewatch metrics-doc` from the definitions in the code; a test fails when this file differs. Besides
these, every service exports the `process_*` and `python_gc_*` metrics of the Prometheus client. Where a scraper
asks for OpenMetrics, counters and histograms carry exemplars with a `trace_id`.
"""


def render() -> str:
    """The whole file, ending in a newline."""
    return "\n".join([_HEAD, *(_area(area) for area in AREAS)])


def _area(area: Area) -> str:
    rows = "\n".join(_row(metric) for metric in area.metrics)
    return (
        f"## {area.title}\n\nServices: {', '.join(area.services)}.\n\n"
        f"| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n{rows}\n"
    )


def _row(metric: Metric) -> str:
    labels = "<br>".join(f"`{name}`: {values}" for name, values in metric.labels.items()) or "none"
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help} |"

"""The metrics of the news simulator."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

FEEDS = ("coinpost", "chainwire", "blockbrief")
STATUSES = ("200", "304", "fault")
FAULTS = ("error", "timeout", "malformed", "huge", "frozen", "injection", "extreme")

REQUESTS = Metric(
    "news_simulator_requests_total",
    "counter",
    "Requests for a feed, by how they were answered.",
    "requests",
    {
        "feed": ", ".join(f"`{feed}`" for feed in FEEDS),
        "status": "`200`, `304` (nothing new for who asked), `fault` (broken on request)",
    },
)
FAULTS_APPLIED = Metric(
    "news_simulator_faults_total",
    "counter",
    "Faults asked for over HTTP.",
    "faults",
    {"fault": ", ".join(f"`{fault}`" for fault in FAULTS)},
)
NEWS_SIMULATOR_METRICS = (REQUESTS, FAULTS_APPLIED)


class NewsSimulatorMetrics:
    """The simulator's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = REQUESTS.counter(registry)
        faults = FAULTS_APPLIED.counter(registry)
        self.requests = {
            (feed, status): requests.labels(feed=feed, status=status) for feed in FEEDS for status in STATUSES
        }
        self.faults = {fault: faults.labels(fault=fault) for fault in FAULTS}

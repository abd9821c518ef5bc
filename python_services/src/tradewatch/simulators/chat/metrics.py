"""The metrics of the chat simulator."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

FAULTS = ("error", "timeout", "slow")
OUTCOMES = ("taken", "refused", "fault")

MESSAGES = Metric(
    "chat_simulator_messages_total",
    "counter",
    "Messages sent here, by what became of them.",
    "messages",
    {"outcome": "`taken`, `refused` (not a message), `fault` (broken on request)"},
)
FAULTS_APPLIED = Metric(
    "chat_simulator_faults_total",
    "counter",
    "Faults asked for over HTTP.",
    "faults",
    {"fault": ", ".join(f"`{fault}`" for fault in FAULTS)},
)
CHAT_SIMULATOR_METRICS = (MESSAGES, FAULTS_APPLIED)


class ChatSimulatorMetrics:
    """The simulator's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        messages, faults = MESSAGES.counter(registry), FAULTS_APPLIED.counter(registry)
        self.messages = {outcome: messages.labels(outcome=outcome) for outcome in OUTCOMES}
        self.faults = {fault: faults.labels(fault=fault) for fault in FAULTS}

"""The metrics of trade-orchestrator."""

from enum import StrEnum

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.trading.orchestrator.machine import FINAL, STAGES

_STAGES = ", ".join(f"`{stage}`" for stage in STAGES)
_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Peer(StrEnum):
    """The services that are called."""

    RISK_MANAGER = "risk-manager"
    LLM_VALIDATOR = "llm-validator"
    TRADE_EXECUTOR = "trade-executor"


class Failure(StrEnum):
    """How a call to a peer can fail."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    INVALID_ANSWER = "invalid_answer"
    REFUSED = "refused"


STAGE_DURATION = Metric(
    "pipeline_stage_duration_seconds",
    "histogram",
    "Time that a decision spent in a stage, waiting and crashes included. The exemplar is its trace id.",
    "seconds",
    {"stage": f"{_STAGES}; `received` is the wait for its turn"},
    buckets=_BUCKETS,
)
END_TO_END_DURATION = Metric(
    "pipeline_end_to_end_duration_seconds",
    "histogram",
    "Time from the signal's creation to the decision's final state. The exemplar is its trace id.",
    "seconds",
    buckets=_BUCKETS,
)
SIGNAL_TO_ORDER_DURATION = Metric(
    "pipeline_signal_to_order_duration_seconds",
    "histogram",
    "Time from the signal's creation to its order being handed to trade-executor. The exemplar is its trace id.",
    "seconds",
    buckets=_BUCKETS,
)
DECISIONS = Metric(
    "pipeline_decisions_total",
    "counter",
    "Decisions that came to their end. The exemplar is the last one's trace id.",
    "decisions",
    {"outcome": ", ".join(f"`{state}`" for state in sorted(FINAL))},
)
OPEN_DECISIONS = Metric("pipeline_open_decisions", "gauge", "Decisions without a final state.", "decisions")
OLDEST_OPEN_DECISION = Metric(
    "pipeline_oldest_open_decision_seconds",
    "gauge",
    "Age of the oldest decision without a final state; 0 where there is none.",
    "seconds",
)
RESUMED = Metric(
    "pipeline_resumed_decisions_total",
    "counter",
    "Decisions taken up again that a crash, a restart or a failure had left without a final state.",
    "decisions",
)
CALL_FAILURES = Metric(
    "pipeline_call_failures_total",
    "counter",
    "Calls to another service that brought no usable answer. All but `refused` are tried again.",
    "calls",
    {
        "peer": ", ".join(f"`{peer}`" for peer in Peer),
        "reason": ", ".join(f"`{failure}`" for failure in Failure),
    },
)
ORCHESTRATOR_METRICS = (
    STAGE_DURATION,
    END_TO_END_DURATION,
    SIGNAL_TO_ORDER_DURATION,
    DECISIONS,
    OPEN_DECISIONS,
    OLDEST_OPEN_DECISION,
    RESUMED,
    CALL_FAILURES,
)


class OrchestratorMetrics:
    """The registered metrics, every label value there from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        stages = STAGE_DURATION.histogram(registry)
        decisions = DECISIONS.counter(registry)
        failures = CALL_FAILURES.counter(registry)
        self.stages = {stage: stages.labels(stage=stage.value) for stage in STAGES}
        self.decisions = {state: decisions.labels(outcome=state.value) for state in FINAL}
        self.failures = {
            (peer, failure): failures.labels(peer=peer.value, reason=failure.value)
            for peer in Peer
            for failure in Failure
        }
        self.end_to_end = END_TO_END_DURATION.histogram(registry)
        self.signal_to_order = SIGNAL_TO_ORDER_DURATION.histogram(registry)
        self.open_decisions = OPEN_DECISIONS.gauge(registry)
        self.oldest_open_decision = OLDEST_OPEN_DECISION.gauge(registry)
        self.resumed = RESUMED.counter(registry)

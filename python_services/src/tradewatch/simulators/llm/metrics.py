"""The metrics of the language model simulator."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric

FAULTS = ("error", "timeout", "slow", "invalid_json", "schema_violation", "refusal", "length", "gullible")
OUTCOMES = ("approve", "deny", "refused", "fault")
KINDS = ("prompt", "completion")

REQUESTS = Metric(
    "llm_simulator_requests_total",
    "counter",
    "Chat completions asked for, by how they were answered.",
    "requests",
    {"outcome": "`approve`, `deny`, `refused` (wrong key or request), `fault` (broken on request)"},
)
TOKENS = Metric(
    "llm_simulator_tokens_total",
    "counter",
    "Tokens told as usage.",
    "tokens",
    {"kind": ", ".join(f"`{kind}`" for kind in KINDS)},
)
FAULTS_APPLIED = Metric(
    "llm_simulator_faults_total",
    "counter",
    "Faults asked for over HTTP.",
    "faults",
    {"fault": ", ".join(f"`{fault}`" for fault in FAULTS)},
)
LLM_SIMULATOR_METRICS = (REQUESTS, TOKENS, FAULTS_APPLIED)


class LlmSimulatorMetrics:
    """The simulator's metrics, every series present from the start."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = REQUESTS.counter(registry)
        used = TOKENS.counter(registry)
        faults = FAULTS_APPLIED.counter(registry)
        self.requests = {outcome: requests.labels(outcome=outcome) for outcome in OUTCOMES}
        self.tokens = {kind: used.labels(kind=kind) for kind in KINDS}
        self.faults = {fault: faults.labels(fault=fault) for fault in FAULTS}

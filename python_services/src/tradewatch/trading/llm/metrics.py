"""The metrics of LLM validation (docs/metrics.md)."""

from typing import Literal

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.trading.llm.model import Usage
from tradewatch.trading.llm.reasons import ERRORS, Reason

DECISIONS: tuple[Literal["approve", "deny"], ...] = ("approve", "deny")
_DENIALS = [reason for reason in Reason if reason is not Reason.APPROVED]

VALIDATIONS = Metric(
    "llm_validations_total",
    "counter",
    "Validations answered for the first time, by decision. The exemplar is the decision's trace id.",
    "validations",
    {"decision": ", ".join(f"`{decision}`" for decision in DECISIONS)},
)
DENIALS = Metric(
    "llm_denials_total",
    "counter",
    "Denials by their code.",
    "validations",
    {"reason": ", ".join(f"`{reason.value}`" for reason in _DENIALS)},
)
DURATION = Metric(
    "llm_validation_duration_seconds",
    "histogram",
    "Time of a validation, from the first question to the verdict. The exemplar is the decision's trace id.",
    "seconds",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 6.0, 10.0, 20.0, 30.0),
)
TOKENS = Metric(
    "llm_tokens_total",
    "counter",
    "Tokens that validations took. Where the endpoint does not tell, the most that they may have taken.",
    "tokens",
    {"kind": "`prompt`, `completion`"},
)
ERROR_COUNT = Metric(
    "llm_errors_total",
    "counter",
    "Denials because the model could not be asked or its answer could not be used, by reason.",
    "validations",
    {"reason": ", ".join(f"`{reason.value}`" for reason in ERRORS)},
)
BUDGET_REMAINING = Metric(
    "llm_token_budget_remaining_tokens",
    "gauge",
    "What is left of the hour's tokens, as of the last validation.",
    "tokens",
)
LLM_METRICS = (VALIDATIONS, DENIALS, DURATION, TOKENS, ERROR_COUNT, BUDGET_REMAINING)


class LlmMetrics:
    """The metrics of LLM validation, every series present from the start."""

    def __init__(self, registry: CollectorRegistry, budget_tokens: int) -> None:
        validations = VALIDATIONS.counter(registry)
        denials = DENIALS.counter(registry)
        tokens = TOKENS.counter(registry)
        errors = ERROR_COUNT.counter(registry)
        self._validations = {decision: validations.labels(decision=decision) for decision in DECISIONS}
        self._denials = {reason: denials.labels(reason=reason.value) for reason in _DENIALS}
        self._prompt = tokens.labels(kind="prompt")
        self._completion = tokens.labels(kind="completion")
        self._errors = {reason: errors.labels(reason=reason.value) for reason in ERRORS}
        self._duration = DURATION.histogram(registry)
        self.budget_remaining = BUDGET_REMAINING.gauge(registry)
        self.budget_remaining.set(budget_tokens)

    def count(
        self, decision: Literal["approve", "deny"], reason: Reason, usage: Usage, seconds: float, trace_id: str
    ) -> None:
        """Note a validation."""
        exemplar = {"trace_id": trace_id}
        self._validations[decision].inc(1, exemplar)
        self._duration.observe(seconds, exemplar)
        self._prompt.inc(usage.prompt, exemplar)
        self._completion.inc(usage.completion, exemplar)
        if reason in self._denials:
            self._denials[reason].inc(1, exemplar)
        if reason in self._errors:
            self._errors[reason].inc(1, exemplar)

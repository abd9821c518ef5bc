"""The metrics of risk-manager."""

from prometheus_client import CollectorRegistry

from tradewatch.common.metrics import Metric
from tradewatch.trading.contracts import Stage, TradingState
from tradewatch.trading.risk.limits import Reason

RISK_SCORE = Metric(
    "risk_score",
    "gauge",
    "The largest share of a limit that the product's newest assessment found used, 0 to 1.",
    "none",
    {"product_id": "as configured"},
)
RISK_DECISIONS = Metric(
    "risk_decisions_total",
    "counter",
    "Assessments stored. Repeated calls are answered from the store and not counted.",
    "assessments",
    {
        "decision": "`approve`, `deny`",
        "reason": ", ".join(f"`{reason}`" for reason in Reason),
    },
)
RISK_DURATION = Metric(
    "risk_assessment_duration_seconds",
    "histogram",
    "Time to read what an assessment needs, decide and store it.",
    "seconds",
    {"stage": ", ".join(f"`{stage}`" for stage in Stage)},
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
EXPOSURE_USED = Metric(
    "risk_exposure_used_ratio",
    "gauge",
    "The largest share that is used of the limits on the product's exposure, all exposure and concentration. NaN where"
    " it is not known.",
    "none",
    {"product_id": "as configured"},
)
EXPOSURE_RATIO = Metric(
    "portfolio_exposure_ratio",
    "gauge",
    "Positions and pending purchases at mid prices over equity. NaN where it is not known.",
    "none",
)
DRAWDOWN_RATIO = Metric(
    "portfolio_drawdown_ratio",
    "gauge",
    "Fall of the equity from its peak, as a share of the peak. NaN where it is not known.",
    "none",
)
DAILY_LOSS = Metric(
    "portfolio_daily_loss",
    "gauge",
    "Equity lost since midnight UTC or the last release. NaN where it is not known.",
    "quote currency",
)
TRADING_STATE = Metric(
    "trading_state",
    "gauge",
    "1 for the state that is stored, 0 for the others.",
    "none",
    {"state": ", ".join(f"`{state}`" for state in TradingState)},
)
KILL_SWITCH = Metric("kill_switch_engaged", "gauge", "1 while the kill switch is engaged.", "none")
CANCEL_PENDING = Metric(
    "kill_switch_cancel_pending",
    "gauge",
    "1 while trading is halted and trade-executor has not confirmed that no order is open.",
    "none",
)
LAST_REFRESH = Metric(
    "risk_state_refreshed_timestamp_seconds",
    "gauge",
    "When the gauges about the portfolio and the trading state were last read from store and bus.",
    "seconds since 1970",
)
RISK_METRICS = (
    RISK_SCORE,
    RISK_DECISIONS,
    RISK_DURATION,
    EXPOSURE_USED,
    EXPOSURE_RATIO,
    DRAWDOWN_RATIO,
    DAILY_LOSS,
    TRADING_STATE,
    KILL_SWITCH,
    CANCEL_PENDING,
    LAST_REFRESH,
)


class RiskMetrics:
    """The metrics of the configured products, every series present from the start but where nothing is known."""

    def __init__(self, registry: CollectorRegistry, products: tuple[str, ...]) -> None:
        scores = RISK_SCORE.gauge(registry)
        decisions = RISK_DECISIONS.counter(registry)
        durations = RISK_DURATION.histogram(registry)
        states = TRADING_STATE.gauge(registry)
        self.score = {product: scores.labels(product_id=product) for product in products}
        self.decisions = {
            reason: decisions.labels(
                decision="approve" if reason is Reason.WITHIN_LIMITS else "deny", reason=reason.value
            )
            for reason in Reason
        }
        self.duration = {stage: durations.labels(stage=stage.value) for stage in Stage}
        self.state = {state: states.labels(state=state.value) for state in TradingState}
        used = EXPOSURE_USED.gauge(registry)
        self.exposure_used = {product: used.labels(product_id=product) for product in products}
        self.exposure_ratio = EXPOSURE_RATIO.gauge(registry)
        self.drawdown_ratio = DRAWDOWN_RATIO.gauge(registry)
        self.daily_loss = DAILY_LOSS.gauge(registry)
        self.kill_switch = KILL_SWITCH.gauge(registry)
        self.cancel_pending = CANCEL_PENDING.gauge(registry)
        self.last_refresh = LAST_REFRESH.gauge(registry)
        for unknown in (*self.exposure_used.values(), self.exposure_ratio, self.drawdown_ratio, self.daily_loss):
            unknown.set(float("nan"))

"""The dashboard Crypto Trading Engine: from a signal to an order, in the namespace crypto-trading alone."""

from grafana_foundation_sdk.models import dashboard as models

from tradewatch.monitoring.dashboards import shared
from tradewatch.monitoring.dashboards.parts import (
    AVAILABLE,
    BLUE,
    GREEN,
    ORANGE,
    RED,
    TRADING_ENGINE,
    UNIFIED_SYSTEM,
    YELLOW,
    ZERO_IS_GOOD,
    Column,
    Look,
    Query,
    Row,
    assemble,
    heatmap_panel,
    logs_panel,
    own,
    quantile,
    rate,
    stat_panel,
    table_panel,
    timeseries_panel,
)

NAMESPACE = "crypto-trading"
_HERE = f'namespace="{NAMESPACE}"'
_PRODUCT = 'product_id=~"$product"'
_EXCHANGE = 'exchange=~"$exchange"'


def build() -> models.Dashboard:
    """The whole dashboard."""
    rows = (_overview(), _signals(), _execution(), _llm(), _pipeline(), _logs())
    return assemble(
        TRADING_ENGINE,
        "Crypto Trading Engine",
        "What the engine decides and does, from the signal to the order. For the trading team.",
        rows,
        shared.variables(NAMESPACE),
        shared.annotations(NAMESPACE),
        shared.links(UNIFIED_SYSTEM, "Unified System"),
    )


def _overview() -> Row:
    reducing = own("trading_state", _HERE, 'state="REDUCING"')
    halted = own("trading_state", _HERE, 'state="HALTED"')
    return Row(
        "System Overview",
        (
            stat_panel(
                "Trading state",
                "The stored trading state. REDUCING: only sales. HALTED: no order is sent.",
                [Query(f"sum({reducing}) + 2 * sum({halted})", instant=True)],
                Look(
                    texts={"0": ("ACTIVE", GREEN), "1": ("REDUCING", YELLOW), "2": ("HALTED", RED)},
                    steps=((None, GREEN), (1, YELLOW), (2, RED)),
                ),
            ),
            shared.kill_switch(_HERE),
            stat_panel(
                "Services down",
                "Services of crypto-trading that do not answer or have no ready replica. The timeline says which.",
                [Query(f"count({AVAILABLE}{{{_HERE}}} == 0) or vector(0)", instant=True)],
                Look(steps=ZERO_IS_GOOD),
            ),
            stat_panel(
                "Unknown order outcomes",
                "Orders of which nobody knows yet whether the exchange has them. They are looked up, never sent again.",
                [Query(f"sum({own('orders_unknown_outcome', _HERE)})", instant=True)],
                Look(steps=ZERO_IS_GOOD),
            ),
            stat_panel(
                "Since last reconcile",
                "Time since orders, fills and balances were compared. Above two minutes no order is taken.",
                [Query(f"time() - max({own('reconcile_last_success_timestamp_seconds', _HERE)} > 0)", instant=True)],
                Look("s", steps=((None, GREEN), (60, YELLOW), (120, RED)), decimals=0),
            ),
            stat_panel(
                "Oldest open decision",
                "Time since the oldest decision without an end began; 0 where none is open.",
                [Query(f"max({own('pipeline_oldest_open_decision_seconds', _HERE)})", instant=True)],
                Look("s", steps=((None, GREEN), (30, YELLOW), (120, RED)), decimals=0),
            ),
            shared.availability(NAMESPACE),
            timeseries_panel(
                "Exposure and drawdown",
                "Exposure: positions and pending purchases over equity. Drawdown: the fall of the equity from its"
                " peak. At its limit trading is halted.",
                [
                    Query(f"max({own('portfolio_exposure_ratio', _HERE)})", "exposure"),
                    Query(f"max({own('portfolio_drawdown_ratio', _HERE)})", "drawdown"),
                ],
                Look("percentunit", minimum=0),
                width=12,
            ),
        ),
    )


def _signals() -> Row:
    accepted, refused = 'outcome="accepted"', 'outcome!="accepted"'
    suppressed = f"sum by (reason) ({rate('signals_suppressed_total', _HERE)})"
    return Row(
        "Signal Generation",
        (
            timeseries_panel(
                "Signals per minute",
                "Signals a minute by product and side. None while every candle is suppressed: see beside.",
                [
                    Query(
                        f"60 * sum by (product_id, side) ({rate('trading_signals_total', _HERE, _PRODUCT)})",
                        "{{product_id}} {{side}}",
                    )
                ],
                Look(minimum=0),
                stacked=True,
            ),
            timeseries_panel(
                "Suppressed signals per minute",
                "Candles a minute that made no signal, by the first reason that applied.",
                [Query(f"60 * {suppressed} > 0", "{{reason}}")],
                Look(minimum=0),
                stacked=True,
                calm="every candle became a signal.",
            ),
            heatmap_panel(
                "Signal confidence",
                "Calibrated confidence of the signals, by bucket.",
                Query(
                    f"sum by (le) (increase({own('trading_signal_confidence_bucket', _HERE)}[$__rate_interval]))",
                    "{{le}}",
                ),
                Look("percentunit"),
            ),
            stat_panel(
                "Model",
                "Without one there are no signals: none was trained yet, or none beat the baseline.",
                [Query(f"max({own('model_available', _HERE)})", instant=True)],
                Look(texts={"0": ("no model", RED), "1": ("active", GREEN)}),
                width=6,
            ),
            stat_panel(
                "Model age",
                "Time since the active model was trained.",
                [Query(f"max({own('model_age_seconds', _HERE)}) >= 0", instant=True)],
                Look("s", steps=((None, GREEN), (86400, YELLOW), (172800, RED)), decimals=1),
                width=6,
                calm="no model is active; a price process that can be foreseen fills it.",
            ),
            stat_panel(
                "Model trainings",
                "Trainings over the time shown whose model went into use, and those that did not.",
                [
                    Query(
                        f"sum(increase({own('model_trainings_total', _HERE, accepted)}[$__range]))",
                        "accepted",
                        instant=True,
                    ),
                    Query(
                        f"sum(increase({own('model_trainings_total', _HERE, refused)}[$__range]))",
                        "refused",
                        instant=True,
                    ),
                ],
                Look(decimals=0, steps=((None, BLUE),)),
                width=12,
            ),
            timeseries_panel(
                "Model accuracy and drift",
                "Accuracy: share of past signals after which the price moved their way beyond costs. Drift: how far"
                " recent features are from those it was trained on, 0 to 1.",
                [
                    Query(f"max({own('model_accuracy_ratio', _HERE)})", "accuracy"),
                    Query(f"max({own('model_drift_score', _HERE)})", "drift"),
                ],
                Look("percentunit", minimum=0, maximum=1),
                width=24,
                calm="no model is active, or it has too few signals and rows to judge it by; as beside.",
            ),
        ),
    )


def _execution() -> Row:
    api = "exchange_api_request_duration_seconds"
    executor = (_HERE, _EXCHANGE)
    failed = 'status!~"[12].."'
    return Row(
        "Trade Execution",
        (
            timeseries_panel(
                "Orders per minute by outcome",
                "Orders a minute that came to their end, by status and reason. Rejections and their reason are where to"
                " look first.",
                [
                    Query(
                        f"60 * sum by (status, reason) ({rate('trade_executions_total', _HERE)})",
                        "{{status}}: {{reason}}",
                        exemplars=True,
                    )
                ],
                Look(minimum=0),
                stacked=True,
                calm="no order has ended since the executor started; a signal fills it.",
            ),
            timeseries_panel(
                "Order duration",
                "From the call to the order's end. A dot is one order; its trace id leads to its log lines.",
                [
                    Query(quantile(0.5, "trade_execution_duration_seconds", _HERE), "p50", exemplars=True),
                    Query(quantile(0.99, "trade_execution_duration_seconds", _HERE), "p99"),
                ],
                Look("s", minimum=0),
                calm="no order ended; a signal fills it.",
            ),
            timeseries_panel(
                "Exchange API latency (p95)",
                "p95 of requests to the exchange's REST interface, by endpoint.",
                [Query(quantile(0.95, api, *executor, by="endpoint"), "{{endpoint}}", exemplars=True)],
                Look("s", minimum=0, steps=((None, GREEN), (1, YELLOW), (5, RED))),
            ),
            timeseries_panel(
                "Exchange API errors",
                "Requests a second that did not end well, by endpoint and status: 429 is the rate limit.",
                [
                    Query(
                        f"sum by (endpoint, status) ({rate(f'{api}_count', *executor, failed)}) > 0",
                        "{{endpoint}} {{status}}",
                    )
                ],
                Look("reqps", minimum=0),
                stacked=True,
                calm="every request was answered well; the simulator's fault `status` fills it.",
            ),
            timeseries_panel(
                "Position drift",
                "The exchange's balance less the position kept here, in base currency. Anything but 0 is a deposit, a"
                " trade by hand, or an error.",
                [Query(f"max by (product_id) ({own('position_drift_units', _HERE, _PRODUCT)})", "{{product_id}}")],
                Look(),
            ),
            timeseries_panel(
                "Open orders",
                "Orders without an end, those of unknown outcome, and open ones at the exchange that are not ours.",
                [
                    Query(f"sum({own('orders_in_progress', _HERE)})", "in progress"),
                    Query(f"sum({own('orders_unknown_outcome', _HERE)})", "unknown outcome"),
                    Query(f"sum({own('orders_foreign_open', _HERE)})", "not ours"),
                ],
                Look(minimum=0),
            ),
            timeseries_panel(
                "Fees per hour",
                "Fees an hour by product, in quote currency.",
                [
                    Query(
                        f"3600 * sum by (product_id) ({rate('trade_fees_total', _HERE, _PRODUCT)})",
                        "{{product_id}}",
                    )
                ],
                Look("currencyUSD", minimum=0),
                width=12,
                stacked=True,
            ),
            timeseries_panel(
                "Price improvement (p50)",
                "p50 of the price improvement over the limit price, by product.",
                [
                    Query(
                        quantile(0.5, "trade_price_improvement_ratio", _HERE, _PRODUCT, by="product_id"),
                        "{{product_id}}",
                    )
                ],
                Look("percentunit", decimals=3),
                width=12,
                calm="no order was filled; a signal fills it.",
            ),
        ),
    )


def _llm() -> Row:
    duration = "llm_validation_duration_seconds"
    return Row(
        "LLM Validation",
        (
            timeseries_panel(
                "Validations per minute by decision",
                "Validations a minute by decision.",
                [
                    Query(
                        f"60 * sum by (decision) ({rate('llm_validations_total', _HERE)})",
                        "{{decision}}",
                        exemplars=True,
                    )
                ],
                Look(minimum=0),
                stacked=True,
            ),
            timeseries_panel(
                "Denials per minute by reason",
                "Denials a minute by reason. Only `denied_by_model`, `low_confidence` and `contradicts_sentiment` are"
                " the model's; the others are outages and limits, which deny to be safe.",
                [Query(f"60 * sum by (reason) ({rate('llm_denials_total', _HERE)}) > 0", "{{reason}}")],
                Look(minimum=0),
                stacked=True,
                calm="nothing was denied; bad news for a signal's asset fills it.",
            ),
            timeseries_panel(
                "Validation duration",
                "From the first question to the verdict.",
                [
                    Query(quantile(0.5, duration, _HERE), "p50", exemplars=True),
                    Query(quantile(0.95, duration, _HERE), "p95"),
                ],
                Look("s", minimum=0, steps=((None, GREEN), (5, YELLOW), (15, RED))),
                calm="nothing was validated; a signal fills it.",
            ),
            timeseries_panel(
                "LLM errors per minute",
                "Validations a minute that were denied because the model could not be asked or its answer could not be"
                " used, by reason.",
                [Query(f"60 * sum by (reason) ({rate('llm_errors_total', _HERE)}) > 0", "{{reason}}")],
                Look(minimum=0),
                stacked=True,
                calm="every answer was usable; llm-simulator's fault `error` and a signal fill it.",
            ),
            timeseries_panel(
                "Tokens per minute",
                "Tokens a minute, by kind.",
                [Query(f"60 * sum by (kind) ({rate('llm_tokens_total', _HERE)})", "{{kind}}")],
                Look(minimum=0),
                stacked=True,
            ),
            timeseries_panel(
                "Hourly token budget left",
                "Tokens, as of the last validation. At 0 every signal is denied.",
                [Query(f"min({own('llm_token_budget_remaining_tokens', _HERE)})", "left")],
                Look(minimum=0),
            ),
        ),
    )


def _pipeline() -> Row:
    denied = 'decision="deny"'
    stages = "pipeline_stage_duration_seconds"
    return Row(
        "Pipeline Flow",
        (
            timeseries_panel(
                "Decisions per minute by outcome",
                "Decisions a minute that came to their end, by outcome.",
                [
                    Query(
                        f"60 * sum by (outcome) ({rate('pipeline_decisions_total', _HERE)})",
                        "{{outcome}}",
                        exemplars=True,
                    )
                ],
                Look(minimum=0),
                stacked=True,
            ),
            shared.end_to_end(),
            timeseries_panel(
                "Stage duration (p95)",
                "p95 of the time that a decision spends in a stage, waiting and crashes included.",
                [Query(quantile(0.95, stages, _HERE, by="stage"), "{{stage}}")],
                Look("s", minimum=0),
                calm="no signal was decided; a signal fills it.",
            ),
            timeseries_panel(
                "Risk denials per minute by reason",
                "Denied assessments a minute by reason; each decision is assessed before and after the language model.",
                [
                    Query(
                        f"60 * sum by (reason) ({rate('risk_decisions_total', _HERE, denied)}) > 0",
                        "{{reason}}",
                    )
                ],
                Look(minimum=0),
                stacked=True,
                calm="nothing was denied; a signal while the kill switch is engaged fills it.",
            ),
            timeseries_panel(
                "Risk limit in use",
                "The largest share of a limit that the newest assessment of each product found used.",
                [Query(f"max by (product_id) ({own('risk_score', _HERE, _PRODUCT)})", "{{product_id}}")],
                Look("percentunit", minimum=0, maximum=1, steps=((None, GREEN), (0.8, YELLOW), (1, RED))),
            ),
            timeseries_panel(
                "Signal backlog",
                "Signals on the bus that the orchestrator has not been given, and open decisions.",
                [
                    Query(f"sum by (stream, group) ({own('stream_lag_messages', _HERE)})", "{{stream}} not yet read"),
                    Query(f"sum({own('pipeline_open_decisions', _HERE)})", "open decisions"),
                ],
                Look(minimum=0, steps=((None, GREEN), (10, ORANGE))),
            ),
            table_panel(
                "Failed calls between services",
                "Calls over the time shown that brought no usable answer, by service and reason. All but `refused` are"
                " tried again.",
                [f"sum by (peer, reason) (increase({own('pipeline_call_failures_total', _HERE)}[$__range])) > 0"],
                (
                    Column("peer", "called"),
                    Column("reason", "what happened"),
                    Column("Value", "calls", Look(decimals=0)),
                ),
                width=24,
                height=6,
                sort="calls",
                descending=True,
                calm="every call was answered; llm-validator scaled to 0 and a signal fill it.",
            ),
        ),
    )


def _logs() -> Row:
    decisions = '{namespace="crypto-trading", service="trade-orchestrator"} |= "decision ended" | json'
    line = ' | line_format "{{.product_id}} {{.state}}  decision {{.decision_id}}  trace {{.trace_id}}"'
    return Row(
        "Logs",
        (
            *shared.log_blocks(NAMESPACE),
            logs_panel(
                "Latest decisions",
                "A line a decision: product, outcome, its id for `tradewatch trace`, its trace id for the panel above.",
                decisions + line,
                calm="nothing was decided; a signal fills it.",
            ),
        ),
    )

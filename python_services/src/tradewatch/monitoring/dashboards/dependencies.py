"""Who feeds whom: the edges of the data's way with their rates and lags, as two queries whose rows join by from and to.

Names come from labels, so a further exchange, feed, product or service is a further edge by itself.
"""

from tradewatch.monitoring.dashboards.parts import own, rate

_BUS = "valkey"
# A stream's kind: `market_data` of `market_data:coinbase:BTC-USD`.
_KIND = "([^:]+).*"
_EXCHANGE = 'exchange=~"$exchange"'
# Whom the orchestrator calls in which stage.
_CALLED = {
    "risk-manager": "risk_before|risk_after",
    "llm-validator": "llm",
    "trade-executor": "executing",
}


def _edge(expr: str, source: tuple[str, str, str], target: tuple[str, str, str]) -> str:
    """`expr` with labels `from` and `to`, each made of a label: (new value, label, the label's pattern)."""
    for name, (value, label, pattern) in (("from", source), ("to", target)):
        expr = f'label_replace({expr}, "{name}", "{value}", "{label}", "{pattern}")'
    return expr


def _label(name: str) -> tuple[str, str, str]:
    return "$1", name, "(.+)"


def _name(text: str) -> tuple[str, str, str]:
    return text, "job", ".*"


def _calls(histogram: str, *matchers: str) -> tuple[str, str]:
    """Rate of the calls that a histogram counts, and their mean duration."""
    count, total = rate(f"{histogram}_count", *matchers), rate(f"{histogram}_sum", *matchers)
    return count, f"({total} / {count} >= 0)"


def _union(aggregation: str, edges: list[str]) -> str:
    return " or ".join(f"{aggregation} by (from, to) ({edge})" for edge in edges)


def _queries() -> tuple[str, str]:
    rates, lags = [], []

    def add(rates_expr: str, lag_expr: str, source: tuple[str, str, str], target: tuple[str, str, str]) -> None:
        rates.append(_edge(rates_expr, source, target))
        if lag_expr:
            lags.append(_edge(lag_expr, source, target))

    last_event = f"(time() - ({own('market_data_last_event_timestamp_seconds', _EXCHANGE)} > 0))"
    messages = rate("market_data_messages_total", _EXCHANGE)
    add(messages, last_event, _label("exchange"), _label("service"))
    fetched, _ = _calls("feed_request_duration_seconds")
    last_fetch = f"(time() - ({own('feed_last_success_timestamp_seconds')} > 0))"
    add(fetched, last_fetch, _label("feed"), _label("service"))
    add(rate("stream_writes_total", 'status="ok"'), "", _label("service"), _name(_BUS))
    stream = (f"{_BUS} $1", "stream", _KIND)
    add(rate("stream_reader_entries_total"), own("stream_reader_lag_seconds"), stream, _label("service"))
    consumed = rate("consumed_total", 'status="ok"')
    add(consumed, own("stream_oldest_pending_seconds"), _name(_BUS), _label("service"))
    for peer, stages in _CALLED.items():
        count, mean = _calls("pipeline_stage_duration_seconds", f'stage=~"{stages}"')
        add(count, mean, _label("service"), _name(peer))
    count, mean = _calls("llm_validation_duration_seconds")
    add(count, mean, _label("service"), _name("language model"))
    count, mean = _calls("exchange_api_request_duration_seconds", _EXCHANGE, 'endpoint!="websocket"')
    add(count, mean, _label("service"), _label("exchange"))
    return _union("sum", rates), _union("max", lags)


RATES, LAGS = _queries()

"""Settings of the aggregator and the indicators: a bad value is one line that names its variable."""

import pytest
from tradewatch.cli import main
from tradewatch.collectors.aggregator.service import MarketDataAggregatorSettings
from tradewatch.common import settings

AGGREGATOR, INDICATORS = "market-data-aggregator", "technical-indicators"


@pytest.mark.parametrize(
    ("service", "variable", "bad", "says"),
    [
        (AGGREGATOR, "TRADEWATCH_EXCHANGES", "mtgox", "unknown exchange 'mtgox'; known: coinbase"),
        (AGGREGATOR, "TRADEWATCH_EXCHANGES", "", "at least one exchange"),
        (AGGREGATOR, "TRADEWATCH_EXCHANGES", "kraken,kraken", "named twice"),
        (AGGREGATOR, "TRADEWATCH_CANDLE_INTERVALS_SECONDS", "", "at least one interval"),
        (AGGREGATOR, "TRADEWATCH_CANDLE_INTERVALS_SECONDS", "1,0", "'0' is not a number of seconds"),
        (AGGREGATOR, "TRADEWATCH_CANDLE_INTERVALS_SECONDS", "86401", "'86401' is not a number of seconds"),
        (AGGREGATOR, "TRADEWATCH_CANDLE_INTERVALS_SECONDS", "60,90", "multiple of the shortest, 60"),
        (AGGREGATOR, "TRADEWATCH_CANDLE_INTERVALS_SECONDS", "1,1", "named twice"),
        (AGGREGATOR, "TRADEWATCH_ALLOWED_LATENESS_SECONDS", "-1", "greater than or equal"),
        (AGGREGATOR, "TRADEWATCH_QUOTE_OUTLIER_RATIO", "nan", "finite"),
        (INDICATORS, "TRADEWATCH_INDICATOR_INTERVALS_SECONDS", "1m", "'1m' is not a number of seconds"),
        (INDICATORS, "TRADEWATCH_MAX_GAP_CANDLES", "0", "greater than or equal"),
    ],
)
def test_a_bad_value_is_one_line(
    service: str,
    variable: str,
    bad: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRADEWATCH_PRODUCTS", "BTC-USD")
    monkeypatch.setenv(variable, bad)
    assert main(["run", service]) == 2
    output = capsys.readouterr().err
    assert output.startswith(f"tradewatch run {service}: {variable}: ")
    assert output.count("\n") == 1
    assert says in output


def test_lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEWATCH_PRODUCTS", "BTC-USD")
    monkeypatch.setenv("TRADEWATCH_CANDLE_INTERVALS_SECONDS", "60, 1 ,300")
    monkeypatch.setenv("TRADEWATCH_EXCHANGES", "kraken")
    loaded = settings.load(MarketDataAggregatorSettings)
    assert loaded.candle_intervals_seconds == (1, 60, 300)
    assert loaded.exchanges == ("kraken",)

"""Entries on the bus after market data: what is written is what is read, and nothing else is."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tradewatch.common.events import Side
from tradewatch.common.fields import MAX_NUMBER, MIN_NUMBER, EventDecodeError
from tradewatch.common.streams import Candle, Headline, Heartbeat, Indicators, Quote, Sentiment, Signal, decode, encode

_prices = st.decimals(MIN_NUMBER, MAX_NUMBER, allow_nan=False, allow_infinity=False, places=8).filter(
    lambda number: number >= MIN_NUMBER
)
_sizes = _prices | st.just(Decimal(0))
_times = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
_words = st.from_regex(r"[a-z_0-9]{1,12}", fullmatch=True)
_floats = st.floats(-1e12, 1e12)
_texts = st.text(st.characters(codec="utf-8"), min_size=1)
_counts = st.integers(0, 10**9)
_lists = st.lists(_words, max_size=3).map(tuple)

_candles = st.builds(
    Candle, _words, _counts, _times, _prices, _prices, _prices, _prices, _sizes, _prices, _counts, _lists, _words
)
_quotes = st.builds(Quote, _words, _times, _prices, _prices, _prices, _floats, _floats, _lists, _lists, _words)
_indicators = st.builds(Indicators, _words, _counts, _times, _prices, st.dictionaries(_words, _floats), _words)
_sentiments = st.builds(Sentiment, _words, _times, _floats, _counts, _words)
_headlines = st.builds(Headline, _words, _times, _words, _words, _texts, _floats, _words)
_signals = st.builds(
    Signal, st.uuids(), _words, st.sampled_from(Side), _floats, _prices, _words, _times, _times, _texts, _words
)
_heartbeats = st.builds(Heartbeat, _words, _times, _words)

SIGNAL = Signal(
    UUID(int=1),
    "BTC-USD",
    Side.BUY,
    0.7,
    Decimal("65000.01"),
    "v1",
    datetime(2026, 11, 23, tzinfo=UTC),
    datetime(2026, 11, 23, 0, 0, 30, tzinfo=UTC),
    "momentum up",
    "0" * 32,
)


@given(st.one_of(_candles, _quotes, _indicators, _sentiments, _headlines, _signals, _heartbeats))
def test_what_is_written_is_what_is_read(entry: object) -> None:
    fields = encode(entry)  # type: ignore[arg-type]
    assert all(isinstance(value, str) for value in fields.values())
    as_bytes = {name.encode(): value.encode() for name, value in fields.items()}
    assert decode(type(entry), fields) == entry  # type: ignore[type-var]
    assert decode(type(entry), as_bytes) == entry  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("side", "HOLD", "side: not one of BUY, SELL"),
        ("signal_id", "1", "signal_id: not a UUID"),
        ("confidence", "nan", "confidence: not a finite number in range"),
        ("confidence", "inf", "confidence: not a finite number in range"),
        ("confidence", "much", "confidence: not a number"),
        ("reference_price", "-1", "reference_price: zero or negative"),
        ("created", "yesterday", "created: "),
        ("kind", "candle", "kind: not signal"),
        ("schema", "2", "schema: unknown version"),
        ("rationale", "", "rationale: missing"),
    ],
)
def test_a_bad_field_is_named(field: str, value: str, message: str) -> None:
    with pytest.raises(EventDecodeError, match=f"^{message}"):
        decode(Signal, encode(SIGNAL) | {field: value})


def test_an_indicator_that_is_not_finite_is_refused() -> None:
    entry = Indicators("BTC-USD", 60, SIGNAL.created, Decimal(1), {"rsi_14": math.nan}, "0" * 32)
    with pytest.raises(EventDecodeError, match=r"^value_rsi_14: "):
        decode(Indicators, encode(entry))

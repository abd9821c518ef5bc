"""Events on the bus: what is written is what is read, and nothing else is."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tradewatch.collectors.event_filter import MAX_AHEAD, EventFilter
from tradewatch.collectors.metrics import FilterReason
from tradewatch.common.events import MarketDataEvent, Side, Ticker, Trade, decode, encode
from tradewatch.common.fields import MAX_NUMBER, MIN_NUMBER, EventDecodeError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

_numbers = st.decimals(MIN_NUMBER, MAX_NUMBER, allow_nan=False, allow_infinity=False, places=18).filter(
    lambda number: number >= MIN_NUMBER and len(format(number, "f")) <= 64
)
_optional = st.none() | _numbers
_times = st.datetimes(
    datetime(1971, 1, 1),
    datetime(2100, 1, 1),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
)
_names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=1, max_size=20)
_common = {
    "exchange": _names,
    "product_id": _names,
    "price": _numbers,
    "exchange_time": _times,
    "received_time": _times,
    "sequence": st.integers(0, 2**62),
    "trace_id": st.text("0123456789abcdef", min_size=32, max_size=32),
}
_tickers = st.builds(
    Ticker,
    best_bid=_optional,
    best_bid_size=_optional,
    best_ask=_optional,
    best_ask_size=_optional,
    volume_24h=_optional,
    **_common,
)
_trades = st.builds(
    Trade, trade_id=st.integers(0, 10**19).map(str), size=_numbers, taker_side=st.sampled_from(Side), **_common
)


@given(_tickers | _trades)
def test_an_event_survives_the_bus_as_text_and_as_bytes(event: MarketDataEvent) -> None:
    fields = encode(event)
    assert decode(fields) == event
    assert decode({name.encode(): value.encode() for name, value in fields.items()}) == event
    assert not any("e" in value.lower() for name, value in fields.items() if name in ("price", "size", "best_bid"))


@given(st.dictionaries(st.sampled_from(["kind", "schema", "price", "exchange_time", "sequence"]), st.text(max_size=20)))
def test_any_change_of_an_entry_decodes_or_names_a_field(change: dict[str, str]) -> None:
    fields = encode(_trade("1")) | change
    refused = ""
    try:
        assert decode(fields).price > 0
    except EventDecodeError as error:
        refused = str(error)
    assert refused == "" or refused.split(":")[0] in fields


@pytest.mark.parametrize("field", ["kind", "schema", "price", "size", "trade_id", "exchange_time", "trace_id"])
def test_a_missing_field_is_named(field: str) -> None:
    fields = encode(_trade("1"))
    del fields[field]
    with pytest.raises(EventDecodeError, match=f"^{field}: missing"):
        decode(fields)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(EventDecodeError, match=r"^exchange_time: without a time zone"):
        decode(encode(_trade("1")) | {"exchange_time": "2026-11-22T12:00:00"})


def _trade(trade_id: str, time: datetime = NOW) -> Trade:
    return Trade("coinbase", "BTC-USD", trade_id, Decimal(1), Decimal(1), Side.BUY, time, NOW, 0, "0" * 32)


def _ticker(time: datetime) -> Ticker:
    return Ticker("coinbase", "BTC-USD", Decimal(1), None, None, None, None, None, time, NOW, 0, "0" * 32)


def test_the_filter_knows_duplicates_and_lets_late_but_unseen_trades_through() -> None:
    judge = EventFilter(("BTC-USD",)).judge
    assert [judge(_trade(trade_id)) for trade_id in ("1", "2", "4", "4")] == [None, None, None, "duplicate_trade"]
    assert judge(_trade("3")) is None, "the hole that a gap left"
    assert judge(_trade("1")) is FilterReason.DUPLICATE_TRADE, "however long ago"


def test_the_filter_remembers_what_an_earlier_process_forwarded() -> None:
    known = EventFilter(("BTC-USD",))
    known.remember("BTC-USD", [12, 10, 13])
    judged = [known.judge(_trade(trade_id)) for trade_id in ("9", "10", "11", "11", "13", "14")]
    assert judged == ["stale_trade", "duplicate_trade", None, "duplicate_trade", "duplicate_trade", None]


def test_the_filter_refuses_older_tickers_and_impossible_times() -> None:
    judge = EventFilter(("BTC-USD",)).judge
    assert judge(_ticker(NOW)) is None
    assert judge(_ticker(NOW)) is None
    assert judge(_ticker(NOW - timedelta(microseconds=1))) is FilterReason.STALE_TICKER
    assert judge(_ticker(NOW + MAX_AHEAD + timedelta(seconds=1))) is FilterReason.FUTURE_TIMESTAMP
    assert judge(_trade("1", NOW + timedelta(days=1))) is FilterReason.FUTURE_TIMESTAMP
    assert judge(_ticker(NOW + timedelta(seconds=1))) is None, "an impossible time does not become the newest"


@given(st.lists(st.integers(1, 30), max_size=200))
def test_no_order_of_trades_is_ever_forwarded_twice(ids: list[int]) -> None:
    judge = EventFilter(("BTC-USD",)).judge
    forwarded = [trade_id for trade_id in ids if judge(_trade(str(trade_id))) is None]
    assert len(forwarded) == len(set(forwarded))

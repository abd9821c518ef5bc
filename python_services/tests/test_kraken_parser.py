"""The Kraken parser: the documented messages, and whatever else may come."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.collectors.exchanges.kraken import Kraken
from tradewatch.collectors.exchanges.protocol import Frame, FrameError, FrameReason, ItemReason
from tradewatch.common.events import Side, Ticker, Trade

RECEIVED = datetime(2023, 9, 25, 9, 5, tzinfo=UTC)
KRAKEN = Kraken(("BTC-USD", "ETH-USD"))

# As documented; the numbers are text in the source so that they reach the parser digit by digit.
TICKER = """{"channel": "ticker", "type": "snapshot", "data": [{"symbol": "BTC/USD", "bid": 26280.10, "bid_qty": 740.0,
 "ask": 26280.2, "ask_qty": 1361.44813783, "last": 26280.10, "volume": 997038.98383185, "vwap": 26270.1,
 "low": 26200, "high": 26300, "change": -0.00017, "change_pct": -0.17, "timestamp": "2023-09-25T09:04:31.742648Z"}]}"""
TRADES = """{"channel": "trade", "type": "update", "data": [
 {"symbol": "ETH/USD", "side": "sell", "price": 1580.51, "qty": 6423.46326, "ord_type": "limit", "trade_id": 4665847,
  "timestamp": "2023-09-25T07:49:36.925603Z"},
 {"symbol": "ETH/USD", "side": "buy", "price": 1580.5, "qty": 1.0e-5, "ord_type": "market", "trade_id": 4665846,
  "timestamp": "2023-09-25T07:48:36.925533Z"}]}"""


def _parse(text: str) -> Frame:
    return KRAKEN.parse(text, RECEIVED)


def test_a_ticker_is_read_exactly() -> None:
    frame = _parse(TICKER)
    assert (frame.channel, frame.sequence, frame.snapshot, frame.rejected) == ("ticker", None, True, ())
    (ticker,) = frame.events
    assert isinstance(ticker, Ticker)
    assert (ticker.exchange, ticker.product_id, ticker.sequence) == ("kraken", "BTC-USD", 0)
    assert (ticker.price, ticker.best_bid, ticker.best_ask) == (
        Decimal("26280.10"),
        Decimal("26280.1"),
        Decimal("26280.2"),
    )
    assert str(ticker.price) == "26280.10", "no digit goes through a binary float"
    assert ticker.volume_24h == Decimal("997038.98383185")
    assert ticker.exchange_time == datetime(2023, 9, 25, 9, 4, 31, 742648, tzinfo=UTC)


def test_trades_come_in_order_of_time_with_the_takers_side() -> None:
    frame = _parse(TRADES)
    assert not frame.snapshot
    assert frame.trade_ids == (("ETH-USD", 4665846), ("ETH-USD", 4665847))
    first, second = frame.events
    assert isinstance(first, Trade)
    assert isinstance(second, Trade)
    assert (first.trade_id, second.trade_id) == ("4665846", "4665847")
    assert (first.taker_side, second.taker_side) == (Side.BUY, Side.SELL), "the wire gives the taker's side"
    assert first.size == Decimal("0.00001")


def test_a_trade_that_cannot_be_used_still_has_its_number() -> None:
    frame = _parse(TRADES.replace("1580.51", '"free"'))
    assert frame.rejected == (ItemReason.BAD_PRICE,)
    assert frame.trade_ids == (("ETH-USD", 4665846), ("ETH-USD", 4665847)), "it came, so it is no gap"


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ('{"channel": "heartbeat"}', "heartbeat"),
        (
            '{"channel": "status", "type": "update", "data": [{"api_version": "v2", "connection_id": 13834774380200,'
            ' "system": "online", "version": "2.0.0"}]}',
            "status",
        ),
        (
            '{"method": "subscribe", "result": {"channel": "ticker", "snapshot": true, "symbol": "BTC/USD"},'
            ' "success": true, "time_in": "2023-09-25T09:04:31.742599Z", "time_out": "2023-09-25T09:04:31.742648Z"}',
            "subscribe",
        ),
        ('{"method": "pong", "req_id": 101, "time_in": "2023-09-24T14:10:23.799685Z"}', "pong"),
    ],
)
def test_what_carries_no_event_is_understood(text: str, channel: str) -> None:
    assert _parse(text) == Frame(channel, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            '{"error": "Currency pair not supported X/USD", "method": "subscribe", "success": false}',
            "Currency pair not supported X/USD",
        ),
        ('{"error": 7, "success": false}', "no message"),
    ],
)
def test_a_refused_request_is_told(text: str, error: str) -> None:
    assert _parse(text).error == error


def test_subscriptions_are_one_message_a_channel_with_a_snapshot() -> None:
    messages = [json.loads(text) for text in KRAKEN.subscribe_messages()]
    assert messages == [
        {"method": "subscribe", "params": {"channel": channel, "symbol": ["BTC/USD", "ETH/USD"], "snapshot": True}}
        for channel in ("ticker", "trade")
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", FrameReason.INVALID_JSON),
        (b"\xff\xfe\x00", FrameReason.INVALID_JSON),
        ("[" * 100_000, FrameReason.INVALID_JSON),
        ('{"channel": "ticker", "data": NaN}', FrameReason.INVALID_JSON),
        ("[]", FrameReason.INVALID_FRAME),
        ("7", FrameReason.INVALID_FRAME),
        ("{}", FrameReason.INVALID_FRAME),
        ('{"channel": 7}', FrameReason.INVALID_FRAME),
        (TICKER.replace('"snapshot"', '"gossip"'), FrameReason.INVALID_FRAME),
        (TICKER.replace('"snapshot"', "[]"), FrameReason.INVALID_FRAME),
        ('{"channel": "trade", "type": "update", "data": {}}', FrameReason.INVALID_FRAME),
        ('{"channel": "level9", "type": "update", "data": []}', FrameReason.UNKNOWN_CHANNEL),
    ],
)
def test_an_unusable_frame_has_a_reason(data: str | bytes, reason: FrameReason) -> None:
    with pytest.raises(FrameError) as raised:
        KRAKEN.parse(data, RECEIVED)
    assert (raised.value.reason, raised.value.sequence) == (reason, None)


@pytest.mark.parametrize(
    ("message", "old", "new", "reason"),
    [
        *[
            (TICKER, '"last": 26280.10', f'"last": {bad}', ItemReason.BAD_PRICE)
            for bad in ("-1", "0", "1e999999", "1e-999999", "1" * 5000, '"26280.10"', '"NaN"', "null", "[]", "true")
        ],
        (TICKER, '"bid": 26280.10', '"bid": 26281', ItemReason.CROSSED_QUOTE),
        (TICKER, '"ask": 26280.2', '"ask": -5', ItemReason.BAD_PRICE),
        (TICKER, '"bid_qty": 740.0', '"bid_qty": -5', ItemReason.BAD_SIZE),
        (TICKER, '"BTC/USD"', '"XBT/USD"', ItemReason.UNKNOWN_PRODUCT),
        (TICKER, '"BTC/USD"', '"BTC-USD"', ItemReason.UNKNOWN_PRODUCT),
        (TICKER, '"BTC/USD"', '["BTC/USD"]', ItemReason.INVALID_EVENT),
        (TICKER, '"2023-09-25T09:04:31.742648Z"', '"soon"', ItemReason.BAD_TIMESTAMP),
        (TICKER, '"2023-09-25T09:04:31.742648Z"', "null", ItemReason.BAD_TIMESTAMP),
        (TRADES, "6423.46326", "0", ItemReason.BAD_SIZE),
        (TRADES, '"sell"', '"hold"', ItemReason.INVALID_EVENT),
        (TRADES, "4665847", "-1", ItemReason.INVALID_EVENT),
        (TRADES, "4665847", "1.5", ItemReason.INVALID_EVENT),
        (TRADES, "4665847", '"4665847"', ItemReason.INVALID_EVENT),
        (TRADES, "4665847", "9" * 5000, ItemReason.INVALID_EVENT),
    ],
)
def test_a_bad_item_is_left_out_alone(message: str, old: str, new: str, reason: ItemReason) -> None:
    assert old in message
    frame = _parse(message.replace(old, new, 1))
    assert frame.rejected == (reason,)
    assert len(frame.events) == len(_parse(message).events) - 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)


def _never_raises(data: str | bytes) -> None:
    try:
        frame = KRAKEN.parse(data, RECEIVED)
    except FrameError:
        return
    for product_id, _ in frame.trade_ids:
        assert product_id in ("BTC-USD", "ETH-USD")
    for event in frame.events:
        assert event.product_id in ("BTC-USD", "ETH-USD")
        assert event.price.is_finite()
        assert event.price > 0
        assert event.exchange_time.tzinfo is not None


@given(_JSON)
def test_no_json_whatever_raises(value: object) -> None:
    _never_raises(json.dumps(value))


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_bytes_whatever_raise(data: str | bytes) -> None:
    _never_raises(data)


@settings(max_examples=300)
@given(
    st.sampled_from([TICKER, TRADES]),
    st.sampled_from(["channel", "type", "data", "method", "success", "error", "item", "item field"]),
    st.sampled_from(["symbol", "last", "price", "qty", "side", "timestamp", "trade_id", "bid", "volume"]),
    _JSON,
)
def test_no_replaced_field_raises(text: str, field: str, item_field: str, value: object) -> None:
    message: dict[str, Any] = json.loads(text)
    if field == "item":
        message["data"][0] = value
    elif field == "item field":
        message["data"][0][item_field] = value
    else:
        message[field] = value
    _never_raises(json.dumps(message))

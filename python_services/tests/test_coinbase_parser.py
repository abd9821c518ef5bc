"""The Coinbase parser: the documented messages, and whatever else may come."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tradewatch.collectors.exchanges.coinbase import Coinbase
from tradewatch.collectors.exchanges.protocol import Frame, FrameError, FrameReason, ItemReason
from tradewatch.common.events import Side, Ticker, Trade

RECEIVED = datetime(2023, 2, 9, 20, 30, 38, tzinfo=UTC)
COINBASE = Coinbase(("BTC-USD", "ETH-USD"))

# As documented, with and without what the wire leaves out.
TICKER: dict[str, Any] = {
    "channel": "ticker",
    "client_id": "",
    "timestamp": "2023-02-09T20:30:37.167359596Z",
    "sequence_num": 7,
    "events": [
        {
            "type": "snapshot",
            "tickers": [
                {
                    "type": "ticker",
                    "product_id": "BTC-USD",
                    "price": "21932.98",
                    "volume_24_h": "16038.28770938",
                    "best_bid": "21931.98",
                    "best_bid_quantity": "8000.21",
                    "best_ask": "21933.98",
                    "best_ask_quantity": "8038.07770938",
                }
            ],
        }
    ],
}
TRADES: dict[str, Any] = {
    "channel": "market_trades",
    "timestamp": "2023-02-09T20:19:35.39625135Z",
    "sequence_num": 8,
    "events": [
        {
            "type": "update",
            "trades": [
                {
                    "trade_id": "12",
                    "product_id": "ETH-USD",
                    "price": "1260.01",
                    "size": "0.3",
                    "side": "BUY",
                    "time": "2019-08-14T20:42:28.265Z",
                },
                {
                    "trade_id": "11",
                    "product_id": "ETH-USD",
                    "price": "1260.00",
                    "size": "0.1",
                    "side": "SELL",
                    "time": "2019-08-14T20:42:27.265Z",
                },
            ],
        }
    ],
}


def _parse(message: object) -> Frame:
    return COINBASE.parse(json.dumps(message), RECEIVED)


def _with(message: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(message))
    change(copy)
    return copy


def test_a_ticker_is_read_exactly() -> None:
    frame = _parse(TICKER)
    assert (frame.channel, frame.sequence, frame.snapshot, frame.rejected) == ("ticker", 7, True, ())
    (ticker,) = frame.events
    assert isinstance(ticker, Ticker)
    assert (ticker.product_id, ticker.price, ticker.best_bid) == ("BTC-USD", Decimal("21932.98"), Decimal("21931.98"))
    assert ticker.exchange_time == datetime(2023, 2, 9, 20, 30, 37, 167359, tzinfo=UTC)
    assert ticker.received_time == RECEIVED
    assert len(ticker.trace_id) == 32


def test_trades_come_in_order_of_time_with_the_takers_side() -> None:
    frame = _parse(TRADES)
    assert not frame.snapshot
    first, second = frame.events
    assert isinstance(first, Trade)
    assert isinstance(second, Trade)
    assert (first.trade_id, second.trade_id) == ("11", "12")
    assert (first.taker_side, second.taker_side) == (Side.BUY, Side.SELL), "the wire gives the maker's side"


@pytest.mark.parametrize("counter", [3049, "3049"])
def test_heartbeats_carry_only_the_sequence(counter: object) -> None:
    message = {
        "channel": "heartbeats",
        "timestamp": "2023-06-23T20:31:26.122969572Z",
        "sequence_num": 0,
        "events": [{"current_time": "2023-06-23 20:31:56 +0000 UTC", "heartbeat_counter": counter}],
    }
    assert _parse(message) == Frame("heartbeats", 0)


def test_an_error_message_is_told() -> None:
    assert _parse({"type": "error", "message": "authentication failure"}).error == "authentication failure"


def test_subscriptions_are_one_message_a_channel() -> None:
    messages = [json.loads(text) for text in COINBASE.subscribe_messages()]
    assert [message["channel"] for message in messages] == ["heartbeats", "ticker", "market_trades"]
    assert all(message["type"] == "subscribe" for message in messages)
    assert "product_ids" not in messages[0]
    assert messages[1]["product_ids"] == ["BTC-USD", "ETH-USD"]


@pytest.mark.parametrize(
    ("data", "reason", "sequence"),
    [
        ("", FrameReason.INVALID_JSON, None),
        ("{", FrameReason.INVALID_JSON, None),
        (b"\xff\xfe\x00", FrameReason.INVALID_JSON, None),
        ("[" * 100_000, FrameReason.INVALID_JSON, None),
        ('{"sequence_num": ' + "9" * 5000 + "}", FrameReason.INVALID_JSON, None),
        ('{"channel": "ticker", "sequence_num": NaN}', FrameReason.INVALID_JSON, None),
        ("[]", FrameReason.INVALID_FRAME, None),
        ("7", FrameReason.INVALID_FRAME, None),
        (json.dumps(_with(TICKER, lambda m: m.update(sequence_num=True))), FrameReason.INVALID_FRAME, None),
        (json.dumps(_with(TICKER, lambda m: m.update(sequence_num=-1))), FrameReason.INVALID_FRAME, None),
        (json.dumps(_with(TICKER, lambda m: m.update(sequence_num=1.5))), FrameReason.INVALID_FRAME, None),
        (json.dumps(_with(TICKER, lambda m: m.update(events={}))), FrameReason.INVALID_FRAME, 7),
        (json.dumps(_with(TICKER, lambda m: m.update(timestamp="yesterday"))), FrameReason.INVALID_FRAME, 7),
        (json.dumps(_with(TICKER, lambda m: m.update(timestamp="2023-02-09T20:30:37"))), FrameReason.INVALID_FRAME, 7),
        (
            json.dumps(_with(TICKER, lambda m: m.update(timestamp="0001-01-01T00:00+23:59"))),
            FrameReason.INVALID_FRAME,
            7,
        ),
        (json.dumps(_with(TICKER, lambda m: m.update(channel="level9"))), FrameReason.UNKNOWN_CHANNEL, 7),
    ],
)
def test_an_unusable_frame_has_a_reason(data: str | bytes, reason: FrameReason, sequence: int | None) -> None:
    with pytest.raises(FrameError) as raised:
        COINBASE.parse(data, RECEIVED)
    assert (raised.value.reason, raised.value.sequence) == (reason, sequence)


@pytest.mark.parametrize(
    ("message", "item", "field", "bad", "reason"),
    [
        *[
            (TICKER, "tickers", "price", bad, ItemReason.BAD_PRICE)
            for bad in ("NaN", "sNaN", "Infinity", "-1", "0", "-0", "", "free", "1e999999", "1e-999999", "1" * 65)
        ],
        (TICKER, "tickers", "price", 1.5, ItemReason.BAD_PRICE),
        (TICKER, "tickers", "price", None, ItemReason.BAD_PRICE),
        (TICKER, "tickers", "price", [], ItemReason.BAD_PRICE),
        (TICKER, "tickers", "price", True, ItemReason.BAD_PRICE),
        (TICKER, "tickers", "best_bid", "21934", ItemReason.CROSSED_QUOTE),
        (TICKER, "tickers", "best_ask", "-5", ItemReason.BAD_PRICE),
        (TICKER, "tickers", "best_bid_quantity", "-5", ItemReason.BAD_SIZE),
        (TICKER, "tickers", "product_id", "DOGE-USD", ItemReason.UNKNOWN_PRODUCT),
        (TICKER, "tickers", "product_id", ["BTC-USD"], ItemReason.INVALID_EVENT),
        (TRADES, "trades", "size", "0", ItemReason.BAD_SIZE),
        (TRADES, "trades", "price", "NaN", ItemReason.BAD_PRICE),
        (TRADES, "trades", "time", "soon", ItemReason.BAD_TIMESTAMP),
        (TRADES, "trades", "time", None, ItemReason.BAD_TIMESTAMP),
        (TRADES, "trades", "side", "HOLD", ItemReason.INVALID_EVENT),
        (TRADES, "trades", "trade_id", "-1", ItemReason.INVALID_EVENT),
        (TRADES, "trades", "trade_id", "٣", ItemReason.INVALID_EVENT),
        (TRADES, "trades", "trade_id", "9" * 5000, ItemReason.INVALID_EVENT),
    ],
)
def test_a_bad_item_is_left_out_alone(
    message: dict[str, Any], item: str, field: str, bad: object, reason: ItemReason
) -> None:
    before = len(_parse(message).events)
    frame = _parse(_with(message, lambda copy: copy["events"][0][item][0].update({field: bad})))
    assert frame.rejected == (reason,)
    assert len(frame.events) == before - 1
    assert frame.sequence == message["sequence_num"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
_FIELDS = ("channel", "timestamp", "sequence_num", "events", "type", "message")


def _never_raises(data: str | bytes) -> None:
    try:
        frame = COINBASE.parse(data, RECEIVED)
    except FrameError:
        return
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
    st.sampled_from([*_FIELDS, "item"]),
    st.sampled_from(["product_id", "price", "size", "side", "time", "trade_id", "best_bid", "volume_24_h"]),
    _JSON,
)
def test_no_replaced_field_raises(message: dict[str, Any], field: str, item_field: str, value: object) -> None:
    def change(copy: dict[str, Any]) -> None:
        if field != "item":
            copy[field] = value
            return
        for items in copy["events"][0].values():
            if isinstance(items, list):
                items[0][item_field] = value

    _never_raises(json.dumps(_with(message, change)))

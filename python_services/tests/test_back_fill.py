"""Missing trades come back over REST: against the simulator over real sockets, and whatever an answer may hold."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from services_support import (
    PRODUCTS,
    Collection,
    Simulation,
    ValkeyServer,
    collection,
    eventually,
    free_port,
    simulation,
    stored,
    trades,
    value,
)
from tradewatch.collectors.back_fill import BackFill, BackFillLimits
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.exchanges.protocol import (
    ExchangeRefusal,
    FrameError,
    Hole,
    ItemReason,
    TradesPage,
)
from tradewatch.collectors.feed import FeedLimits
from tradewatch.collectors.market_data_collector import MarketDataCollectorSettings, _past_trades
from tradewatch.collectors.metrics import BackFillFailure, CollectionMetrics
from tradewatch.collectors.past_trades import MAX_BODY_BYTES, PastTrades, RequestFailed
from tradewatch.common.backoff import Backoff
from tradewatch.common.events import Side, Trade

NOW = datetime(2026, 11, 23, 12, 0, 0, 500_000, tzinfo=UTC)
HOLE = Hole("BTC-USD", 100, NOW - timedelta(seconds=60), 104, NOW)
# More than either exchange's snapshot reaches back over.
LOST_MESSAGES = 700
# While they are lost nothing comes: on a busy machine for longer than the others' tests bear.
PATIENT = FeedLimits(frame_seconds=30.0)
# What is asserted to come in order may be fetched slowly, by a busy machine.
IN_ORDER = BackFillLimits(hold_seconds=60.0)
Told = dict[str, list[tuple[int, Decimal, Decimal]]]


def _listen(exchange: Simulation) -> Told:
    """Every trade that the exchange makes from now on, told by the exchange itself."""
    told: Told = {product: [] for product in PRODUCTS}
    exchange.market.listeners.append(
        lambda tick, _: told[tick.product_id].append((tick.trade_id, tick.price, tick.size))
    )
    return told


async def _arrives(valkey: ValkeyServer, exchange_name: str, told: Told) -> None:
    """Wait until the bus has all that was told by now: on a busy machine there may be another hole than the test's."""
    wanted = {product: {trade_id for trade_id, _, _ in told[product]} for product in PRODUCTS}

    async def there() -> bool:
        for product in PRODUCTS:
            kept = {int(trade.trade_id) for trade in trades(await stored(valkey, product, exchange_name))}
            if not wanted[product] <= kept:
                return False
        return True

    await eventually(there)


async def _assert_all_and_once(valkey: ValkeyServer, exchange_name: str, told: Told) -> None:
    for product in PRODUCTS:
        kept = [(int(t.trade_id), t.price, t.size) for t in trades(await stored(valkey, product, exchange_name))]
        first, last = told[product][0][0], kept[-1][0]
        made = [trade for trade in told[product] if trade[0] <= last]
        assert len(made) > 100
        assert [trade for trade in kept if trade[0] >= first] == made, f"{product}: missing, twice or out of order"


def _failures(running: Collection, reason: str) -> float:
    return value(running.registry, "market_data_backfill_failures_total", exchange=running.exchange, reason=reason)


def _filled(running: Collection) -> float:
    """The trades fetched for the product that had fewest: every product has a hole here, each of one page."""
    return min(
        value(running.registry, "market_data_backfilled_total", exchange=running.exchange, product_id=product)
        for product in PRODUCTS
    )


def _requests(running: Collection, status: str) -> float:
    labels = {"exchange": running.exchange, "endpoint": "trades", "status": status}
    return running.registry.get_sample_value("exchange_api_request_duration_seconds_count", labels) or 0.0


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_after_a_gap_the_stream_holds_every_trade_of_the_exchange_once_and_in_order(
    valkey: ValkeyServer, exchange_name: str
) -> None:
    async with (
        simulation(ticks_per_second=800) as exchange,
        collection(
            exchange.url_of(exchange_name),
            valkey,
            name=exchange_name,
            rest_url=exchange.rest_url,
            limits=PATIENT,
            back_fill_limits=IN_ORDER,
        ) as running,
    ):
        await running.more_events()
        told = _listen(exchange)
        await exchange.fault(fault="sequence_gap", count=LOST_MESSAGES)
        await eventually(lambda: running.reconnects("sequence_gap") == 1)
        await eventually(lambda: _filled(running) > 50)
        await running.more_events(400)
        await _arrives(valkey, exchange_name, told)
        assert running.errors("duplicate_trade") == 0
        assert _failures(running, "incomplete") == 0
        assert _requests(running, "200") >= len(PRODUCTS)
    await _assert_all_and_once(valkey, exchange_name, told)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_a_start_fetches_what_was_traded_since_the_last_trade_on_the_bus(
    valkey: ValkeyServer, exchange_name: str
) -> None:
    async with simulation(ticks_per_second=800) as exchange:
        where = exchange.url_of(exchange_name)
        async with collection(where, valkey, name=exchange_name, rest_url=exchange.rest_url) as running:
            await running.more_events()
            told = _listen(exchange)
        await eventually(lambda: min(map(len, told.values())) > 300)
        async with collection(
            where, valkey, name=exchange_name, rest_url=exchange.rest_url, back_fill_limits=IN_ORDER
        ) as running:
            await eventually(lambda: _filled(running) > 50)
            await running.more_events(400)
            await _arrives(valkey, exchange_name, told)
            assert running.errors("stale_trade") == 0
    await _assert_all_and_once(valkey, exchange_name, told)


async def test_a_429_is_obeyed_and_counted(valkey: ValkeyServer) -> None:
    async with (
        simulation(ticks_per_second=800) as exchange,
        collection(
            exchange.url, valkey, rest_url=exchange.rest_url, limits=PATIENT, back_fill_limits=IN_ORDER
        ) as running,
    ):
        await running.more_events()
        told = _listen(exchange)
        await exchange.fault(fault="status", status=429, retry_after_seconds=2, path="/api/v3/*/ticker")
        await exchange.fault(fault="sequence_gap", count=LOST_MESSAGES)
        await eventually(lambda: _requests(running, "429") == 1)
        refused_at = time.monotonic()
        before = running.accepted()
        await eventually(lambda: _requests(running, "200") >= 1)
        assert time.monotonic() - refused_at > 1.9
        assert running.accepted() > before + 200, "live tickers did not wait"
        assert _failures(running, "rate_limited") == 1
        await eventually(lambda: _filled(running) > 50)
        await running.more_events(400)
        await _arrives(valkey, "coinbase", told)
    await _assert_all_and_once(valkey, "coinbase", told)


async def test_without_rest_live_data_goes_on_and_the_holes_are_counted(valkey: ValkeyServer) -> None:
    limits = BackFillLimits(hold_seconds=0.3, seconds=1.0)
    async with (
        simulation(ticks_per_second=800) as exchange,
        collection(
            exchange.url,
            valkey,
            rest_url=f"http://127.0.0.1:{free_port()}",
            limits=PATIENT,
            back_fill_limits=limits,
        ) as running,
    ):
        await running.more_events()
        await exchange.fault(fault="sequence_gap", count=LOST_MESSAGES)
        await eventually(lambda: running.reconnects("sequence_gap") == 1)
        await eventually(lambda: _failures(running, "incomplete") == len(PRODUCTS))
        assert _failures(running, "connect") >= 1
        assert _requests(running, "error") >= 1
        await running.more_events(400)
        assert sum(running.reconnects(reason) for reason in ("frozen", "no_data", "closed")) == 0
    for product in PRODUCTS:
        ids = [int(trade.trade_id) for trade in trades(await stored(valkey, product))]
        holes = [two - one for one, two in pairwise(ids) if two - one != 1]
        assert len(holes) == 1
        assert holes[0] > 1


async def test_a_stop_forwards_what_is_held_back_and_the_next_start_fills_the_hole_before_it(
    valkey: ValkeyServer,
) -> None:
    async with simulation(ticks_per_second=800) as exchange:
        nowhere = f"http://127.0.0.1:{free_port()}"
        async with collection(exchange.url, valkey, rest_url=nowhere, limits=PATIENT) as running:
            await running.more_events()
            told = _listen(exchange)
            await exchange.fault(fault="sequence_gap", count=LOST_MESSAGES)
            await eventually(lambda: _failures(running, "connect") >= 1)
        for product in PRODUCTS:
            kept = [int(trade.trade_id) for trade in trades(await stored(valkey, product))]
            assert kept[-1] - kept[0] >= len(kept), "a hole, and trades that came after it"
        async with collection(exchange.url, valkey, rest_url=exchange.rest_url) as running:
            await eventually(lambda: _filled(running) > 50)
            await running.more_events(600)
    for product in PRODUCTS:
        kept = sorted(int(trade.trade_id) for trade in trades(await stored(valkey, product)))
        made = [trade_id for trade_id, _, _ in told[product] if trade_id <= kept[-1]]
        assert kept[-len(made) :] == made


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_a_restart_does_not_repeat_what_the_snapshot_repeats(valkey: ValkeyServer, exchange_name: str) -> None:
    async with simulation(ticks_per_second=50) as exchange:
        for _ in range(2):
            async with collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running:
                await running.more_events(30)
                assert running.errors("duplicate_trade") + running.errors("stale_trade") == 0
    for product in PRODUCTS:
        ids = [trade.trade_id for trade in trades(await stored(valkey, product, exchange_name))]
        assert len(ids) == len(set(ids))


async def test_a_start_without_the_bus_is_counted_and_collects(valkey: ValkeyServer) -> None:
    valkey.stop()
    async with simulation() as exchange, collection(exchange.url, valkey, rest_url=exchange.rest_url) as running:
        await running.more_events(50)
        assert _failures(running, "bus") == 1
        valkey.start()


# The order and the exactness, without an exchange.


class _Pages:
    """A source that knows some trades and gives them a few at a time; each call may fail."""

    def __init__(self, known: list[int], size: int, failures: list[bool]) -> None:
        self._known = known
        self._size = size
        self._failures = failures
        self.calls = 0

    async def fetch(self, hole: Hole, cursor: str | None, trace_id: str) -> TradesPage:
        self.calls += 1
        await asyncio.sleep(0)
        if self._failures and self._failures.pop():
            raise RequestFailed(BackFillFailure.HTTP_5XX, "HTTP 503")
        start = int(cursor or 0)
        page = [one for one in self._known if one > hole.after_id - 2][start : start + self._size]
        more = str(start + self._size) if len(page) == self._size else None
        return TradesPage(tuple(_trade(one) for one in page), (), more)


def _trade(trade_id: int) -> Trade:
    at = datetime.now(UTC)
    return Trade("coinbase", "BTC-USD", str(trade_id), Decimal(1), Decimal(1), Side.BUY, at, at, 0, "0" * 32)


async def _run_back_fill(
    live: list[list[int]], source: _Pages, limits: BackFillLimits
) -> tuple[list[int], CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = CollectionMetrics(registry, "coinbase", ("BTC-USD",), ("ticker", "market_trades"))
    forwarded: list[int] = []
    seen: set[int] = set()

    def new(trade: Trade) -> bool:
        trade_id = int(trade.trade_id)
        fresh = trade_id not in seen
        seen.add(trade_id)
        return fresh

    fill = BackFill(
        ("BTC-USD",),
        source,  # type: ignore[arg-type]
        0.0,
        metrics,
        new,
        lambda trade: forwarded.append(int(trade.trade_id)),
        lambda: False,
        limits,
        Backoff(0.001, 0.001),
    )
    task = asyncio.create_task(fill.run())
    for batch in live:
        for trade_id in batch:
            if new(_trade(trade_id)):
                fill.take(_trade(trade_id))
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.03)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    fill.release_all()
    return forwarded, registry


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 40), max_size=8), max_size=6),
    st.integers(1, 7),
    st.lists(st.booleans(), max_size=4),
)
def test_whatever_comes_live_and_by_pages_is_forwarded_exactly_once(
    live: list[list[int]], size: int, failures: list[bool]
) -> None:
    limits = BackFillLimits(settle_seconds=0.0, requests=60)
    forwarded, _ = asyncio.run(_run_back_fill(live, _Pages(list(range(1, 41)), size, failures), limits))
    assert len(forwarded) == len(set(forwarded))
    came = [one for batch in live for one in batch]
    assert set(came) <= set(forwarded)
    if came:
        assert set(range(came[0], max(came) + 1)) <= set(forwarded), "no hole above the first trade stays"


async def test_holes_are_filled_before_what_came_after_them() -> None:
    source = _Pages(list(range(1, 31)), 4, [True])
    forwarded, _ = await _run_back_fill([[1, 2], [9, 10], [20], [21]], source, BackFillLimits(settle_seconds=0.0))
    assert forwarded == list(range(1, 22))


async def test_trades_that_merely_come_in_another_order_cost_no_request() -> None:
    source = _Pages([], 4, [])
    forwarded, _ = await _run_back_fill([[1, 3, 2, 4]], source, BackFillLimits(settle_seconds=0.005))
    assert (forwarded, source.calls) == ([1, 2, 3, 4], 0)


async def test_a_trade_that_rest_does_not_have_keeps_the_others_from_nothing() -> None:
    source = _Pages([one for one in range(1, 31) if one != 7], 50, [])
    forwarded, registry = await _run_back_fill([[1, 2], [10]], source, BackFillLimits(settle_seconds=0.0, walks=2))
    assert forwarded == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert source.calls == 2, "looked at again, since REST may lag behind, but not for ever"
    labels = {"exchange": "coinbase", "product_id": "BTC-USD"}
    assert value(registry, "market_data_backfilled_total", **labels) == 6, "the second look counts none twice"
    labels = {"exchange": "coinbase", "reason": "incomplete"}
    assert value(registry, "market_data_backfill_failures_total", **labels) == 1


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (BackFillLimits(settle_seconds=0.0, requests=5), 5),
        (BackFillLimits(settle_seconds=0.0, trades=20), 6),
        (BackFillLimits(settle_seconds=0.0, seconds=0.0), 0),
    ],
    ids=["requests", "trades", "seconds"],
)
async def test_filling_is_bounded_and_giving_up_is_counted(limits: BackFillLimits, most: int) -> None:
    source = _Pages(list(range(1, 1000)), 4, [])
    forwarded, registry = await _run_back_fill([[1], [10**12]], source, limits)
    assert source.calls <= most
    assert {1, 10**12} <= set(forwarded)
    labels = {"exchange": "coinbase", "reason": "incomplete"}
    assert value(registry, "market_data_backfill_failures_total", **labels) == 1


# The answers.

COINBASE_ANSWER = """{"trades": [
 {"trade_id": "103", "product_id": "BTC-USD", "price": "65000.10", "size": "0.5", "time": "2026-11-23T12:00:00.25Z",
  "side": "BUY", "bid": "", "ask": ""},
 {"trade_id": "102", "product_id": "BTC-USD", "price": "65000.2", "size": "0.25", "time": "2026-11-23T11:59:59.9Z",
  "side": "SELL", "bid": "", "ask": ""}], "best_bid": "65000", "best_ask": "65001"}"""
KRAKEN_ANSWER = """{"error": [], "result": {"XXBTZUSD": [
 ["65000.20", "0.25", 1795435199.9000001, "b", "m", "", 102],
 ["65000.10", "0.50000000", 1795435200.25, "s", "l", "", 103]], "last": "1795435200250000123"}}"""
ANSWERS = {"coinbase": COINBASE_ANSWER, "kraken": KRAKEN_ANSWER}


def _parse(exchange_name: str, text: str | bytes) -> TradesPage:
    data = text.encode() if isinstance(text, str) else text
    return EXCHANGES[exchange_name](PRODUCTS).parse_trades(data, HOLE, NOW)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
def test_an_answer_is_read_exactly(exchange_name: str) -> None:
    page = _parse(exchange_name, ANSWERS[exchange_name])
    assert page.rejected == ()
    assert [(t.trade_id, str(t.price), t.size, t.taker_side) for t in page.trades] == [
        ("102", page.trades[0].price.to_eng_string(), Decimal("0.25"), Side.BUY),
        ("103", "65000.10", Decimal("0.5"), Side.SELL),
    ]
    assert page.trades[0].price == Decimal("65000.2")
    assert page.trades[1].exchange_time == datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)


def test_each_exchange_is_asked_in_its_own_way() -> None:
    coinbase, kraken = EXCHANGES["coinbase"](PRODUCTS), EXCHANGES["kraken"](PRODUCTS)
    asked = coinbase.trades_request(HOLE, None)
    assert asked.path == "/api/v3/brokerage/market/products/BTC-USD/ticker"
    assert asked.params == {"limit": "1000", "start": "1795435140", "end": "1795435201"}, "whole seconds around it"
    page = _parse("coinbase", COINBASE_ANSWER)
    assert page.cursor == "1795435200", "pages go back in time"
    assert coinbase.trades_request(HOLE, page.cursor).params["end"] == "1795435200"
    assert kraken.trades_request(HOLE, None).params == {"pair": "BTCUSD", "since": "1795435139000000000"}
    assert _parse("kraken", KRAKEN_ANSWER).cursor is None, "103 is the last one missing"
    page = _parse("kraken", KRAKEN_ANSWER.replace("103]", "101]"))
    assert page.cursor == "1795435200250000122", "the last instant again: it may not have been whole"


@pytest.mark.parametrize(
    ("exchange_name", "old", "new", "reason"),
    [
        *[
            (name, price, bad, ItemReason.BAD_PRICE)
            for name, price in (("coinbase", '"65000.10"'), ("kraken", '"65000.10"'))
            for bad in ('"NaN"', '"-1"', '"0"', '"Infinity"', "1.5", "null", '"' + "1" * 500 + '"')
        ],
        ("coinbase", '"0.5"', '"0"', ItemReason.BAD_SIZE),
        ("kraken", '"0.50000000"', "[]", ItemReason.BAD_SIZE),
        ("coinbase", '"BUY"', '"HOLD"', ItemReason.INVALID_EVENT),
        ("kraken", '"s"', '"x"', ItemReason.INVALID_EVENT),
        ("coinbase", '"BTC-USD"', '"ETH-USD"', ItemReason.UNKNOWN_PRODUCT),
        ("coinbase", '"2026-11-23T12:00:00.25Z"', '"soon"', ItemReason.BAD_TIMESTAMP),
        ("kraken", "1795435200.25", "1e17", ItemReason.BAD_TIMESTAMP),
        ("kraken", "1795435200.25", '"1795435200.25"', ItemReason.BAD_TIMESTAMP),
        ("kraken", "103]", '"103"]', ItemReason.INVALID_EVENT),
        ("kraken", ', "l", "", 103]', "]", ItemReason.INVALID_EVENT),
    ],
)
def test_a_bad_trade_is_left_out_alone(exchange_name: str, old: str, new: str, reason: ItemReason) -> None:
    assert old in ANSWERS[exchange_name]
    page = _parse(exchange_name, ANSWERS[exchange_name].replace(old, new, 1))
    assert page.rejected == (reason,)
    assert len(page.trades) == 1


@pytest.mark.parametrize(
    ("exchange_name", "text", "rate_limited"),
    [
        ("coinbase", '{"error": "INTERNAL", "message": "later"}', False),
        ("kraken", '{"error": ["EGeneral:Too many requests"]}', True),
        ("kraken", '{"error": ["EAPI:Rate limit exceeded"]}', True),
        ("kraken", '{"error": ["EQuery:Unknown asset pair"]}', False),
    ],
)
def test_a_complaint_is_no_page(exchange_name: str, text: str, rate_limited: bool) -> None:
    with pytest.raises(ExchangeRefusal) as raised:
        _parse(exchange_name, text)
    assert raised.value.rate_limited is rate_limited


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)


def _is_sound_or_refused(exchange_name: str, data: str | bytes) -> None:
    try:
        page = _parse(exchange_name, data)
    except (FrameError, ExchangeRefusal):
        return
    assert page.cursor is None or (page.cursor.isdigit() and len(page.cursor) <= 20)
    for trade in page.trades:
        assert trade.product_id == "BTC-USD"
        assert trade.price.is_finite()
        assert trade.size.is_finite()
        assert min(trade.price, trade.size) > 0
        assert trade.trade_id.isdigit()
        assert trade.exchange_time.tzinfo is not None


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
@given(data=st.binary(max_size=200) | _JSON.map(lambda one: json.dumps(one).encode()))
def test_nothing_whatever_raises(exchange_name: str, data: bytes) -> None:
    _is_sound_or_refused(exchange_name, data)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
@settings(max_examples=100)
@given(data=st.data(), put=_JSON)
def test_nothing_malformed_gets_through(exchange_name: str, data: st.DataObject, put: Any) -> None:
    """Any one value of a good answer, at any depth, replaced by anything."""
    answer = json.loads(ANSWERS[exchange_name])
    place, inner = None, answer
    while isinstance(inner, dict | list) and inner and (place is None or data.draw(st.booleans())):
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = (inner, data.draw(st.sampled_from(keys)))
        inner = inner[place[1]]
    assert place is not None
    place[0][place[1]] = put
    _is_sound_or_refused(exchange_name, json.dumps(answer))


# The requests.


@asynccontextmanager
async def _server(answer: Any) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _ask(answer: Any) -> tuple[TradesPage | RequestFailed, CollectorRegistry]:
    registry = CollectorRegistry()
    exchange = EXCHANGES["kraken"](PRODUCTS)
    metrics = CollectionMetrics(registry, "kraken", PRODUCTS, exchange.event_channels)
    async with _server(answer) as url:
        source = PastTrades(exchange, url, metrics)
        try:
            return await source.fetch(HOLE, None, "0" * 32), registry
        except RequestFailed as failed:
            return failed, registry
        finally:
            await source.aclose()


async def test_an_endless_body_is_cut_off() -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 65536)
                sent += 65536
        return response

    failed, _ = await asyncio.wait_for(_ask(answer), 5)
    assert isinstance(failed, RequestFailed)
    assert failed.reason is BackFillFailure.TOO_LARGE
    assert sent < MAX_BODY_BYTES * 8


@pytest.mark.parametrize(
    ("response", "reason", "status"),
    [
        ({"status": 404}, BackFillFailure.HTTP_4XX, "4xx"),
        ({"status": 503}, BackFillFailure.HTTP_5XX, "5xx"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, BackFillFailure.HTTP_OTHER, "other"),
        ({"text": "<html>"}, BackFillFailure.INVALID, "200"),
        ({"text": '{"error": ["EService:Unavailable"]}'}, BackFillFailure.EXCHANGE_ERROR, "200"),
        ({"text": '{"error": ["EGeneral:Too many requests"]}'}, BackFillFailure.RATE_LIMITED, "200"),
        ({"body": b"x", "headers": {"Content-Encoding": "gzip"}}, BackFillFailure.ENCODED, "200"),
    ],
)
async def test_a_failed_request_has_its_reason_and_status(
    response: dict[str, Any], reason: BackFillFailure, status: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(**response)

    failed, registry = await _ask(answer)
    assert isinstance(failed, RequestFailed)
    assert failed.reason is reason
    labels = {"exchange": "kraken", "endpoint": "trades", "status": status}
    assert value(registry, "exchange_api_request_duration_seconds_count", **labels) == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("1e9", 3600.0), ("-1", 0.0), ("nan", 0.0), ("Mon, 23 Nov 2026 12:00:00 GMT", 0)]
)
async def test_retry_after_is_taken_within_bounds(text: str, seconds: float) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": text})

    failed, _ = await _ask(answer)
    assert isinstance(failed, RequestFailed)
    assert (failed.reason, failed.retry_after_seconds) == (BackFillFailure.RATE_LIMITED, seconds)


# The setting.


def _settings(**more: str) -> MarketDataCollectorSettings:
    return MarketDataCollectorSettings(exchange="coinbase", products="BTC-USD", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "fetches"),
    [
        ({}, True),
        ({"exchange_rest_url": "none"}, False),
        ({"exchange_websocket_url": "ws://localhost:8081/"}, False),
        ({"exchange_websocket_url": "ws://localhost:8081/", "exchange_rest_url": "http://localhost:8082"}, True),
    ],
    ids=["own", "off", "another feed", "another feed and its REST"],
)
async def test_trades_of_the_real_exchange_are_never_put_among_those_of_another_feed(
    more: dict[str, str], fetches: bool
) -> None:
    exchange = EXCHANGES["coinbase"](("BTC-USD",))
    metrics = CollectionMetrics(CollectorRegistry(), "coinbase", ("BTC-USD",), exchange.event_channels)
    source = _past_trades(_settings(**more), exchange, metrics)
    assert (source is not None) is fetches
    if source is not None:
        await source.aclose()


@pytest.mark.parametrize(
    "url", ["ftp://x", "https://", "off", "http://user:secret@x", "http://x:port", "http://x/?a=b"]
)
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="exchange_rest_url"):
        _settings(exchange_rest_url=url)

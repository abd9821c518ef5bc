"""The collector against the real simulator and a real Valkey, over real sockets."""

import signal
import time

import pytest
from prometheus_client import CollectorRegistry
from services_support import (
    PRODUCTS,
    ValkeyServer,
    collection,
    ends,
    eventually,
    free_port,
    simulation,
    stored,
    trades,
    value,
)
from tradewatch.collectors.exchanges import EXCHANGES
from tradewatch.collectors.feed import FeedLimits
from tradewatch.collectors.metrics import CollectionMetrics
from tradewatch.common import bus
from tradewatch.common.events import MarketDataEvent, Ticker


def _all_sound(events: list[MarketDataEvent]) -> bool:
    """Prices of the simulator stay within a few percent of their anchors."""
    anchors = {"BTC-USD": 65000, "ETH-USD": 3200}
    return all(0.8 < float(event.price) / anchors[event.product_id] < 1.2 for event in events)


async def _events(valkey: ValkeyServer, exchange: str) -> list[MarketDataEvent]:
    return [event for product in PRODUCTS for event in await stored(valkey, product, exchange)]


async def _assert_no_trade_twice_or_missing(valkey: ValkeyServer, exchange: str = "coinbase") -> None:
    for product in PRODUCTS:
        ids = [int(trade.trade_id) for trade in trades(await stored(valkey, product, exchange))]
        assert ids, product
        assert ids == list(range(ids[0], ids[0] + len(ids))), f"{product}: a trade is missing, twice or out of order"


@pytest.mark.parametrize("endpoint", ["websocket", "trades"])
def test_the_first_429_of_a_run_is_an_increase(endpoint: str) -> None:
    registry = CollectorRegistry()
    CollectionMetrics(registry, "kraken", PRODUCTS, ("trade",))
    labels = {"exchange": "kraken", "endpoint": endpoint, "status": "429"}
    assert value(registry, "exchange_api_request_duration_seconds_count", **labels) == 0


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_events_reach_the_stream_and_the_metrics(valkey: ValkeyServer, exchange_name: str) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events(200)
        for check in (running.collector.check_feed, running.collector.check_data):
            assert (await check()).ok
        newest = value(
            running.registry, "market_data_last_event_timestamp_seconds", exchange=exchange_name, product_id="BTC-USD"
        )
        assert abs(time.time() - newest) < 2
        handshakes = value(
            running.registry,
            "exchange_api_request_duration_seconds_count",
            exchange=exchange_name,
            endpoint="websocket",
            status="101",
        )
        assert handshakes == 1
    events = await _events(valkey, exchange_name)
    assert len(events) == running.accepted()
    assert {type(event).__name__ for event in events} == {"Ticker", "Trade"}
    assert len({event.trace_id for event in events}) == len(events)
    assert _all_sound(events)
    await _assert_no_trade_twice_or_missing(valkey, exchange_name)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_a_sequence_gap_is_counted_and_repaired_without_losing_or_repeating_a_trade(
    valkey: ValkeyServer, exchange_name: str
) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
        assert (await exchange.fault(fault="sequence_gap", count=40)).json()["connections"] == 1
        await eventually(lambda: running.reconnects("sequence_gap") == 1)
        await running.more_events()
        assert running.gaps() == 1
        assert running.errors("duplicate_trade") == 0
    await _assert_no_trade_twice_or_missing(valkey, exchange_name)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_a_frozen_socket_is_noticed_in_seconds(valkey: ValkeyServer, exchange_name: str) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
        await exchange.fault(fault="freeze", seconds=600)
        frozen_at = time.monotonic()
        await eventually(lambda: running.reconnects("frozen") == 1)
        assert 1.5 < time.monotonic() - frozen_at < 8
        await running.more_events()
        assert (await running.collector.check_feed()).ok


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
@pytest.mark.parametrize(("code", "reason"), [(1001, "going_away"), (1011, "closed"), (1006, "closed")])
async def test_a_close_is_followed_by_a_new_connection(
    valkey: ValkeyServer, exchange_name: str, code: int, reason: str
) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
        await exchange.fault(fault="close", code=code)
        await eventually(lambda: running.reconnects(reason) == 1)
        await running.more_events()
        assert running.gaps() == 0
    await _assert_no_trade_twice_or_missing(valkey, exchange_name)


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("not_json", "invalid_json"),
        ("truncated", "invalid_json"),
        ("wrong_types", "invalid_frame"),
        ("unknown_channel", "unknown_channel"),
        ("huge", "frame_too_large"),
    ],
)
async def test_a_malformed_message_is_counted_and_survived(
    valkey: ValkeyServer, exchange_name: str, kind: str, reason: str
) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
        await exchange.fault(fault="malformed", kind=kind)
        await eventually(lambda: running.errors(reason) == 1)
        await running.more_events()
    assert _all_sound(await _events(valkey, exchange_name))


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
@pytest.mark.parametrize("bad", ["nan", "negative", "zero", "infinite", "text", "number"])
async def test_an_impossible_price_is_counted_and_never_forwarded(
    valkey: ValkeyServer, exchange_name: str, bad: str
) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
        await exchange.fault(fault="bad_price", value=bad, count=5)
        await eventually(lambda: running.errors("bad_price") == 5)
        await running.more_events()
        assert running.gaps() == 0, "one bad item is no reason to reconnect"
    assert _all_sound(await _events(valkey, exchange_name))


async def test_nothing_is_lost_while_valkey_restarts(valkey: ValkeyServer) -> None:
    async with simulation() as exchange, collection(exchange.url, valkey) as running:
        await running.more_events()
        valkey.stop()
        assert not (await bus.ping(running.client)).ok
        await running.more_events(100)
        assert value(running.registry, "stream_buffer_entries") >= 100
        valkey.start()
        await eventually(lambda: value(running.registry, "stream_buffer_entries") < 10)
        assert (await bus.ping(running.client)).ok
        await running.more_events()
        assert running.dropped() == 0
    events = [event for product in PRODUCTS for event in await stored(valkey, product)]
    assert len({event.trace_id for event in events}) == running.accepted()
    for product in PRODUCTS:
        ids = {int(trade.trade_id) for trade in trades(await stored(valkey, product))}
        assert ids == set(range(min(ids), max(ids) + 1))


async def test_the_buffer_is_bounded_and_the_oldest_give_way(valkey: ValkeyServer) -> None:
    async with simulation() as exchange, collection(exchange.url, valkey, buffer_entries=100) as running:
        await running.more_events()
        valkey.stop()
        await eventually(lambda: value(running.registry, "stream_dropped_total", reason="buffer_full") > 50)
        assert running.writer.pending <= 100 + 500
        valkey.start()
        last_seen = time.time()
        await eventually(lambda: running.writer.pending < 10)
    events = [event for product in PRODUCTS for event in await stored(valkey, product)]
    assert len(events) == running.accepted() - running.dropped()
    assert any(abs(event.received_time.timestamp() - last_seen) < 0.5 for event in events), "the newest were kept"


async def test_a_restarted_exchange_is_found_again_and_its_trades_are_new(valkey: ValkeyServer) -> None:
    port = free_port()
    async with simulation(port=port) as exchange, collection(exchange.url, valkey) as running:
        await running.more_events()
        await exchange.feed.stop()
        await eventually(lambda: running.reconnects("connect_failed") >= 1)
        async with simulation(port=port):
            await running.more_events(100)
            assert running.errors("duplicate_trade") == 0
            assert running.errors("stale_trade") == 0


async def test_stopping_writes_out_what_was_taken(valkey: ValkeyServer) -> None:
    async with simulation(ticks_per_second=1000) as exchange, collection(exchange.url, valkey) as running:
        await running.more_events(50)
        valkey.signal(signal.SIGSTOP)
        await running.more_events(300)
        running.stop.set()
        valkey.signal(signal.SIGCONT)
        await ends(running.task)
        assert running.dropped() == 0
        events = [event for product in PRODUCTS for event in await stored(valkey, product)]
        assert len({event.trace_id for event in events}) == running.accepted()


async def test_readiness_follows_the_data_not_only_the_connection(valkey: ValkeyServer) -> None:
    limits = FeedLimits(frame_seconds=2.0)
    async with (
        simulation(ticks_per_second=0.05) as exchange,
        collection(exchange.url, valkey, limits=limits) as running,
    ):
        await eventually(lambda: running.accepted() >= 4)
        feed = await eventually(running.collector.check_feed)
        assert feed.ok

        async def stale() -> bool:
            return not (await running.collector.check_data()).ok

        await eventually(stale)
        assert "BTC-USD" in (await running.collector.check_data()).detail
        assert (await running.collector.check_feed()).ok, "heartbeats still come"


async def test_an_exchange_that_cannot_be_reached_makes_it_unready_not_dead(valkey: ValkeyServer) -> None:
    async with collection(f"ws://127.0.0.1:{free_port()}/", valkey) as running:
        await eventually(lambda: running.reconnects("connect_failed") >= 3)
        assert not (await running.collector.check_feed()).ok
        assert not running.task.done()
        failed = value(
            running.registry,
            "exchange_api_request_duration_seconds_count",
            exchange="coinbase",
            endpoint="websocket",
            status="error",
        )
        assert failed >= 3


async def test_a_refused_handshake_has_its_status(valkey: ValkeyServer) -> None:
    async with simulation() as exchange, collection(exchange.url.replace("/ws", "/elsewhere"), valkey) as running:
        await eventually(lambda: running.reconnects("connect_failed") >= 1)
        labels = {"exchange": "coinbase", "endpoint": "websocket", "status": "4xx"}
        assert value(running.registry, "exchange_api_request_duration_seconds_count", **labels) >= 1


@pytest.mark.parametrize("exchange_name", sorted(EXCHANGES))
async def test_ticker_quotes_are_whole(valkey: ValkeyServer, exchange_name: str) -> None:
    async with (
        simulation() as exchange,
        collection(exchange.url_of(exchange_name), valkey, name=exchange_name) as running,
    ):
        await running.more_events()
    tickers = [event for event in await stored(valkey, "BTC-USD", exchange_name) if isinstance(event, Ticker)]
    assert tickers
    for ticker in tickers:
        assert ticker.best_bid is not None
        assert ticker.best_ask is not None
        assert ticker.best_bid <= ticker.price <= ticker.best_ask
        assert ticker.best_bid < ticker.best_ask

"""The simulator as a client of the real exchange would find it."""

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from services_support import PRODUCTS, Simulation, ends, eventually, simulation
from tradewatch.simulators.exchange import feed_server
from tradewatch.simulators.exchange.coinbase_websocket import CoinbaseFeed
from tradewatch.simulators.exchange.prices import PriceProcess
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


async def _receive(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await ends(socket.recv()))
    return message


async def _subscribe(socket: ClientConnection, channel: str, kind: str = "subscribe", **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, "channel": channel, **fields}))


async def test_snapshot_then_subscriptions_then_updates_in_one_sequence() -> None:
    async with simulation() as exchange, connect(exchange.url) as socket:
        await _subscribe(socket, "ticker", product_ids=["BTC-USD"])
        await _subscribe(socket, "market_trades", product_ids=list(PRODUCTS))
        await _subscribe(socket, "heartbeats")
        messages = [await _receive(socket) for _ in range(150)]
    assert [message["sequence_num"] for message in messages] == list(range(150))
    assert (messages[0]["channel"], messages[0]["events"][0]["type"]) == ("ticker", "snapshot")
    assert messages[1]["events"] == [{"subscriptions": {"ticker": ["BTC-USD"]}}]
    assert {message["channel"] for message in messages} == {"ticker", "market_trades", "heartbeats", "subscriptions"}
    counters = [m["events"][0]["heartbeat_counter"] for m in messages if m["channel"] == "heartbeats"]
    assert all(later == earlier + 1 for earlier, later in pairwise(counters))
    tickers = [event for m in messages if m["channel"] == "ticker" for e in m["events"] for event in e["tickers"]]
    assert {ticker["product_id"] for ticker in tickers} == {"BTC-USD"}


async def test_unsubscribing_one_product_or_all() -> None:
    async with simulation(ticks_per_second=0.05) as exchange, connect(exchange.url) as socket:
        await _subscribe(socket, "ticker", product_ids=list(PRODUCTS))
        await _subscribe(socket, "ticker", "unsubscribe", product_ids=["BTC-USD"])
        await _subscribe(socket, "ticker", "unsubscribe")
        answers = [await _receive(socket) for _ in range(4)]
    subscriptions = [a["events"][0]["subscriptions"] for a in answers if a["channel"] == "subscriptions"]
    assert subscriptions == [{"ticker": ["BTC-USD", "ETH-USD"]}, {"ticker": ["ETH-USD"]}, {}]


@pytest.mark.parametrize(
    ("request_text", "answer"),
    [
        ("{", "malformed JSON"),
        ("[]", "message must be an object"),
        ('{"type": "hello"}', "type must be subscribe or unsubscribe"),
        ('{"type": "subscribe", "channel": "heartbeat"}', "authentication failure"),
        ('{"type": "subscribe", "channel": ["ticker"]}', "authentication failure"),
        ('{"type": "subscribe", "channel": "ticker"}', "product_ids must name at least one product"),
        (
            '{"type": "subscribe", "channel": "ticker", "product_ids": "BTC-USD"}',
            "product_ids must be a list of strings",
        ),
        ('{"type": "subscribe", "channel": "ticker", "product_ids": ["X"]}', "X is not a valid product"),
    ],
)
async def test_a_bad_request_is_answered_with_an_error(request_text: str, answer: str) -> None:
    async with simulation() as exchange, connect(exchange.url) as socket:
        await socket.send(request_text)
        assert await _receive(socket) == {"type": "error", "message": answer}


async def test_who_never_subscribes_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoinbaseFeed, "subscribe_seconds", 0.2)
    async with simulation() as exchange, connect(exchange.url) as socket:
        with pytest.raises(ConnectionClosed):
            await ends(socket.recv())
        assert socket.close_code == 1008


async def test_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_server, "MAX_WAITING_MESSAGES", 50)
    async with (
        simulation(ticks_per_second=10_000) as exchange,
        connect(exchange.url, max_queue=1, close_timeout=0.1) as socket,
    ):
        await _subscribe(socket, "ticker", product_ids=list(PRODUCTS))
        await eventually(lambda: exchange.registry.get_sample_value("exchange_simulator_slow_consumers_total") == 1)


async def test_stopping_says_going_away() -> None:
    async with simulation() as exchange, connect(exchange.url) as socket:
        await exchange.feed.stop()
        with pytest.raises(ConnectionClosed):
            await ends(socket.recv())
        assert socket.close_code == 1001


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"", "Invalid JSON"),
        (b"{}", "fault"),
        (b'{"fault": "earthquake"}', "earthquake"),
        (b'{"fault": "freeze", "seconds": 1e9}', "seconds"),
        (b'{"fault": "freeze", "seconds": NaN}', "seconds"),
        (b'{"fault": "close", "code": 4}', "code"),
        (b'{"fault": "sequence_gap", "count": "2"}', "count"),
        (b'{"fault": "sequence_gap", "cuont": 2}', "cuont"),
        (b'{"fault": "malformed", "kind": "weird"}', "kind"),
    ],
)
async def test_a_bad_fault_is_one_line_that_names_what_is_wrong(body: bytes, names: str) -> None:
    async with simulation() as exchange, httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{exchange.http.port}/faults", content=body)
    assert answer.status_code == 400
    assert names in answer.text
    assert answer.text.count("\n") == 1


async def test_faults_can_be_seen_and_switched_off() -> None:
    async with simulation() as exchange, connect(exchange.url) as socket, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{exchange.http.port}/faults"
        await _subscribe(socket, "heartbeats")
        await exchange.fault(fault="freeze", seconds=100)
        assert (await client.get(url)).json()["connections"][0]["frozen_seconds"] > 90
        assert (await client.delete(url)).json()["connections"][0]["frozen_seconds"] == 0
        assert exchange.registry.get_sample_value("exchange_simulator_faults_total", {"fault": "freeze"}) == 1


def _prices(seed: int, product: str, count: int = 500) -> list[str]:
    process = PriceProcess(seed, product, 1.0)
    return [f"{tick.price} {tick.size} {tick.best_bid}" for tick in (process.next_tick() for _ in range(count))]


def test_the_same_seed_gives_the_same_prices() -> None:
    assert _prices(7, "BTC-USD") == _prices(7, "BTC-USD")
    assert _prices(7, "BTC-USD") != _prices(8, "BTC-USD")
    assert _prices(7, "BTC-USD")[:2] == ["64994.31 0.00274140 64994.31", "64989.20 0.01459055 64989.20"]


@pytest.mark.parametrize("product", ["BTC-USD", "DOGE-USD", "FOO-BAR"])
@pytest.mark.parametrize("step", [0.001, 1.0, 1e9])
def test_prices_stay_positive_ordered_and_near_their_anchor(product: str, step: float) -> None:
    process = PriceProcess(3, product, step)
    ticks = [process.next_tick() for _ in range(3000)]
    first = float(ticks[0].price)
    for tick in ticks:
        assert 0 < tick.best_bid < tick.best_ask
        assert tick.price in (tick.best_bid, tick.best_ask)
        assert tick.size > 0
        assert 0.5 < float(tick.price) / first < 2
    assert [tick.trade_id for tick in ticks] == list(range(1, 3001))


async def test_the_clock_does_not_change_the_prices() -> None:
    async def first_prices(exchange: Simulation) -> list[str]:
        await eventually(lambda: len(exchange.market.states["BTC-USD"].trades) >= 20)
        return [str(tick.price) for tick, _ in list(exchange.market.states["BTC-USD"].trades)[:20]]

    async with simulation(seed=5) as one, simulation(seed=5) as other:
        assert await first_prices(one) == await first_prices(other)

"""technical-indicators on a real Valkey: restarts, gaps, bad candles; and both services under load."""

import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from aggregation_support import (
    EXCHANGES,
    PRODUCT,
    aggregation,
    bus_client,
    indication,
    minute_ago,
    put_past,
    raw,
    ticker,
    trade,
)
from services_support import ValkeyServer, eventually, value
from tradewatch.collectors.indicators.calculations import Bar, all_indicators, update_all
from tradewatch.common.events import MarketDataEvent
from tradewatch.common.streams import (
    Candle,
    Indicators,
    candle_id,
    candles_stream,
    decode,
    encode,
    indicators_stream,
)


def _candles(count: int, seed: int = 1, first: int = 0, interval: int = 1) -> list[Candle]:
    rng = random.Random(seed)
    close = 100.0
    made = []
    for index in range(first, first + count):
        start, close = close, close * (1 + rng.gauss(0, 0.01))
        made.append(
            Candle(
                PRODUCT,
                interval,
                minute_ago(index * interval),
                open=Decimal(f"{start:.6f}"),
                high=Decimal(f"{max(start, close) * 1.001:.6f}"),
                low=Decimal(f"{min(start, close) * 0.999:.6f}"),
                close=Decimal(f"{close:.6f}"),
                volume=Decimal(f"{rng.uniform(1, 2):.6f}"),
                vwap=Decimal(f"{close:.6f}"),
                trades=2,
                exchanges=EXCHANGES,
                trace_id=f"{index:032d}",
            )
        )
    return made


async def _put(client: Any, candles: list[Candle]) -> None:
    pipeline = client.pipeline(transaction=False)
    for candle in candles:
        pipeline.xadd(candles_stream(PRODUCT), dict(encode(candle)), id=candle_id(candle))
    await pipeline.execute()


async def _settled(running: Any, client: Any, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
    async def all_there() -> bool:
        return bool(await client.xlen(indicators_stream(PRODUCT)) >= count and running.writer.pending == 0)

    await eventually(all_there)
    return await raw(client, indicators_stream(PRODUCT))


async def test_killed_at_any_point_the_entries_are_those_of_a_run_without(valkey: ValkeyServer) -> None:
    candles = _candles(300)
    async with bus_client(valkey) as client:
        await _put(client, candles)
        async with indication(valkey, intervals=(1,)) as running:
            whole = await _settled(running, client, 300)
        await client.delete(indicators_stream(PRODUCT), candles_stream(PRODUCT))
        done = 0
        for cut in (3, 40, 199, 300):
            await _put(client, candles[done:cut])
            async with indication(valkey, intervals=(1,)) as running:
                await _settled(running, client, cut - 1)
                await running.kill()
            done = cut
        async with indication(valkey, intervals=(1,)) as running:
            again = await _settled(running, client, 300)
    assert again == whole
    last = decode(Indicators, whole[-1][1])
    state = all_indicators()
    bars = [Bar(float(c.high), float(c.low), float(c.close), float(c.volume)) for c in candles]
    expected = [update_all(state, bar, 1e18) for bar in bars][-1]
    assert dict(last.values) == expected
    assert (last.time, last.close, last.trace_id) == (
        candles[-1].start + timedelta(seconds=1),
        candles[-1].close,
        candles[-1].trace_id,
    )
    assert decode(Indicators, whole[0][1]).values == {"obv": float(candles[0].volume)}, "no value without history"


async def test_after_a_long_gap_it_starts_anew_and_odd_candles_are_left_out(valkey: ValkeyServer) -> None:
    before, after = _candles(30), _candles(5, first=100)
    async with bus_client(valkey) as client, indication(valkey, intervals=(1,), max_gap_candles=60) as running:
        await _put(client, before)
        await client.xadd(
            candles_stream(PRODUCT), dict(encode(before[3])), id=f"{int(minute_ago(60).timestamp() * 1000)}-0"
        )
        await client.xadd(
            candles_stream(PRODUCT),
            dict(encode(before[3]) | {"product_id": "ETH-USD"}),
            id=f"{int(minute_ago(61).timestamp() * 1000)}-0",
        )
        await _put(client, [*after, *_candles(1, first=120, interval=5)])
        found = await _settled(running, client, 35)
        labels = {"product_id": PRODUCT, "interval": "1"}
        assert len(found) == 35
        assert value(running.registry, "indicators_resets_total", **labels) == 1
        assert value(running.registry, "indicators_history_candles", **labels) == 5
        assert value(running.registry, "indicators_candles_skipped_total", reason="repeated") == 1
        assert value(running.registry, "indicators_candles_skipped_total", reason="wrong_stream") == 1
    assert "rsi_14" in decode(Indicators, found[29][1]).values
    assert decode(Indicators, found[34][1]).values.keys() == {"obv"}


async def test_readiness_needs_recent_candles(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client, indication(valkey, intervals=(1,)) as running:
        await _put(client, _candles(3))
        await _settled(running, client, 3)
        assert not (await running.service.check_candles()).ok
        now = datetime.now(UTC).replace(microsecond=0)
        recent = _candles(1)[0]
        fields = encode(recent) | {"start": now.isoformat()}
        await client.xadd(candles_stream(PRODUCT), dict(fields))
        await _settled(running, client, 4)
        assert (await running.service.check_candles()).ok
        assert (await running.service.check_caught_up()).ok


async def test_three_seconds_of_a_thousand_ticks_take_less_than_three_seconds_of_one_core(valkey: ValkeyServer) -> None:
    """CPU time, not the clock's: other work on the machine must not fail it."""
    products = (PRODUCT, "ETH-USD")
    ticks = 3000
    entries: list[tuple[datetime, MarketDataEvent]] = []
    for number in range(ticks):
        at = minute_ago(number / 1000)
        exchange, product = EXCHANGES[number % 2], products[number // 2 % 2]
        entries.append((at, trade(at, number, exchange=exchange, product_id=product)))
        entries.append((at, ticker(at, exchange=exchange, product_id=product)))
    async with bus_client(valkey) as client:
        await put_past(client, entries)
        before = time.process_time()
        async with (
            aggregation(valkey, products=products) as aggregator,
            indication(valkey, products=products, intervals=(1,)) as indicators,
        ):
            await _settled(indicators, client, 3)
            spent = time.process_time() - before
            made = value(aggregator.registry, "candles_total", product_id=PRODUCT, interval="1")
            delay = value(aggregator.registry, "stream_reader_lag_seconds", stream=f"market_data:kraken:{PRODUCT}")
    assert made == 3
    assert delay == 0
    assert spent < ticks / 1000, f"{ticks / spent:.0f} ticks a second"

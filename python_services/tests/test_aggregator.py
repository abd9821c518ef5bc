"""The aggregator on a real Valkey: restarts, trimmed streams, bad entries, load."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from aggregation_support import (
    EXCHANGES,
    PRODUCT,
    aggregation,
    bus_client,
    candles,
    minute_ago,
    put,
    put_past,
    raw,
    ticker,
    trade,
)
from services_support import ValkeyServer, eventually, value
from tradewatch.common import streams
from tradewatch.common.events import MarketDataEvent
from tradewatch.common.streams import candles_stream, quotes_stream


async def _market(client: Any, seconds: int, seed: int = 1) -> None:
    """Trades and tickers of both exchanges, some late, out of order and twice: so many seconds of the past."""
    rng = random.Random(seed)
    entries: list[tuple[datetime, MarketDataEvent]] = []
    for index in range(seconds * 10):
        at = minute_ago(index / 10)
        exchange = EXCHANGES[index % 2]
        price = f"{100 + rng.uniform(-1, 1):.4f}"
        lateness = timedelta(seconds=rng.choice((0.0, 0.0, 0.05, 0.3, 2.0, 8.0)))
        event = trade(at, index + 1, price, f"{rng.uniform(0.1, 2):.6f}", exchange, trace_id=f"{index:032d}")
        entries.append((at + lateness, event))
        if index % 7 == 0:
            entries.append((at + lateness + timedelta(milliseconds=30), event))
        if index % 5 == 0:
            entries.append((at, ticker(at, "99.9", "100.1", exchange)))
    await put_past(client, entries)


async def _one_a_second(client: Any, seconds: int) -> None:
    times = [minute_ago(second) for second in range(seconds)]
    trades = [
        (at, trade(at, number, str(100 + number / 10), exchange=exchange))
        for number, at in enumerate(times, 1)
        for exchange in EXCHANGES
    ]
    await put_past(client, [*trades])


async def _end(client: Any) -> list[Any]:
    """The last candles are there once those of the end are closed."""
    return [await raw(client, candles_stream(PRODUCT)), await raw(client, quotes_stream(PRODUCT))]


async def test_after_a_kill_at_any_point_the_entries_are_those_of_a_run_without(
    valkey: ValkeyServer, tmp_path: Any
) -> None:
    async with bus_client(valkey) as client:
        await _market(client, 130)
        async with aggregation(valkey) as running:
            await eventually(lambda: running.service.caught_up and running.writer.pending == 0)
        whole_candles, whole_quotes = await _end(client)
        assert len(whole_candles) > 130
        assert len(whole_quotes) > 100
        rng = random.Random(7)
        for _ in range(4):
            # As a killed aggregator leaves it: candles and quotes up to some point each.
            cut_candle, cut_quote = rng.randrange(len(whole_candles)), rng.randrange(len(whole_quotes))
            await client.delete(candles_stream(PRODUCT), quotes_stream(PRODUCT))
            for stream, entries in (
                (candles_stream(PRODUCT), whole_candles[:cut_candle]),
                (quotes_stream(PRODUCT), whole_quotes[:cut_quote]),
            ):
                for entry_id, fields in entries:
                    await client.xadd(stream, fields, id=entry_id)
            async with aggregation(valkey) as again:
                await eventually(lambda: again.service.caught_up and again.writer.pending == 0)
                assert value(again.registry, "stream_dropped_total", reason="rejected") == 0
            again_candles, again_quotes = await _end(client)
            assert again_candles == whole_candles
            assert again_quotes == whole_quotes


async def test_killed_while_it_works_it_goes_on_without_losing_or_repeating_a_candle(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        feeding = asyncio.create_task(_feed(client, 4.0, 100))
        for _ in range(3):
            async with aggregation(valkey, intervals=(1,)) as running:
                await asyncio.sleep(1.1)
                await running.kill()
        async with aggregation(valkey, intervals=(1,)) as running:
            sent = await feeding
            await eventually(lambda: running.service.caught_up)
            found = await eventually(lambda: _complete(client, sent))
    starts = [candle.start for candle in found]
    assert starts == sorted(set(starts))
    assert {later - earlier for earlier, later in pairwise(starts)} == {timedelta(seconds=1)}, "a candle is missing"
    # The first second has a candle only where collection began with it; the last one's may not be closed yet.
    assert all(candle.trades == sent[int(candle.start.timestamp())] for candle in found)


async def _complete(client: Any, sent: dict[int, int]) -> list[streams.Candle]:
    found = await candles(client)
    return found if len(found) >= len(sent) - 1 else []


async def _feed(client: Any, seconds: float, rate: int) -> dict[int, int]:
    """Live trades of both exchanges; returns how many were made in each second."""
    counts: dict[int, int] = {}
    number = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # One that a busy machine holds back must not come to the bus in another second than it was made in.
        if time.time() % 1 > 0.8:
            await asyncio.sleep(0.2)
            continue
        number += 1
        for exchange in EXCHANGES:
            now = datetime.now(UTC)
            counts[int(now.timestamp())] = counts.get(int(now.timestamp()), 0) + 1
            await put(client, trade(now, number, exchange=exchange))
        await asyncio.sleep(1 / rate)
    return counts


async def test_a_trimmed_stream_is_made_up_for_by_the_finer_candles(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        await _one_a_second(client, 50)
        async with aggregation(valkey) as running:
            await eventually(lambda: running.service.caught_up and running.writer.pending == 0)
        before = await raw(client, candles_stream(PRODUCT))
        minute = next(fields for _, fields in before if fields[b"interval_seconds"] == b"60")
        # A minute's candle was in the making when it was killed, and its first half is not in the streams any more.
        await client.delete(candles_stream(PRODUCT))
        for entry_id, fields in before:
            if int(entry_id.split(b"-")[0]) <= minute_ago(45).timestamp() * 1000:
                await client.xadd(candles_stream(PRODUCT), fields, id=entry_id)
        for exchange in EXCHANGES:
            await client.xtrim(f"market_data:{exchange}:{PRODUCT}", maxlen=20, approximate=False)
        async with aggregation(valkey) as running:
            await eventually(lambda: running.service.caught_up and running.writer.pending == 0)
        after = await raw(client, candles_stream(PRODUCT))
        rebuilt = [fields for _, fields in after if fields[b"interval_seconds"] == b"1"]
        assert len(rebuilt) == 50
        assert not any(fields[b"interval_seconds"] == b"60" for _, fields in after), (
            "no minute's candle had ever been there: from 30 s on it would be half a candle"
        )
    assert minute[b"trades"] == b"100"


async def test_a_minute_in_the_making_is_whole_after_its_trades_were_trimmed(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client:
        await _one_a_second(client, 110)
        async with aggregation(valkey) as running:
            await eventually(lambda: running.service.caught_up and running.writer.pending == 0)
        before = await raw(client, candles_stream(PRODUCT))
        await client.delete(candles_stream(PRODUCT))
        for entry_id, fields in before:
            if int(entry_id.split(b"-")[0]) <= minute_ago(105).timestamp() * 1000:
                await client.xadd(candles_stream(PRODUCT), fields, id=entry_id)
        for exchange in EXCHANGES:
            await client.xtrim(f"market_data:{exchange}:{PRODUCT}", maxlen=20, approximate=False)
        async with aggregation(valkey) as running:
            await eventually(lambda: running.service.caught_up and running.writer.pending == 0)
        assert await raw(client, candles_stream(PRODUCT)) == before


async def test_late_duplicate_and_outlying_trades_are_counted_and_bad_entries_skipped(valkey: ValkeyServer) -> None:
    async with bus_client(valkey) as client, aggregation(valkey, intervals=(1, 60)) as running:
        await eventually(lambda: running.service.caught_up)
        now = datetime.now(UTC)
        for exchange in EXCHANGES:
            await put(client, ticker(now, exchange=exchange))
        await eventually(lambda: client.exists(quotes_stream(PRODUCT)))
        now = datetime.now(UTC)
        await put(client, trade(now - timedelta(seconds=5), 1))
        for _ in range(2):
            await put(client, trade(now, 2))
        await put(client, trade(now, 3, "1000"))
        stream = f"market_data:coinbase:{PRODUCT}"
        for bad in ({"kind": "trade"}, {"kind": "tra\udcff".encode("utf-8", "surrogateescape").decode("latin-1")}):
            await client.xadd(stream, bad)
        await client.xadd(stream, {b"\xff": b"\xff"})
        await put(client, trade(now, 4))
        labels = {"exchange": "coinbase", "product_id": PRODUCT}
        await eventually(lambda: value(running.registry, "stream_reader_undecodable_total", stream=stream) == 3)
        await eventually(lambda: value(running.registry, "stream_reader_entries_total", stream=stream) >= 9)

        def ignored(reason: str) -> float:
            return value(running.registry, "candle_ignored_trades_total", **labels, reason=reason)

        # Entries are counted when they are read, a moment before they are made use of.
        await eventually(lambda: (ignored("duplicate"), ignored("outlier")) == (1, 1))
        assert value(running.registry, "candle_late_trades_total", product_id=PRODUCT, interval="1") == 1
        assert value(running.registry, "market_data_mid_price", product_id=PRODUCT) == 100
        assert (await running.service.check_data()).ok


async def test_nothing_is_lost_while_valkey_restarts(valkey: ValkeyServer) -> None:
    async with aggregation(valkey, intervals=(1,)) as running:
        async with bus_client(valkey) as client:
            await _feed(client, 1.2, 50)
        valkey.stop()
        await eventually(lambda: value(running.registry, "stream_reader_failures_total") >= 2)
        assert not running.service.caught_up
        valkey.start()
        async with bus_client(valkey) as client:
            sent = await _feed(client, 2.2, 50)
            found = await eventually(lambda: _complete(client, sent))
        starts = [candle.start for candle in found]
        assert starts == sorted(set(starts))
        assert value(running.registry, "stream_reader_holes_total", stream=f"market_data:kraken:{PRODUCT}") == 0

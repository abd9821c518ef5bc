"""Where a product's candles and quotes stand on the bus: what a starting aggregator goes on from."""

from dataclasses import dataclass
from typing import Any

from valkey.asyncio import Valkey

from tradewatch.collectors.aggregator.candles import MAX_AHEAD_US, NEVER, SECOND_US, microseconds
from tradewatch.common.events import stream_name
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.streams import Candle, Quote, candles_stream, decode, quotes_stream

_PAGE_ENTRIES = 1000


@dataclass(frozen=True)
class Standing:
    """`closed_us`: by interval in seconds, the end of what is closed.

    `covering` are the closed candles of the shortest interval that stand for trades the exchanges' streams no longer
    hold, up to `covered_us`. The exchanges' streams are to be read from `read_from_ms` on, with `quote` being the
    last one at that time and `quoted_us` the time of the newest one.
    """

    closed_us: dict[int, int]
    covering: tuple[Candle, ...]
    covered_us: int
    read_from_ms: int
    quote: Quote | None
    quoted_us: int


async def look_up(
    client: Valkey, product_id: str, exchanges: tuple[str, ...], intervals_seconds: tuple[int, ...]
) -> Standing:
    """Find out. Raises what the client raises."""
    intervals = sorted(intervals_seconds)
    candles, newest_ms = await _last_candles(client, product_id, intervals)
    beginning_us = await _beginning(client, product_id, exchanges)
    ends = {
        seconds: max(
            (microseconds(candle.start) + seconds * SECOND_US for candle in candles if _is(candle, seconds)),
            default=NEVER,
        )
        for seconds in intervals
    }
    base_end = ends[intervals[0]]
    closed, covered = {}, set()
    for seconds in intervals:
        length = seconds * SECOND_US
        # An interval without a candle yet may have one in the making at the time of the newest entry.
        end = ends[seconds] if ends[seconds] != NEVER else _floor(newest_ms * 1000, length) if newest_ms else NEVER
        if end < beginning_us and ends[seconds] != NEVER and base_end >= beginning_us:
            covered.add(seconds)
        elif end < beginning_us:
            # The streams begin within this candle or after it: the first whole one is the next.
            end = _floor(beginning_us + length - 1, length)
        closed[seconds] = end
    earliest = min(base_end if seconds in covered else closed[seconds] for seconds in intervals)
    read_from_ms = max(0, (earliest - MAX_AHEAD_US) // 1000)
    return Standing(
        closed_us=closed,
        covering=tuple(candle for candle in candles if covered and _is(candle, intervals[0])),
        covered_us=base_end,
        read_from_ms=read_from_ms,
        quote=await _last_quote(client, product_id, str(read_from_ms)),
        quoted_us=_time_of(await _last_quote(client, product_id, "+")),
    )


async def _last_candles(client: Valkey, product_id: str, intervals: list[int]) -> tuple[list[Candle], int]:
    """The candles of twice the longest interval before the newest, oldest first; and the newest entry's id's time."""
    stream = candles_stream(product_id)
    newest: list[Any] = await client.xrevrange(stream, count=1)
    if not newest:
        return [], 0
    newest_ms = _milliseconds(newest[0][0])
    position = str(max(0, newest_ms - 2 * intervals[-1] * 1000))
    candles: list[Candle] = []
    while True:
        page: list[Any] = await client.xrange(stream, min=position, count=_PAGE_ENTRIES)
        for _, fields in page:
            try:
                candles.append(decode(Candle, fields))
            except EventDecodeError:
                continue
        if len(page) < _PAGE_ENTRIES:
            return candles, newest_ms
        position = "(" + page[-1][0].decode()


async def _beginning(client: Valkey, product_id: str, exchanges: tuple[str, ...]) -> int:
    """From when on (microseconds) the exchanges' streams hold everything: NEVER where none has an entry.

    A stream that was never cut off begins with the collection of its exchange, before which there is nothing to have.
    """
    cut: list[int] = []
    whole: list[int] = []
    for exchange in exchanges:
        stream = stream_name(exchange, product_id)
        if not await client.exists(stream):
            continue
        about: dict[str, Any] = await client.xinfo_stream(stream)
        if about["first-entry"] is not None:
            first_us = _milliseconds(about["first-entry"][0]) * 1000
            (cut if about["entries-added"] > about["length"] else whole).append(first_us)
    return max(cut) if cut else min(whole, default=NEVER)


async def _last_quote(client: Valkey, product_id: str, until: str) -> Quote | None:
    for _, fields in await client.xrevrange(quotes_stream(product_id), max=until, count=1):
        try:
            return decode(Quote, fields)
        except EventDecodeError:
            return None
    return None


def _time_of(quote: Quote | None) -> int:
    return NEVER if quote is None else microseconds(quote.time)


def _is(candle: Candle, seconds: int) -> bool:
    return candle.interval_seconds == seconds


def _floor(value: int, step: int) -> int:
    return value - value % step


def _milliseconds(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])

"""How fresh and how complete each stream is."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from tradewatch.common import events, streams
from tradewatch.common.fields import EventDecodeError
from tradewatch.common.streams import Candle, Indicators, Quote, Sentiment

# An event may be so long on its way before the slot that it belongs to counts as over.
SETTLE_SECONDS = 2.0
RATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """An entry: the stream that it belongs to by what it says, and the time that it is about, in Unix seconds."""

    stream: str
    at: float


def sighting(fields: Mapping[bytes, bytes]) -> Sighting:
    """What an entry of a watched stream says. Raises EventDecodeError."""
    match fields.get(b"kind"):
        case b"ticker" | b"trade":
            event = events.decode(fields)
            return Sighting(events.stream_name(event.exchange, event.product_id), event.exchange_time.timestamp())
        case b"candle":
            candle = streams.decode(Candle, fields)
            end = candle.start + timedelta(seconds=candle.interval_seconds)
            return Sighting(streams.candles_stream(candle.product_id), end.timestamp())
        case b"quote":
            quote = streams.decode(Quote, fields)
            return Sighting(streams.quotes_stream(quote.product_id), quote.time.timestamp())
        case b"indicators":
            indicators = streams.decode(Indicators, fields)
            return Sighting(streams.indicators_stream(indicators.product_id), indicators.time.timestamp())
        case b"sentiment":
            sentiment = streams.decode(Sentiment, fields)
            return Sighting(streams.sentiment_stream(sentiment.asset), sentiment.time.timestamp())
        case _:
            raise EventDecodeError("kind: none that is watched")


class Freshness:
    """The age of a stream's newest entry against a limit; all times are Unix seconds."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self.newest = -math.inf

    def see(self, at: float, now: float) -> None:
        """Take an entry. One from the future counts as of now, so that it cannot keep a dead stream fresh."""
        self.newest = max(self.newest, min(at, now))

    @property
    def seen(self) -> bool:
        """Whether there was ever an entry."""
        return self.newest != -math.inf

    def age_seconds(self, now: float) -> float | None:
        """The newest entry's age; None before the first."""
        return max(0.0, now - self.newest) if self.seen else None

    def fresh(self, now: float) -> bool:
        """Whether there is an entry younger than the limit."""
        return now - self.newest <= self.limit_seconds

    def detail(self, now: float) -> str:
        """The same for people."""
        if not self.seen:
            return "nothing yet"
        return f"newest {now - self.newest:.1f} s old, limit {self.limit_seconds:g} s"


class Completeness:
    """Which of the last `slots` slots of `slot_seconds` have an event.

    Counted are slots that are over, from `since` (when watching began, Unix seconds) or the oldest event seen in the
    window on: before that nobody can say.
    """

    def __init__(self, slot_seconds: float, slots: int, since: float) -> None:
        self._slot_seconds = slot_seconds
        self._slots = slots
        self._first = math.ceil(since / slot_seconds)
        self._seen: set[int] = set()

    def see(self, at: float, now: float) -> None:
        """Take an event."""
        slot = math.floor(at / self._slot_seconds)
        if self._oldest(now) <= slot <= now / self._slot_seconds:
            self._seen.add(slot)

    def ratio(self, now: float) -> float | None:
        """The share, 0 to 1; None while no slot is over."""
        oldest, end = self._oldest(now), self._end(now)
        self._seen = {slot for slot in self._seen if slot >= oldest}
        first = max(oldest, min(self._first, min(self._seen, default=end)))
        if first >= end:
            return None
        return sum(slot < end for slot in self._seen) / (end - first)

    def _end(self, now: float) -> int:
        """The first slot that may still get an event."""
        return math.floor((now - SETTLE_SECONDS) / self._slot_seconds)

    def _oldest(self, now: float) -> int:
        return self._end(now) - self._slots


class Rate:
    """Events a second over the last ten seconds, by a clock that never goes back."""

    def __init__(self) -> None:
        self._count = 0
        self._marks: deque[tuple[float, int]] = deque()

    def see(self) -> None:
        """Take an event."""
        self._count += 1

    def per_second(self, monotonic: float) -> float:
        """The rate up to now; to be asked at least every few seconds."""
        self._marks.append((monotonic, self._count))
        while monotonic - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()
        started, count = self._marks[0]
        return (self._count - count) / (monotonic - started) if monotonic > started else 0.0

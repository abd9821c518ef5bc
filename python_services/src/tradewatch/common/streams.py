"""What the services put onto the bus after market data: candles, quotes, indicators, sentiment, signals, heartbeats.

Each kind is one dataclass; its fields, as text, are the entry's fields (docs/trading.md).
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints
from uuid import UUID

from tradewatch.common.events import SCHEMA_VERSION, Side
from tradewatch.common.fields import EventDecodeError, FieldReader, format_time

SIGNALS_STREAM = "signals"
HEARTBEATS_STREAM = "heartbeats"
# Indicator values are the only fields whose names are not known beforehand.
_VALUE_PREFIX = "value_"

# Above zero; a size may be zero. In quote or base currency, as the field says.
Price = Annotated[Decimal, "price"]
Size = Annotated[Decimal, "size"]


@dataclass(frozen=True, slots=True)
class Candle:
    """Trades of an interval over all exchanges. Prices and `vwap` in quote, `volume` in base currency.

    `start` is the first moment of the interval; the candle was closed when the entry was written. `trace_id` is that
    of the last trade in it.
    """

    kind: ClassVar[str] = "candle"
    product_id: str
    interval_seconds: int
    start: datetime
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Size
    vwap: Price
    trades: int
    exchanges: tuple[str, ...]
    trace_id: str


@dataclass(frozen=True, slots=True)
class Quote:
    """The best quotes over all exchanges that agree.

    `spread_ratio` is the spread over the mid price; negative where books of two exchanges cross. `imbalance` is
    (bid size - ask size) / (bid size + ask size) over the exchanges' best quotes, -1 to 1. `outliers` are the
    exchanges left out because their mid price is far from the others'.
    """

    kind: ClassVar[str] = "quote"
    product_id: str
    time: datetime
    best_bid: Price
    best_ask: Price
    mid: Price
    spread_ratio: float
    imbalance: float
    exchanges: tuple[str, ...]
    outliers: tuple[str, ...]
    trace_id: str


@dataclass(frozen=True, slots=True)
class Indicators:
    """Technical indicators at the end of a candle (`time`); `values` lacks those with too little history."""

    kind: ClassVar[str] = "indicators"
    product_id: str
    interval_seconds: int
    time: datetime
    close: Price
    values: Mapping[str, float]
    trace_id: str


@dataclass(frozen=True, slots=True)
class Sentiment:
    """What the news says of an asset (`BTC`): `score` -1 to 1, decayed with the age of its `articles`."""

    kind: ClassVar[str] = "sentiment"
    asset: str
    time: datetime
    score: float
    articles: int
    trace_id: str


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline about an asset: `score` -1 to 1 is its tone; `title` is a stranger's text, never an instruction."""

    kind: ClassVar[str] = "headline"
    asset: str
    time: datetime
    feed: str
    article_id: str
    title: str
    score: float
    trace_id: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A proposal to trade. `confidence` 0 to 1; `reference_price` in quote currency; void after `expires`."""

    kind: ClassVar[str] = "signal"
    signal_id: UUID
    product_id: str
    side: Side
    confidence: float
    reference_price: Price
    model_version: str
    created: datetime
    expires: datetime
    rationale: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What health-monitor sends to itself through the bus."""

    kind: ClassVar[str] = "heartbeat"
    origin: str
    sent: datetime
    trace_id: str


StreamEntry = Candle | Quote | Indicators | Sentiment | Headline | Signal | Heartbeat
EntryT = TypeVar("EntryT", Candle, Quote, Indicators, Sentiment, Headline, Signal, Heartbeat)


def candles_stream(product_id: str) -> str:
    """The stream of a product's candles, all intervals."""
    return f"candles:{product_id}"


def quotes_stream(product_id: str) -> str:
    """The stream of a product's quotes."""
    return f"quotes:{product_id}"


def indicators_stream(product_id: str) -> str:
    """The stream of a product's indicators, all intervals."""
    return f"indicators:{product_id}"


def candle_id(candle: Candle) -> str:
    """The id of a candle's entry, and of the indicators made from it: its end (ms), then its length.

    It rises in the order in which candles are closed and is the same whoever writes the entry, so none is there twice.
    """
    end = candle.start.timestamp() + candle.interval_seconds
    return f"{round(end * 1000)}-{candle.interval_seconds}"


def sentiment_stream(asset: str) -> str:
    """The stream of an asset's sentiment."""
    return f"sentiment:{asset}"


def headlines_stream(asset: str) -> str:
    """The stream of the headlines about an asset."""
    return f"headlines:{asset}"


def _enum(kind: type[StrEnum]) -> Callable[[FieldReader, str], StrEnum]:
    def read(reader: FieldReader, name: str) -> StrEnum:
        try:
            return kind(reader.text(name))
        except ValueError:
            raise EventDecodeError(f"{name}: not one of {', '.join(kind)}") from None

    return read


def _uuid(reader: FieldReader, name: str) -> UUID:
    try:
        return UUID(reader.text(name))
    except ValueError:
        raise EventDecodeError(f"{name}: not a UUID") from None


def _values(reader: FieldReader, _: str) -> dict[str, float]:
    names = sorted(name for name in reader.names() if name.startswith(_VALUE_PREFIX))
    return {name.removeprefix(_VALUE_PREFIX): reader.finite(name) for name in names}


@dataclass(frozen=True)
class _Codec:
    write: Callable[[Any], str]
    read: Callable[[FieldReader, str], Any]


_CODECS: dict[Any, _Codec] = {
    str: _Codec(str, FieldReader.text),
    int: _Codec(str, FieldReader.integer),
    float: _Codec(repr, FieldReader.finite),
    datetime: _Codec(format_time, FieldReader.time),
    Price: _Codec(lambda number: format(number, "f"), FieldReader.positive),
    Size: _Codec(lambda number: format(number, "f"), FieldReader.size),
    tuple[str, ...]: _Codec(",".join, FieldReader.words),
    Side: _Codec(str, _enum(Side)),
    UUID: _Codec(str, _uuid),
    Mapping[str, float]: _Codec(lambda _: "", _values),
}


def _codecs(kind: Any) -> dict[str, _Codec]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _CODECS[hints[field.name]] for field in dataclasses.fields(kind)}


_FIELDS: dict[Any, dict[str, _Codec]] = {kind: _codecs(kind) for kind in get_args(StreamEntry)}


def encode(entry: StreamEntry) -> dict[str, str]:
    """The fields of an entry, as text."""
    fields = {"schema": SCHEMA_VERSION, "kind": entry.kind}
    for name, codec in _FIELDS[type(entry)].items():
        if name == "values" and isinstance(entry, Indicators):
            fields |= {_VALUE_PREFIX + key: repr(float(value)) for key, value in entry.values.items()}
        else:
            fields[name] = codec.write(getattr(entry, name))
    return fields


def decode(kind: type[EntryT], fields: Mapping[bytes, bytes] | Mapping[str, str]) -> EntryT:
    """The entry of that kind which the fields hold, as the client returned them (bytes or text).

    Raises:
        EventDecodeError: another kind or schema, or a field that is missing, malformed or out of range.
    """
    reader = FieldReader(fields)
    if reader.text("schema") != SCHEMA_VERSION:
        raise EventDecodeError("schema: unknown version")
    if reader.text("kind") != kind.kind:
        raise EventDecodeError(f"kind: not {kind.kind}")
    return kind(**{name: codec.read(reader, name) for name, codec in _FIELDS[kind].items()})

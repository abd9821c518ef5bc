"""What the collector needs of an exchange: what to send after connecting, and what a received frame means."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from tradewatch.common.events import MarketDataEvent, Trade


class FrameReason(StrEnum):
    """Why nothing of a frame could be used."""

    INVALID_JSON = "invalid_json"
    INVALID_FRAME = "invalid_frame"
    UNKNOWN_CHANNEL = "unknown_channel"
    FRAME_TOO_LARGE = "frame_too_large"


class ItemReason(StrEnum):
    """Why one event of a frame was left out."""

    INVALID_EVENT = "invalid_event"
    UNKNOWN_PRODUCT = "unknown_product"
    BAD_PRICE = "bad_price"
    BAD_SIZE = "bad_size"
    BAD_TIMESTAMP = "bad_timestamp"
    CROSSED_QUOTE = "crossed_quote"


class FrameError(Exception):
    """The frame is unusable as a whole.

    `sequence` is the frame's sequence number where it could still be read, so that one bad frame does not also look
    like a gap.
    """

    def __init__(self, reason: FrameReason, sequence: int | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.sequence = sequence


@dataclass(frozen=True, slots=True)
class Frame:
    """What one WebSocket message said.

    `sequence` counts the messages of the connection across channels, None where the exchange has no such number.
    `snapshot` says that the events are the present state, sent in answer to a subscription, which may repeat known
    ones. `error` is the exchange's own complaint, such as about a subscription. `trade_ids` has (product_id, trade id)
    of every trade of the frame, unusable ones too, where the exchange numbers each product's trades without holes
    instead of its messages.
    """

    channel: str
    sequence: int | None
    events: tuple[MarketDataEvent, ...] = ()
    rejected: tuple[ItemReason, ...] = ()
    snapshot: bool = False
    error: str | None = None
    trade_ids: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hole:
    """Trades of a product that did not come: those between two known ones, neither included."""

    product_id: str
    after_id: int
    after_time: datetime
    before_id: int
    before_time: datetime


@dataclass(frozen=True, slots=True)
class TradesRequest:
    """A GET for trades, below the exchange's REST URL."""

    path: str
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class TradesPage:
    """What one answer said; `cursor` is what asks for the next page, None when there is none of use."""

    trades: tuple[Trade, ...]
    rejected: tuple[ItemReason, ...]
    cursor: str | None


class ExchangeRefusal(Exception):
    """The exchange answered, with a complaint instead of trades."""

    def __init__(self, text: str, rate_limited: bool) -> None:
        super().__init__(text)
        self.rate_limited = rate_limited


class Exchange(Protocol):
    """One exchange's market data protocol, for a fixed set of products. Holds no state of a connection.

    Of the `event_channels` the `trade_channel` brings trades. `rest_interval_seconds` is the least time between two
    requests that keeps below the exchange's limit.
    """

    name: str
    websocket_url: str
    rest_url: str
    rest_interval_seconds: float
    event_channels: tuple[str, ...]
    trade_channel: str

    def subscribe_messages(self) -> list[str]:
        """The text messages to send on a new connection, in order."""

    def parse(self, data: str | bytes, received_time: datetime) -> Frame:
        """Understand one message. Raises FrameError, and nothing else whatever the bytes."""

    def trades_request(self, hole: Hole, cursor: str | None) -> TradesRequest:
        """How to ask for the trades of a hole; `cursor` is the last page's."""

    def parse_trades(self, data: bytes, hole: Hole, received_time: datetime) -> TradesPage:
        """Understand an answer to `trades_request`. Trades from outside the hole may be among its.

        Raises FrameError or ExchangeRefusal, and nothing else whatever the bytes.
        """

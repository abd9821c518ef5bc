"""What the collector needs of an exchange: what to send after connecting, and what a received frame means."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from tradewatch.common.events import MarketDataEvent


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


class Exchange(Protocol):
    """One exchange's market data protocol, for a fixed set of products. Holds no state of a connection."""

    name: str
    websocket_url: str
    event_channels: tuple[str, ...]

    def subscribe_messages(self) -> list[str]:
        """The text messages to send on a new connection, in order."""

    def parse(self, data: str | bytes, received_time: datetime) -> Frame:
        """Understand one message. Raises FrameError, and nothing else whatever the bytes."""

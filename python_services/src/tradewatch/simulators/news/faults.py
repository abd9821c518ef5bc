"""Faults on request: what `POST /faults` of the news simulator takes.

With `feed`, a fault is that feed's alone. Headlines that a fault adds stay in the feed for its `seconds`.
"""

from typing import Annotated, Literal

from pydantic import Field, RootModel

from tradewatch.simulators.fault_routes import TimedFault
from tradewatch.simulators.news.headlines import ASSETS

FeedName = Literal["coinpost", "chainwire", "blockbrief"]
Asset = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,16}$")]


class _FeedFault(TimedFault):
    feed: FeedName | None = None


class Error(_FeedFault):
    """Requests are answered with this status."""

    fault: Literal["error"]
    status: Literal[404, 410, 429, 500, 502, 503] = 503


class Timeout(_FeedFault):
    """Requests are not answered until the fault is over."""

    fault: Literal["timeout"]


class Malformed(_FeedFault):
    """The feed is cut off, not XML, an HTML page, or XML whose entities grow to gigabytes."""

    fault: Literal["malformed"]
    kind: Literal["truncated", "not_xml", "html", "entity_bomb"] = "truncated"


class Huge(_FeedFault):
    """The answer has this many bytes."""

    fault: Literal["huge"]
    size_bytes: int = Field(default=20_000_000, ge=1, le=200_000_000)


class Frozen(_FeedFault):
    """The feed answers, but never has anything new."""

    fault: Literal["frozen"]


class Injection(_FeedFault):
    """The feed has a headline that gives orders to a language model."""

    fault: Literal["injection"]
    asset: Asset = ASSETS[0][1]


class Extreme(_FeedFault):
    """The feed has headlines of the strongest tone about an asset."""

    fault: Literal["extreme"]
    tone: Literal["positive", "negative"]
    asset: Asset = ASSETS[0][1]
    count: int = Field(default=5, ge=1, le=50)


Fault = Error | Timeout | Malformed | Huge | Frozen | Injection | Extreme


class FaultRequest(RootModel[Annotated[Fault, Field(discriminator="fault")]]):
    """The body of `POST /faults`."""

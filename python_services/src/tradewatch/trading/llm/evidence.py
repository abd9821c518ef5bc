"""What is known about a signal's asset: its sentiment and its latest headlines, from the bus."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from valkey.asyncio import Valkey

from tradewatch.common.fields import EventDecodeError
from tradewatch.common.streams import (
    Headline,
    Sentiment,
    Signal,
    decode,
    headlines_stream,
    sentiment_stream,
)

MAX_HEADLINES = 10
# An analyzer that restarted has written its articles again; so many entries hold ten of them all the same.
READ_HEADLINES = 100
MAX_HEADLINE_AGE = timedelta(hours=24)


class NoEvidence(Exception):
    """There is no recent sentiment about the asset."""


@dataclass(frozen=True)
class Evidence:
    """What the model is shown; `headlines` the newest first."""

    signal: Signal
    sentiment: Sentiment
    headlines: tuple[Headline, ...]


async def gather(client: Valkey, signal: Signal, now: datetime, sentiment_max_age_seconds: float) -> Evidence:
    """Read the evidence about the signal's base asset.

    Raises:
        NoEvidence: the newest sentiment is missing, unreadable or too old.
        valkey.exceptions.ValkeyError, OSError, TimeoutError: Valkey does not answer.
    """
    asset = signal.product_id.partition("-")[0]
    sentiments, entries = await asyncio.gather(
        client.xrevrange(sentiment_stream(asset), count=1),
        client.xrevrange(headlines_stream(asset), count=READ_HEADLINES),
    )
    if not sentiments:
        raise NoEvidence(f"no sentiment of {asset}")
    try:
        sentiment = decode(Sentiment, sentiments[0][1])
    except EventDecodeError as error:
        raise NoEvidence(f"unreadable sentiment of {asset}: {error}") from None
    age = (now - sentiment.time).total_seconds()
    if age > sentiment_max_age_seconds:
        raise NoEvidence(f"the newest sentiment of {asset} is {age:.0f} s old")
    return Evidence(signal, sentiment, _headlines(entries, now))


def _headlines(entries: list[tuple[bytes, dict[bytes, bytes]]], now: datetime) -> tuple[Headline, ...]:
    found: dict[str, Headline] = {}
    for _, fields in entries:
        try:
            headline = decode(Headline, fields)
        except EventDecodeError:
            # Headlines are a help, not a condition: one that cannot be read is left out.
            continue
        if now - headline.time <= MAX_HEADLINE_AGE:
            found.setdefault(headline.article_id, headline)
    newest = sorted(found.values(), key=lambda headline: headline.time, reverse=True)
    return tuple(newest[:MAX_HEADLINES])

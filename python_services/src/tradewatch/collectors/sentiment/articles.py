"""Reading a feed's bytes into articles; feedparser does the formats, and never fetches."""

import calendar
import hashlib
import html
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax import SAXException

import feedparser

MAX_ARTICLES = 500
MAX_TITLE_CHARACTERS = 300
_TAG = re.compile(r"<[^>]*>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


class FeedError(Exception):
    """The bytes are no feed that can be trusted to be whole; `reason` is `malformed` or `not_a_feed`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Article:
    """One entry of a feed. `id` is a digest of the entry's own; `published` is None where the feed does not say."""

    id: str
    title: str
    published: datetime | None


def parse(content: bytes) -> list[Article]:
    """The feed's first MAX_ARTICLES entries that have a title, in its order.

    Raises:
        FeedError: not well-formed XML (cut off, entities that grow without bound), or neither RSS nor Atom.
    """
    # A stream, for feedparser would take bytes that name a file for that file.
    parsed: Any = feedparser.parse(io.BytesIO(content), resolve_relative_uris=False)
    if isinstance(parsed.get("bozo_exception"), SAXException):
        # feedparser goes on with a parser that guesses; half a feed must count as an error, not as news.
        raise FeedError("malformed")
    if not parsed.get("version"):
        raise FeedError("not_a_feed")
    articles = (_article(entry) for entry in parsed.entries[:MAX_ARTICLES])
    return [article for article in articles if article.title]


def _article(entry: Any) -> Article:
    title = clean(str(entry.get("title", "")))
    identity = str(entry.get("id") or entry.get("link") or title)
    return Article(hashlib.sha256(identity.encode(errors="replace")).hexdigest()[:32], title, _published(entry))


def clean(text: str) -> str:
    """One line of plain text: no markup, no control or invisible characters, at most MAX_TITLE_CHARACTERS."""
    plain = _CONTROL.sub(" ", html.unescape(_TAG.sub(" ", text)))
    return " ".join(plain.split())[:MAX_TITLE_CHARACTERS].strip()


def _published(entry: Any) -> datetime | None:
    moment = entry.get("published_parsed") or entry.get("updated_parsed")
    if moment is None:
        return None
    try:
        return datetime.fromtimestamp(calendar.timegm(moment), UTC)
    except (ValueError, OverflowError, OSError):
        return None

"""The feeds over HTTP: `GET /feeds/NAME`, with ETag and Last-Modified and what a fault makes of the answer."""

import asyncio
import contextlib
import hashlib
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from xml.sax.saxutils import escape, quoteattr

from aiohttp import web

from tradewatch.simulators.fault_routes import Faults, Switchboard, fault_routes
from tradewatch.simulators.news import headlines
from tradewatch.simulators.news.faults import (
    Error,
    Extreme,
    Fault,
    FaultRequest,
    Frozen,
    Huge,
    Injection,
    Malformed,
    Timeout,
)
from tradewatch.simulators.news.headlines import Headline
from tradewatch.simulators.news.metrics import FEEDS, NewsSimulatorMetrics

HEADLINES = 30
ATOM_FEEDS = ("chainwire",)
_CHUNK = b" " * 65536
_POLL_SECONDS = 0.1

_ENTITY_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a0 "bitcoin bitcoin bitcoin ">'
    + b"".join(b'<!ENTITY a%d "%s">' % (n, (b"&a%d;" % (n - 1)) * 10) for n in range(1, 10))
    + b']><rss version="2.0"><channel><title>x</title><item><title>&a9;</title><guid>1</guid></item></channel></rss>'
)


class FeedServer:
    """Every feed, made anew for each request from the clock and the faults that are on."""

    def __init__(self, seed: int, headline_seconds: float, metrics: NewsSimulatorMetrics) -> None:
        self._seed = seed
        self._headline_seconds = headline_seconds
        self._metrics = metrics
        self._switchboard: Switchboard[Fault] = Switchboard()
        self._frozen_at: dict[str, datetime] = {}
        self._added: list[tuple[Fault, list[Headline]]] = []
        self._extremes = 0

    def routes(self) -> list[web.RouteDef]:
        """The routes for the HTTP server."""
        return [
            web.get("/feeds/{name}", self._feed),
            *fault_routes(FaultRequest, self._apply, self._active, self._clear),
        ]

    def _apply(self, fault: Fault) -> None:
        now = datetime.now(UTC)
        self._switchboard.switch_on(fault)
        if isinstance(fault, Injection):
            self._added.append((fault, [headlines.injection(fault.asset, now)]))
        elif isinstance(fault, Extreme):
            # Numbered on: a title that was there before would count as the same news.
            numbers = range(self._extremes + 1, self._extremes + fault.count + 1)
            self._extremes += fault.count
            self._added.append((fault, [headlines.extreme(fault.asset, fault.tone, now, each) for each in numbers]))
        elif isinstance(fault, Frozen):
            for name in [fault.feed] if fault.feed else FEEDS:
                self._frozen_at[name] = now
        self._metrics.faults[fault.fault].inc()

    def _active(self) -> Faults:
        return Faults(active=[fault.model_dump() for fault in self._switchboard.active()])

    def _clear(self) -> None:
        self._switchboard.clear()

    def _on(self, name: str) -> list[Fault]:
        return [fault for fault in self._switchboard.active() if fault.feed in (None, name)]

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in FEEDS:
            return web.Response(status=404, text=f"no such feed; known: {', '.join(FEEDS)}\n")
        for fault in self._on(name):
            broken = await self._broken(request, name, fault)
            if broken is not None:
                self._metrics.requests[name, "fault"].inc()
                return broken
        articles = self._articles(name)
        body = (_atom if name in ATOM_FEEDS else _rss)(name, articles).encode()
        newest = max(article.published for article in articles)
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Last-Modified": format_datetime(newest, usegmt=True)}
        if _has_it(request, etag, newest):
            self._metrics.requests[name, "304"].inc()
            return web.Response(status=304, headers=headers)
        self._metrics.requests[name, "200"].inc()
        kind = "application/atom+xml" if name in ATOM_FEEDS else "application/rss+xml"
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _broken(self, request: web.Request, name: str, fault: Fault) -> web.StreamResponse | None:
        """The answer of a fault that replaces the feed; None for one that only changes what is in it."""
        if isinstance(fault, Error):
            headers = {"Retry-After": "1"} if fault.status in (429, 503) else None
            return web.Response(status=fault.status, text="broken on request\n", headers=headers)
        if isinstance(fault, Timeout):
            while fault in self._on(name):
                await asyncio.sleep(_POLL_SECONDS)
            return web.Response(status=504, text="too late, on request\n")
        if isinstance(fault, Huge):
            return await _huge(request, fault.size_bytes)
        if isinstance(fault, Malformed):
            return web.Response(body=self._malformed(name, fault), content_type="application/rss+xml")
        return None

    def _malformed(self, name: str, fault: Malformed) -> bytes:
        match fault.kind:
            case "not_xml":
                return b"\x00\xff this is no feed"
            case "html":
                return b"<html><body><h1>Checking your browser</h1></body></html>"
            case "entity_bomb":
                return _ENTITY_BOMB
        whole = _rss(name, self._articles(name)).encode()
        return whole[: len(whole) // 2]

    def _articles(self, name: str) -> list[Headline]:
        on = self._on(name)
        now = datetime.now(UTC)
        if any(isinstance(fault, Frozen) for fault in on):
            now = self._frozen_at[name]
        added = [headline for fault, made in self._added if fault in on for headline in made]
        usual = headlines.recent(self._seed, name, now, self._headline_seconds, HEADLINES)
        return sorted([*usual, *added], key=lambda headline: headline.published, reverse=True)


def _has_it(request: web.Request, etag: str, newest: datetime) -> bool:
    """Whether the client has this already; `If-None-Match` counts before `If-Modified-Since` (RFC 9110, 13.2.2)."""
    known = request.headers.get("If-None-Match")
    if known is not None:
        return etag in (tag.strip() for tag in known.split(","))
    try:
        since = parsedate_to_datetime(request.headers.get("If-Modified-Since", ""))
    except ValueError:
        return False
    return newest <= since


async def _huge(request: web.Request, size: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/rss+xml"})
    await response.prepare(request)
    sent = 0
    # Who asked is expected to hang up long before the end.
    with contextlib.suppress(ConnectionError):
        while sent < size:
            sent += len(_CHUNK)
            await response.write(_CHUNK)
    return response


def _rss(name: str, articles: list[Headline]) -> str:
    items = "".join(
        f'<item><title>{escape(article.title)}</title><guid isPermaLink="false">{article.id}</guid>'
        f"<link>https://{name}.example/{article.id}</link>"
        f"<pubDate>{format_datetime(article.published, usegmt=True)}</pubDate></item>"
        for article in articles
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><rss version="2.0"><channel><title>{name}</title>'
        f"<link>https://{name}.example/</link><description>simulated news</description>{items}</channel></rss>"
    )


def _atom(name: str, articles: list[Headline]) -> str:
    entries = "".join(
        f"<entry><id>urn:{article.id}</id><title>{escape(article.title)}</title>"
        f"<link href={quoteattr(f'https://{name}.example/{article.id}')}/>"
        f"<published>{_iso(article.published)}</published><updated>{_iso(article.published)}</updated></entry>"
        for article in articles
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><feed xmlns="http://www.w3.org/2005/Atom"><id>urn:{name}</id>'
        f"<title>{name}</title><updated>{_iso(articles[0].published)}</updated>{entries}</feed>"
    )


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")

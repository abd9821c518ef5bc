"""The page over HTTPS: who may see it, and what it is made of."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from pydantic import SecretStr

from tradewatch.common.http import ALL_INTERFACES
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.monitoring.dashboard_report import page
from tradewatch.monitoring.dashboard_report.metrics import DashboardReportMetrics
from tradewatch.monitoring.dashboard_report.sources import one_line
from tradewatch.monitoring.dashboard_report.viewer import NotFoundError, SpanError, Viewer

# Guessing a password is slow; who has it is not held up.
REFUSED_SECONDS = 0.5
_VARIABLE = "var-"
_HEADERS = {
    "Content-Security-Policy": page.CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_log = get_logger("site")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class TlsFiles:
    """The certificate and its key, read again when they were renewed. Raises OSError or ssl.SSLError at first."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.load_cert_chain(certificate, key)
        self._loaded = self._stamp()

    def refresh(self) -> None:
        """New connections get the files' new content; while that is unusable, the old stays."""
        try:
            stamp = self._stamp()
            if stamp != self._loaded:
                self.context.load_cert_chain(self._certificate, self._key)
                self._loaded = stamp
                _log.info("certificate read again")
        except OSError as error:  # ssl.SSLError is one
            _log.error("the certificate's files cannot be used, the old ones stay", error=type(error).__name__)

    def _stamp(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns


class Site:
    """Serves the page, its files and its data on a port of its own; port 0 takes any free one."""

    def __init__(
        self,
        port: int,
        viewer: Viewer,
        metrics: DashboardReportMetrics,
        username: str,
        password: SecretStr,
        tls: ssl.SSLContext | None,
        runbooks: Path | None = None,
    ) -> None:
        self.port = port
        self._viewer = viewer
        self._metrics = metrics
        self._login = f"{username}:{password.get_secret_value()}".encode()
        self._tls = tls
        self._runbooks = runbooks
        self._throttle = Throttle()
        self._files = (*page.SCRIPTS, *page.STYLES, page.ICON)
        self._version = hashlib.sha256(b"".join(map(page.asset, self._files))).hexdigest()[:12]
        application = web.Application(middlewares=[self._guard], client_max_size=1024)
        application.add_routes(
            [
                web.get("/", self._shell),
                web.get("/d/{uid}", self._shell),
                web.get("/d/{uid}/{slug}", self._shell),
                web.get("/static/{name}", self._static),
                web.get("/runbooks/{alert:[A-Za-z0-9]{1,100}}.md", self._runbook),
                web.get("/api/dashboards", self._index),
                web.get("/api/dashboards/{uid}", self._dashboard),
                web.get("/api/dashboards/{uid}/frame", self._frame),
                web.get("/api/dashboards/{uid}/panels/{panel:[0-9]{1,9}}", self._panel),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def __aenter__(self) -> "Site":
        """Listen. Raises OSError when the port is taken."""
        await asyncio.to_thread(lambda: list(map(page.packed, self._files)))
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, ALL_INTERFACES, self.port, ssl_context=self._tls).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, letting requests in hand end."""
        await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The login, the headers, and every error as one line."""
        if not self._admitted(request):
            # Who gives none does not guess: a browser asks so once a folder before it gives the login.
            if "Authorization" in request.headers:
                self._metrics.logins_refused.inc()
                await asyncio.sleep(REFUSED_SECONDS)
            challenge = {"WWW-Authenticate": 'Basic realm="Tradewatch", charset="UTF-8"', **_HEADERS}
            return web.Response(status=401, text="The user and the password are needed.\n", headers=challenge)
        response: web.StreamResponse
        try:
            response = await handler(request)
        except NotFoundError as error:
            response = _error(404, str(error.args[0]))
        except SpanError as error:
            response = _error(400, str(error))
        except web.HTTPException as error:
            response = _error(error.status, error.reason)
        except Exception as error:
            if (held := self._throttle.admit("failed")) is not None:
                _log.exception("request failed", path=request.path, held_back=held)
            response = _error(500, f"failed: {type(error).__name__}")
        response.headers.update(_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _admitted(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        try:
            login = base64.b64decode(given.strip(), validate=True)
        except (binascii.Error, ValueError):
            login = b""
        # The comparison's time must not tell how much was right.
        return hmac.compare_digest(login, self._login) and kind.lower() == "basic"

    async def _shell(self, request: web.Request) -> web.StreamResponse:
        text = page.shell(self._version, self._viewer.start(request.match_info.get("uid")))
        response = web.Response(text=text, content_type="text/html")
        response.enable_compression()
        return response

    async def _static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in self._files:
            raise NotFoundError("no such file")
        kind = page.CONTENT_TYPES[Path(name).suffix]
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        body = page.asset(name)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body = page.packed(name)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    async def _runbook(self, request: web.Request) -> web.StreamResponse:
        if self._runbooks is None:
            raise NotFoundError("no folder of runbooks is set")
        file = self._runbooks / f"{request.match_info['alert']}.md"
        try:
            text = await asyncio.to_thread(file.read_text, encoding="utf-8", errors="replace")
        except FileNotFoundError:
            raise NotFoundError("no such runbook") from None
        return web.Response(text=text)

    async def _index(self, _: web.Request) -> web.StreamResponse:
        return _json(self._viewer.index())

    async def _dashboard(self, request: web.Request) -> web.StreamResponse:
        return _json(self._viewer.dashboard(request.match_info["uid"]).view())

    async def _frame(self, request: web.Request) -> web.StreamResponse:
        return _json(await self._viewer.frame(request.match_info["uid"], *_span(request), _wanted(request)))

    async def _panel(self, request: web.Request) -> web.StreamResponse:
        uid, panel = request.match_info["uid"], int(request.match_info["panel"])
        return _json(await self._viewer.panel(uid, panel, *_span(request), _wanted(request)))


def _json(body: object) -> web.Response:
    response = web.json_response(body)
    response.enable_compression()
    return response


def _error(status: int, line: str) -> web.Response:
    return web.json_response({"error": one_line(line)}, status=status)


def _span(request: web.Request) -> tuple[str, str]:
    return request.query.get("from", "now-1h"), request.query.get("to", "now")


def _wanted(request: web.Request) -> dict[str, list[str]]:
    """The viewer's choices: `var-name=value`, repeated for several."""
    names = dict.fromkeys(name for name in request.query if name.startswith(_VARIABLE))
    return {name.removeprefix(_VARIABLE): request.query.getall(name) for name in names}

"""The few calls that the supervisor itself makes to the Kubernetes API, with the standard library only."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 5.0


class ApiError(Exception):
    """The API could not be asked (``status`` 0) or refused (its HTTP status)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Client:
    """An API server and who we are to it: a client certificate, a bearer token, or nobody.

    Without ``ca`` the server is not verified: only for fetching the CA, which is then checked against the token.
    """

    url: str
    ca: Path | str | None = None
    certificate: Path | None = None
    key: Path | None = None
    token: str = ""

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """The decoded JSON answer (or its text, where it is not JSON).

        Raises:
            ApiError: no connection, or an answer of 400 and above.
        """
        parts = urllib.parse.urlsplit(self.url)
        headers = {"Accept": "application/json", "Content-Type": content_type}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port or 443, context=self._context(), timeout=TIMEOUT_SECONDS
            )
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                answer = connection.getresponse()
                content = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(0, f"{self.url}: {error}") from None
        if answer.status >= 400:
            raise ApiError(answer.status, f"{self.url}{path}: HTTP {answer.status}")
        try:
            return json.loads(content)
        except ValueError:
            return content.decode(errors="replace")

    async def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """``request`` without holding up the event loop."""
        return await asyncio.to_thread(self.request, method, path, body, content_type)

    def _context(self) -> ssl.SSLContext:
        if self.ca is None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif isinstance(self.ca, Path):
            context = ssl.create_default_context(cafile=str(self.ca))
        else:
            context = ssl.create_default_context(cadata=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

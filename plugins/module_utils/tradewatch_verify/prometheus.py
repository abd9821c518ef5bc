"""Prometheus' API as somebody outside the cluster reaches it."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def direct(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Opens addresses of the platform itself, past any proxy that the environment names for the internet."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


class Prometheus:
    """Prometheus' API as somebody outside the cluster reaches it: TLS, its authority, its user."""

    def __init__(self, endpoint: dict[str, str | None]) -> None:
        self.url = str(endpoint["url"])
        self._opener = direct(ssl.create_default_context(cafile=endpoint["ca_file"]))
        password = Path(str(endpoint["password_file"])).read_text().strip()
        credentials = base64.b64encode(f"{endpoint['username']}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}"}

    def _get(self, path: str, headers: dict[str, str]) -> Any:
        # The address comes from endpoints.json, which monitoring.yml wrote.
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310
        with self._opener.open(request, timeout=10) as response:
            return json.load(response)

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """An instant vector: the values of its labels in the order of their names -> value."""
        answer = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}), self._headers)
        return {
            tuple(series["metric"][name] for name in sorted(series["metric"])): float(series["value"][1])
            for series in answer["data"]["result"]
        }

    def status_without_password(self) -> int:
        """The HTTP status that a caller without credentials gets."""
        try:
            self._get("/api/v1/status/buildinfo", {})
        except urllib.error.HTTPError as error:
            return error.code
        return 200

"""Loki by its API, as the scenarios ask it from the control host."""

from __future__ import annotations

import json
import ssl
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


class Loki:
    """Loki on its published port, which knows no users."""

    def __init__(self, lab_dir: Path) -> None:
        self.address = json.loads((lab_dir / "lab.json").read_text())["hosts"]["analytics-1"]
        self.trusting = ssl.create_default_context(cafile=str(lab_dir / "ca.crt"))

    def open(
        self, path: str, context: ssl.SSLContext | None = None, body: Any = None, method: str | None = None
    ) -> Any:
        """The answer to a request. Raises HTTPError for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"https://{self.address}:30100{path}", data, headers, method=method)
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context or self.trusting)]
        return urllib.request.build_opener(*handlers).open(request, timeout=10)

    def streams(self, query: str, since: float | None = None) -> list[tuple[dict[str, str], str]]:
        """(labels and structured metadata, line) since then (Unix seconds), else of the last hour: the oldest 5000."""
        start = int((time.time() - 3600 if since is None else since) * 10**9)
        found = self._query_range(query, start=start, limit=5000, direction="forward")
        return [(stream["stream"], line) for stream in found for _, line in stream["values"]]

    def lines(self, query: str, since: float | None = None) -> list[str]:
        """The lines of a query."""
        return [line for _, line in self.streams(query, since)]

    def newest(self, query: str) -> str:
        """The newest line of a query, of the last hour; empty where there is none."""
        found = self._query_range(query, limit=1, direction="backward")
        return str(found[0]["values"][0][1]) if found else ""

    def _query_range(self, query: str, **words: object) -> Any:
        with self.open(f"/loki/api/v1/query_range?{urllib.parse.urlencode({'query': query, **words})}") as response:
            return json.load(response)["data"]["result"]

    def push(self, line: str, **labels: str) -> None:
        """One line, written past Promtail."""
        self.open("/loki/api/v1/push", body={"streams": [{"stream": labels, "values": [[str(time.time_ns()), line]]}]})

    def config(self) -> str:
        """The configuration that it runs with."""
        with self.open("/config") as response:
            return str(response.read().decode())

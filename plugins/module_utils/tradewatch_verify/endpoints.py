"""What is published, as somebody outside the cluster reaches it: TLS, its authority, its user."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def direct(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """Opens addresses of the platform itself, past any proxy that the environment names for the internet."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


class Endpoint:
    """One entry of endpoints.json.

    Args:
        endpoint: C({url, username, password_file, ca_file}); no user where the username is null.
    """

    def __init__(self, endpoint: dict[str, str | None]) -> None:
        self.url = str(endpoint["url"])
        self._opener = direct(ssl.create_default_context(cafile=endpoint["ca_file"]))
        self._headers = {}
        if endpoint["username"] is not None:
            password = Path(str(endpoint["password_file"])).read_text().strip()
            credentials = base64.b64encode(f"{endpoint['username']}:{password}".encode()).decode()
            self._headers = {"Authorization": f"Basic {credentials}"}

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer in the form that Prometheus and Loki share."""
        with self._open(f"{path}?{urllib.parse.urlencode(parameters)}", self._headers) as response:
            return json.load(response)["data"]

    def status_without_password(self) -> int:
        """The HTTP status that a caller without credentials gets."""
        try:
            with self._open("/", {}) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def _open(self, path: str, headers: dict[str, str]) -> Any:
        # The address comes from endpoints.json, which monitoring.yml wrote.
        request = urllib.request.Request(self.url + path, headers=headers)  # noqa: S310
        return self._opener.open(request, timeout=10)


class Prometheus(Endpoint):
    """Prometheus' API."""

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """An instant vector: the values of its labels in the order of their names -> value."""
        return {
            tuple(series["metric"][name] for name in sorted(series["metric"])): float(series["value"][1])
            for series in self.get("/api/v1/query", query=expression)["result"]
        }

    def targets(self) -> list[dict[str, Any]]:
        """What is scraped now: `labels`, `health` (up, down or unknown) and `lastError`, among others.

        Not the metric `up`: of targets that went while Prometheus itself was away it says for minutes that they are up.
        """
        active: list[dict[str, Any]] = self.get("/api/v1/targets", state="active")["activeTargets"]
        return active

    def broken_rules(self) -> list[str]:
        """The rules that cannot be evaluated, and why."""
        rules = [rule for group in self.get("/api/v1/rules")["groups"] for rule in group["rules"]]
        return [f"{rule['name']}: {rule.get('lastError', '')}" for rule in rules if rule["health"] == "err"]


class Loki(Endpoint):
    """Loki's API."""

    def label_values(self, label: str, seconds: int) -> set[str]:
        """What a label's values were in the last `seconds`."""
        start = str(time.time_ns() - seconds * 10**9)
        return set(self.get(f"/loki/api/v1/label/{label}/values", start=start) or [])

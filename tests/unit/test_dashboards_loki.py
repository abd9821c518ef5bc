"""Every LogQL query of the dashboards, run by the Loki that is deployed, over lines as Promtail sends them."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tradewatch.monitoring.dashboards import queries
from tradewatch.monitoring.dashboards.queries import DashboardQuery

from lab.bundle import parts
from tests.commands import REPOSITORY
from tests.machines import wait

pytestmark = pytest.mark.servers
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NANOSECONDS = 10**9
QUERIES = [
    query
    for document in queries.load(REPOSITORY / "files/dashboards").values()
    for query in queries.queries(document)
    if query.datasource == "loki"
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def configuration(folder: Path, port: int) -> dict[str, Any]:
    """The role's configuration but for what needs a cluster: certificate, volume, limits."""
    index = {"prefix": "index_", "period": "24h"}
    schema = {"from": "2026-01-01", "store": "tsdb", "object_store": "filesystem", "schema": "v13", "index": index}
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": port,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": free_port(),
            "log_level": "error",
        },
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": str(folder),
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
        },
        "schema_config": {"configs": [schema]},
        "ingester": {"lifecycler": {"min_ready_duration": "0s"}},
    }


def lines() -> list[dict[str, Any]]:
    now = time.time_ns()
    service = {"job": "kubernetes-pods", "namespace": "crypto-trading"}
    ended = {"event": "decision ended", "trace_id": TRACE, "product_id": "BTC-USD", "state": "filled"}
    return [
        {
            "stream": {**service, "service": "trade-orchestrator", "level": "info"},
            "values": [[str(now), json.dumps({**ended, "decision_id": "d"}), {"trace_id": TRACE}]],
        },
        {
            "stream": {**service, "service": "risk-manager", "level": "error"},
            "values": [
                [str(now), json.dumps({"event": "assessed", "trace_id": TRACE}), {"trace_id": TRACE}],
                [str(now), json.dumps({"event": "nothing traced"})],
            ],
        },
        {"stream": {"job": "journal", "node": "n"}, "values": [[str(now), "k3s: started"]]},
    ]


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Loki that holds the lines."""
    with standing(tmp_path_factory.mktemp("loki")) as url:
        yield url


@contextmanager
def standing(folder: Path) -> Iterator[str]:
    """The address of a Loki of its own in a folder, that holds the lines."""
    port = free_port()
    (folder / "loki.yml").write_text(yaml.safe_dump(configuration(folder / "data", port)))
    log = folder / "log"
    with log.open("wb") as output:
        command = [str(parts.loki_binary()), f"-config.file={folder / 'loki.yml'}"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: process.poll() is not None or ready(f"{url}/ready"), "Loki to be ready", 60)
        assert process.poll() is None, log.read_text()[-2000:]
        body = json.dumps({"streams": lines()}).encode()
        request = urllib.request.Request(f"{url}/loki/api/v1/push", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 204
        yield url
    finally:
        process.terminate()
        process.wait(30)


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def asked(url: str, expr: str) -> list[dict[str, Any]]:
    now = time.time_ns()
    window = {"start": str(now - 600 * NANOSECONDS), "end": str(now + 30 * NANOSECONDS), "step": "30s"}
    address = f"{url}/loki/api/v1/query_range?{urllib.parse.urlencode({'query': expr, **window})}"
    with urllib.request.urlopen(address, timeout=20) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.dashboard}: {query.place}")
def test_loki_answers(loki: str, query: DashboardQuery) -> None:
    assert wait(lambda: asked(loki, query.expr), f"an answer to {query.expr}")


def test_one_trace_is_found_across_services_and_no_other_line(loki: str) -> None:
    document = json.loads((REPOSITORY / "files/dashboards/unified-system.json").read_text())
    for chosen, found in ((TRACE, {"trade-orchestrator", "risk-manager"}), ("0" * 32, set())):
        [query] = [each for each in queries.queries(document, {"trace_id": chosen}) if each.panel_id == 604]
        streams = asked(loki, query.expr)
        assert {stream["stream"]["service"] for stream in streams} == found
        assert all("nothing traced" not in line[1] for stream in streams for line in stream["values"])


def test_a_broken_query_is_refused(loki: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        asked(loki, '{namespace=~".+"} | trace_id=')

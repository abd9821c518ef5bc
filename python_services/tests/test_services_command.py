"""The `tradewatch` command as processes: configuration, secrets, probes, signals; and the generated documents."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from services_support import PASSWORD, PRODUCTS, ValkeyServer, free_port, stored
from tradewatch import metrics_doc
from tradewatch.cli import main
from tradewatch.cli.services import SERVICES
from tradewatch.common import settings
from tradewatch.common.http import Check, CheckResult, HttpServer
from tradewatch.common.service import Liveness

REPOSITORY = Path(__file__).resolve().parents[2]
COLLECTOR = {"TRADEWATCH_EXCHANGE": "coinbase", "TRADEWATCH_PRODUCTS": "BTC-USD,ETH-USD"}


def _environment(variables: dict[str, str]) -> dict[str, str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWATCH_")}
    return rest | variables


def _tradewatch(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tradewatch", *arguments],
        env=_environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("service", "variable", "bad", "says"),
    [
        ("market-data-collector", "TRADEWATCH_EXCHANGE", "mtgox", "unknown exchange; known: coinbase"),
        ("market-data-collector", "TRADEWATCH_PRODUCTS", "", "at least one product"),
        ("market-data-collector", "TRADEWATCH_PRODUCTS", "btc", "'btc' is not a product id"),
        ("market-data-collector", "TRADEWATCH_PRODUCTS", "BTC-USD,BTC-USD", "named twice"),
        ("market-data-collector", "TRADEWATCH_HTTP_PORT", "eighty", "valid integer"),
        ("market-data-collector", "TRADEWATCH_HTTP_PORT", "70000", "65535"),
        ("market-data-collector", "TRADEWATCH_LOG_LEVEL", "loud", "debug"),
        ("market-data-collector", "TRADEWATCH_EXCHANGE_WEBSOCKET_URL", "http://x", "ws:// or wss://"),
        ("market-data-collector", "TRADEWATCH_EXCHANGE_WEBSOCKET_URL", "ws://x:port", "is not a URL"),
        ("market-data-collector", "TRADEWATCH_VALKEY_URL", "localhost", "valkey://"),
        ("market-data-collector", "TRADEWATCH_VALKEY_URL", "valkey://u:hunter2@x", "must not hold the password"),
        ("market-data-collector", "TRADEWATCH_VALKEY_URL", "valkey://x/first", "database number"),
        ("market-data-collector", "TRADEWATCH_VALKEY_PASSWORD_FILE", "/nowhere/password", "No such file"),
        ("market-data-collector", "TRADEWATCH_VALKEY_PASSWORD_FILE", "/dev/null", "is empty"),
        ("market-data-collector", "TRADEWATCH_VALKEY_PASSWORD_FILE", "/dev/zero", "larger than"),
        ("market-data-collector", "TRADEWATCH_VALKEY_PASSWORD_FILE", "", "cannot read"),
        ("market-data-collector", "TRADEWATCH_VALKEY_PASSWORD", "hunter2", "TRADEWATCH_VALKEY_PASSWORD_FILE"),
        ("market-data-collector", "TRADEWATCH_STREAM_MAX_LENGTH", "-1", "greater than or equal to 100"),
        ("exchange-simulator", "TRADEWATCH_SEED", "0x10", "valid integer"),
        ("exchange-simulator", "TRADEWATCH_TICKS_PER_SECOND", "nan", "finite"),
        ("exchange-simulator", "TRADEWATCH_TICKS_PER_SECOND", "0", "greater than or equal"),
        ("exchange-simulator", "TRADEWATCH_WEBSOCKET_PORT", "-1", "greater than or equal"),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_variable(
    service: str,
    variable: str,
    bad: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in {**COLLECTOR, variable: bad}.items():
        monkeypatch.setenv(name, text)
    assert main(["run", service]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"tradewatch run {service}: {variable}: ")
    assert output.err.count("\n") == 1
    assert says in output.err
    assert "hunter2" not in output.err


def test_every_bad_value_is_told_in_one_run() -> None:
    ended = _tradewatch("run", "market-data-collector", TRADEWATCH_HTTP_PORT="x")
    assert ended.returncode == 2
    named = [line.split(": ")[1] for line in ended.stderr.splitlines()]
    assert sorted(named) == ["TRADEWATCH_EXCHANGE", "TRADEWATCH_HTTP_PORT", "TRADEWATCH_PRODUCTS"]


@pytest.mark.parametrize("arguments", [["run", "no-such-service"], ["run"], ["dance"], []])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(arguments)
    return capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"tradewatch \d+\.\d+\.\d+\n", _printed(capsys, "--version"))
    assert "metrics-doc" in _printed(capsys, "--help")
    for name, runnable in SERVICES.items():
        text = _printed(capsys, "run", name, "--help")
        for field_name, field in runnable.settings_class().model_fields.items():
            assert settings.variable_name(field_name, field) in text


def test_the_documents_name_every_metric_and_variable() -> None:
    committed = (REPOSITORY / "docs/metrics.md").read_text()
    assert committed == metrics_doc.render(), "run: tradewatch metrics-doc > docs/metrics.md"
    sections = _sections((REPOSITORY / "docs/services.md").read_text())
    for name, runnable in SERVICES.items():
        fields = {
            settings.variable_name(field_name, field): (field_name, field)
            for field_name, field in runnable.settings_class().model_fields.items()
        }
        elsewhere = set(settings.CommonSettings.model_fields)
        if "the variables of the bus, as for market-data-collector" in sections[name]:
            elsewhere |= set(settings.StreamWriterSettings.model_fields)
        told = _defaults(sections[name])
        named = set(re.findall(r"`(TRADEWATCH_[A-Z_]+)`", sections[name]))
        assert set(told) <= set(fields), f"{name}: no such setting"
        for variable, (field_name, field) in fields.items():
            assert variable in named or field_name in elsewhere, f"{name} lacks {variable}"
            default = told.get(variable)
            if default is None or default.startswith("as "):
                continue
            assert field.is_required() == (default == "required"), f"{name}: {variable}"
            if isinstance(field.default, bool):
                assert default == str(field.default).lower(), f"{name}: {variable}"
            elif isinstance(field.default, int | float | Decimal):
                assert Decimal(default) == Decimal(str(field.default)), f"{name}: {variable}"


def _sections(document: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = (part.partition("\n") for part in re.split(r"^## ", document, flags=re.MULTILINE)[1:])
    return {title: text for title, _, text in parts}


def _defaults(section: str) -> dict[str, str]:
    """The default that the tables tell of each variable; several share a line, and then a default or have each one."""
    told: dict[str, str] = {}
    for first, last in re.findall(r"^\| (`TRADEWATCH_[^|]*) \|.*\| ?([^|]*?) ?\|$", section, flags=re.MULTILINE):
        variables = re.findall(r"`(TRADEWATCH_[A-Z_]+)`", first)
        if "," in last and len(variables) > 1:
            defaults = [part.strip().strip("`") for part in last.split(", ")]
            assert len(defaults) == len(variables), first
        else:
            defaults = [last.strip("`") or "as said"] * len(variables)
        told |= dict(zip(variables, defaults, strict=True))
    return told


@contextmanager
def _process(service: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tradewatch", "run", service],
        env=_environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def _wait_for(url: str, status: int = 200, seconds: float = 60.0) -> httpx.Response:
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(url)
            if answer.status_code == status:
                return answer
            last = answer.text
        except httpx.TransportError as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{url} did not answer {status}: {last}")


def test_the_whole_path_as_processes_with_probes_drain_and_no_secret_in_sight(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    websocket_port, simulator_port, collector_port = free_port(), free_port(), free_port()
    collector_url = f"http://127.0.0.1:{collector_port}"
    simulator = _process(
        "exchange-simulator",
        TRADEWATCH_HTTP_PORT=str(simulator_port),
        TRADEWATCH_WEBSOCKET_PORT=str(websocket_port),
        TRADEWATCH_TICKS_PER_SECOND="200",
    )
    collector = _process(
        "market-data-collector",
        **COLLECTOR,
        TRADEWATCH_HTTP_PORT=str(collector_port),
        TRADEWATCH_EXCHANGE_WEBSOCKET_URL=f"ws://127.0.0.1:{websocket_port}",
        TRADEWATCH_VALKEY_URL=valkey.url,
        TRADEWATCH_VALKEY_PASSWORD_FILE=str(tmp_path / "password"),
        TRADEWATCH_DATA_MAX_AGE_SECONDS="3",
        TRADEWATCH_UNHEARD_OF="1",
    )
    with simulator as exchange, collector as collecting:
        _wait_for(f"http://127.0.0.1:{simulator_port}/readyz")
        ready = _wait_for(f"{collector_url}/readyz").json()
        assert set(ready["checks"]) == {"exchange", "market_data", "valkey"}
        assert _wait_for(f"{collector_url}/healthz").json()["status"] == "ok"

        plain = httpx.get(f"{collector_url}/metrics")
        assert plain.headers["content-type"].startswith("text/plain")
        assert "trace_id" not in plain.text
        exemplars = httpx.get(f"{collector_url}/metrics", headers={"Accept": "application/openmetrics-text"})
        assert exemplars.headers["content-type"].startswith("application/openmetrics-text")
        assert re.search(r'market_data_messages_total\{.*\} \d+\.0 # \{trace_id="[0-9a-f]{32}"\}', exemplars.text)
        assert "tradewatch_build_info{" in exemplars.text

        valkey.stop()
        assert not _wait_for(f"{collector_url}/readyz", 503).json()["checks"]["valkey"]["ok"]
        assert httpx.get(f"{collector_url}/healthz").status_code == 200, "a dead bus is no reason to restart"
        valkey.start()
        _wait_for(f"{collector_url}/readyz")

        exchange.send_signal(signal.SIGTERM)
        exchange_output, _ = exchange.communicate(timeout=60)
        assert exchange.returncode == 0
        assert not _wait_for(f"{collector_url}/readyz", 503).json()["checks"]["exchange"]["ok"]

        before = httpx.get(f"{collector_url}/metrics").text
        collecting.send_signal(signal.SIGTERM)
        output, _ = collecting.communicate(timeout=60)
        assert collecting.returncode == 0

    lines = [json.loads(line) for line in (output + exchange_output).splitlines()]
    for line in lines:
        assert line["service"] in SERVICES
        assert line["timestamp"].endswith("Z")
        assert {"event", "level"} <= line.keys()
    subscribed = next(line for line in lines if line["event"] == "subscribed")
    assert re.fullmatch("[0-9a-f]{32}", subscribed["trace_id"])
    assert any(line.get("variables") == ["TRADEWATCH_UNHEARD_OF"] for line in lines)
    assert PASSWORD not in output + before + exemplars.text + json.dumps(ready)

    accepted = sum(float(n) for n in re.findall(r"^market_data_messages_total\{.*\} (\S+)$", before, re.MULTILINE))
    events = [event for product in PRODUCTS for event in asyncio.run(stored(valkey, product))]
    assert len({event.trace_id for event in events}) >= accepted > 0


def test_a_drain_that_cannot_end_is_bounded(valkey: ValkeyServer, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    websocket_port, simulator_port, collector_port = free_port(), free_port(), free_port()
    collector_url = f"http://127.0.0.1:{collector_port}"
    with (
        _process(
            "exchange-simulator",
            TRADEWATCH_HTTP_PORT=str(simulator_port),
            TRADEWATCH_WEBSOCKET_PORT=str(websocket_port),
            TRADEWATCH_TICKS_PER_SECOND="200",
        ),
        _process(
            "market-data-collector",
            **COLLECTOR,
            TRADEWATCH_HTTP_PORT=str(collector_port),
            TRADEWATCH_EXCHANGE_WEBSOCKET_URL=f"ws://127.0.0.1:{websocket_port}",
            TRADEWATCH_VALKEY_URL=valkey.url,
            TRADEWATCH_VALKEY_PASSWORD_FILE=str(tmp_path / "password"),
            TRADEWATCH_DRAIN_SECONDS="1",
        ) as collecting,
    ):
        _wait_for(f"{collector_url}/readyz")
        valkey.stop()
        _wait_for(f"{collector_url}/readyz", 503)
        collecting.send_signal(signal.SIGTERM)
        stopped_at = time.monotonic()
        _, __ = collecting.communicate(timeout=60)
        assert collecting.returncode == 1, "what it had was lost, so it did not end well"
        assert time.monotonic() - stopped_at < 10


def test_a_taken_port_is_a_clear_failure() -> None:
    port = free_port()
    with _process("exchange-simulator", TRADEWATCH_HTTP_PORT=str(port), TRADEWATCH_WEBSOCKET_PORT="0"):
        _wait_for(f"http://127.0.0.1:{port}/readyz")
        ended = _tradewatch("run", "exchange-simulator", TRADEWATCH_HTTP_PORT=str(port), TRADEWATCH_WEBSOCKET_PORT="0")
    assert ended.returncode == 1
    assert "cannot start" in ended.stdout


async def test_probes_name_what_fails() -> None:
    now = 0.0
    liveness = Liveness(limit_seconds=10, clock=lambda: now)
    liveness.beat("a")
    liveness.beat("b")

    async def good() -> CheckResult:
        return CheckResult(True, "fine")

    mended = False

    async def broken() -> CheckResult:
        if mended:
            return CheckResult(True, "mended")
        raise RuntimeError("with a secret in its message")

    async with (
        HttpServer(0, CollectorRegistry(), liveness, [Check("good", good), Check("broken", broken)]) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["good"] == {"ok": True, "detail": "fine"}
        assert ready.json()["checks"]["broken"] == {"ok": False, "detail": "failed: RuntimeError"}
        assert (await client.get("/healthz")).status_code == 200
        now = 9.0
        liveness.beat("a")
        now = 11.0
        health = await client.get("/healthz")
        assert (health.status_code, health.json()["stuck"]) == (503, ["b"])
        mended = True
        assert (await client.get("/readyz")).status_code == 200
        server.stopping = True
        stopping = await client.get("/readyz")
        assert (stopping.status_code, stopping.json()["status"]) == (503, "stopping")
        assert (await client.get("/nothing")).status_code == 404


def test_settings_do_not_show_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    for name, text in {**COLLECTOR, "TRADEWATCH_VALKEY_PASSWORD_FILE": str(tmp_path / "password")}.items():
        monkeypatch.setenv(name, text)
    loaded = settings.load(SERVICES["market-data-collector"].settings_class())
    assert PASSWORD not in repr(loaded) + str(loaded) + loaded.model_dump_json()

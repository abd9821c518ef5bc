"""A Prometheus with a past: a week of seeded metrics with a daily rhythm, back-filled, and faults put into its end."""

import datetime
import ipaddress
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray
from services_support import PASSWORD, free_port

Values = NDArray[np.float64]

DAY = 86_400
SAMPLE_SECONDS = 60
EXCHANGES = ("coinbase", "kraken")
PRODUCTS = ("BTC-USD", "ETH-USD")
PODS = "kubernetes-pods-metrics"

# How long before the newest sample each fault begins; before the first of them all is calm.
TOGETHER, SPIKE, SHIFT, FROZEN, LOST = 14_000, 3 * 3600, 9000, 5400, 3600
# Those that pass last so long.
PASSING = 600


def rhythm(times: Values, depth: float = 0.5) -> Values:
    """A daily rhythm about 1: busiest at 15:00 UTC."""
    return np.asarray(1 + depth * np.cos(2 * np.pi * (times / DAY - 15 / 24)))


def noise(rng: np.random.Generator, count: int, sigma: float, memory: float = 0.8) -> Values:
    """Noise that remembers (first-order autoregressive), with this standard deviation."""
    shocks = rng.normal(0, sigma * np.sqrt(1 - memory**2), count)
    made = np.empty(count)
    last = rng.normal(0, sigma)
    for index, shock in enumerate(shocks):
        last = memory * last + shock
        made[index] = last
    return made


@dataclass
class Metric:
    """One series as it is scraped; NaN where the target was not there."""

    name: str
    labels: dict[str, str]
    values: Values
    kind: str = "gauge"

    @property
    def selector(self) -> str:
        labels = ",".join(f'{key}="{value}"' for key, value in {"job": PODS, **self.labels}.items())
        return f"{self.name}{{{labels}}}"


def week(seed: int, end: int, *, days: float = 5, faults: bool = True) -> list[Metric]:
    """What the default table reads, up to `end`; quiet but for the four faults where they are wanted."""
    rng = np.random.default_rng(seed)
    times = np.arange(end - int(days * DAY), end + 1, SAMPLE_SECONDS, dtype=np.float64)
    count = len(times)

    def since(seconds: int) -> NDArray[np.bool_]:
        return np.asarray(times >= end - seconds) if faults else np.zeros(count, dtype=bool)

    together = since(TOGETHER) & ~since(TOGETHER - PASSING)

    def counter(per_second: Values) -> Values:
        return np.cumsum(rng.poisson(per_second * SAMPLE_SECONDS)).astype(np.float64)

    made = []
    for exchange in EXCHANGES:
        for product in PRODUCTS:
            labels = {"exchange": exchange, "product_id": product}
            rate = 4 * rhythm(times) * np.exp(noise(rng, count, 0.15)) * np.where(together, 0.65, 1.0)
            if (exchange, product) == ("kraken", "BTC-USD"):
                rate = np.where(since(LOST), 0.0, rate)
            messages = counter(rate)
            if (exchange, product) == ("kraken", "ETH-USD"):
                messages = np.where(since(LOST), np.nan, messages)
            made.append(Metric("market_data_messages_total", {**labels, "channel": "ticker"}, messages, "counter"))
            made.append(Metric("market_data_age_seconds", labels, rng.exponential(1.0, count)))
        errors = counter(np.where(since(SPIKE) & ~since(SPIKE - PASSING) & (exchange == "kraken"), 2.0, 0.0002))
        made.append(Metric("collector_errors_total", {"exchange": exchange, "reason": "bad_price"}, errors, "counter"))
    for product in PRODUCTS:
        price = 1000 * np.exp(np.cumsum(rng.normal(0, 0.0004, count)))
        if product == "ETH-USD":
            frozen = since(FROZEN)
            price = np.where(frozen, price[np.argmax(frozen)], price) if faults else price
        labels = {"product_id": product}
        made.append(Metric("market_data_mid_price", labels, np.round(price, 2)))
        spread = 0.0004 * (2 - rhythm(times, 0.3)) * np.exp(noise(rng, count, 0.2)) * np.where(together, 1.7, 1.0)
        made.append(Metric("market_data_spread_ratio", labels, spread))
    for group in ("trade-orchestrator", "health-monitor"):
        lag = rng.poisson(2 * rhythm(times)).astype(np.float64)
        lag = np.where(since(SHIFT) & (group == "trade-orchestrator"), lag + 400, lag)
        made.append(Metric("stream_lag_messages", {"stream": "signals", "group": group}, lag))
        made.append(Metric("stream_oldest_pending_seconds", {"group": group}, rng.exponential(0.5, count)))
    for service in ("market-data-collector-coinbase", "market-data-aggregator"):
        writes = counter(20 * rhythm(times) * np.exp(noise(rng, count, 0.1)))
        made.append(Metric("stream_writes_total", {"service": service, "status": "ok"}, writes, "counter"))
    made.append(Metric("trading_signals_total", {"side": "BUY"}, counter(0.02 * rhythm(times)), "counter"))
    for decision, rate in (("approve", 0.015), ("deny", 0.005)):
        each = counter(rate * rhythm(times))
        made.append(Metric("llm_validations_total", {"decision": decision}, each, "counter"))
    for status, rate in (("filled", 0.015), ("rejected", 0.0003)):
        made.append(Metric("trade_executions_total", {"status": status}, counter(rate * rhythm(times)), "counter"))
    made += _latencies("pipeline_end_to_end_duration_seconds", 0.02 * rhythm(times), 0.4, rng)
    made += _latencies("bus_heartbeat_duration_seconds", np.full(count, 1.0), 0.005, rng)
    made += _latencies("candle_close_delay_seconds", np.full(count, 0.2), 0.3, rng)
    made += _latencies("trade_execution_duration_seconds", 0.015 * rhythm(times), 0.2, rng)
    made += _latencies("llm_validation_duration_seconds", 0.02 * rhythm(times), 1.5, rng)
    api = {"exchange": "coinbase", "endpoint": "create_order", "status": "2xx"}
    made += _latencies("exchange_api_request_duration_seconds", np.full(count, 0.1), 0.1, rng, api)
    for decision, rate in (("approve", 0.018), ("deny", 0.002)):
        made.append(Metric("risk_decisions_total", {"decision": decision}, counter(rate * rhythm(times)), "counter"))
    calm = np.full(count, 0.0002)
    for name, further in (("pipeline_call_failures_total", {"peer": "risk-manager"}), ("llm_errors_total", {})):
        made.append(Metric(name, further, counter(calm), "counter"))
    lag = rng.exponential(0.3, count)
    made.append(Metric("stream_reader_lag_seconds", {"service": "market-data-aggregator"}, lag))
    return made


def calm_latencies(seed: int, end: int, copies: int, *, hours: float) -> list[Metric]:
    """The pipeline's histogram so many times over, told apart by the label `copy`, each of another time of day."""
    rng = np.random.default_rng(seed)
    times = np.arange(end - int(hours * 3600), end + 1, SAMPLE_SECONDS, dtype=np.float64)
    made = []
    for copy in range(copies):
        per_second = 0.02 * rhythm(times + copy * DAY / copies)
        histogram = _latencies("pipeline_end_to_end_duration_seconds", per_second, 0.4, rng)
        made += [Metric(each.name, {**each.labels, "copy": str(copy)}, each.values, each.kind) for each in histogram]
    return made


def _latencies(
    name: str,
    per_second: Values,
    median: float,
    rng: np.random.Generator,
    further: dict[str, str] | None = None,
) -> list[Metric]:
    """A histogram of log-normal times."""
    bounds = [median * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)]
    shares = np.array([0.02, 0.14, 0.5, 0.84, 0.98, 0.999])
    events = rng.poisson(per_second * SAMPLE_SECONDS)
    parts = rng.multinomial(1, np.diff(np.concatenate([[0], shares, [1]])), size=int(events.sum()))
    ends = np.concatenate([[0], np.cumsum(events)])
    summed = np.concatenate([np.zeros((1, parts.shape[1])), np.cumsum(np.cumsum(parts, axis=1), axis=0)])
    totals = summed[ends[1:]]
    ends_at = [f"{bound:g}" for bound in bounds] + ["+Inf"]
    return [
        Metric(f"{name}_bucket", {**(further or {}), "le": le}, totals[:, index], "counter")
        for index, le in enumerate(ends_at)
    ]


def openmetrics(metrics: list[Metric], end: int) -> Iterator[str]:
    """The metrics as promtool's backfill takes them: untyped, so that a bucket may stand by itself."""
    start = end - (len(metrics[0].values) - 1) * SAMPLE_SECONDS
    by_name: dict[str, list[Metric]] = {}
    for metric in metrics:
        by_name.setdefault(metric.name, []).append(metric)
    for name, several in by_name.items():
        yield f"# TYPE {name} unknown\n"
        for metric in several:
            selector = metric.selector
            yield "".join(
                f"{selector} {value!r} {start + index * SAMPLE_SECONDS}\n"
                for index, value in enumerate(metric.values.tolist())
                if value == value
            )
    yield "# EOF\n"


@dataclass
class RunningPrometheus:
    """A Prometheus on a port of its own, with a user and TLS of the test's own authority."""

    url: str
    password: str
    ca_file: Path
    process: "subprocess.Popen[bytes]"


def binaries() -> dict[str, Path]:
    """Prometheus and promtool: on PATH, or those that the lab has built."""
    found = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    cache = Path.home() / ".cache/tradewatch/bundle/go"
    made = {}
    for name, path in found.items():
        built = sorted(cache.glob(f"{name}-*/{name}"))
        if path or built:
            made[name] = Path(path) if path else built[-1]
    return made


def _secure(directory: Path) -> tuple[Path, str]:
    """A certificate for 127.0.0.1 that is its own authority, and a user; gives that file and the password."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (directory / "ca.crt").write_bytes(certificate.public_bytes(pem))
    (directory / "key").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (directory / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {directory}/ca.crt, key_file: {directory}/key}}\n"
        f"basic_auth_users: {{tradewatch: '{hashed}'}}\n"
    )
    return directory / "ca.crt", PASSWORD


@contextmanager
def prometheus(directory: Path, metrics: list[Metric], end: int) -> Iterator[RunningPrometheus]:
    """Prometheus with these metrics as its past, behind TLS and basic auth."""
    programs = binaries()
    text, data = directory / "past.txt", directory / "data"
    with text.open("w") as file:
        file.writelines(openmetrics(metrics, end))
    backfill = [
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--max-block-duration=24h",
        "--quiet",
        str(text),
        str(data),
    ]
    subprocess.run([programs["promtool"], *backfill], check=True, capture_output=True, timeout=120)
    text.unlink()
    (directory / "prometheus.yml").write_text("global: {}\n")
    ca_file, password = _secure(directory)
    port = free_port()
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [
            programs["prometheus"],
            f"--config.file={directory / 'prometheus.yml'}",
            f"--web.config.file={directory / 'web.yml'}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={data}",
            "--storage.tsdb.retention.time=60d",
        ],
        stdout=log,
        stderr=log,
    )
    url = f"https://127.0.0.1:{port}"
    try:
        with httpx.Client(
            verify=ssl.create_default_context(cafile=ca_file), auth=("tradewatch", password), trust_env=False
        ) as client:
            _until_ready(client, url, process)
        yield RunningPrometheus(url, password, ca_file, process)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _until_ready(client: httpx.Client, url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "Prometheus ended"
        try:
            if client.get(f"{url}/-/ready").status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("Prometheus was not ready within 30 s")

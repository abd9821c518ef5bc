"""Alertmanager's configuration as the role renders it, judged by the real amtool and the real Alertmanager."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pytest
import yaml
from tradewatch.monitoring.alert_notifier.service import MAX_BODY_BYTES, AlertNotifierSettings
from tradewatch.monitoring.anomaly_detector.series import DEFAULT_SERIES

from lab.bundle import parts
from tests.commands import REPOSITORY
from tests.rules import RuleFolder
from tests.unit.test_monitoring_services_role import play

ROLE = Path("roles/alertmanager")
TOKEN = "token-of-the-webhook"
AUTHORITY = "-----BEGIN CERTIFICATE-----"


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds amtool and prometheus-alertmanager with what they need, as Debian trixie has them."""
    archive = parts.monitoring_root()
    folder = tmp_path_factory.mktemp("alertmanager")
    libraries = "lib/x86_64-linux-gnu/(ld-linux-x86-64.so.2|libc.so.6)$"
    wanted = re.compile(
        rf"(\./)?usr/(bin/(amtool|prometheus-alertmanager)$|share/prometheus/alertmanager/|{libraries})"
    )
    with tarfile.open(archive) as packed:
        packed.extractall(folder, [m for m in packed.getmembers() if wanted.match(m.name)], filter="data")
    (folder / "lib64").symlink_to("usr/lib/x86_64-linux-gnu")
    (folder / "lib").symlink_to("usr/lib")
    return folder


def render(repository: Path, **changes: Any) -> str:
    """The configuration with the role's defaults and these changes."""
    variables = yaml.safe_load((repository / ROLE / "defaults/main.yml").read_text())
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["to_json"] = json.dumps
    text = (repository / ROLE / "templates/alertmanager.yml.j2").read_text()
    return environment.from_string(text).render({**variables, **changes})


@pytest.fixture
def configuration(repository: Path, tmp_path: Path) -> Path:
    """The rendered configuration, with a dead man's switch."""
    file = tmp_path / "alertmanager.yml"
    file.write_text(render(repository, alertmanager_watchdog_url="http://control.example:8095/v1/watchdog"))
    return file


def amtool(programs: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs / "usr/bin/amtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("url", ["", "http://control.example:8095/v1/watchdog"])
def test_the_configuration_is_one_that_amtool_takes(repository: Path, programs: Path, tmp_path: Path, url: str) -> None:
    file = tmp_path / "alertmanager.yml"
    file.write_text(render(repository, alertmanager_watchdog_url=url))
    checked = amtool(programs, "check-config", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    receivers = {row["name"]: row for row in yaml.safe_load(file.read_text())["receivers"]}
    assert bool(receivers["watchdog"].get("webhook_configs")) is bool(url)


def applied(folder: Path, **variables: Any) -> dict[str, Any]:
    """What the role applies, by kind; of those of one kind the last."""
    given = {
        "kubeconfig_path": "none",
        "cluster_name": "test",
        "admin_cidrs": [],
        "analytics_address": "198.51.100.4",
        "artifacts_resolved": {"alertmanager": {"image": "alertmanager:test"}},
        "vault_alertmanager_password": "password",
        "vault_alert_webhook_token": "inside",
        **variables,
    }
    play(folder, roles=["alertmanager"], **given)
    return {each["kind"]: each for each in yaml.safe_load_all((folder / "alertmanager.yml").read_text()) if each}


@pytest.mark.parametrize("authority", ["", AUTHORITY])
def test_the_dead_man_s_switch_has_a_secret_of_its_own_and_is_in_reach(tmp_path: Path, authority: str) -> None:
    objects = applied(
        tmp_path,
        vault_watchdog_token="outside",
        alertmanager_watchdog_url="https://watchdog.example/v1/watchdog",
        alertmanager_watchdog_cidrs=["192.0.2.10/32"],
        alertmanager_watchdog_ca=authority,
    )
    rows = yaml.safe_load(objects["ConfigMap"]["data"]["alertmanager.yml"])["receivers"]
    how = {row["name"]: hook["http_config"] for row in rows for hook in row["webhook_configs"]}

    def content(file: str) -> str:
        return str(objects["Secret"]["stringData"][file.removeprefix("/etc/alertmanager/web/")])

    assert content(how["watchdog"]["authorization"]["credentials_file"]) == "outside"
    assert content(how["trading"]["authorization"]["credentials_file"]) == "inside"
    assert ("tls_config" in how["watchdog"]) is bool(authority)
    if authority:
        assert content(how["watchdog"]["tls_config"]["ca_file"]) == authority
    assert objects["NetworkPolicy"]["spec"]["egress"][1:] == [
        {"to": [{"ipBlock": {"cidr": "192.0.2.10/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    ]


def test_without_the_dead_man_s_switch_no_secret_of_it_is_wanted(tmp_path: Path) -> None:
    secret = applied(tmp_path)["Secret"]["stringData"]
    assert "webhook-token" in secret
    assert not [key for key in secret if key.startswith("watchdog")]


def test_a_broken_configuration_is_refused(programs: Path, configuration: Path) -> None:
    configuration.write_text(configuration.read_text().replace("receiver: trading", "receiver: tradng"))
    assert amtool(programs, "check-config", configuration).returncode != 0


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "Watchdog", "severity": "none"}, "watchdog"),
        ({"alertname": "Watchdog", "severity": "critical", "team": "devops"}, "watchdog"),
        ({"alertname": "TradingHalted", "severity": "critical", "team": "trading"}, "trading"),
        ({"alertname": "ModelDrift", "severity": "warning", "team": "trading"}, "trading"),
        ({"alertname": "MarketDataStale", "severity": "critical", "team": "data"}, "data"),
        ({"alertname": "NewsFeedDead", "severity": "info", "team": "data"}, "data"),
        ({"alertname": "DailyLossHigh", "severity": "warning", "team": "management"}, "management"),
        ({"alertname": "NodeDown", "severity": "critical", "team": "devops"}, "devops"),
        ({"alertname": "Mine", "severity": "critical", "team": "unknown"}, "devops"),
        ({"alertname": "Mine"}, "devops"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_alerts_go_to_their_team(programs: Path, configuration: Path, labels: dict[str, str], receiver: str) -> None:
    assert_receiver(programs, configuration, labels, receiver)


def assert_receiver(programs: Path, configuration: Path, labels: dict[str, str], receiver: str) -> None:
    pairs = [f"{name}={value}" for name, value in labels.items()]
    tested = amtool(
        programs, "config", "routes", "test", f"--config.file={configuration}", f"--verify.receivers={receiver}", *pairs
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_an_anomaly_goes_to_the_team_of_its_group(programs: Path, configuration: Path) -> None:
    """Its team is a template of the rule; its promtool tests say what comes of it."""
    cases = [case for case in RuleFolder(REPOSITORY / "files/rules").cases if case.alertname == "AnomalyDetected"]
    told = {one["exp_labels"]["group"]: one["exp_labels"] for case in cases for one in case.expected}
    trading = {query.group for query in DEFAULT_SERIES} - {"market_data", "bus"}
    assert trading <= told.keys()
    for group, labels in told.items():
        receiver = "trading" if group in trading else "data"
        assert_receiver(programs, configuration, {"alertname": "AnomalyDetected", **labels}, receiver)


def test_the_dead_man_s_switch_is_told_at_every_interval(configuration: Path) -> None:
    """Alertmanager leaves out what comes before the repeat is over, be it by an instant."""
    routes = yaml.safe_load(configuration.read_text())["route"]["routes"]
    [watchdog] = [route for route in routes if route["receiver"] == "watchdog"]
    assert (watchdog["group_interval"], watchdog["repeat_interval"]) == ("1m", "1s")


class Calls(BaseHTTPRequestHandler):
    """Keeps what Alertmanager posts."""

    seen: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.headers.get("Authorization", ""), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _eventually(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@pytest.fixture
def calls() -> Iterator[ThreadingHTTPServer]:
    """Where notifications are sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
    Calls.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def told_by_rule(name: str) -> dict[str, str]:
    """The labels of a real rule's alert, as its first promtool test in which it fires expects them."""
    fired = (case for case in RuleFolder(REPOSITORY / "files/rules").cases if case.alertname == name and case.expected)
    return {"alertname": name, **next(fired).expected[0]["exp_labels"]}


def test_the_alerts_that_hold_others_back_are_of_the_rules() -> None:
    variables = yaml.safe_load((REPOSITORY / ROLE / "defaults/main.yml").read_text())
    labels = {rule.name: rule.labels for rule in RuleFolder(REPOSITORY / "files/rules").alerts}
    assert set(variables["alertmanager_node_down_alerts"]) <= labels.keys()
    # By their own label: an alert that has its targets' label is not on all of the job.
    assert set(variables["alertmanager_job_down_alerts"]) == {name for name, own in labels.items() if "job" in own}


def test_a_group_of_the_largest_alerts_is_not_refused(configuration: Path) -> None:
    receivers = yaml.safe_load(configuration.read_text())["receivers"]
    [most] = {
        hook["max_alerts"] for each in receivers if each["name"] != "watchdog" for hook in each["webhook_configs"]
    }
    folder = RuleFolder(REPOSITORY / "files/rules")
    source = {rule.name: f"https://198.51.100.100:30090/graph?g0.expr={quote(rule.expr)}" for rule in folder.alerts}
    alerts = [
        {
            "status": "resolved",
            "labels": {"alertname": case.alertname, **alert.get("exp_labels", {})},
            "annotations": alert.get("exp_annotations", {}),
            "startsAt": "2026-01-01T00:00:00.123456789Z",
            "endsAt": "2026-01-01T00:00:00.123456789Z",
            "generatorURL": source[case.alertname],
            "fingerprint": "0123456789abcdef",
        }
        for case in folder.cases
        for alert in case.expected
    ]
    sizes = [len(json.dumps(alert)) for alert in alerts]
    # What is of the whole group, such as its common labels, takes less than two alerts do.
    assert (most + 2) * max(sizes) < MAX_BODY_BYTES


def _seconds(text: str) -> int:
    number, unit = text[:-1], text[-1]
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def test_two_repeats_come_before_the_notifier_takes_an_alert_for_unseen(configuration: Path) -> None:
    route = yaml.safe_load(configuration.read_text())["route"]
    teams = [team for team in route["routes"] if team["receiver"] != "watchdog"]
    assert teams
    unseen_after = AlertNotifierSettings.model_fields["unseen_after_seconds"].default
    escalate_after = AlertNotifierSettings.model_fields["escalate_after_seconds"].default
    for timed in (route, *(inner for team in teams for inner in team.get("routes", [team]))):
        # Alertmanager looks whether a repeat is due when the group has rested.
        repeat = _seconds(timed["repeat_interval"]) + _seconds(timed["group_interval"])
        assert 2 * repeat <= unseen_after
        assert repeat < escalate_after


@contextmanager
def running(programs: Path, log_file: Path, text: str) -> Iterator[str]:
    """The real Alertmanager with this configuration; its URL."""
    # Debian's Alertmanager looks for its templates below /usr/share, so it gets a root of its own.
    (programs / "token").write_text(TOKEN)
    (programs / "alertmanager.yml").write_text(text.replace("/etc/alertmanager/web/webhook-token", "/token"))
    port = _free_port()
    command = [
        *("unshare", "--user", "--map-root-user", f"--root={programs}", "--wd=/", "/usr/bin/prometheus-alertmanager"),
        "--config.file=/alertmanager.yml",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        f"--storage.path=/data-{port}",
    ]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        _eventually(lambda: _answers(f"{url}/-/ready"), f"ready; its log: {log_file}")
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.servers
def test_a_muted_alert_is_not_repeated_and_its_end_is_not_told(
    repository: Path, programs: Path, tmp_path: Path, calls: ThreadingHTTPServer
) -> None:
    """What alert-notifier takes an alert for unseen by."""
    text = render(
        repository,
        alertmanager_notifier_url=f"http://127.0.0.1:{calls.server_port}/v1/alerts",
        alertmanager_critical_group_wait="1s",
        alertmanager_critical_group_interval="1s",
        alertmanager_critical_repeat_interval="1s",
    )

    def told(alert: dict[str, str]) -> list[dict[str, Any]]:
        alerts = [each for _, body in list(Calls.seen) for each in body["alerts"]]
        return [each for each in alerts if each["labels"] == alert]

    with running(programs, tmp_path / "log", text) as url:
        muted = {"alertname": "ReconcileStale", "severity": "critical", "team": "trading"}
        other = {**muted, "alertname": "TradingHalted"}
        _post(url, muted, other)
        _eventually(lambda: min(len(told(muted)), len(told(other))) >= 3, "both are repeated")
        assert len({(each["fingerprint"], each["startsAt"], each["status"]) for each in told(muted)}) == 1
        now = datetime.now(UTC)
        silence = {
            "matchers": [{"name": "alertname", "value": muted["alertname"], "isRegex": False, "isEqual": True}],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(minutes=10)).isoformat(),
            "createdBy": "test",
            "comment": "test",
        }
        _send(f"{url}/api/v2/silences", silence)

        def others() -> Callable[[], bool]:
            """Whether the other alert has been told so often since then that the group has long rested."""
            before = len(told(other))
            return lambda: len(told(other)) >= before + 3

        _eventually(others(), "the other is repeated")
        before = len(told(muted))
        _eventually(others(), "the other is repeated")
        _post(url, muted, ends_in_minutes=-0.01)
        _eventually(others(), "the other is repeated")
        assert len(told(muted)) == before
        assert {each["status"] for each in told(muted)} == {"firing"}


@pytest.mark.servers
def test_alertmanager_inhibits_groups_and_proves_who_it_is(
    repository: Path, programs: Path, tmp_path: Path, calls: ThreadingHTTPServer
) -> None:
    text = render(
        repository,
        alertmanager_notifier_url=f"http://127.0.0.1:{calls.server_port}/v1/alerts",
        alertmanager_group_wait="1s",
        alertmanager_critical_group_wait="1s",
        alertmanager_critical_group_interval="1s",
    )
    with running(programs, tmp_path / "log", text) as url:
        dead, crashing, unready = map(told_by_rule, ("NodeDown", "KubePodCrashLooping", "KubePodNotReady"))
        assert dead["node"] == crashing["node"] == unready["node"]
        # One condition, told by two real rules: only the worse is told, and of another device the warning too.
        full, filling, burning, smouldering = map(
            told_by_rule,
            (
                "NodeFilesystemFull",
                "NodeFilesystemFillingUp",
                "DataFreshnessBudgetBurnFast",
                "DataFreshnessBudgetBurnSlow",
            ),
        )
        filling |= {name: full[name] for name in ("node", "device")}
        silent, unanswered = map(told_by_rule, ("LokiDown", "TargetDown"))
        assert silent["job"] == unanswered["job"] == "loki"
        _post(
            url,
            dead,
            crashing,
            unready,
            {**crashing, "pod": "other", "node": "other-1"},
            {"alertname": "LagHigh", "severity": "critical", "team": "data", "stream": "signals"},
            full,
            filling,
            {**filling, "device": "/dev/other", "stream": "another device"},
            burning,
            smouldering,
            told_by_rule("ExecutionSuccessBudgetBurnSlow"),
            silent,
            unanswered,
            {**unanswered, "job": "valkey", "stream": "another job"},
            {"alertname": "NoNode", "severity": "info", "team": "trading"},
        )
        wanted = {
            ("NodeDown", "critical", ""),
            ("KubePodCrashLooping", "critical", ""),
            ("LagHigh", "critical", "signals"),
            ("NodeFilesystemFull", "critical", ""),
            ("NodeFilesystemFillingUp", "warning", "another device"),
            ("DataFreshnessBudgetBurnFast", "critical", ""),
            ("ExecutionSuccessBudgetBurnSlow", "warning", ""),
            ("LokiDown", "critical", ""),
            ("TargetDown", "warning", "another job"),
            ("NoNode", "info", ""),
        }
        _eventually(lambda: _told() >= wanted, "what is not inhibited is told")
        assert _told() == wanted
        told = [alert["labels"] for _, body in Calls.seen for alert in body["alerts"]]
        assert [labels["node"] for labels in told if labels["alertname"] == "KubePodCrashLooping"] == ["other-1"]
        assert {authorization for authorization, _ in Calls.seen} == {f"Bearer {TOKEN}"}
        # What joins its group is told long before the minute that others rest.
        late = {"alertname": "LagHigh", "severity": "critical", "team": "data", "stream": "orders"}
        _post(url, late)
        _eventually(lambda: _told() >= wanted | {("LagHigh", "critical", "orders")}, "a second of a group", 30)
        for _, body in Calls.seen:
            assert body["version"] == "4"
            assert all(re.fullmatch("[0-9a-f]{16}", alert["fingerprint"]) for alert in body["alerts"])


def _told() -> set[tuple[str, str, str]]:
    alerts = [alert["labels"] for _, body in list(Calls.seen) for alert in body["alerts"]]
    return {(labels["alertname"], labels["severity"], labels.get("stream", "")) for labels in alerts}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(url: str, *alerts: dict[str, str], ends_in_minutes: float = 10) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=ends_in_minutes)).isoformat()
    _send(f"{url}/api/v2/alerts", [{"labels": labels, "annotations": {}, "endsAt": ends} for labels in alerts])


def _send(url: str, body: object) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200

"""Prometheus' rules as Tradewatch wants them: what each alert must have, and the index of the runbooks.

``python -m tests.rules`` prints ``docs/runbooks/README.md``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from plugins.filter.rules import LOADER, tradewatch_rule_thresholds, tradewatch_rules
from tests.commands import REPOSITORY

# libyaml's, as LOADER is.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
SEVERITIES = ("critical", "warning", "info")
TEAMS = {"trading", "data", "devops", "management"}
DASHBOARDS = {"unified-system", "crypto-trading-engine"}
# Where the links of rendered rules lead in tests; an installation sets its own.
LINKS = {"runbooks_url": "https://runbooks.example", "dashboards_url": "https://dashboards.example"}
SECTIONS = ("What it means", "What you see", "Look", "End it", "Tell")
COMMANDS = 3
ALERT_NAME = re.compile(r"([A-Z][a-z0-9]+|[A-Z]{2,5}(?=[A-Z]|$))+")
RECORDING_NAME = re.compile(r"[a-z][a-z0-9_]*:[a-zA-Z][a-zA-Z0-9_]*:[a-z][a-z0-9_]*")
# Metrics that docs/metrics.md does not list, by the program that exports them.
EXPORTERS = {
    "ALERTS": "Prometheus, of its alerts",
    "alertmanager_": "Alertmanager",
    "apiserver_": "kube-apiserver",
    "authentication_": "kube-apiserver",
    "container_": "cAdvisor",
    "coredns_": "CoreDNS",
    "etcd_": "etcd",
    "grafana_": "Grafana",
    "grpc_": "etcd",
    "k3s_": "k3s",
    "kube_": "kube-state-metrics",
    "kubelet_": "kubelet",
    "logentry_": "Promtail",
    "loki_": "Loki",
    "node_": "node-exporter",
    "pg_": "postgres_exporter",
    "process_": "the Prometheus client of each program",
    "prometheus_": "Prometheus",
    "promtail_": "Promtail",
    "redis_": "redis_exporter",
    "rest_client_": "kubelet and API server",
    "scrape_": "Prometheus, of each scrape",
    "up": "Prometheus, of each scrape",
    "workqueue_": "API server",
}
# Those of them that a platform which is well need not have, and why.
RARE = {
    "container_cpu_cfs_periods_total": "of containers with a limit of CPU; ours have none",
    "container_cpu_cfs_throttled_periods_total": "of containers with a limit of CPU; ours have none",
    "kube_job_failed": "of Jobs that failed",
    "kube_pod_container_status_last_terminated_reason": "of containers that ended and were started again",
    "kube_pod_container_status_waiting_reason": "of containers that do not run",
    "kubelet_volume_stats_available_bytes": "of volumes that the kubelet measures; local-path's are folders",
    "kubelet_volume_stats_capacity_bytes": "of volumes that the kubelet measures; local-path's are folders",
    "logentry_dropped_lines_by_label_total": "of streams that had lines dropped",
    "loki_discarded_samples_total": "of lines that Loki refused",
}
# Of which one kind is there: k3s renews its nodes' certificates itself, elsewhere kubelets do.
EITHER = (
    {"k3s_certificate_expiration_seconds"},
    {"kubelet_certificate_manager_client_ttl_seconds", "kubelet_certificate_manager_server_ttl_seconds"},
)
# What Prometheus adds to a series of ours.
SCRAPED_LABELS = {"instance", "job", "le", "namespace", "node", "pod", "service"}
OWN_JOB = "kubernetes-pods-metrics"

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|(?P<number>\d[\w.]*)|(?P<name>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<mark>=~|!~|!=|==|>=|<=|[^\s])"""
)
_AGGREGATIONS = {
    *("avg", "bottomk", "count", "count_values", "group", "limitk", "max", "min", "quantile", "stddev", "stdvar"),
    *("sum", "topk"),
}
_WORDS = {"and", "atan2", "bool", "inf", "nan", "offset", "or", "unless"}
_LABEL_LISTS = {"by", "group_left", "group_right", "ignoring", "on", "without"}


def _loaded(text: str) -> Any:
    return yaml.load(text, LOADER)


@dataclass(frozen=True)
class Selector:
    """A metric of an expression with its label matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def matches(self, metric: str, labels: Mapping[str, str]) -> bool:
        """Whether a series is one that this selects."""
        return metric == self.metric and all(
            self._holds(labels.get(label, ""), operator, value) for label, operator, value in self.matchers
        )

    @staticmethod
    def _holds(found: str, operator: str, value: str) -> bool:
        equal = found == value if operator in ("=", "!=") else re.fullmatch(value, found) is not None
        return equal != operator.startswith("!")


def _tokens(expr: str) -> list[tuple[str, str]]:
    code = re.sub(r"#[^\n]*", "", expr)
    return [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(code)]


def _unquoted(text: str) -> str:
    return text[1:-1] if text[0] == "`" else re.sub(r"\\(.)", r"\1", text[1:-1])


def selectors(expr: str) -> list[Selector]:
    """The metrics that an expression selects, in its order."""
    tokens = [*_tokens(expr), ("mark", "")]
    found, at = [], 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if text == "{":
            # A selector without a metric's name.
            at = next(i for i in range(at, len(tokens)) if tokens[i][1] == "}") + 1
        if kind != "name" or text.lower() in _WORDS:
            continue
        if text.lower() in _LABEL_LISTS:
            if following == "(":
                at = next(i for i in range(at, len(tokens)) if tokens[i][1] == ")") + 1
        elif following == "{":
            end = next(i for i in range(at, len(tokens)) if tokens[i][1] == "}")
            words = [word for _, word in tokens[at + 1 : end] if word != ","]
            triples = zip(words[::3], words[1::3], words[2::3], strict=True)
            found.append(
                Selector(text, tuple((label, operator, _unquoted(value)) for label, operator, value in triples))
            )
            at = end + 1
        elif following != "(" and text not in _AGGREGATIONS:
            found.append(Selector(text))
    return found


def series(text: str) -> tuple[str, dict[str, str]]:
    """A promtool test's input series: metric and labels."""
    (only,) = selectors(text)
    return only.metric, {label: value for label, _, value in only.matchers}


@dataclass(frozen=True)
class Rule:
    """One alert or recording of a rule file, thresholds filled in."""

    area: str
    name: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    alert: bool = True


@dataclass(frozen=True)
class Case:
    """One alert_rule_test: when which alerts are expected, on which series."""

    area: str
    alertname: str
    expected: tuple[Mapping[str, Any], ...]
    present: tuple[tuple[str, Mapping[str, str]], ...]


class RuleFolder:
    """A folder of rule files with ``thresholds.yml`` and ``tests/<area>_test.yml``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def areas(self) -> dict[str, Path]:
        """The rule files by the area that names them."""
        found = sorted(self.folder.glob("*.yml"))
        return {path.stem: path for path in found if path.stem != "thresholds"}

    @cached_property
    def values(self) -> dict[str, Any]:
        """What ``${name}`` stands for."""
        table = _loaded((self.folder / "thresholds.yml").read_text()) or {}
        texts = [path.read_text() for path in self.areas.values()]
        return {**tradewatch_rule_thresholds(table, texts), **LINKS}

    @cached_property
    def rules(self) -> list[Rule]:
        """All alerts and recordings."""
        found = []
        for area in self.areas:
            for group in _loaded(self.rendered(area))["groups"]:
                for rule in group["rules"]:
                    name, alert = rule.get("alert") or rule["record"], "alert" in rule
                    texts = rule.get("labels") or {}, rule.get("annotations") or {}
                    found.append(Rule(area, name, str(rule["expr"]), *texts, alert))
        return found

    @cached_property
    def alerts(self) -> list[Rule]:
        """All alerts."""
        return [rule for rule in self.rules if rule.alert]

    @cached_property
    def cases(self) -> list[Case]:
        """All tests of alerts."""
        found = []
        for area in self.areas:
            if not self.test_file(area).exists():
                continue
            for test in self.tests(area)["tests"]:
                # To YAML a bare 0x20 is the number 32: one sample, and then nothing.
                read = [given for given in test.get("input_series") or [] if isinstance(given["values"], str)]
                present = tuple(series(given["series"]) for given in read)
                for case in test.get("alert_rule_test") or []:
                    found.append(Case(area, case["alertname"], tuple(case.get("exp_alerts") or ()), present))
        return found

    def rendered(self, area: str) -> str:
        """A rule file as Prometheus gets it."""
        return tradewatch_rules(self.areas[area].read_text(), self.values, self.areas[area].name)

    def test_file(self, area: str) -> Path:
        """Where an area's promtool tests are."""
        return self.folder / "tests" / f"{area}_test.yml"

    def tests(self, area: str) -> dict[str, Any]:
        """An area's promtool tests; what an alert says without a template is filled in where a test leaves it out.

        promtool compares all labels and annotations; a test that repeats the links of each alert tests nothing by that.
        """
        path = self.test_file(area)
        content: dict[str, Any] = _loaded(tradewatch_rules(path.read_text(), self.values, path.name))
        alerts = {rule.name: rule for rule in self.alerts}
        for test in content["tests"]:
            for case in test.get("alert_rule_test") or []:
                rule = alerts.get(case["alertname"])
                if rule is None:
                    continue
                for expected in case.get("exp_alerts") or []:
                    for key, stated in (("exp_labels", rule.labels), ("exp_annotations", rule.annotations)):
                        static = {name: text for name, text in stated.items() if "{{" not in text}
                        expected[key] = static | (expected.get(key) or {})
        return content

    def write(self, target: Path) -> None:
        """The rendered rule files and tests, as promtool takes them."""
        (target / "tests").mkdir(parents=True, exist_ok=True)
        for area in self.areas:
            (target / f"{area}.yml").write_text(self.rendered(area))
            if self.test_file(area).exists():
                (target / "tests" / f"{area}_test.yml").write_text(yaml.dump(self.tests(area), Dumper=DUMPER))


def documented_metrics(page: str) -> dict[str, dict[str, set[str] | None]]:
    """The series that docs/metrics.md lists: by name their labels, with the values where it names all, else None."""
    found: dict[str, dict[str, set[str] | None]] = {}
    for row in re.findall(r"^\| `.*$", page, re.MULTILINE):
        name, kind, _, cell = row.strip("| ").split(" | ")[:4]
        labels = {label: _values(text) for label, text in re.findall(r"`(\w+)`: (.*?)(?:<br>|$)", cell)}
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        for series_name in (name.strip("`") + suffix for suffix in suffixes):
            before = found.setdefault(series_name, labels)
            found[series_name] = {
                label: before[label] | values if before.get(label) and values else None
                for label, values in (before | labels).items()
            }
    return found


def _values(text: str) -> set[str] | None:
    """The values of a label that the text lists, or None where it says something else."""
    parts = [part.strip() for part in re.sub(r"\([^)]*\)", "", text).split(";")]
    lists = [part for part in parts if re.fullmatch(r"(`[^`]*`[,.\s]*)+", part)]
    # What follows a semicolon may be a remark; what comes first says whether this is a list.
    return set(re.findall(r"`([^`]*)`", " ".join(lists))) if lists and lists[0] == parts[0] else None


def naming_problems(rules: list[Rule]) -> Iterator[str]:
    """Names that are not CamelCase or level:metric:operation, and alerts of the same name."""
    for rule in rules:
        if not (ALERT_NAME if rule.alert else RECORDING_NAME).fullmatch(rule.name):
            form = "CamelCase" if rule.alert else "level:metric:operation"
            yield f"{rule.area}: {rule.name} is not {form}"
    counted = Counter(rule.name for rule in rules if rule.alert)
    yield from (f"the alert {name} is there {count} times" for name, count in counted.items() if count > 1)


def teams(alert: Rule) -> list[str]:
    """The teams that an alert is told to: its label's, or those that the label's template chooses from."""
    return re.sub(r"\{\{.*?\}\}", " ", alert.labels.get("team", "")).split()


def statement_problems(alert: Rule) -> Iterator[str]:
    """What an alert's labels and annotations lack."""
    if alert.labels.get("severity") not in SEVERITIES:
        yield f"{alert.name}: severity is none of {', '.join(SEVERITIES)}"
    if not teams(alert) or not TEAMS.issuperset(teams(alert)):
        yield f"{alert.name}: team is none of {', '.join(sorted(TEAMS))}"
    summary = alert.annotations.get("summary", "")
    if not summary.strip():
        yield f"{alert.name}: no summary"
    if "{{" in summary:
        yield f"{alert.name}: the summary is not static"
    if not alert.annotations.get("description", "").strip():
        yield f"{alert.name}: no description"
    if alert.annotations.get("runbook_url") != f"{LINKS['runbooks_url']}/{alert.name}.md":
        yield f"{alert.name}: runbook_url is not ${{runbooks_url}}/{alert.name}.md"
    if alert.annotations.get("dashboard_url") not in {f"{LINKS['dashboards_url']}/d/{uid}" for uid in DASHBOARDS}:
        yield f"{alert.name}: dashboard_url is not ${{dashboards_url}}/d/<one of {', '.join(sorted(DASHBOARDS))}>"


def page_problems(alert: str, page: Path) -> Iterator[str]:
    """What an alert's runbook page lacks."""
    if not page.exists():
        yield f"{alert}: no page {page.name} in docs/runbooks"
        return
    text = page.read_text()
    if not text.startswith(f"# {alert}\n"):
        yield f"{page.name}: its title is not {alert}"
    pieces = [piece.partition("\n") for piece in re.split(r"^## ", text, flags=re.MULTILINE)[1:]]
    parts = {heading: body for heading, _, body in pieces}
    if tuple(parts) != SECTIONS:
        yield f"{page.name}: its sections are not {', '.join(SECTIONS)}"
        return
    yield from (f"{page.name}: nothing under {name}" for name, body in parts.items() if not body.strip())
    blocks = re.findall(r"^```console\n(.*?)^```$", parts["Look"], re.MULTILINE | re.DOTALL)
    rows = "".join(blocks).splitlines()
    if sum(row.startswith("$ ") for row in rows) != COMMANDS:
        yield f"{page.name}: not {COMMANDS} commands under Look"
    if any(row.startswith("$ ") and (after is None or after.startswith("$ ")) for row, after in _pairs(rows)):
        yield f"{page.name}: a command under Look without the output to expect"


def _pairs(rows: list[str]) -> Iterator[tuple[str, str | None]]:
    yield from zip(rows, [*rows[1:], None], strict=True)


def runbook_problems(alerts: list[Rule], folder: Path) -> Iterator[str]:
    """What pages lack, and pages without an alert."""
    for alert in alerts:
        yield from page_problems(alert.name, folder / f"{alert.name}.md")
    named = {alert.name for alert in alerts} | {"README"}
    yield from (f"{page.name}: no alert of that name" for page in folder.glob("*.md") if page.stem not in named)


def metric_problems(rules: list[Rule], documented: Mapping[str, Mapping[str, set[str] | None]]) -> Iterator[str]:
    """Expressions about series that nobody exports, or that count ours once for the Service and once for its pod."""
    recorded = {rule.name for rule in rules if not rule.alert}
    for rule in rules:
        for found in selectors(rule.expr):
            if found.metric in documented:
                if not any(label == "job" and value == OWN_JOB for label, _, value in found.matchers):
                    yield f'{rule.name}: {found.metric} without job="{OWN_JOB}"'
                yield from _label_problems(rule, found, documented[found.metric])
            elif found.metric not in recorded and not found.metric.startswith(tuple(EXPORTERS)):
                yield f"{rule.name}: nobody exports {found.metric}"


def exported_metrics(
    rules: list[Rule], documented: Mapping[str, Mapping[str, set[str] | None]]
) -> set[tuple[str, str]]:
    """The metrics of others that rules select, each with the job that it is asked of, or "" where any will do."""
    ours = {rule.name for rule in rules if not rule.alert} | documented.keys()
    return {
        (found.metric, next((value for label, sign, value in found.matchers if (label, sign) == ("job", "=")), ""))
        for rule in rules
        for found in selectors(rule.expr)
        if found.metric not in ours
    }


def missing_metrics(wanted: set[tuple[str, str]], names: Mapping[str, set[str]]) -> list[str]:
    """Those of `exported_metrics` that a Prometheus lacks: `names` are what it has by job, under "" all."""
    missing = {(metric, job) for metric, job in wanted if metric not in RARE and metric not in names[job]}
    lacking = {metric for metric, _ in missing}
    if any(lacking.isdisjoint(kind) for kind in EITHER):
        missing = {(metric, job) for metric, job in missing if metric not in set().union(*EITHER)}
    return sorted(f"{metric} of job {job}" if job else metric for metric, job in missing)


def page_queries(folder: Path) -> list[Rule]:
    """The queries of the runbooks' commands, as recordings named for their page."""
    pages = sorted(folder.glob("*.md"))
    return [
        Rule("runbooks", page.name, query, alert=False)
        for page in pages
        for query in re.findall(r"promtool query instant .* '(.*)'$", page.read_text(), re.MULTILINE)
    ]


def _label_problems(rule: Rule, found: Selector, labels: Mapping[str, set[str] | None]) -> Iterator[str]:
    for label, operator, value in found.matchers:
        if label in SCRAPED_LABELS:
            continue
        if label not in labels:
            yield f"{rule.name}: {found.metric} has no label {label}"
            continue
        named = value.split("|") if "~" in operator else [value]
        for one in named:
            known = labels[label]
            if known is not None and re.fullmatch(r"\w+", one) and one not in known:
                yield f"{rule.name}: {found.metric} has no {label} {one}"


def base_selectors(rule: Rule, rules: list[Rule]) -> set[Selector]:
    """The exporters' metrics behind an expression, through the recordings that it uses."""
    recordings = {other.name: other for other in rules if not other.alert}
    found: set[Selector] = set()
    for selector in selectors(rule.expr):
        other = recordings.get(selector.metric)
        found |= {selector} if other is None else base_selectors(other, rules)
    return found


def coverage_problems(folder: RuleFolder) -> Iterator[str]:
    """Alerts without a test in which they fire, or without one in which they could and do not."""
    names = {alert.name for alert in folder.alerts}
    yield from (
        f"{case.area}_test.yml: no alert {case.alertname}" for case in folder.cases if case.alertname not in names
    )
    for alert in folder.alerts:
        cases = [case for case in folder.cases if case.alertname == alert.name and case.area == alert.area]
        if not any(case.expected for case in cases):
            yield f"{alert.name}: no test in which it fires"
        silent = [case for case in cases if not case.expected]
        if not silent:
            yield f"{alert.name}: no test in which it stays silent"
            continue
        wanted = base_selectors(alert, folder.rules)
        missing = [lacking(wanted, case) for case in silent]
        if all(missing):
            fewest = min(missing, key=len)
            yield f"{alert.name}: its silent tests lack series that it selects: {', '.join(fewest)}"


def lacking(wanted: set[Selector], case: Case) -> list[str]:
    """The metrics of selectors that select none of a test's series."""
    return sorted({one.metric for one in wanted if not any(one.matches(*given) for given in case.present)})


def index(alerts: list[Rule]) -> str:
    """The text of ``docs/runbooks/README.md``."""
    rows = sorted(alerts, key=lambda alert: (alert.area, SEVERITIES.index(alert.labels["severity"]), alert.name))
    lines = [
        "# Runbooks",
        "",
        "Made by `python -m tests.rules` from `files/rules/`; a test fails when this file differs. The pages' commands",
        "run from the checkout and mean the lab; on your own platform `.lab` is the `state_dir` of",
        "[operations](../operations.md).",
        "",
        "| alert | area | severity | team | summary |",
        "|---|---|---|---|---|",
    ]
    for alert in rows:
        stated = alert.labels["severity"], ", ".join(teams(alert)), alert.annotations["summary"]
        lines.append(f"| [{alert.name}]({alert.name}.md) | {alert.area} | {' | '.join(stated)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(index(RuleFolder(REPOSITORY / "files/rules").alerts), end="")

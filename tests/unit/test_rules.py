"""Prometheus' rules: each fires when it should and not when it should not, and says what to do."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from tradewatch.metrics_doc import AREAS
from tradewatch.monitoring.anomaly_detector.series import DEFAULT_SERIES

from lab.bundle.parts import prometheus_binary
from plugins.filter.rules import tradewatch_rule_thresholds, tradewatch_rules
from tests import rules
from tests.commands import REPOSITORY

FOLDER = rules.RuleFolder(REPOSITORY / "files/rules")
PAGES = REPOSITORY / "docs/runbooks"
METRICS = rules.documented_metrics((REPOSITORY / "docs/metrics.md").read_text())
GOOD = {"value": 30, "unit": "seconds", "reason": "because"}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = prometheus_binary("promtool")
    # It allocates much and keeps little: with Go's usual setting a quarter of its time is garbage collection.
    environment = {**os.environ, "GOGC": "400"}
    return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rules")
    FOLDER.write(target)
    return target


def test_promtool_takes_every_file(rendered: Path) -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(rendered.glob("*.yml")))
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def tested(rendered: Path) -> Mapping[str, subprocess.CompletedProcess[str]]:
    """What promtool says to each area's tests, two areas at a time, the longest files first."""
    files = sorted((rendered / "tests").iterdir(), key=lambda path: path.stat().st_size, reverse=True)
    with ThreadPoolExecutor(2) as workers:
        said = workers.map(lambda path: promtool("test", "rules", path), files)
        return {path.stem.removesuffix("_test"): each for path, each in zip(files, said, strict=True)}


@pytest.mark.parametrize("area", FOLDER.areas)
def test_alerts_fire_and_stay_silent(tested: Mapping[str, subprocess.CompletedProcess[str]], area: str) -> None:
    assert tested[area].returncode == 0, tested[area].stdout + tested[area].stderr


def test_tests_belong_to_a_file() -> None:
    assert {path.stem for path in (FOLDER.folder / "tests").iterdir()} == {f"{area}_test" for area in FOLDER.areas}


def test_names() -> None:
    assert not list(rules.naming_problems(FOLDER.rules))


def test_every_alert_states_what_people_need() -> None:
    assert not [problem for alert in FOLDER.alerts for problem in rules.statement_problems(alert)]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert not list(rules.runbook_problems(FOLDER.alerts, PAGES))


def test_queries_of_the_runbooks_are_right(tmp_path: Path) -> None:
    queries = rules.page_queries(PAGES)
    assert len(queries) > len(FOLDER.alerts)
    recordings = [{"record": f"page:query{at}:value", "expr": query.expr} for at, query in enumerate(queries)]
    (tmp_path / "pages.yml").write_text(yaml.safe_dump({"groups": [{"name": "pages", "rules": recordings}]}))
    checked = promtool("check", "rules", "--lint=none", tmp_path / "pages.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    recorded = [rule for rule in FOLDER.rules if not rule.alert]
    found = rules.metric_problems([*recorded, *queries], METRICS)
    assert not [problem for problem in found if " without job=" not in problem]


def test_every_alert_is_seen_to_fire_and_to_stay_silent() -> None:
    assert not list(rules.coverage_problems(FOLDER))


def test_every_metric_is_exported() -> None:
    assert not list(rules.metric_problems(FOLDER.rules, METRICS))


def test_every_bucket_that_a_rule_names_is_one_of_its_histogram() -> None:
    """Of a bound that is none there is no series: the objective would count nothing, or everything."""
    bounds = {
        f"{metric.name}_bucket": {str(float(bound)) for bound in metric.buckets}
        for area in AREAS
        for metric in area.metrics
    }
    named = {
        (found.metric, value)
        for rule in FOLDER.rules
        for found in rules.selectors(rule.expr)
        for label, _, value in found.matchers
        if label == "le"
    }
    assert ("pipeline_signal_to_order_duration_seconds_bucket", "10.0") in named
    assert not [(metric, value) for metric, value in named if value not in bounds[metric]]


def test_the_anomaly_detector_asks_for_what_is_exported() -> None:
    asked = [rules.Rule("anomalies", query.name, query.query, alert=False) for query in DEFAULT_SERIES]
    assert not list(rules.metric_problems(asked, METRICS))
    # A label that is not there makes one series of all.
    for query in DEFAULT_SERIES:
        grouped = set(re.findall(r"\w+", " ".join(re.findall(r" by \(([^)]*)\)", query.query))))
        exported = set.union(*(set(METRICS[found.metric]) for found in rules.selectors(query.query)))
        assert grouped <= exported | rules.SCRAPED_LABELS, query.name


def test_index_is_current() -> None:
    """After an edit of the rules: python -m tests.rules > docs/runbooks/README.md"""
    assert (PAGES / "README.md").read_text() == rules.index(FOLDER.alerts)


def test_what_need_not_be_there_is_asked_for() -> None:
    """An exception that no rule needs any more would hide the next wrong name."""
    wanted = {metric for metric, _ in rules.exported_metrics(FOLDER.rules, METRICS)}
    assert rules.RARE.keys() | set().union(*rules.EITHER) <= wanted


# The filter.


def test_thresholds_are_filled_in_and_templates_stay() -> None:
    text = "expr: x > ${limit}\ndescription: '{{ $value }} of {{ $labels.exchange }} is over ${limit} $limit'"
    filled = tradewatch_rules(text, {"limit": 1e-06})
    assert filled == "expr: x > 0.000001\ndescription: '{{ $value }} of {{ $labels.exchange }} is over 0.000001 $limit'"


def test_a_name_without_a_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.yml: \$\{limti\} has no value, did you mean limit\?"):
        tradewatch_rules("expr: x > ${limti}", {"limit": 1}, "data.yml")


def test_a_file_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.yml: not YAML"):
        tradewatch_rules("groups: [", {}, "data.yml")


def test_overrides_replace_defaults() -> None:
    table = {"limit": GOOD, "wait": {**GOOD, "value": "5m"}}
    texts = ["x > ${limit}", "for: ${wait} ${runbooks_url}"]
    assert tradewatch_rule_thresholds(table, texts) == {"limit": 30, "wait": "5m"}
    assert tradewatch_rule_thresholds(table, texts, {"wait": "1h30m"}) == {"limit": 30, "wait": "1h30m"}


@pytest.mark.parametrize(
    ("table", "overrides", "said"),
    [
        ({"limit": GOOD}, {"limits": 1}, "there is no threshold limits, did you mean limit?"),
        ({"limit": GOOD, "other": GOOD}, {}, "threshold other is used by no rule"),
        ({"limit": GOOD}, {"limit": "5m"}, "threshold limit: '5m' is not a number, as 30 is"),
        ({"limit": GOOD}, {"limit": True}, "threshold limit: True is not a number"),
        ({"limit": GOOD}, {"limit": "0 or vector(1)"}, "is not a number"),
        ({"limit": GOOD}, {"limit": float("nan")}, "threshold limit: nan is not a number"),
        ({"limit": GOOD}, ["limit"], "not a mapping of thresholds' names to values"),
        ({"limit": {"value": 1}}, {}, "threshold limit does not have exactly value, unit and reason"),
        ({"limit": 30}, {}, "threshold limit does not have exactly value, unit and reason"),
        ({"limit": {**GOOD, "value": "5 minutes"}}, {}, "threshold limit: '5 minutes' is neither"),
        ({"limit": {**GOOD, "value": ""}}, {}, "threshold limit: '' is neither"),
    ],
)
def test_wrong_thresholds_are_named(table: dict[str, object], overrides: object, said: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        tradewatch_rule_thresholds(table, ["x > ${limit}"], overrides)  # type: ignore[arg-type]
    assert said in str(raised.value)


# The checks, each on a folder with one fault.

RULE = """
groups:
  - name: area
    rules:
      - record: product:lag_seconds:max
        expr: max by (product_id) (lag_seconds{job="kubernetes-pods-metrics"})
      - alert: LagHigh
        expr: product:lag_seconds:max > ${limit} and on () up{job="prometheus"} == 1
        labels: {severity: warning, team: data}
        annotations:
          summary: A lag is high
          description: "{{ $labels.product_id }} lags {{ $value }} s, over ${limit} s."
          runbook_url: ${runbooks_url}/LagHigh.md
          dashboard_url: ${dashboards_url}/d/unified-system
"""
TEST = """
rule_files: [../area.yml]
tests:
  - interval: 1m
    input_series:
      - {series: 'lag_seconds{job="kubernetes-pods-metrics", product_id="BTC-USD"}', values: "10 40"}
      - {series: 'up{job="prometheus"}', values: "1 1"}
    alert_rule_test:
      - {alertname: LagHigh, eval_time: 0m, exp_alerts: []}
      - alertname: LagHigh
        eval_time: 1m
        exp_alerts:
          - exp_labels: {product_id: BTC-USD}
            exp_annotations: {description: "BTC-USD lags 40 s, over 30 s."}
"""
METRICS_PAGE = """
| `lag_seconds` | gauge | seconds | `product_id`: a product<br>`kind`: `fast`; `slow` (usual); not all | A lag. |
| `wait_seconds` | histogram | seconds | `kind`: `fast` or another | A wait. |
| `wait_seconds` | histogram | seconds | `kind`: `slow` | A wait. |
"""
PAGE = """# LagHigh

## What it means

A lag.

## What you see

Old data.

## Look

```console
$ one
1
$ two
2
$ three
3
```

## End it

Wait.

## Tell

Data.
"""


def made(folder: Path, rule: str = RULE, test: str = TEST, page: str = PAGE) -> rules.RuleFolder:
    (folder / "tests").mkdir()
    (folder / "pages").mkdir()
    (folder / "thresholds.yml").write_text(yaml.safe_dump({"limit": GOOD}))
    (folder / "area.yml").write_text(rule)
    (folder / "tests/area_test.yml").write_text(test)
    (folder / "pages/LagHigh.md").write_text(page)
    return rules.RuleFolder(folder)


def problems(folder: rules.RuleFolder) -> list[str]:
    documented = rules.documented_metrics(METRICS_PAGE)
    return [
        *rules.naming_problems(folder.rules),
        *(problem for alert in folder.alerts for problem in rules.statement_problems(alert)),
        *rules.runbook_problems(folder.alerts, folder.folder / "pages"),
        *rules.coverage_problems(folder),
        *rules.metric_problems(folder.rules, documented),
    ]


def test_a_good_folder_has_no_problem(tmp_path: Path) -> None:
    folder = made(tmp_path)
    assert problems(folder) == []
    target = tmp_path / "rendered"
    folder.write(target)
    tested = promtool("test", "rules", target / "tests/area_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_wrong_expectation_is_red(tmp_path: Path) -> None:
    folder = made(tmp_path, test=TEST.replace("lags 40 s", "lags 41 s"))
    folder.write(tmp_path / "rendered")
    assert promtool("test", "rules", tmp_path / "rendered/tests/area_test.yml").returncode != 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("alert: LagHigh", "alert: lag_high", "area: lag_high is not CamelCase"),
        ("product:lag_seconds:max", "lag_seconds_max", "area: lag_seconds_max is not level:metric:operation"),
        ("severity: warning", "severity: bad", "LagHigh: severity is none of critical, warning, info"),
        (", team: data", "", "LagHigh: team is none of data, devops, management, trading"),
        ("team: data", "team: '{{ if 1 }}data{{ else }}dta{{ end }}'", "LagHigh: team is none of data, devops"),
        ("team: data", "team: '{{ $labels.team }}'", "LagHigh: team is none of data, devops, management, trading"),
        ("A lag is high", "'{{ $value }}'", "LagHigh: the summary is not static"),
        ("summary: A lag is high", "note: A lag is high", "LagHigh: no summary"),
        ("          description:", "          note:", "LagHigh: no description"),
        ("/LagHigh.md", "/LagHeigh.md", "LagHigh: runbook_url is not ${runbooks_url}/LagHigh.md"),
        ("/d/unified-system", "/d/mine", "LagHigh: dashboard_url is not ${dashboards_url}/d/"),
        ("lag_seconds{job=", "lags_seconds{job=", "product:lag_seconds:max: nobody exports lags_seconds"),
        ('{job="kubernetes-pods-metrics"}', "", 'lag_seconds without job="kubernetes-pods-metrics"'),
        ('s-metrics"}', 's-metrics", kind=~"fast|sloww"}', "product:lag_seconds:max: lag_seconds has no kind sloww"),
        ('s-metrics"}', 's-metrics", product="BTC-USD"}', "product:lag_seconds:max: lag_seconds has no label product"),
        ("product:lag_seconds:max >", "product:lag_seconds:min >", "nobody exports product:lag_seconds:min"),
    ],
)
def test_a_fault_in_a_rule_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RULE
    found = problems(made(tmp_path, rule=RULE.replace(old, new)))
    assert any(said in problem for problem in found), found


def test_an_alert_of_a_name_that_is_taken_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (tmp_path / "again.yml").write_text(RULE)
    assert "the alert LagHigh is there 2 times" in problems(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("exp_alerts: []", "exp_alerts: [{}]", "LagHigh: no test in which it stays silent"),
        ("eval_time: 1m\n        exp_alerts:", "eval_time: 1m\n        ignored:", "LagHigh: no test in which it fires"),
        ('up{job="prometheus"}', 'up{job="node"}', "LagHigh: its silent tests lack series that it selects: up"),
        ('values: "10 40"', "values: 0x20", "LagHigh: its silent tests lack series that it selects: lag_seconds"),
        ("lag_seconds{", "lag{", "LagHigh: its silent tests lack series that it selects: lag_seconds"),
        ("alertname: LagHigh,", "alertname: LagLow,", "area_test.yml: no alert LagLow"),
    ],
)
def test_a_fault_in_a_test_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in TEST
    found = problems(made(tmp_path, test=TEST.replace(old, new)))
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# LagHigh", "# Lag", "LagHigh.md: its title is not LagHigh"),
        ("## Tell", "## Call", "LagHigh.md: its sections are not What it means"),
        ("\nWait.\n", "\n", "LagHigh.md: nothing under End it"),
        ("$ two\n2\n", "", "LagHigh.md: not 3 commands under Look"),
        ("$ two\n2\n", "$ two\n", "LagHigh.md: a command under Look without the output to expect"),
    ],
)
def test_a_fault_in_a_page_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PAGE
    found = problems(made(tmp_path, page=PAGE.replace(old, new)))
    assert any(said in problem for problem in found), found


def test_pages_and_alerts_that_miss_each_other_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (tmp_path / "pages/LagHigh.md").rename(tmp_path / "pages/LagLow.md")
    found = problems(folder)
    assert "LagHigh: no page LagHigh.md in docs/runbooks" in found
    assert "LagLow.md: no alert of that name" in found


CLIENT, SERVER = sorted(rules.EITHER[1])
(K3S,) = rules.EITHER[0]


def test_the_metrics_of_others_are_those_of_their_jobs(tmp_path: Path) -> None:
    expr = 'node_load1{job=~"x|node-exporter"} or node_load5{job="node-exporter"} or up or lag_seconds{job="x"}'
    made_up = rules.Rule("area", "LoadHigh", expr)
    documented = rules.documented_metrics(METRICS_PAGE)
    found = rules.exported_metrics([*made(tmp_path).rules, made_up], documented)
    assert found == {("node_load1", ""), ("node_load5", "node-exporter"), ("up", "prometheus"), ("up", "")}


@pytest.mark.parametrize(
    ("kubelet", "further", "missing"),
    [
        ({K3S}, {"node_load5"}, []),
        ({CLIENT, SERVER}, {"node_load5"}, []),
        ({K3S, SERVER}, {"node_load5"}, []),
        ({SERVER}, {"node_load5"}, [f"{K3S} of job kubelet", f"{CLIENT} of job kubelet"]),
        (set(), {"node_load5"}, [f"{each} of job kubelet" for each in (K3S, CLIENT, SERVER)]),
        # There, but not of the job that is asked.
        ({K3S, "node_load5"}, set(), ["node_load5 of job node-exporter"]),
    ],
)
def test_metrics_that_a_prometheus_lacks_are_named(kubelet: set[str], further: set[str], missing: list[str]) -> None:
    wanted = {(metric, "kubelet") for metric in (K3S, CLIENT, SERVER)}
    wanted |= {("node_load5", "node-exporter"), ("up", ""), ("kube_job_failed", "kube-state-metrics")}
    names = {"kubelet": kubelet, "node-exporter": further, "kube-state-metrics": {"kube_pod_info"}}
    assert rules.missing_metrics(wanted, {**names, "": {"up"}.union(*names.values())}) == missing
    assert rules.missing_metrics(wanted, {**names, "": set()}) == sorted([*missing, "up"])


def test_selectors_of_an_expression() -> None:
    expr = """
    # a comment with a_name{x="y"}
    sum by (le, stage) (rate(a_seconds_bucket{job=~"x|y", stage!="llm"}[5m] offset 1h)) > bool 1e9
      and on (product_id) group_left (exchange) level:b:max or absent(c) unless -d @ end() == 0x1F and {x="y"}
    """
    assert rules.selectors(expr) == [
        rules.Selector("a_seconds_bucket", (("job", "=~", "x|y"), ("stage", "!=", "llm"))),
        rules.Selector("level:b:max"),
        rules.Selector("c"),
        rules.Selector("d"),
    ]


def test_documented_labels() -> None:
    found = rules.documented_metrics(METRICS_PAGE)
    assert found["lag_seconds"] == {"product_id": None, "kind": {"fast", "slow"}}
    assert found["wait_seconds_bucket"] == {"kind": None}
    assert "wait_seconds" not in found


@pytest.mark.parametrize(
    ("team", "named"),
    [("data", "data"), ("'{{ if eq $labels.kind `x` }}trading{{ else }}data{{ end }}'", "trading, data")],
)
def test_the_index_names_every_alert(tmp_path: Path, team: str, named: str) -> None:
    folder = made(tmp_path, rule=RULE.replace("team: data", f"team: {team}"))
    assert not [problem for problem in problems(folder) if "team" in problem]
    assert f"| [LagHigh](LagHigh.md) | area | warning | {named} | A lag is high |" in rules.index(folder.alerts)

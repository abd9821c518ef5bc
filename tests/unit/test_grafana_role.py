"""What the role grafana renders, read back, and what it does where no source gives the image.

No registry of packages carries Grafana, so nothing here has been taken by a running one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tradewatch.monitoring.dashboards import parts

from tests.commands import REPOSITORY, run

ROLE = REPOSITORY / "roles/grafana"
SECRETS = ("secret-1", "secret-2")


def dashboard(name: str) -> str:
    variable = {"name": "runbooks_url", "query": "docs/runbooks"}
    return json.dumps({"uid": name, "title": name, "panels": [], "list": [variable], "expr": 'a{b="$c"}'}, indent=2)


def given(folder: Path) -> dict[str, Any]:
    dashboards = folder / "dashboards"
    dashboards.mkdir()
    for name in ("crypto-trading-engine", "unified-system"):
        (dashboards / f"{name}.json").write_text(dashboard(name))
    return {
        "kubeconfig_path": "/nonexistent",
        "state_dir": str(folder),
        "cluster_name": "test",
        "admin_cidrs": ["192.0.2.1/32"],
        "vault_grafana_password": SECRETS[0],
        "vault_prometheus_password": SECRETS[1],
        "prometheus_username": "reader",
        "grafana_certificate_names": ["analytics-1"],
        "analytics_address": "192.0.2.14",
        "dashboards_node_port": 30080,
        "grafana_dashboards_dirs": [str(dashboards)],
    }


def play(folder: Path, *, variables: dict[str, Any], **body: Any) -> str:
    """What the play prints."""
    whole = {"hosts": "localhost", "connection": "local", "gather_facts": False, **body}
    (folder / "play.yml").write_text(yaml.safe_dump([whole]))
    (folder / "vars.json").write_text(json.dumps(variables))
    return run("ansible-playbook", "-i", "localhost,", str(folder / "play.yml"), "-e", f"@{folder}/vars.json")


def render(folder: Path, **changed: Any) -> list[dict[str, Any]]:
    """The role's objects as it would apply them."""
    (folder / "templates").symlink_to(ROLE / "templates")
    play(
        folder,
        variables={**given(folder), "grafana_image": "grafana:test", **changed},
        vars={"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
        vars_files=[str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        tasks=[{"ansible.builtin.template": {"src": "manifests.yml.j2", "dest": str(folder / "out.yml")}}],
    )
    return [item for item in yaml.safe_load_all((folder / "out.yml").read_text()) if item]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return render(tmp_path_factory.mktemp("grafana"))


def one(objects: list[dict[str, Any]], kind: str, name: str = "grafana") -> dict[str, Any]:
    (found,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def test_where_no_source_gives_the_image_the_run_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    printed = play(
        tmp_path,
        variables={**given(tmp_path), "artifacts_resolved": {"prometheus": {"image": "x"}}},
        tasks=[
            {"ansible.builtin.include_role": {"name": str(ROLE)}},
            {"ansible.builtin.debug": {"msg": "the run goes on"}},
        ],
    )
    (line,) = (line for line in printed.splitlines() if "left out" in line and "msg" in line)
    assert "Grafana is left out: no artifact source gives its image" in line
    assert "the run goes on" in printed
    assert not list(tmp_path.glob("grafana.*")), "neither certificate nor password is made"


def test_nobody_comes_in_without_a_password_and_nothing_calls_out(objects: list[dict[str, Any]]) -> None:
    (container,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    settings = {entry["name"]: entry["value"] for entry in container["env"]}
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/etc/grafana/secrets/admin-password"
    assert settings["GF_SERVER_PROTOCOL"] == "https"
    assert settings["GF_SERVER_ROOT_URL"] == "https://192.0.2.14:30030/"
    for name in (
        "GF_AUTH_ANONYMOUS_ENABLED",
        "GF_USERS_ALLOW_SIGN_UP",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    ):
        assert settings[name] == "false", name


def test_secrets_are_in_the_secret_only(objects: list[dict[str, Any]]) -> None:
    assert one(objects, "Secret")["stringData"]["admin-password"] == SECRETS[0]
    others = json.dumps([item for item in objects if item["kind"] != "Secret"])
    assert not [secret for secret in SECRETS if secret in others]


def test_the_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_data_sources_have_the_uids_that_dashboards_name(objects: list[dict[str, Any]]) -> None:
    sources = yaml.safe_load(one(objects, "ConfigMap")["data"]["datasources.yml"])["datasources"]
    assert {(source["uid"], source["url"]) for source in sources} == {
        ("prometheus", "https://prometheus:9090"),
        ("loki", "https://loki:3100"),
    }
    prometheus, loki = sources
    assert prometheus["basicAuthUser"] == "reader"
    assert prometheus["secureJsonData"] == {
        "basicAuthPassword": "$__file{/etc/grafana/secrets/prometheus-password}",
        "tlsCACert": "$__file{/etc/grafana/secrets/ca.crt}",
    }
    (exemplar,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplar["name"] == "trace_id"
    # To the dashboard's panel of one trace; with a data source's uid the link would open Explore.
    to_trace = parts.trace_url("${__value.raw}").replace("$", "$$")
    assert exemplar["url"] == to_trace
    (derived,) = loki["jsonData"]["derivedFields"]
    assert (derived["matcherRegex"], derived["url"]) == ("trace_id", to_trace)
    assert not {"datasourceUid"} & (exemplar.keys() | derived.keys())


def test_each_dashboard_is_in_its_folder_but_for_the_runbooks_place_as_it_is(
    objects: list[dict[str, Any]],
) -> None:
    providers = yaml.safe_load(one(objects, "ConfigMap")["data"]["dashboards.yml"])["providers"]
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {provider["folderUid"]: provider["folder"] for provider in providers} == {
        "trading": "Trading",
        "devops": "DevOps",
    }
    for provider in providers:
        assert mounts[provider["options"]["path"]] == f"dashboards-{provider['folderUid']}"
    held = one(objects, "ConfigMap", "grafana-dashboards-trading")["data"]
    shown = dashboard("crypto-trading-engine").replace("docs/runbooks", "https://192.0.2.14:30080/runbooks")
    assert held == {"crypto-trading-engine.json": shown}


def test_only_admins_and_prometheus_come_in_and_only_the_data_sources_are_called(
    objects: list[dict[str, Any]],
) -> None:
    policy = one(objects, "NetworkPolicy")["spec"]
    (ingress,) = policy["ingress"]
    assert ingress["from"] == [
        {
            "podSelector": {
                "matchExpressions": [
                    {
                        "key": "app.kubernetes.io/name",
                        "operator": "In",
                        "values": ["prometheus", "dashboard-report"],
                    }
                ]
            }
        },
        {"ipBlock": {"cidr": "192.0.2.1/32"}},
    ]
    assert [rule["ports"][0]["port"] for rule in policy["egress"]] == [9090, 3100]
    assert one(objects, "Service", "grafana-public")["spec"]["ports"][0]["nodePort"] == 30030

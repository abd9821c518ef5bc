"""What the role monitoring_services makes of production's table: its objects, read back, and its files."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from tradewatch.monitoring.anomaly_detector.service import AnomalyDetectorSettings
from tradewatch.monitoring.dashboard_report.certificates import parse_endpoints
from tradewatch.monitoring.dashboard_report.service import DashboardReportSettings

from tests.commands import REPOSITORY, run

SECRETS = {"vault_dashboards_password": "secret-of-page", "vault_prometheus_password": "secret-of-prometheus"}
# An API server takes no more than this in a ConfigMap's values.
CONFIG_MAP_BYTES = 1024 * 1024
PAGE = "https://198.51.100.4:30080"

# The place of module and action is taken: what they would have applied is written down.
RECORDER = """
from ansible.module_utils.basic import AnsibleModule
names = ("kubeconfig", "role", "manifest", "state", "wait_timeout_seconds", "prune_protected")
module = AnsibleModule({name: {"type": "raw"} for name in names})
with open("%s/" + module.params["role"] + ".yml", "w") as stream:
    stream.write(module.params["manifest"])
module.exit_json(changed=True)
"""

DASHBOARD_REPORT = ("Deployment", "dashboard-report")
Objects = dict[tuple[str, str], dict[str, Any]]


def play(folder: Path, roles: Sequence[str] = ("monitoring_services",), **variables: Any) -> None:
    """Run roles with production's tables; what each would apply is in the folder, by its owner's name."""
    modules = folder / "modules"
    modules.mkdir(exist_ok=True)
    (modules / "cluster_objects.py").write_text(RECORDER % folder)
    inventory = folder / "inventory"
    (inventory / "group_vars").mkdir(parents=True, exist_ok=True)
    all_variables = inventory / "group_vars/all"
    if not all_variables.exists():
        all_variables.symlink_to(REPOSITORY / "inventory/production.example/group_vars/all")
    (inventory / "hosts.yml").write_text("analytics: {hosts: {analytics-1: {ansible_host: 198.51.100.4}}}\n")
    body = {"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": list(roles)}
    (folder / "play.yml").write_text(yaml.safe_dump([body]))
    given = {
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "state_dir": str(folder),
        "artifacts_resolved": {"tradewatch": {"image": "tradewatch:test"}},
        # Their Secrets want a key of the exchange's form.
        "tradewatch_simulators": [],
        "tradewatch_simulator_secrets": [],
        "vault_alert_webhook_token": "token",
        "vault_alert_receivers": "{}",
        **dict.fromkeys(
            (
                "vault_exchange_api_key_name",
                "vault_exchange_api_private_key",
                "vault_llm_api_key",
                "vault_operator_token",
                "vault_executor_token",
            ),
            "x",
        ),
        **SECRETS,
        **variables,
    }
    (folder / "vars.json").write_text(json.dumps(given))
    library = f"{modules}{os.pathsep}{REPOSITORY / 'plugins/modules'}"
    run(
        "ansible-playbook",
        *("-i", inventory, "-e", f"@{folder}/vars.json", folder / "play.yml"),
        env={
            "ANSIBLE_ACTION_PLUGINS": str(folder / "no-actions"),
            "ANSIBLE_LIBRARY": library,
            "ANSIBLE_ROLES_PATH": str(REPOSITORY / "roles"),
        },
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("monitoring_services")
    play(folder)
    return folder


@pytest.fixture(scope="module")
def objects(state: Path) -> Objects:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [item for item in yaml.load_all((state / "monitoring-services.yml").read_text(), loader) if item]
    keyed = {(item["kind"], item["metadata"]["name"]): item for item in found}
    assert len(keyed) == len(found)
    assert {item["metadata"]["namespace"] for item in found} == {"crypto-monitoring"}
    return keyed


def pod(objects: Objects, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", name]["spec"]["template"]["spec"]
    return spec


def test_the_page_has_a_certificate_of_the_authority(state: Path, objects: Objects) -> None:
    held = objects["Secret", "dashboard-report-tls"]["stringData"]
    assert held == {
        "tls.crt": (state / "dashboard-report.crt").read_text(),
        "tls.key": (state / "dashboard-report.key").read_text(),
    }
    certificate = x509.load_pem_x509_certificate(held["tls.crt"].encode())
    authority = x509.load_pem_x509_certificate(objects["ConfigMap", "certificate-authority"]["data"]["ca.crt"].encode())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "dashboard-report.crypto-monitoring.svc" in names.get_values_for_type(x509.DNSName)
    assert "198.51.100.4" in {str(address) for address in names.get_values_for_type(x509.IPAddress)}


def test_passwords_are_in_their_secrets_and_the_pages_in_its_file(state: Path, objects: Objects) -> None:
    password = state / "dashboards.password"
    assert password.read_text() == SECRETS["vault_dashboards_password"]
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert objects["Secret", "dashboard-report"]["stringData"] == {"password": SECRETS["vault_dashboards_password"]}
    assert objects["Secret", "prometheus-client"]["stringData"] == {"password": SECRETS["vault_prometheus_password"]}
    others = json.dumps([item for (kind, _), item in objects.items() if kind != "Secret"])
    assert not [secret for secret in SECRETS.values() if secret in others]


@pytest.mark.parametrize(
    ("name", "folder", "ending"), [("dashboards", "files/dashboards", "json"), ("runbooks", "docs/runbooks", "md")]
)
def test_folders_are_whole_and_fit_a_config_map(objects: Objects, name: str, folder: str, ending: str) -> None:
    data = objects["ConfigMap", name]["data"]
    files = {path.name: path.read_text() for path in (REPOSITORY / folder).glob(f"*.{ending}")}
    linked = {
        file: text.replace('"query": "docs/runbooks"', f'"query": "{PAGE}/runbooks"') for file, text in files.items()
    }
    assert data == linked
    assert sum(len(base64.b64encode(text.encode())) for text in data.values()) < CONFIG_MAP_BYTES


def test_dashboards_link_to_the_runbooks_page(objects: Objects) -> None:
    for text in objects["ConfigMap", "dashboards"]["data"].values():
        (constant,) = (one for one in json.loads(text)["templating"]["list"] if one["name"] == "runbooks_url")
        assert constant["query"] == f"{PAGE}/runbooks"


@pytest.mark.parametrize("name", ["dashboard-report", "anomaly-detector"])
def test_every_folder_and_secret_that_is_mounted_is_made(objects: Objects, name: str) -> None:
    spec = pod(objects, name)
    for volume in spec["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            (item,) = source["secret"]["items"]
            assert item["key"] in objects["Secret", source["secret"]["name"]]["stringData"]
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in objects
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in objects
    mounts = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"].startswith("files-")]
    assert {mount["name"] for mount in mounts} == {one["name"] for one in spec["volumes"]} - {"tmp", "secrets"}
    assert all(mount["readOnly"] and "subPath" not in mount for mount in mounts)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("dashboard-report", DashboardReportSettings), ("anomaly-detector", AnomalyDetectorSettings)],
)
def test_every_variable_is_one_of_the_services(objects: Objects, name: str, settings: Any) -> None:
    (container,) = pod(objects, name)["containers"]
    given = {one["name"].removeprefix("TRADEWATCH_").lower() for one in container["env"]}
    known = set(settings.model_fields)
    assert {one for one in given if one not in known and one.removesuffix("_file") not in known} == set()


@pytest.mark.parametrize("name", ["dashboard-report", "anomaly-detector"])
def test_every_file_that_a_variable_names_is_mounted(objects: Objects, name: str) -> None:
    spec = pod(objects, name)
    sources = {one["name"]: one for one in spec["volumes"]}
    files = set()
    for mount in spec["containers"][0]["volumeMounts"]:
        source = sources[mount["name"]]
        files.add(mount["mountPath"])
        if "secret" in source:
            held = objects["Secret", source["secret"]["secretName"]]["stringData"]
        elif "configMap" in source:
            held = objects["ConfigMap", source["configMap"]["name"]]["data"]
        else:
            held = {
                item["path"]: ""
                for one in source.get("projected", {}).get("sources", [])
                for item in one["secret"]["items"]
            }
        files |= {f"{mount['mountPath']}/{key}" for key in held}
    named = {one["value"] for one in spec["containers"][0]["env"] if one["value"].startswith("/")}
    assert named
    assert named <= files


def test_the_page_is_published_for_admins_alone(objects: Objects) -> None:
    (port,) = objects["Service", "dashboard-report-public"]["spec"]["ports"]
    assert (port["port"], port["nodePort"]) == (8443, 30080)
    metrics, page = objects["NetworkPolicy", "dashboard-report"]["spec"]["ingress"]
    assert [one["port"] for one in metrics["ports"]] == [8080]
    assert page["from"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert [one["port"] for one in page["ports"]] == [8443]


def test_they_call_what_they_show_or_look_at_alone(objects: Objects) -> None:
    def peers(name: str) -> list[tuple[str, int]]:
        found = []
        for rule in objects["NetworkPolicy", name]["spec"]["egress"]:
            (peer,), (port,) = rule["to"], rule["ports"]
            network = peer.get("ipBlock") or {}
            labels = peer.get("podSelector", {}).get("matchLabels", {})
            found.append((network.get("cidr") or labels["app.kubernetes.io/name"], port["port"]))
        return found

    services = [("prometheus", 9090), ("loki", 3100), ("alertmanager", 9093), ("grafana", 3000)]
    assert peers("dashboard-report") == [*services, ("198.51.100.4/32", 9100)]
    assert peers("anomaly-detector") == [("prometheus", 9090)]
    for role in ("loki", "alertmanager"):
        defaults = yaml.safe_load((REPOSITORY / f"roles/{role}/defaults/main.yml").read_text())
        assert "dashboard-report" in defaults[f"{role}_clients"]


def test_node_exporter_is_looked_at_where_it_listens(tmp_path: Path) -> None:
    play(tmp_path, node_exporter_port=9101)
    applied = [one for one in yaml.safe_load_all((tmp_path / "monitoring-services.yml").read_text()) if one]
    keyed = {(one["kind"], one["metadata"]["name"]): one for one in applied}
    (container,) = pod(keyed, "dashboard-report")["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert "node-exporter=198.51.100.4:9101" in environment["TRADEWATCH_CERTIFICATE_ENDPOINTS"]
    egress = keyed["NetworkPolicy", "dashboard-report"]["spec"]["egress"]
    assert {"to": [{"ipBlock": {"cidr": "198.51.100.4/32"}}], "ports": [{"port": 9101, "protocol": "TCP"}]} in egress


@pytest.mark.parametrize("grafana", [False, True])
def test_every_https_endpoint_is_looked_at_where_it_is(tmp_path: Path, grafana: bool) -> None:
    images = {name: {"image": f"{name}:test"} for name in ["tradewatch", *(["grafana"] if grafana else [])]}
    play(tmp_path, artifacts_resolved=images)
    applied = yaml.safe_load_all((tmp_path / "monitoring-services.yml").read_text())
    (report,) = (one for one in applied if one and (one["kind"], one["metadata"]["name"]) == DASHBOARD_REPORT)
    environment = {one["name"]: one["value"] for one in report["spec"]["template"]["spec"]["containers"][0]["env"]}
    looked_at = parse_endpoints(environment["TRADEWATCH_CERTIFICATE_ENDPOINTS"])
    expected = {"prometheus", "alertmanager", "loki", "dashboard-report", "node-exporter"}
    assert set(looked_at) == expected | ({"grafana"} if grafana else set())
    assert looked_at["node-exporter"] == ("198.51.100.4", 9100)


def test_absent_takes_the_files_and_leaves_the_authority(tmp_path: Path) -> None:
    for name in ("dashboard-report.crt", "dashboard-report.key", "dashboards.password", "ca.crt"):
        (tmp_path / name).write_text("x")
    play(tmp_path, monitoring_services_state="absent")
    assert {path.name for path in tmp_path.glob("*.*")} == {
        "ca.crt",
        "monitoring-services.yml",
        "play.yml",
        "vars.json",
    }

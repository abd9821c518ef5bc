"""What the roles with exporters render: where passwords stand, who may ask, and what each may read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import REPOSITORY, run

Object = dict[str, Any]

ROLES = ("kube_state_metrics", "node_exporter", "postgresql", "valkey")
PASSWORDS = {
    "node_exporter_password": "secret-1",
    "postgresql_owner_password": "secret-2",
    "postgresql_password": "secret-3",
    "postgresql_exporter_password": "secret-4",
    "valkey_password": "secret-5",
    "valkey_exporter_password": "secret-6",
}
GIVEN: Object = {
    "artifacts_resolved": {
        name: {"image": f"{name}:test"}
        for name in (
            "kube-state-metrics",
            "node-exporter",
            "postgres-exporter",
            "postgresql",
            "tradewatch",
            "valkey",
            "valkey-exporter",
        )
    },
    "node_exporter_state_dir": "/nonexistent",
    "node_exporter_cluster_name": "test",
    "kube_state_metrics_api_server_cidrs": ["192.0.2.11/32"],
    "kube_state_metrics_resources": ["pods", "deployments"],
    "postgresql_clients": [],
    "valkey_clients": [],
    **PASSWORDS,
}
PROMETHEUS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "crypto-monitoring"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """Each role's objects as it would apply them."""
    root = tmp_path_factory.mktemp("roles")
    plays = []
    for role in ROLES:
        source, folder = REPOSITORY / "roles" / role, root / role
        folder.mkdir()
        (folder / "templates").symlink_to(source / "templates")
        files = [str(path) for path in (source / "defaults/main.yml", source / "vars/main.yml") if path.exists()]
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
            "vars_files": files,
            "tasks": [{"ansible.builtin.template": {"src": "manifests.yml.j2", "dest": str(folder / "out.yml")}}],
        }
        (folder / "play.yml").write_text(yaml.safe_dump([play]))
        plays.append(folder / "play.yml")
    (root / "vars.json").write_text(json.dumps(GIVEN))
    run("ansible-playbook", "-i", "localhost,", *plays, "-e", f"@{root}/vars.json")
    return {
        role: [item for item in yaml.safe_load_all((root / role / "out.yml").read_text()) if item] for role in ROLES
    }


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def exporter(objects: list[Object], name: str) -> Object:
    containers = named(objects, "StatefulSet", name)["spec"]["template"]["spec"]["containers"]
    (found,) = (item for item in containers if item["name"] == "exporter")
    return dict(found)


@pytest.mark.parametrize("role", ROLES)
def test_passwords_stand_in_secrets_alone(rendered: dict[str, list[Object]], role: str) -> None:
    open_to_see = json.dumps([item for item in rendered[role] if item["kind"] != "Secret"])
    assert not [name for name, value in PASSWORDS.items() if value in open_to_see]


@pytest.mark.parametrize(("role", "port"), [("valkey", 9121), ("postgresql", 9187)])
def test_its_figures_are_for_prometheus_alone(rendered: dict[str, list[Object]], role: str, port: int) -> None:
    service = named(rendered[role], "Service", role)
    assert service["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert port in [entry["port"] for entry in service["spec"]["ports"]]
    assert [entry["containerPort"] for entry in exporter(rendered[role], role)["ports"]] == [port]
    rules = named(rendered[role], "NetworkPolicy", role)["spec"]["ingress"]
    (rule,) = (rule for rule in rules if port in [entry["port"] for entry in rule["ports"]])
    assert rule == {"from": [PROMETHEUS], "ports": [{"port": port, "protocol": "TCP"}]}


@pytest.mark.parametrize("role", ["valkey", "postgresql"])
def test_the_exporter_does_not_decide_whether_clients_are_served(rendered: dict[str, list[Object]], role: str) -> None:
    assert "readinessProbe" not in exporter(rendered[role], role)
    template = named(rendered[role], "StatefulSet", role)["spec"]["template"]
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == role


def test_the_exporter_finds_its_password_for_valkey(rendered: dict[str, list[Object]]) -> None:
    # redis_exporter looks the password up by the address with the user in it.
    options = dict(word.lstrip("-").partition("=")[::2] for word in exporter(rendered["valkey"], "valkey")["command"])
    file = json.loads(named(rendered["valkey"], "Secret", "valkey-exporter")["stringData"]["passwords.json"])
    address = options["redis.addr"].replace("redis://", f"redis://{options['redis.user']}@")
    assert file == {address: PASSWORDS["valkey_exporter_password"]}


def test_the_exporter_s_user_of_valkey_reaches_no_key(rendered: dict[str, list[Object]]) -> None:
    users = named(rendered["valkey"], "Secret", "valkey-users")["stringData"]["users.acl"].splitlines()
    (rules,) = (line.split()[4:] for line in users if line.startswith("user exporter on #"))
    assert rules[:3] == ["resetkeys", "resetchannels", "-@all"]
    assert not [rule for rule in rules if rule.startswith(("~", "&", "%", "+@"))]


def test_the_exporter_s_role_of_postgresql_comes_from_within_the_pod(rendered: dict[str, list[Object]]) -> None:
    rules = named(rendered["postgresql"], "ConfigMap", "postgresql")["data"]["pg_hba.conf"].splitlines()
    first = [line.split() for line in rules if "tradewatch_exporter" in line or line.startswith("host all all")]
    assert [rule[2:] for rule in first[:2]] == [
        ["tradewatch_exporter", "127.0.0.1/32", "scram-sha-256"],
        ["tradewatch_exporter", "all", "reject"],
    ]


def test_node_exporter_listens_at_the_node_s_address_behind_tls_and_a_password(
    rendered: dict[str, list[Object]],
) -> None:
    objects = rendered["node_exporter"]
    pod = named(objects, "DaemonSet", "node-exporter")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert "--web.listen-address=$(NODE_ADDRESS):9100" in container["command"]
    assert container["env"] == [{"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    web = yaml.safe_load(named(objects, "Secret", "node-exporter")["stringData"]["web.yml"])
    assert web["tls_server_config"]["min_version"] == "TLS12"
    assert [user for user, hashed in web["basic_auth_users"].items() if hashed.startswith("$2")] == ["prometheus"]
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_node_exporter_shares_its_user_with_nobody(rendered: dict[str, list[Object]]) -> None:
    # In the hosts' process table it is to be a stranger to every other pod's processes and files.
    users = {
        role: item["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
        for role in ROLES
        for item in rendered[role]
        if item["kind"] in ("DaemonSet", "Deployment", "StatefulSet")
    }
    assert users.pop("node_exporter") not in {0, 65534, *users.values()}


def test_kube_state_metrics_may_list_what_it_is_told_to(rendered: dict[str, list[Object]]) -> None:
    rules = named(rendered["kube_state_metrics"], "ClusterRole", "tradewatch-kube-state-metrics")["rules"]
    assert rules == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list", "watch"]},
    ]


def test_kube_state_metrics_knows_the_group_of_every_choice() -> None:
    role = Path(REPOSITORY) / "roles/kube_state_metrics"
    groups = yaml.safe_load((role / "vars/main.yml").read_text())["_kube_state_metrics_api_groups"]
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    choices = specs["kube_state_metrics_resources"]["choices"]
    assert sorted(resource for known in groups.values() for resource in known) == sorted(choices)
    assert not {"secrets", "configmaps"} & set(choices)

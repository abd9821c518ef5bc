"""Every problem that preflight knows, seen through ansible-playbook: many problems a run, one line each."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preflight.inventories import ALERT_RECEIVERS, TOKEN, Inventory, Run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="hosts are made with unshare, which needs root")


@pytest.fixture(scope="module")
def bad_hosts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One host for each fault of a host."""
    inventory = Inventory(tmp_path_factory.mktemp("hosts"))
    with socket.socket() as closed:
        # Bound and not listening: the port stays refused for as long as the run takes.
        closed.bind(("127.0.0.1", 0))
        real = {"ansible_port": closed.getsockname()[1], "ansible_ssh_executable": "ssh"}
        inventory.host("collectors", "gone", "127.0.0.1", **real)
        inventory.host("collectors", "bare", "198.51.100.10", "no_python")
        inventory.host("collectors", "alpine", "198.51.100.11", "unsupported_system")
        inventory.host("trading", "guest", "198.51.100.12", "not_root")
        inventory.host("trading", "no-sudo", "198.51.100.13", "not_root", ansible_become=True)
        inventory.host("trading", "swapping", "198.51.100.14", "swap")
        inventory.host("analytics", "small", "198.51.100.15", "little_memory", "little_disk")
        inventory.host("analytics", "early", "198.51.100.16", "clock_ahead")
        inventory.host("analytics", "late", "198.51.100.17", "clock_behind")
        inventory.host("analytics", "routed", "198.51.100.18", "pod_network_route")
        inventory.host("analytics", "arm", "198.51.100.19", "other_machine")
        inventory.host("control_plane", "standing", "198.51.100.20", "cluster_of_another_token")
        inventory.host("control_plane", "joined", "198.51.100.21", "cluster_of_this_token")
        inventory.host("control_plane", "edited", "198.51.100.22", "cluster_of_this_token", "configuration_edited")
        inventory.host("analytics", "moved", "198.51.100.23", "a_server")
        # As `|` in the vault's YAML has it; k3s takes a token without the white space around it.
        inventory.variables["vault_k3s_token"] = f"{TOKEN}\n"
        before = inventory.write().snapshot()
        run = inventory.play("site.yml")
        run.output = run.output.replace(str(real["ansible_port"]), "PORT")
        run.lines = [line.replace(str(real["ansible_port"]), "PORT") for line in run.lines]
    assert inventory.snapshot() == before, "preflight changed something on the control host"
    return run


HOST_PROBLEMS = {
    "unreachable": "host gone: cannot be reached (ssh: connect to host 127.0.0.1 port PORT: Connection refused); "
    "check ansible_host, the network and the SSH key",
    "no Python": "host bare: has no Python 3.9 or newer; run apt install python3 on it",
    "unsupported system": "host alpine: runs Alpine Linux v3.22, which is not supported; "
    "install one of debian 12, debian 13",
    "not root": "host guest: Ansible logs in as nobody, not root; set ansible_user: root, or ansible_become: true",
    "swap": "host swapping: has swap on (/dev/sda2); run swapoff -a on it and remove the swap lines from /etc/fstab",
    "memory": "host small: has 512 MiB of memory, 1024 are needed; give it more, or lower preflight_min_memory_mib",
    "disk": "host small: has 64 MiB of disk at /var/lib, 1024 are needed; "
    "give it more, or lower preflight_min_disk_mib",
    "free disk": "host small: has 64 MiB of disk free at /var/lib, 128 are needed; "
    "give it more, or lower preflight_min_free_disk_mib",
    "clock ahead": "host early: its clock is 90 s ahead of the control host's; "
    "synchronise both with NTP (apt install systemd-timesyncd)",
    "clock behind": "host late: its clock is 90 s behind the control host's; "
    "synchronise both with NTP (apt install systemd-timesyncd)",
    "architecture": "host arm: is aarch64, the artifacts are for x86_64; use a machine with x86_64",
    "changed token": "host standing: its cluster was made with another vault_k3s_token, which a run cannot change; "
    "put the old one back in the vault, or run playbooks/reset.yml to start anew",
    "changed network": "host joined: its cluster's cluster_cidr is 10.99.0.0/16, which cannot be changed to "
    "10.42.0.0/16; put cluster_cidr: 10.99.0.0/16 back, or run playbooks/reset.yml to start anew",
    "server among the agents": "host moved: runs a k3s server, and its group makes it a k3s agent; "
    "move its line back, or remove the host and add it anew (docs/operations.md)",
    "new first server": "host control-1: is the first of control_plane and in no cluster, while joined is in one; "
    "list it below joined, so that it joins that cluster",
    "overlap with a host's network": "variable cluster_cidr: 10.42.0.0/16 overlaps the network 10.42.8.0/24 (lo) "
    "of host routed; choose a network that no host reaches",
}


@pytest.mark.parametrize("line", HOST_PROBLEMS.values(), ids=HOST_PROBLEMS)
def test_host_problem(bad_hosts: Run, line: str) -> None:
    assert bad_hosts.lines.count(line) == 1, bad_hosts.output


def test_host_that_cannot_become_root(bad_hosts: Run) -> None:
    found = [line for line in bad_hosts.lines if line.startswith("host no-sudo: ")]
    assert len(found) == 1
    # What sudo says depends on whether there is one.
    assert found[0].startswith("host no-sudo: nobody cannot become root (")
    assert found[0].endswith("; allow nobody passwordless sudo, or set ansible_become_password in the vault")


def test_bad_hosts_all_in_one_run_and_none_else(bad_hosts: Run) -> None:
    assert bad_hosts.status != 0
    assert bad_hosts.problems == len(HOST_PROBLEMS) + 1, bad_hosts.output


def test_site_stops_before_any_host_is_touched(bad_hosts: Run) -> None:
    assert "PLAY [Report]" in bad_hosts.output
    assert bad_hosts.output.count("PLAY [") == 2, "only preflight's two plays run"
    assert "changed=1" not in bad_hosts.output


@pytest.fixture(scope="module")
def bad_data(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Well-formed files that say wrong things."""
    inventory = Inventory(tmp_path_factory.mktemp("data"))
    inventory.groups["trading"] = {}
    inventory.host("collectors", "double", "198.51.100.20")
    inventory.host("analytics", "double", "198.51.100.20")
    inventory.host("analytics", "twin", "198.51.100.2")
    inventory.host("colectors", "misplaced", "198.51.100.21")
    inventory.file("group_vars/analytic.yml", "x: 1\n")
    (inventory.cache / "prometheus.tar").unlink()
    (inventory.cache / "valkey.tar.sha256").write_text("0" * 64 + "  valkey.tar\n")
    collector = inventory.example("services.yml")["tradewatch_services"][0]
    collector["connects_to"] = []
    valkey = {"service": "valkey", "namespace": "crypto-collectors", "port": 6379}
    websocket = {"name": "websocket", "port": 8081}
    secret = collector["secrets"][0]
    trader = {**collector, "namespace": "crypto-trading", "node_role": "trading"}
    namespaces = inventory.example("main.yml")["tradewatch_namespaces"]
    dashboards = inventory.root.parent / "dashboards"
    dashboards.mkdir()
    (dashboards / "half.json").write_text("{")
    inventory.variables |= {
        "cluster_cidr": "10.42.0.0/33",
        "admin_cidrs": ["everyone"],
        "vault_k3s_token": None,
        "vault_valkey_password": "",
        "vault_prometheus_password": "change-me",
        "alertmanager_watchdog_url": "http://198.51.100.200:8095/v1/watchdog",
        "vault_exchange_api_private_key": "key-of-the-test",
        "cluster_name": None,
        "log_collector": "prontail",
        "prometheus_rule_thresholds": {"market_data_stale_secnds": 20, "model_missing_for": 5},
        "vault_alert_receivers": ALERT_RECEIVERS.replace('["chat"]', '["json://hidden-secret-of-the-test/"]'),
        "tradewatch_simulators": "{{ undefined_table }}",
        "tradewatch_namespaces": [
            *namespaces,
            {**namespaces[0], "name": "kube-system"},
            {**namespaces[0], "name": "generous", "quota": {"requests.cpu": "4 cores"}},
            {**namespaces[0], "name": "unlimited", "limits": {"defaults": {}}},
            {**namespaces[0], "name": "strict", "pod_security": "restrict"},
        ],
        "prometheus_external_targets": [{"name": "router", "targets": ["router.example:9100"]}, "192.0.2.10:9100"],
        "tradewatch_dashboard_dirs": [str(dashboards)],
        "grafana_data_sources": [
            {
                "name": "Store",
                "uid": "store",
                "type": "postgres",
                "url": "192.0.2.20:5432",
                "connects_to": [{"cidr": "192.0.2.20", "port": "5432"}],
                "secrets": {"password": "hidden-secret-of-the-test", "tlsCACert": None},
                "jsondata": {},
            }
        ],
        "tradewatch_secrets": [
            {"name": "api-key", "namespace": "crypto-trading", "values": {"key": "{{ no_such_secret }}"}},
            {"name": "lost", "namespace": "crypto-traiding", "values": {"key": "hidden-secret-of-the-test"}},
            {"name": "twice", "namespace": "crypto-trading", "values": {"key": "one"}},
            {"name": "twice", "namespace": "crypto-trading", "values": {"key": "two"}},
            {"name": "bare", "namespace": "crypto-trading", "values": "hidden-secret-of-the-test"},
        ],
        "tradewatch_services": [
            collector,
            collector,
            {**collector, "name": "on-mars", "node_role": "colectors"},
            {**collector, "name": "nowhere", "namespace": "crypto-colectors"},
            {**collector, "name": "port-twice", "ports": [{"name": "feed", "port": 8080}]},
            {**collector, "name": "published", "ports": [{"name": "feed", "port": 8081, "node_port": 30090}]},
            {**collector, "name": "typing", "replicas": "two"},
            {**collector, "name": "misspelt", "enviroment": {}},
            {**collector, "name": "lonely", "connects_to": [{"service": "valky", "namespace": "n", "port": 1}]},
            {**collector, "name": "far", "connects_to": [{"service": "on-mars", "namespace": "n", "port": 1}]},
            {**collector, "name": "astray", "connects_to": [{**valkey, "namespace": "crypto-trading"}]},
            {**collector, "name": "port-name-twice", "ports": [websocket, {**websocket, "port": 8082}]},
            {**collector, "name": "http-twice", "ports": [{**websocket, "name": "http"}]},
            {**collector, "name": "long-name", "ports": [{**websocket, "name": "websocket-public"}]},
            {**collector, "name": "double-dash", "ports": [{**websocket, "name": "web--socket"}]},
            {**collector, "name": "secretive", "secrets": [{**secret, "secret": "valky"}]},
            {**collector, "name": "keyless", "secrets": [{**secret, "key": "pasword"}]},
            {**collector, "name": "elsewhere", "secrets": [{**secret, "secret": "api-key", "key": "key"}]},
            {**trader, "name": "trader", "secrets": [{**secret, "secret": "api-key", "key": "key"}]},
            {**trader, "name": "trader-keyless", "secrets": [{**secret, "secret": "api-key"}]},
            {**collector, "name": "folderless", "files": [{"path": "/etc/a", "config_map": "dashbords"}]},
            {**collector, "name": "folder-afar", "files": [{"path": "/etc/a", "config_map": "dashboards"}]},
            {**collector, "name": "folder-of-two", "files": [{"path": "/etc/a", "config_map": "a", "secret": "b"}]},
            {
                **collector,
                "name": "folder-in-folder",
                "files": [{"path": "/run/secrets/tradewatch/a", "secret": "valkey"}],
            },
            {**collector, "name": "open", "connects_to": [{"cidr": "10.0.0.1/8", "port": 443}]},
            {key: value for key, value in collector.items() if key not in {"run", "name"}},
        ],
    }
    return inventory.write().play()


def test_checks_of_roles_give_a_line_a_problem_and_one_where_they_fail(tmp_path: Path) -> None:
    checks = [
        {"name": "trading_assets", "check": "['is one', 'is another']", "fix": "mend it"},
        {"name": "trading_products", "check": "trading_products | from_json", "fix": "mend this"},
        {"name": "vault_llm_api_key", "check": "['is a secret']", "fix": "mend that"},
        {"name": "vault_operator_token", "check": "['is not looked at']", "fix": "it is not set"},
        {"name": "state_dir", "check": "state_dir | length", "fix": "it is right"},
        {"name": "no_such_variable", "check": "no_such_variable | length", "fix": "it is not set"},
    ]
    inventory = Inventory(tmp_path)
    inventory.variables["vault_operator_token"] = None
    run = inventory.write().play("playbooks/preflight.yml", "--extra-vars", json.dumps({"_preflight_checks": checks}))
    assert {
        "variable trading_assets: is one; mend it",
        "variable trading_assets: is another; mend it",
        "variable trading_products: is malformed (Expecting value: line 1 column 1 (char 0)); mend this",
        "secret vault_llm_api_key: is a secret; mend that",
        f"secret vault_operator_token: is empty; {SECRET_FIX}",
    } <= set(run.lines), run.output
    assert run.problems == 5, run.output


EXTENDING_FIX = "write it as docs/extending.md shows"
SECRET_FIX = "set it in the inventory's vault (group_vars/all/vault.yml.example shows how)"
PORT_NAME_FIX = "use lowercase letters, digits and single - between them, at least one letter, at most 15 in all"
DATA_PROBLEMS = {
    "empty group": "group trading: has no host; add at least one host to it in the inventory",
    "two role groups": "host double: is in 2 role groups, analytics and collectors; leave it in one of them",
    "one address": "hosts collectors-1 and twin: have the same address 198.51.100.2; give each its own ansible_host",
    "unknown group": "group colectors: unknown group (hosts misplaced); did you mean collectors?",
    "vars file of no group": "{root}/group_vars/analytic.yml: there is no group analytic; did you mean analytics?",
    "bad CIDR": "variable cluster_cidr: '10.42.0.0/33' is not a network ('10.42.0.0/33' does not appear to be an "
    "IPv4 or IPv6 network); write it like 10.42.0.0/16",
    "bad admin CIDR": "variable admin_cidrs: 'everyone' is not a network (it has no prefix length); "
    "write it like 10.42.0.0/16",
    "unset secret": f"secret vault_k3s_token: is empty; {SECRET_FIX}",
    "empty secret": f"secret vault_valkey_password: is empty; {SECRET_FIX}",
    "example secret": f"secret vault_prometheus_password: still has the example's value; {SECRET_FIX}",
    "example secret in use": f"secret vault_watchdog_token: still has the example's value; {SECRET_FIX}",
    "unset variable": "variable cluster_name: is not set; set it in group_vars/all/main.yml of the inventory",
    "unknown collector": "variable log_collector: unknown collector prontail; did you mean promtail?",
    "malformed thresholds": "variable prometheus_rule_thresholds: is malformed (there is no threshold "
    "market_data_stale_secnds, did you mean market_data_stale_seconds?; threshold model_missing_for: 5 is not a "
    "duration, as '1h' is); files/rules/thresholds.yml lists them",
    "malformed routes": "secret vault_alert_receivers: is malformed (default names a receiver that is none of chat); "
    "docs/services.md, alert-notifier, shows one",
    "malformed key": "secret vault_exchange_api_private_key: is malformed (neither an EC P-256 key in PEM nor an "
    "Ed25519 key in base64 or PEM); vault.yml.example says how to make one",
    "duplicate service": "service market-data-collector-coinbase: the table holds 2 of this name; "
    "give each a name of its own",
    "unknown node role": "service on-mars: unknown node role colectors; did you mean collectors?",
    "unknown namespace": "service nowhere: unknown namespace crypto-colectors; did you mean crypto-collectors?",
    "duplicate port": "service port-twice: port 8080 is used 2 times; give each of its ports a number of its own",
    "duplicate node port": "node_port 30090: is used by Prometheus and published (feed); give each a number of its own",
    "wrong type": "service typing: replicas is 'two', not a whole number; write a whole number",
    "unknown key": "service misspelt: unknown key enviroment; did you mean environment?",
    "missing key": "tradewatch_services entry 26: lacks run; add it",
    "unknown peer": "service lonely connects_to: unknown service valky; did you mean valkey?",
    "peer in a namespace that there is not": "service far connects_to: there is no on-mars in n; "
    "it is in crypto-collectors: write that",
    "peer in another namespace": "service astray connects_to: there is no valkey in crypto-trading; "
    "it is in crypto-collectors: write that",
    "duplicate port name": "service port-name-twice: port name websocket is used 2 times; "
    "give each of its ports a name of its own",
    "port named as the main port": "service http-twice: port name http is that of the service's main port; "
    "give each of its ports a name of its own",
    "long port name": f"service long-name: ports[0].name is 'websocket-public'; {PORT_NAME_FIX}",
    "port name with two dashes": f"service double-dash: ports[0].name is 'web--socket'; {PORT_NAME_FIX}",
    "unknown Secret": "service secretive secrets: unknown Secret valky; did you mean valkey?",
    "unknown key of a Secret": "service keyless secrets: Secret valkey has no key pasword; did you mean password?",
    "Secret of another namespace": "service elsewhere secrets: there is no Secret api-key in crypto-collectors; "
    "run the service where it is: in crypto-trading",
    "unknown key of a Secret of the table": "service trader-keyless secrets: Secret api-key has no key password; "
    "use one of key",
    "Secret in an unknown namespace": "Secret lost: unknown namespace crypto-traiding; did you mean crypto-trading?",
    "Secret twice": "Secret twice: the table holds 2 of this name in crypto-trading; write all its values in one entry",
    "Secret without keys": "Secret bare: values is '', not a mapping; write a mapping",
    "unknown ConfigMap": "service folderless files: unknown ConfigMap dashbords; did you mean dashboards?",
    "ConfigMap of another namespace": "service folder-afar files: there is no ConfigMap dashboards in "
    "crypto-collectors; run the service where it is: in crypto-monitoring",
    "folder of two sources": "service folder-of-two: files[0] has keys that do not belong together; "
    "give secret or config_map",
    "folder in a folder": "service folder-in-folder files: /run/secrets/tradewatch/a and /run/secrets/tradewatch "
    "are one folder, or one lies in the other; give each a folder of its own",
    "namespace of Kubernetes": "namespace kube-system: is Kubernetes' own; give yours another name",
    "bad quantity": "namespace generous: quota.requests.cpu is '4 cores'; write a quantity such as 500m, 4Gi or 50",
    "unknown limit": "namespace unlimited: unknown key defaults in limits; did you mean default?",
    "unknown level": "namespace strict: pod_security is 'restrict'; did you mean restricted?",
    "target without a network": "variable prometheus_external_targets: router: router.example:9100 is a name, and "
    f"there are no cidrs to let Prometheus reach it; {EXTENDING_FIX}",
    "target that is no entry": f"variable prometheus_external_targets: entry 2 is not a mapping; {EXTENDING_FIX}",
    "half a dashboard": "/dashboards/half.json: is not JSON (line 1: Expecting property name enclosed in double quotes)"
    f"; {EXTENDING_FIX}",
    "unknown key of a data source": "variable grafana_data_sources: Store: unknown key jsondata, did you mean jsonData?"
    f"; {EXTENDING_FIX}",
    "data source without a secret": "variable grafana_data_sources: Store: the secret tlsCACert is empty, or not a text"
    f"; {EXTENDING_FIX}",
    "port of a data source": f"variable grafana_data_sources: Store: '5432' is not a port; {EXTENDING_FIX}",
    "bad egress CIDR": "service open connects_to: '10.0.0.1/8' is not a network (10.0.0.1/8 has host bits set); "
    "write it like 10.42.0.0/16",
}


@pytest.mark.parametrize("line", DATA_PROBLEMS.values(), ids=DATA_PROBLEMS)
def test_data_problem(bad_data: Run, line: str) -> None:
    endings = [shown for shown in bad_data.lines if shown.endswith(line.removeprefix("{root}"))]
    assert len(endings) == 1, bad_data.output


def test_artifact_missing_everywhere_names_the_three_places(bad_data: Run) -> None:
    (line,) = (line for line in bad_data.lines if line.startswith("artifact prometheus: "))
    assert "version v3.13.5 was not found in any source: cache (no file " in line
    assert "upstream (not in artifact_sources), registries (not in artifact_sources)" in line
    assert "; place it at " in line


def test_artifact_checksum_mismatch_names_file_expected_and_got(bad_data: Run) -> None:
    (line,) = (line for line in bad_data.lines if line.startswith("artifact valkey: "))
    # The cache's file holds the artifact's name.
    got = hashlib.sha256(b"valkey").hexdigest()
    assert "checksum mismatch: " in line
    assert f"/cache/artifacts/valkey.tar has sha256 {got}, " in line
    assert f"/valkey.tar.sha256 says {'0' * 64}; " in line


def test_entry_that_is_right_is_not_named(bad_data: Run) -> None:
    assert not [line for line in bad_data.lines if line.startswith("service trader ")]


def test_expression_that_fails_hides_nothing_else(bad_data: Run) -> None:
    found = [
        line for line in bad_data.lines if line.startswith("variable tradewatch_simulators: cannot be evaluated (")
    ]
    assert len(found) == 1
    assert "'undefined_table' is undefined" in found[0]


def test_secrets_are_never_shown(bad_data: Run, bad_hosts: Run) -> None:
    for run in (bad_data, bad_hosts):
        assert "of-the-test" not in run.output


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Files that are no YAML, beside tables that are wrong."""
    inventory = Inventory(tmp_path_factory.mktemp("files"))
    inventory.variables |= {"service_cidr": "10.42.128.0/17"}
    del inventory.variables["vault_k3s_token"]
    inventory.write()
    inventory.file("hosts.yml", "all:\n  children:\n    trading: [\n")
    inventory.file("group_vars/all/services.yml", "tradewatch_services:\n  - name: x\n   namespace: y\n")
    inventory.file("group_vars/all/zz.yml", "one: 1\ntwo: 2\none: 3\n")
    return inventory.play()


def test_malformed_hosts_file(bad_files: Run) -> None:
    (line,) = (line for line in bad_files.lines if "hosts.yml line " in line and "; correct the file" in line)
    assert "/inventory/hosts.yml line 4: malformed YAML (" in line


def test_malformed_vars_file(bad_files: Run) -> None:
    (line,) = (line for line in bad_files.lines if "services.yml line " in line and "; correct the file" in line)
    assert "/group_vars/all/services.yml line 3: malformed YAML (" in line


def test_variable_given_twice(bad_files: Run) -> None:
    ending = "/group_vars/all/zz.yml line 3: one is given twice (first on line 1); keep one of them"
    assert len([line for line in bad_files.lines if line.endswith(ending)]) == 1, bad_files.output


def test_broken_files_hide_no_other_problem(bad_files: Run) -> None:
    overlap = (
        "variable cluster_cidr: 10.42.0.0/16 overlaps service_cidr 10.42.128.0/17; "
        "choose networks that share no address"
    )
    assert f"secret vault_k3s_token: is not set; {SECRET_FIX}" in bad_files.lines
    assert overlap in bad_files.lines
    assert bad_files.problems == 5, bad_files.output
    assert bad_files.status != 0


def test_vault_without_its_password(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    del inventory.variables["vault_k3s_token"]
    inventory.write()
    password = tmp_path / "password"
    password.write_text("the vault's\n")
    vault = inventory.file("group_vars/all/vault.yml", "vault_k3s_token: token-of-the-test\n")
    ansible_vault = Path(sys.executable).with_name("ansible-vault")
    subprocess.run([ansible_vault, "encrypt", "--vault-password-file", password, vault], check=True, cwd=tmp_path)
    run = inventory.play()
    ending = "; correct the file, or pass the vault password"
    assert len([line for line in run.lines if line.endswith(ending) and "/vault.yml: Ansible cannot " in line]) == 1
    assert run.problems == 1, run.output
    assert inventory.play("playbooks/preflight.yml", "--vault-password-file", str(password)).status == 0


def test_two_hosts_with_one_name(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path).write()
    text = (inventory.root / "hosts.yml").read_text()
    twice = "        analytics-1:\n          ansible_host: 198.51.100.4\n"
    assert twice in text
    inventory.file("hosts.yml", text.replace(twice, twice + twice.replace("100.4", "100.5")))
    run = inventory.play()
    ending = "two hosts are named analytics-1 (the first is on line 17); give each host a name of its own"
    assert len([line for line in run.lines if line.endswith(ending)]) == 1, run.output
    assert run.status != 0


def test_good_inventory_passes_quickly_and_changes_nothing(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    before = inventory.write().snapshot()
    used_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = inventory.play("playbooks/preflight.yml", "--check")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.status == 0, run.output
    assert "failed=1" not in run.output
    assert "changed=1" not in run.output
    assert inventory.snapshot() == before
    # The bar is 10 s; processor time does not depend on what else the machine does.
    assert used.ru_utime + used.ru_stime - used_before.ru_utime - used_before.ru_stime < 10


def test_other_playbooks_refuse_a_broken_vars_file(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path).write()
    inventory.file("group_vars/all/services.yml", "tradewatch_services:\n  - name: x\n   namespace: y\n")
    run = inventory.play("playbooks/images.yml")
    assert run.status != 0
    assert "/group_vars/all/services.yml: " in run.output
    assert "TASK [" not in run.output

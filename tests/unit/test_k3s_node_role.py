"""What the role k3s_node decides with expressions: when a restarted node is back, and which diffs it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from tests.role_templates import load_plugins

# Half a second after 08:30:00 UTC.
STARTED = 1795854600.5


def role(repository: Path, file: str, variables: dict[str, Any]) -> tuple[Any, Templar]:
    """A file of the role, and what evaluates its expressions."""
    load_plugins()
    loader = DataLoader()
    content = loader.load_from_file(str(repository / "roles/k3s_node" / file), trusted_as_template=True)
    return content, Templar(loader=loader, variables=variables)


def conditions(repository: Path, name: str, **variables: Any) -> bool:
    """Whether a task of wait.yml has what it waits for."""
    defined, _ = role(repository, "vars/main.yml", {})
    [block], templar = role(repository, "tasks/wait.yml", defined | variables)
    [task] = [task for task in block["block"] if task["name"].startswith(name)]
    return all(templar.evaluate_conditional(condition) for condition in task["until"])


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        ("True 2026-11-28T08:30:01Z", True),
        ("False 2026-11-28T08:30:01Z", False),
        ("Unknown 2026-11-28T08:30:01Z", False),
        # Times have whole seconds: said half a second after the start.
        ("True 2026-11-28T08:30:00Z", True),
        # What the kubelet said before the restart.
        ("True 2026-11-28T08:29:59Z", False),
        # The API does not know the node's state.
        ("", False),
    ],
)
def test_a_restarted_node_is_back_when_its_kubelet_says_so(repository: Path, answer: str, ready: bool) -> None:
    status, _, heartbeat = answer.partition(" ")
    conditions_of_node = [{"type": "PIDPressure", "status": "False"}]
    conditions_of_node += [{"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}] if answer else []
    node = json.dumps({"status": {"conditions": conditions_of_node}})
    registered = {"__k3s_node_started": {"stat": {"mtime": STARTED}}, "__k3s_node_ready": {"stdout": node}}
    assert conditions(repository, "Wait until the node's kubelet", **registered) == ready


@pytest.mark.parametrize("answer", [{"stdout": ""}, {"rc": 1, "stdout": "", "stderr": "refused"}, {}])
def test_without_an_answer_of_the_api_it_is_not_back(repository: Path, answer: dict[str, Any]) -> None:
    registered = {"__k3s_node_started": {"stat": {"mtime": STARTED}}, "__k3s_node_ready": answer}
    assert not conditions(repository, "Wait until the node's kubelet", **registered)


@pytest.mark.parametrize(
    ("state", "before", "up"),
    [
        ({"ActiveState": "active", "InvocationID": "new"}, {"_k3s_node_before": "old"}, True),
        # The restart has not begun.
        ({"ActiveState": "active", "InvocationID": "old"}, {"_k3s_node_before": "old"}, False),
        ({"ActiveState": "activating", "InvocationID": "new"}, {"_k3s_node_before": "old"}, False),
        # A first start; systemctl leaves out what is empty.
        ({"ActiveState": "active", "InvocationID": "new"}, {}, True),
        ({"ActiveState": "inactive"}, {}, False),
    ],
)
def test_a_unit_is_up_when_another_than_before_runs(
    repository: Path, state: dict[str, str], before: dict[str, str], up: bool
) -> None:
    assert conditions(repository, "Wait for the unit", __k3s_node_state={"status": state}, **before) == up


@pytest.mark.parametrize(
    ("config", "secret"),
    [
        ({}, False),
        ({"kubelet-arg": ["max-pods=97"], "etcd-snapshot-retention": 5}, False),
        ({"etcd-s3-access-key": "AK"}, True),
        ({"etcd-s3-secret-key": "sk"}, True),
        ({"agent-token": "t"}, True),
        ({"kube-apiserver-arg": ["a=b", "Password=p"]}, True),
        ({"datastore-endpoint": "postgres://user:word@192.0.2.9/k3s"}, True),
    ],
)
def test_no_diff_shows_a_configuration_with_a_secret(repository: Path, config: dict[str, Any], secret: bool) -> None:
    variables, templar = role(repository, "vars/main.yml", {"k3s_node_extra_config": config})
    assert templar.template(variables["_k3s_node_config_is_secret"]) is secret
    tasks, _ = role(repository, "tasks/present.yml", {})
    [task] = [task for task in tasks if task["name"] == "Write the configuration"]
    assert task["diff"] == "{{ not _k3s_node_config_is_secret }}"

"""The modules of the Kubernetes API as playbooks run them: in Ansible's own process."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.commands import REPOSITORY, run

CONFIG_MAP = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a, namespace: b}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each task of one play gave; there is no Python for modules in it, nor an API server."""
    folder = tmp_path_factory.mktemp("play")
    gone = {"kubeconfig": str(folder / "no-such-kubeconfig")}
    tasks: dict[str, dict[str, Any]] = {
        "check": {"cluster_objects": {**gone, "role": "x", "manifest": CONFIG_MAP}, "check_mode": True},
        "no cluster": {"cluster_objects": {**gone, "role": "x", "manifest": CONFIG_MAP}},
        "not yaml": {"cluster_objects": {**gone, "role": "x", "manifest": "password: [hunter2"}},
        "bad argument": {"cluster_objects": {**gone, "role": "x", "wait": "perhaps"}},
        "unknown argument": {"cluster_objects": {**gone, "role": "x", "namespace": "b"}},
        "nodes, check": {"cluster_nodes": {**gone, "nodes": {"n": {}}}, "check_mode": True},
        "nodes": {"cluster_nodes": {**gone, "nodes": {"n": {}}}},
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": str(folder / "no-such-python")},
        "tasks": [{"name": name, "ignore_errors": True, **task} for name, task in tasks.items()],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    output = run(
        "ansible-playbook",
        *("-i", "localhost,", folder / "play.yml"),
        env={"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
    )
    # The timings of the tasks stand behind it.
    [made] = json.JSONDecoder().raw_decode(output, output.index("{"))[0]["plays"]
    return {task["task"]["name"]: task["hosts"]["localhost"] for task in made["tasks"]}


def test_a_check_without_a_cluster_says_what_would_be_made(results: dict[str, dict[str, Any]]) -> None:
    assert results["check"]["changed"]
    assert results["check"]["created"] == ["ConfigMap b/a"]
    assert results["nodes, check"]["nodes"] == ["n"]


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("no cluster", "no-such-kubeconfig does not exist"),
        ("not yaml", "the manifest is not YAML"),
        ("bad argument", "'wait' is of type str"),
        ("unknown argument", "namespace"),
        ("nodes", "no-such-kubeconfig does not exist"),
    ],
)
def test_an_expected_error_is_one_message(results: dict[str, dict[str, Any]], task: str, words: str) -> None:
    assert results[task]["failed"]
    assert words in results[task]["msg"]
    assert "hunter2" not in str(results)
    assert "Traceback" not in str(results[task])


def test_every_action_is_a_module() -> None:
    actions = {path.name for path in (REPOSITORY / "plugins/action").glob("*.py")}
    assert actions <= {path.name for path in (REPOSITORY / "plugins/modules").glob("*.py")}

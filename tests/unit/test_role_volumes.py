"""A role's data is deleted where its removal is asked for and so is its volume's, and on no other run."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from plugins.modules.cluster_objects import ARGUMENTS
from tests.commands import REPOSITORY

ROLES = sorted(
    path.parts[-3]
    for path in (REPOSITORY / "roles").glob("*/defaults/main.yml")
    if f"{path.parts[-3]}_delete_volume:" in path.read_text()
)


def sets(role: str) -> list[dict[str, Any]]:
    """What the role's tasks give to cluster_objects, as written."""
    files = sorted((REPOSITORY / "roles" / role / "tasks").glob("*.yml"))
    tasks = [task for path in files for task in yaml.safe_load(path.read_text())]
    return [task["cluster_objects"] for task in tasks if "cluster_objects" in task]


def evaluated(text: Any, variables: dict[str, Any]) -> Any:
    return NativeEnvironment().from_string(text).render(variables) if isinstance(text, str) else text


def test_the_roles_with_data_are_known() -> None:
    assert {"alertmanager", "grafana", "loki", "postgresql", "prometheus", "valkey"} <= set(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_a_claim_is_pruned_only_when_the_role_is_removed_with_its_volume(role: str) -> None:
    deleted = set()
    for state, delete_volume in product(("present", "absent"), (False, True)):
        variables = {f"{role}_state": state, f"{role}_delete_volume": delete_volume}
        for given in sets(role):
            of_set = evaluated(given.get("state", ARGUMENTS["state"]["default"]), variables)
            kept = evaluated(given.get("prune_protected", ARGUMENTS["prune_protected"]["default"]), variables)
            if "PersistentVolumeClaim" not in kept:
                deleted.add((of_set, delete_volume))
    assert deleted == {("absent", True)}

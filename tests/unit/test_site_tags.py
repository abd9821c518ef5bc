"""What a run of the main job for some tags only still does."""

from __future__ import annotations

import re

from tests.commands import run

RESOLVES = "artifacts : Keep where each artifact lies"


def tasks(*arguments: str) -> set[str]:
    """Names of the tasks that site.yml would run, without those of dynamic includes."""
    listed = run("ansible-playbook", "-i", "inventory/production.example", "site.yml", "--list-tasks", *arguments)
    return set(re.findall(r"^      (\S.*?)\tTAGS:", listed, re.MULTILINE))


def test_a_run_for_one_tag_knows_where_the_images_lie_and_pushes_nothing() -> None:
    some = tasks("--tags", "grafana")
    assert {RESOLVES, "Write the endpoints"} <= some
    assert "artifacts : Send what differs" not in some

"""The linters, each a test, and the rules that no linter knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.commands import REPOSITORY, run

# What roles bring in Python: modules and what they share, actions, and what is run on the hosts.
ROLES_PYTHON = (
    "roles/artifacts/module_utils/tradewatch_artifacts",
    "roles/preflight/module_utils/tradewatch_preflight",
    *(
        str(path.relative_to(REPOSITORY))
        for pattern in ("library", "action_plugins", "files/*.py")
        for path in sorted(REPOSITORY.glob(f"roles/*/{pattern}"))
    ),
)


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy", "lab", "molecule", "tests", "python_services/src", "plugins", *ROLES_PYTHON),
        ("yamllint", "--strict", "."),
        ("ansible-lint", "--offline", "--strict"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_linter_finds_nothing(command: tuple[str, ...]) -> None:
    # They are in no hurry: beside them run the end-to-end tests, which hold times to their bars.
    run("nice", "-n", "19", *command)


def roles(repository: Path) -> list[Path]:
    return sorted(path for path in (repository / "roles").iterdir() if path.is_dir())


def test_every_role_states_its_arguments(repository: Path) -> None:
    for role in roles(repository):
        defaults = yaml.safe_load((role / "defaults/main.yml").read_text()) or {}
        specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
        options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
        optional = {name for name, option in options.items() if not option.get("required")}
        assert set(defaults) == optional, f"{role.name}: defaults and argument_specs differ"
        for name, option in options.items():
            assert option.get("description"), f"{role.name}: {name} has no description"
            assert option.get("type"), f"{role.name}: {name} has no type"
            if "default" in option and "{{" not in str(defaults.get(name)):
                assert option["default"] == defaults.get(name), f"{role.name}: {name} has another default than stated"


def test_every_role_has_a_molecule_scenario(repository: Path) -> None:
    # k3s_node and services_table are common parts of roles whose scenarios run them; preflight has tests/preflight.
    covered_elsewhere = {"k3s_node", "preflight", "services_table"}
    scenarios = {path.parent.name for path in (repository / "molecule").glob("*/molecule.yml")}
    missing = {role.name for role in roles(repository)} - covered_elsewhere - scenarios
    assert not missing, f"roles without a scenario: {sorted(missing)}"


def test_collections_are_those_that_the_venv_carries(repository: Path) -> None:
    wanted = yaml.safe_load((repository / "requirements.yml").read_text())["collections"]
    listed = run("ansible-galaxy", "collection", "list", "--format", "yaml")
    folders = yaml.safe_load(listed[listed.index("/") :])
    within = [found for folder, found in folders.items() if Path(folder).is_relative_to(repository / ".venv")]
    carried = {name: entry for found in within for name, entry in found.items()}
    for collection in wanted:
        assert carried[collection["name"]]["version"] == collection["version"], collection["name"]

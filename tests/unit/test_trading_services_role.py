"""What the role trading_services makes of production's table, read back."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.commands import REPOSITORY
from tests.unit.test_monitoring_services_role import play

TABLE = yaml.safe_load((REPOSITORY / "inventory/production.example/group_vars/all/services.yml").read_text())
SERVICES = [entry for entry in TABLE["tradewatch_services"] if entry["namespace"] != "crypto-monitoring"]
STARTUP_SECONDS = 77


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The one container of each Deployment's pods, by the Deployment's name."""
    folder = tmp_path_factory.mktemp("trading_services")
    play(folder, ["trading_services"], trading_services_startup_seconds=STARTUP_SECONDS)
    found = {}
    for item in yaml.safe_load_all((folder / "trading-services.yml").read_text()):
        if item and item["kind"] == "Deployment":
            [found[item["metadata"]["name"]]] = item["spec"]["template"]["spec"]["containers"]
    return found


def test_every_entry_is_a_deployment(containers: dict[str, dict[str, Any]]) -> None:
    assert set(containers) == {entry["name"] for entry in SERVICES}


@pytest.mark.parametrize("entry", SERVICES, ids=lambda entry: entry["name"])
def test_a_service_that_hangs_is_restarted_and_one_that_is_not_ready_gets_no_callers(
    containers: dict[str, dict[str, Any]], entry: dict[str, Any]
) -> None:
    container = containers[entry["name"]]
    assert {"name": "http", "containerPort": entry["port"], "protocol": "TCP"} in container["ports"]
    startup, liveness, readiness = (container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    assert startup["httpGet"] == liveness["httpGet"] == {"path": "/healthz", "port": "http"}
    assert readiness["httpGet"] == {"path": "/readyz", "port": "http"}
    assert startup["periodSeconds"] * startup["failureThreshold"] == STARTUP_SECONDS
    # One slow answer is no reason for a restart, and a restart takes longer to come than the loss of callers.
    assert liveness["failureThreshold"] > 1
    assert readiness["failureThreshold"] > 1
    seconds = {
        kind: each["periodSeconds"] * each["failureThreshold"]
        for kind, each in (("live", liveness), ("ready", readiness))
    }
    assert seconds["ready"] <= 10 < seconds["live"] <= 60
    assert liveness["timeoutSeconds"] <= liveness["periodSeconds"]
    assert readiness["timeoutSeconds"] <= readiness["periodSeconds"]

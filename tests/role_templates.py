"""The roles' templates as Ansible renders them, without a run."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

from tests.commands import REPOSITORY

ROLES = REPOSITORY / "roles"

SECRETS = ("alert_webhook_token", "alertmanager_password", "grafana_password", "prometheus_password")
# What the inventory says, of which the templates here read little.
INVENTORY: dict[str, Any] = {
    "cluster_name": "test",
    "kubeconfig_path": "/nowhere",
    "admin_cidrs": ["192.0.2.1/32"],
    "analytics_names": ["a", "192.0.2.2"],
    "api_server_cidrs": ["192.0.2.3/32"],
    "analytics_address": "192.0.2.2",
    "dashboards_node_port": 30080,
    **{f"vault_{name}": "secret" for name in SECRETS},
    "artifacts_resolved": {
        "alertmanager": {"image": "localhost/tradewatch/alertmanager:1"},
        "grafana": {"image": "grafana:1"},
        "loki": {"image": "localhost/tradewatch/loki:1"},
        "promtail": {"image": "localhost/tradewatch/promtail:1"},
    },
}


@functools.cache
def load_plugins() -> None:
    """Have Ansible find its filters and lookups: once for a process, it refuses a second time."""
    with contextlib.suppress(Exception):
        init_plugin_loader()


def render(role: str, template: str, state_dir: Path, **settings: Any) -> str:
    """A template of a role with its defaults, as Ansible renders it."""
    load_plugins()
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROLES / role / folder / "main.yml"), trusted_as_template=True)
    home = str(ROLES / role)
    variables |= INVENTORY | {"state_dir": str(state_dir), "role_path": home, "ansible_search_path": [home]} | settings
    lookup = trust_as_template(f"{{{{ lookup('ansible.builtin.template', '{template}') }}}}")
    return str(Templar(loader=loader, variables=variables).template(lookup))

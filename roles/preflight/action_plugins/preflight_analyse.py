"""Collects what the analysis reads. Variables are evaluated one by one: a broken template hides no other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import AnsibleVaultError
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template

# RECORD_PREFIX of plugins/vars/checked_group_vars.py.
_RECORD_PREFIX = "tradewatch_broken_vars_file_"
# The tables whose rows hold secrets, below `values`.
_SECRET_TABLES = ("tradewatch_secrets", "tradewatch_simulator_secrets")
_EXAMPLE_SECRET = "change-me"  # noqa: S105 - what vault.yml.example has


class ActionModule(ActionBase):  # type: ignore[misc]
    """The action ``preflight_analyse``: the module of the same name with the data it cannot see itself."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Collect, and run the module on the control host."""
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        settings = dict(self._task.args)
        hosts = [host for host in variables["groups"].get("all", []) if host != "localhost"]
        failures: dict[str, str] = {}
        names = [*settings["required_variables"], *settings["optional_variables"]]
        values = {name: self._value(name, variables, failures) for name in names}
        addresses, address_failures = self._addresses(hosts, variables["hostvars"])
        secrets = {name: self._secret(name, variables, failures) for name in settings["secrets"]}
        data = {
            "sources": list(variables.get("ansible_inventory_sources") or []),
            "base": os.getcwd(),
            "groups": {
                group: [host for host in members if host != "localhost"] for group, members in _groups(variables)
            },
            "addresses": addresses,
            "address_failures": address_failures,
            "values": {name: value for name, value in values.items() if value is not None},
            "secrets": secrets,
            "refusals": [
                {"name": row["name"], "what": what, "fix": row["fix"]}
                for row in settings["checks"]
                for what in self._refusals(row, variables, failures, secrets)
            ],
            "failures": failures,
            "broken_files": _broken_files(hosts, variables),
            "probes": {host: probe for host in hosts if (probe := _probe(variables["hostvars"], host)) is not None},
            "settings": settings,
        }
        result.update(self._execute_module("preflight_analyse", module_args={"data": data}, task_vars=variables))
        return result

    def _value(self, name: str, variables: Mapping[str, Any], failures: dict[str, str]) -> Any:
        table = variables.get(name)
        if name in _SECRET_TABLES and isinstance(table, list):
            # As it is written: neither is a secret needed, nor does one that is missing hide the table.
            return [_without_values(row) for row in table]
        value = _evaluated(self._templar, name, name, variables, failures)
        if name in _SECRET_TABLES and value is not None:
            return [_without_values(row) for row in value] if isinstance(value, list) else ""
        return value

    def _refusals(
        self,
        row: Mapping[str, str],
        variables: Mapping[str, Any],
        failures: dict[str, str],
        secrets: Mapping[str, str],
    ) -> list[str]:
        """What a row of the role's checks finds wrong with its variable; the value, which may be secret, stays here."""
        name = row["name"]
        # Of a secret that is not set, and of a variable that cannot be evaluated, something is said already.
        if secrets.get(name, "set") != "set" or _evaluated(self._templar, name, name, variables, failures) is None:
            return []
        try:
            found = self._templar.evaluate_expression(trust_as_template(row["check"]))
        except AnsibleError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return [f"is malformed ({' '.join(str(cause).split())})"]
        return [str(line) for line in found] if isinstance(found, list) else []

    def _secret(self, name: str, variables: Mapping[str, Any], failures: dict[str, str]) -> str:
        """What is to be said of a secret; its value stays here."""
        if name not in variables:
            return "missing"
        value = _evaluated(self._templar, name, name, variables, failures)
        if value is None or (isinstance(value, str) and not value.strip()):
            return "empty"
        if not isinstance(value, str):
            return "type"
        return "example" if value == _EXAMPLE_SECRET else "set"

    def _addresses(self, hosts: list[str], hostvars: Any) -> tuple[dict[str, str | None], dict[str, str]]:
        addresses: dict[str, str | None] = {}
        failures: dict[str, str] = {}
        for host in hosts:
            variables = hostvars.raw_get(host)
            templar = Templar(loader=self._loader, variables=variables)
            value = _evaluated(templar, "ansible_host", host, variables, failures)
            addresses[host] = None if value is None else str(value)
        return addresses, failures


def _without_values(row: Any) -> Any:
    """A row of the table of Secrets with its keys, and nothing in them."""
    if not isinstance(row, dict):
        return ""
    values = row.get("values")
    return {**row, "values": dict.fromkeys(values, "") if isinstance(values, dict) else ""}


def _evaluated(templar: Any, name: str, key: str, variables: Mapping[str, Any], failures: dict[str, str]) -> Any:
    if name not in variables:
        return None
    try:
        return templar.template(templar.resolve_variable_expression(name))
    except AnsibleVaultError:
        # Its message may quote what it could not decrypt.
        failures[key] = "the vault cannot be opened with the password given"
    except AnsibleError as error:
        failures[key] = " ".join(str(error).split())
    return None


def _groups(variables: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    return [(str(group), [str(host) for host in members]) for group, members in variables["groups"].items()]


def _broken_files(hosts: list[str], variables: Mapping[str, Any]) -> list[dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for seen in (variables, *(variables["hostvars"].raw_get(host) for host in hosts)):
        for name in seen:
            if str(name).startswith(_RECORD_PREFIX):
                found[str(name)] = {key: str(value) for key, value in seen[name].items()}
    return list(found.values())


def _probe(hostvars: Any, host: str) -> dict[str, Any] | None:
    probe = hostvars.raw_get(host).get("__preflight_probe")
    return dict(probe) if probe and "reachable" in probe else None

#!/usr/bin/python
"""Look at a running platform from outside, and say what is not as it should be."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.tradewatch_verify import access, connections, dns, hosts, monitoring, nodes, workloads
from ansible.module_utils.tradewatch_verify.cluster import Cluster
from kubernetes import client, config
from urllib3.exceptions import HTTPError

DOCUMENTATION = r"""
module: platform_verify
short_description: Check a running platform from outside
description:
  - Runs every check, then reports all that failed at once. Nothing that it makes outlives it.
  - In check mode only what reads is done; nothing is started in the cluster.
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  endpoints_file:
    description: The C(endpoints.json) that monitoring.yml wrote.
    type: path
    required: true
  nodes:
    description: Host name to C({address, role, version}), as the inventory and the host itself say.
    type: dict
    required: true
  host_files:
    description: Host name to a list of C({path, mode}), of the files that hold secrets.
    type: dict
    required: true
  snapshots:
    description:
      - Server name to C({schedule, now, newest}), cron's five fields, the host's clock (ISO 8601), and when its newest
        etcd snapshot was taken (seconds since 1970, 0 for none).
    type: dict
    required: true
  audit:
    description: Server name to what is wrong with its audit log, an empty text for nothing.
    type: dict
    required: true
  namespaces:
    description: The table C(tradewatch_namespaces).
    type: list
    elements: dict
    required: true
  services:
    description: The services table, simulators included.
    type: list
    elements: dict
    required: true
  infrastructure:
    description: What else is to run, as C({name, namespace, node_role, port}).
    type: list
    elements: dict
    required: true
  timeout_seconds:
    description: How long to wait for what takes time after a deployment - targets, rates, pods.
    type: int
    default: 120
author: Tradewatch
"""

EXAMPLES = r"""
- name: Check everything
  platform_verify:
    kubeconfig: "{{ kubeconfig_path }}"
    endpoints_file: "{{ state_dir }}/endpoints.json"
    nodes: {control-1: {address: 192.0.2.10, role: control-plane, version: v1.34.4+k3s1}}
    host_files: {}
    snapshots: {}
    audit: {}
    namespaces: "{{ tradewatch_namespaces }}"
    services: "{{ tradewatch_services }}"
    infrastructure: []
"""

RETURN = r"""
summary:
  description: One line a check.
  type: list
  returned: always
"""

Check = Callable[[Cluster], Iterator[str]]

FLOWS = "allowed flows connect, all others do not"
DNS = "DNS answers pods on every node"


def run(cluster: Cluster) -> tuple[list[str], list[str]]:
    """All checks; returns the summary's lines and the failures."""
    probes = dns.DnsProbes(cluster)
    checks: list[tuple[str, Check]] = [
        ("nodes are the inventory's hosts, Ready, of the hosts' version", nodes.nodes_are_the_inventory),
        ("labels and taints are the inventory's", nodes.labels_and_taints),
        ("pods are ready, on nodes of their role", workloads.pods_run),
        ("namespaces deny by default", workloads.default_deny),
        ("Secrets are stored encrypted", access.secrets_are_encrypted),
        ("anonymous callers of the API get 401", access.anonymous_is_refused),
        ("tokens and kubeconfigs on the hosts are 0600", hosts.host_files_are_private),
        ("etcd has the snapshots that are scheduled", hosts.etcd_is_saved),
        ("changes are in the audit log", hosts.audit_log_is_written),
        (FLOWS, connections.flows),
        (DNS, lambda _: probes.answers()),
        ("callers without a password are refused", monitoring.passwords_are_wanted),
        ("annotated Services are up targets, and no target is down", monitoring.targets_are_up),
        ("alerts are evaluated and delivered", monitoring.rules_are_evaluated),
        ("logs from every namespace and node are stored", monitoring.logs_are_kept),
        ("market data flows for every product", monitoring.market_data_flows),
    ]
    summary: list[str] = []
    failures: list[str] = []
    early = [] if cluster.read_only else attempt(probes.start)
    for title, check in checks:
        if cluster.read_only and title in (FLOWS, DNS):
            summary.append(f"skip  {title} (check mode)")
            continue
        problems = attempt(functools.partial(check, cluster))
        if title == DNS:
            problems = early + problems
        summary.append(f"{'FAIL' if problems else 'ok  '}  {title}")
        summary += [f"        {problem}" for problem in problems]
        failures += [f"{title}: {problem}" for problem in problems]
    return summary, failures


def attempt(check: Callable[[], Iterator[str]]) -> list[str]:
    """A check's problems; an unexpected error is one of them, so that the other checks still run."""
    problems: list[str] = []
    try:
        problems.extend(check())
    except client.ApiException as error:
        problems.append(f"the API refused: {error.status} {error.reason} {error.body or ''}".strip())
    except (HTTPError, OSError, ValueError, KeyError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    return problems


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "endpoints_file": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "host_files": {"type": "dict", "required": True},
            "snapshots": {"type": "dict", "required": True},
            "audit": {"type": "dict", "required": True},
            "namespaces": {"type": "list", "elements": "dict", "required": True},
            "services": {"type": "list", "elements": "dict", "required": True},
            "infrastructure": {"type": "list", "elements": "dict", "required": True},
            "timeout_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        cluster = Cluster(module.params, module.check_mode)
    except (client.ApiException, config.ConfigException, HTTPError, OSError) as error:
        module.fail_json(msg=f"the cluster cannot be asked: {error}", summary=[])
    summary, failures = run(cluster)
    if failures:
        module.fail_json(msg="\n".join([f"{len(failures)} problems:", *failures]), summary=summary)
    module.exit_json(changed=False, summary=summary)


if __name__ == "__main__":
    main()

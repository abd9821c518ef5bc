"""Hold the nodes' labels and taints to the inventory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

DOCUMENTATION = r"""
module: cluster_nodes
short_description: Hold the nodes' labels and taints to the inventory
description:
  - Compares the named labels and taints of every node with what is wanted, and patches only what differs.
  - Labels and taints that are not named in O(labels) and O(taints) belong to others and are left alone.
  - It runs in Ansible's own process, through C(plugins/action/cluster_objects.py), which says why.
  - Nodes that the inventory does not have are left alone too; removing one is its own decision. They are warned of.
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  nodes:
    description: Node name to C({labels, taints}), labels as a dict and taints as a list of C({key, value, effect}).
    type: dict
    required: true
  labels:
    description: Label keys that this module owns; a node that is to have none loses it.
    type: list
    elements: str
    default: []
  taints:
    description: Taint keys that this module owns; a node that is to have none loses it.
    type: list
    elements: str
    default: []
  wait_timeout_seconds:
    description: How long to wait for a node that has not registered yet.
    type: int
    default: 120
author: Tradewatch
"""

EXAMPLES = r"""
- name: Label one node
  cluster_nodes:
    kubeconfig: "{{ kubeconfig_path }}"
    labels: [tradewatch/role]
    nodes:
      host-1:
        labels: {tradewatch/role: trading}
        taints: []
"""

RETURN = r"""
nodes:
  description: Names of the nodes that were changed.
  type: list
  returned: always
"""

Object = dict[str, Any]


def owned_taints(taints: list[Object], keys: list[str]) -> list[Object]:
    """The taints with one of the keys, in a comparable form."""
    found = [
        {name: taint[name] for name in ("key", "value", "effect") if taint.get(name)}
        for taint in taints
        if taint["key"] in keys
    ]
    return sorted(found, key=lambda taint: (taint["key"], taint["effect"]))


def difference(live: Object, wanted: Object, label_keys: list[str], taint_keys: list[str]) -> Object:
    """The merge patch that makes a node as wanted; empty when it is."""
    patch: Object = {}
    labels = live["metadata"].get("labels") or {}
    wanted_labels = wanted.get("labels") or {}
    changed = {key: wanted_labels.get(key) for key in label_keys if labels.get(key) != wanted_labels.get(key)}
    if changed:
        patch["metadata"] = {"labels": changed}
    taints: list[Object] = (live.get("spec") or {}).get("taints") or []
    wanted_taints = owned_taints(wanted.get("taints") or [], taint_keys)
    if owned_taints(taints, taint_keys) != wanted_taints:
        patch["spec"] = {"taints": [taint for taint in taints if taint["key"] not in taint_keys] + wanted_taints}
        # The list of taints is replaced as one; a taint added meanwhile (not-ready, say) must make this a conflict.
        patch.setdefault("metadata", {})["resourceVersion"] = live["metadata"]["resourceVersion"]
    return patch


def shown(node: Object, label_keys: list[str], taint_keys: list[str]) -> str:
    """The owned part of a node, for the diff."""
    labels = node["metadata"].get("labels") or {}
    return yaml.safe_dump(
        {
            "labels": {key: labels[key] for key in label_keys if labels.get(key) is not None},
            "taints": owned_taints((node.get("spec") or {}).get("taints") or [], taint_keys),
        }
    )


def list_nodes(api: Any) -> dict[str, Object]:
    """All nodes by name, as the API's own JSON."""
    listed: Object = api.api_client.sanitize_for_serialization(api.list_node(_request_timeout=(5, 60)))
    return {node["metadata"]["name"]: node for node in listed["items"]}


def wait_for_nodes(api: Any, names: set[str], timeout_seconds: float) -> dict[str, Object]:
    """All nodes by name, once every name is among them. Raises TimeoutError naming those that are not."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        live = list_nodes(api)
        missing = sorted(names - set(live))
        if not missing:
            return live
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not registered as nodes after {timeout_seconds} s: {', '.join(missing)}")
        time.sleep(1)


def reconcile(api: Any, name: str, wanted: Object, live: Object, parameters: Object, dry_run: bool) -> Object | None:
    """Patch one node until it is as wanted; returns the diff, None when there was nothing to do."""
    label_keys, taint_keys = parameters["labels"], parameters["taints"]
    before = shown(live, label_keys, taint_keys)
    for attempt in range(5):
        patch = difference(live, wanted, label_keys, taint_keys)
        if not patch:
            break
        if dry_run:
            live = {"metadata": {"labels": wanted.get("labels")}, "spec": {"taints": wanted.get("taints")}}
            break
        try:
            api.patch_node(name, patch, _request_timeout=(5, 60))
        except client.ApiException as error:
            if error.status != 409 or attempt == 4:
                raise
        live = api.api_client.sanitize_for_serialization(api.read_node(name, _request_timeout=(5, 60)))
    after = shown(live, label_keys, taint_keys)
    if before == after:
        return None
    return {"before_header": f"Node {name}", "after_header": f"Node {name}", "before": before, "after": after}


def run(parameters: Object, dry_run: bool, warn: Callable[[str], None]) -> Object:
    """The module's work; returns its result. Raises what EXPECTED names."""
    nodes: dict[str, Object] = parameters["nodes"]
    try:
        if not os.path.exists(parameters["kubeconfig"]):
            raise config.ConfigException(f"{parameters['kubeconfig']} does not exist")
        api = client.CoreV1Api(config.new_client_from_config(config_file=parameters["kubeconfig"]))
        live = list_nodes(api) if dry_run else wait_for_nodes(api, set(nodes), parameters["wait_timeout_seconds"])
    except (config.ConfigException, HTTPError, OSError) as error:
        if not dry_run:
            raise
        warn(f"{error}; would label {', '.join(nodes)}")
        return {"changed": bool(nodes), "nodes": sorted(nodes)}
    for name in sorted(set(live) - set(nodes)):
        warn(f"node {name} is not in the inventory: docs/operations.md says how to remove a host")
    unregistered: Object = {"metadata": {}, "spec": {}}
    diffs = {
        name: reconcile(api, name, wanted, live.get(name, unregistered), parameters, dry_run)
        for name, wanted in nodes.items()
    }
    changed = sorted(name for name, diff in diffs.items() if diff)
    return {"changed": bool(changed), "nodes": changed, "diff": [diff for diff in diffs.values() if diff]}


ARGUMENTS: Object = {
    "kubeconfig": {"type": "path", "required": True},
    "nodes": {"type": "dict", "required": True},
    "labels": {"type": "list", "elements": "str", "default": []},
    "taints": {"type": "list", "elements": "str", "default": []},
    "wait_timeout_seconds": {"type": "int", "default": 120},
}
EXPECTED = (client.ApiException, config.ConfigException, HTTPError, OSError)


def reason(error: Exception) -> str:
    """What people are told of one of the expected errors."""
    if isinstance(error, client.ApiException):
        return f"the API server refused: {error.status} {error.reason}: {error.body}"
    return str(error)

"""Apply one role's Kubernetes objects as a set: server-side apply, pruning, a bounded wait, an honest diff."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

DOCUMENTATION = r"""
module: cluster_objects
short_description: Apply a role's Kubernetes objects as one set
description:
  - Applies every object of a rendered manifest server-side, and removes what the role applied before and no longer
    renders.
  - Reports a change only where an object's content differs afterwards; status and bookkeeping fields do not count.
  - In check mode the API server dry-runs the same requests. Where there is no API or no namespace yet, the result is
    what would be created, not an error.
  - It runs in Ansible's own process, through C(plugins/action/cluster_objects.py), which says why.
  - C(kubernetes.core.k8s) is not used for these sets. It takes the status for content, cannot prune, prints Secrets
    in its diff, and its check mode fails while the namespace does not exist.
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  role:
    description: The owner; every object gets the label C(tradewatch.io/role) with it, and only such objects are pruned.
    type: str
    required: true
  manifest:
    description: Rendered manifest, any number of YAML documents. Kept out of logs, as it may hold Secrets.
    type: str
    default: ""
  state:
    description: C(present) applies and prunes, C(absent) removes everything of the role.
    type: str
    choices: [present, absent]
    default: present
  prune_protected:
    description: Kinds that are kept although they are no longer rendered (or O(state=absent)), because they hold data.
    type: list
    elements: str
    default: [Namespace, PersistentVolumeClaim]
  wait:
    description:
      - Wait until every Deployment, StatefulSet and DaemonSet is rolled out, and every Job done. A Job that fails ends
        the wait.
    type: bool
    default: true
  wait_timeout_seconds:
    description: Bound of that wait. Where something is not rolled out, its pods' events and last log lines are told.
    type: int
    default: 180
author: Tradewatch
"""

EXAMPLES = r"""
- name: Apply the set
  cluster_objects:
    kubeconfig: "{{ kubeconfig_path }}"
    role: valkey
    manifest: "{{ lookup('ansible.builtin.template', 'manifests.yml.j2') }}"
"""

RETURN = r"""
created:
  description: Objects that were not there, as C(Kind namespace/name).
  type: list
  returned: always
updated:
  description: Objects whose content differed.
  type: list
  returned: always
removed:
  description: Objects of the role that are no longer rendered.
  type: list
  returned: always
"""

Object = dict[str, Any]

# libyaml's where PyYAML was built with it: of the services' table the other reads for a second.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ROLE_LABEL = "tradewatch.io/role"
CHECKSUM_ANNOTATION = "tradewatch.io/config-checksum"
FIELD_MANAGER = "tradewatch"
REPLACE_SECONDS = 60.0
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

# Kind -> (API version, plural, namespaced), in the order in which objects are applied; they are removed in reverse.
KINDS: dict[str, tuple[str, str, bool]] = {
    "Namespace": ("v1", "namespaces", False),
    "ResourceQuota": ("v1", "resourcequotas", True),
    "LimitRange": ("v1", "limitranges", True),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies", True),
    "ServiceAccount": ("v1", "serviceaccounts", True),
    "ClusterRole": ("rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Role": ("rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings", True),
    "Secret": ("v1", "secrets", True),
    "ConfigMap": ("v1", "configmaps", True),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims", True),
    "Service": ("v1", "services", True),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets", True),
    "Deployment": ("apps/v1", "deployments", True),
    "StatefulSet": ("apps/v1", "statefulsets", True),
    "DaemonSet": ("apps/v1", "daemonsets", True),
    "Job": ("batch/v1", "jobs", True),
}


class ApiError(Exception):
    """The API server's refusal of one request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ApiUnreachable(Exception):
    """There is no kubeconfig, or nothing answers at its address."""


class Api:
    """The few REST calls that the module needs, over the official client's connection and credentials."""

    def __init__(self, kubeconfig: str) -> None:
        if not os.path.exists(kubeconfig):
            raise ApiUnreachable(f"{kubeconfig} does not exist")
        try:
            self._client = config.new_client_from_config(config_file=kubeconfig)
        except config.ConfigException as error:
            raise ApiUnreachable(f"{kubeconfig} is not a usable kubeconfig: {error}") from error
        self.warnings: list[str] = []

    def request(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> str:
        """One request; returns the response's text. Raises ApiError with the server's own message."""
        try:
            response = self._client.call_api(
                path,
                method,
                query_params=list(query),
                header_params={"Accept": accept, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(5, 60),
            )
        except client.ApiException as error:
            raise ApiError(error.status or 0, _error_message(error)) from error
        except (HTTPError, OSError) as error:
            raise ApiUnreachable(f"the API server does not answer: {error}") from error
        self.warnings += api_warnings(response.headers.get("Warning") or "")
        return str(response.data.decode())

    def get(self, path: str, query: Iterable[tuple[str, str]] = ()) -> Object | None:
        """The object at a path, None where there is none."""
        try:
            found: Object = json.loads(self.request("GET", path, query))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def items(self, path: str, query: Iterable[tuple[str, str]] = ()) -> list[Object]:
        """The items of a list."""
        listed = self.get(path, query) or {}
        items: list[Object] = listed.get("items") or []
        return items


def _error_message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return f"{error.status} {error.reason}"


def api_warnings(header: str) -> list[str]:
    """The texts of a ``Warning: 299 - "text"`` header (RFC 9111), which may hold several."""
    return [re.sub(r"\\(.)", r"\1", text) for text in re.findall(r'\b299 \S+ "((?:[^"\\]|\\.)*)"', header)]


def identity(item: Object) -> tuple[str, str, str]:
    """Kind, namespace (empty for what has none) and name."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def title(key: tuple[str, str, str]) -> str:
    """``Kind namespace/name``, as messages show it."""
    kind, namespace, name = key
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def collection_path(kind: str, namespace: str = "") -> str:
    """The REST path of a kind's collection, in all namespaces where none is given."""
    version, plural, _ = KINDS[kind]
    prefix = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def object_path(key: tuple[str, str, str]) -> str:
    """The REST path of one object."""
    kind, namespace, name = key
    return f"{collection_path(kind, namespace)}/{name}"


def parse(manifest: str, role: str) -> list[Object]:
    """The manifest's objects, labelled as the role's, in the order of application. Raises ValueError for a bad one."""
    objects: dict[tuple[str, str, str], Object] = {}
    for item in yaml.load_all(manifest, LOADER):
        if item is None:
            continue
        try:
            version, _, namespaced = KINDS[item["kind"]]
            key = identity(item)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not an object this module applies (missing or unknown: {error})") from error
        if item["apiVersion"] != version:
            raise ValueError(f"{title(key)}: apiVersion is {item['apiVersion']}, expected {version}")
        if namespaced != bool(key[1]):
            raise ValueError(f"{title(key)}: {'needs' if namespaced else 'cannot have'} a namespace")
        if key in objects:
            raise ValueError(f"{title(key)} is rendered twice")
        if "stringData" in item:
            # Server-side apply keeps a key that was once given as stringData, so everything is sent as data.
            texts = item.pop("stringData")
            item.setdefault("data", {}).update(
                {name: base64.b64encode(str(text).encode()).decode() for name, text in texts.items()}
            )
        for template in (item, *(item.get("spec") or {}).get("volumeClaimTemplates", [])):
            template["metadata"].setdefault("labels", {})[ROLE_LABEL] = role
        objects[key] = item
    order = list(KINDS)
    return sorted(objects.values(), key=lambda item: order.index(item["kind"]))


def content(item: Object | None) -> Object | None:
    """What the object says, without what the server and the controllers keep in it."""
    if item is None:
        return None
    kept = copy.deepcopy({name: value for name, value in item.items() if name != "status"})
    for name in ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"):
        kept["metadata"].pop(name, None)
    annotations = kept["metadata"].get("annotations")
    if annotations:
        annotations.pop("deployment.kubernetes.io/revision", None)
        if not annotations:
            del kept["metadata"]["annotations"]
    return kept


class _BlockDumper(yaml.SafeDumper):
    """Writes a text of several lines as such, so that a changed line of a configuration is one line of the diff."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockDumper.add_representer(str, _represent_text)


def _as_yaml(item: Object | None) -> str:
    return yaml.dump(item, Dumper=_BlockDumper, sort_keys=True) if item else ""


def shown(before: Object | None, after: Object | None) -> Object:
    """One entry of Ansible's diff. A Secret's values are never in it, only which keys changed."""
    before, after = content(before), content(after)
    either = after or before or {}
    if either.get("kind") == "Secret":
        old, new = dict((before or {}).get("data") or {}), dict((after or {}).get("data") or {})
        if before:
            before["data"] = dict.fromkeys(old, "(hidden)")
        if after:
            after["data"] = {key: "(hidden)" if old.get(key) == new[key] else "(hidden, changed)" for key in new}
    header = title(identity(either))
    return {
        "before_header": header,
        "after_header": header,
        "before": _as_yaml(before),
        "after": _as_yaml(after),
    }


def configuration_references(pod: Object) -> Iterator[tuple[str, str]]:
    """(kind, name) of each Secret and ConfigMap that a pod specification mounts."""
    for volume in pod.get("volumes") or []:
        sources = [volume, *(volume.get("projected") or {}).get("sources", [])]
        for source in sources:
            if "secret" in source:
                yield "Secret", source["secret"].get("secretName") or source["secret"]["name"]
            if "configMap" in source:
                yield "ConfigMap", source["configMap"]["name"]


def checksum(key: tuple[str, str, str], item: Object | None) -> str:
    """A short digest of a ConfigMap's or Secret's data.

    Pod templates are readable by people who may not read Secrets, so a Secret's digest is a slow one: it is no
    quick test for a guessed password.
    """
    data = json.dumps([(item or {}).get("data") or {}, (item or {}).get("binaryData") or {}], sort_keys=True).encode()
    if key[0] == "Secret":
        return hashlib.scrypt(data, salt=title(key).encode(), n=2**14, r=8, p=1, dklen=8).hex()
    return hashlib.sha256(data).hexdigest()[:16]


def failed(job: Object) -> bool:
    """Whether a Job has given up: only a new one tries again."""
    conditions = (job.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Failed" and each["status"] == "True" for each in conditions)


def progress(workload: Object) -> str:
    """How much of a workload there is, ``1 of 2 ready``."""
    spec, status = workload["spec"], workload.get("status") or {}
    if workload["kind"] == "Job":
        return f"{status.get('succeeded', 0)} of {spec.get('completions', 1)} done{', failed' * failed(workload)}"
    if workload["kind"] == "DaemonSet":
        return f"{status.get('numberReady', 0)} of {status.get('desiredNumberScheduled', 0)} ready"
    return f"{status.get('readyReplicas', 0)} of {spec.get('replicas', 1)} ready"


def rolled_out(workload: Object) -> bool:
    """Whether all replicas of the present specification serve; of a Job, whether it is done."""
    status = workload.get("status") or {}
    if workload["kind"] == "Job":
        return bool(status.get("succeeded", 0) >= workload["spec"].get("completions", 1))
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return False
    if workload["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(status.get("updatedNumberScheduled", 0) >= wanted and status.get("numberReady", 0) >= wanted)
    wanted = workload["spec"].get("replicas", 1)
    available = status.get("availableReplicas", 0) >= wanted and status.get("replicas", 0) == wanted
    return bool(available and (wanted == 0 or status.get("updatedReplicas", 0) >= wanted))


@dataclass
class ObjectSet:
    """One role's objects and what was done to them."""

    api: Api
    role: str
    dry_run: bool
    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    diff: list[Object] = field(default_factory=list)

    def live(self) -> dict[tuple[str, str, str], Object]:
        """Everything in the cluster that carries the role's label."""
        found: dict[tuple[str, str, str], Object] = {}
        for kind, (version, _, _) in KINDS.items():
            for item in self.api.items(collection_path(kind), [("labelSelector", f"{ROLE_LABEL}={self.role}")]):
                item |= {"apiVersion": version, "kind": kind}
                found[identity(item)] = item
        return found

    def apply(self, item: Object, before: Object | None) -> None:
        """Apply one object; before is its live state where it is known to be the role's."""
        key = identity(item)
        before = before or self.api.get(object_path(key))
        if item["kind"] == "Job" and before and (failed(before) or self._changes_template(item)):
            self._replace(item, before)
            return
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")] + [("dryRun", "All")] * self.dry_run
        try:
            after: Object = json.loads(
                self.api.request("PATCH", object_path(key), query, item, "application/apply-patch+yaml")
            )
        except ApiError as error:
            if not (self.dry_run and error.status == 404):
                raise ApiError(error.status, f"{title(key)}: {error}") from error
            after = item  # its namespace would be made in the same run
        if before is None:
            self.created.append(title(key))
        elif content(before) != content(after):
            self.updated.append(title(key))
        else:
            return
        self.diff.append(shown(before, after))

    def _changes_template(self, item: Object) -> bool:
        """Whether the API server would refuse the new specification, since a Job's pod template cannot be changed."""
        query = [("fieldManager", FIELD_MANAGER), ("force", "true"), ("dryRun", "All")]
        try:
            self.api.request("PATCH", object_path(identity(item)), query, item, "application/apply-patch+yaml")
        except ApiError as error:
            if error.status == 422 and "immutable" in str(error):
                return True
            raise ApiError(error.status, f"{title(identity(item))}: {error}") from error
        return False

    def _replace(self, item: Object, before: Object) -> None:
        """Remove a Job with its pods, and make the new one: it runs once more."""
        key = identity(item)
        self.updated.append(title(key))
        self.diff.append(shown(before, item))
        if self.dry_run:
            return
        self.api.request("DELETE", object_path(key), [("propagationPolicy", "Foreground")])
        if self.wait_gone([key], REPLACE_SECONDS):
            raise TimeoutError(f"{title(key)} is still there {REPLACE_SECONDS:.0f} s after its removal")
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        self.api.request("PATCH", object_path(key), query, item, "application/apply-patch+yaml")

    def stamp(self, item: Object, objects: dict[tuple[str, str, str], Object]) -> None:
        """Write the digest of a workload's mounted configuration into its pod template, so that a change rolls it."""
        template = item["spec"]["template"]
        digests = []
        for kind, name in configuration_references(template["spec"]):
            key = (kind, item["metadata"]["namespace"], name)
            source = objects.get(key) or self.api.get(object_path(key))
            digests.append(checksum(key, source))
        if digests:
            value = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
            template.setdefault("metadata", {}).setdefault("annotations", {})[CHECKSUM_ANNOTATION] = value

    def remove(self, item: Object) -> bool:
        """Remove one object; False where that is already under way."""
        key = identity(item)
        if item["metadata"].get("deletionTimestamp"):
            return False
        self.removed.append(title(key))
        self.diff.append(shown(item, None))
        if not self.dry_run:
            try:
                self.api.request("DELETE", object_path(key), [("propagationPolicy", "Background")])
            except ApiError as error:
                if error.status != 404:
                    raise ApiError(error.status, f"{title(key)}: {error}") from error
        return True

    def wait_rolled_out(self, objects: list[Object], timeout_seconds: float) -> list[Object]:
        """The workloads that are not rolled out when the time is over or a Job has failed; empty is success."""
        waiting = [item for item in objects if item["kind"] in WORKLOADS]
        deadline = time.monotonic() + timeout_seconds
        while True:
            live = [self.api.get(object_path(identity(item))) or item for item in waiting]
            waiting = [item for item in live if "status" not in item or not rolled_out(item)]
            if not waiting or any(map(failed, waiting)) or time.monotonic() >= deadline:
                return waiting
            time.sleep(1)

    def wait_gone(self, keys: list[tuple[str, str, str]], timeout_seconds: float) -> list[str]:
        """The objects that are still there when the time is over; empty is success."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            keys = [key for key in keys if self.api.get(object_path(key))]
            if not keys or time.monotonic() >= deadline:
                return [title(key) for key in keys]
            time.sleep(1)

    def report(self, workload: Object) -> list[str]:
        """Why a workload is not rolled out: its pods' states, events and last log lines."""
        key = identity(workload)
        namespace = key[1]
        lines = [f"{title(key)}: {progress(workload)}"]
        # A Job as it is rendered has no selector: the API server makes it.
        rendered: Object = {"matchLabels": {"batch.kubernetes.io/job-name": key[2]}}
        labels = workload["spec"].get("selector", rendered)["matchLabels"]
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        pods = self.api.items(f"/api/v1/namespaces/{namespace}/pods", [("labelSelector", selector)])
        for event in self.api.items(f"/api/v1/namespaces/{namespace}/events"):
            involved = event.get("involvedObject", {}).get("name", "")
            # The workload's own, its pods' and its volume claims' names all hold its name.
            if event.get("type") != "Normal" and key[2] in involved:
                lines.append(f"  event {involved}: {event.get('reason')}: {event.get('message')}")
        for pod in pods:
            lines += self._report_pod(namespace, pod)
        return lines

    def _report_pod(self, namespace: str, pod: Object) -> Iterator[str]:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        yield f"  pod {name} on {pod['spec'].get('nodeName', 'no node')}: {status.get('phase')}"
        for state in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            if state.get("ready"):
                continue
            reason: Object = next(iter(state.get("state", {}).values()), {})
            yield f"    container {state['name']}: {json.dumps(reason)}, {state.get('restartCount', 0)} restarts"
            query = [("container", state["name"]), ("tailLines", "15")]
            waiting_after_crash = "waiting" in state.get("state", {}) and state.get("restartCount", 0) > 0
            try:
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
                text = self.api.request("GET", path, query + [("previous", "true")] * waiting_after_crash, accept="*/*")
            except ApiError:
                continue  # a container that never started has no log
            yield from (f"      {line}" for line in text.splitlines())


def run(parameters: Object, dry_run: bool, warn: Callable[[str], None]) -> Object:
    """The module's work; returns its result. Raises what EXPECTED names."""
    absent = parameters["state"] == "absent"
    objects = [] if absent else parse(parameters["manifest"], parameters["role"])
    try:
        api = Api(parameters["kubeconfig"])
        result = converge(api, parameters, objects, dry_run)
    except ApiUnreachable as error:
        if not dry_run:
            raise
        titles = [title(identity(item)) for item in objects]
        would = f"would apply {len(titles)} objects: {', '.join(titles)}"
        warn(f"{error}; {'what would be removed is not known' if absent else would}")
        return {
            "changed": bool(titles),
            "created": titles,
            "updated": [],
            "removed": [],
        }
    for warning in dict.fromkeys(api.warnings):
        warn(warning)
    return result


def converge(api: Api, parameters: Object, objects: list[Object], dry_run: bool) -> Object:
    """Apply, prune, wait. Raises TimeoutError when the wait's bound is reached, or a Job has failed before."""
    work = ObjectSet(api, parameters["role"], dry_run)
    live = work.live()
    wanted = {identity(item): item for item in objects}
    for key, item in wanted.items():
        if key[0] in WORKLOADS:
            work.stamp(item, wanted)
        work.apply(item, live.get(key))
    order = list(KINDS)
    stale = [item for key, item in live.items() if key not in wanted and key[0] not in parameters["prune_protected"]]
    stale.sort(key=lambda item: order.index(item["kind"]), reverse=True)
    removed = [identity(item) for item in stale if work.remove(item)]
    if not dry_run and parameters["wait"]:
        timeout = parameters["wait_timeout_seconds"]
        remaining = work.wait_gone(removed, timeout)
        if remaining:
            raise TimeoutError(f"still there {timeout} s after their removal: {', '.join(remaining)}")
        began = time.monotonic()
        unready = work.wait_rolled_out(objects, timeout)
        if unready:
            waited = time.monotonic() - began
            lines = [line for item in unready for line in work.report(item)]
            raise TimeoutError("\n".join([f"not rolled out after {waited:.0f} s:", *lines]))
    return {
        "changed": bool(work.created or work.updated or work.removed),
        "created": work.created,
        "updated": work.updated,
        "removed": work.removed,
        "diff": work.diff,
    }


ARGUMENTS: Object = {
    "kubeconfig": {"type": "path", "required": True},
    "role": {"type": "str", "required": True},
    "manifest": {"type": "str", "default": "", "no_log": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "prune_protected": {"type": "list", "elements": "str", "default": ["Namespace", "PersistentVolumeClaim"]},
    "wait": {"type": "bool", "default": True},
    "wait_timeout_seconds": {"type": "int", "default": 180},
}
EXPECTED = (ApiError, ApiUnreachable, TimeoutError, ValueError, yaml.MarkedYAMLError)


def reason(error: Exception) -> str:
    """What people are told of one of the expected errors."""
    if isinstance(error, yaml.MarkedYAMLError):
        # Not the error's own text: it quotes the manifest, which may hold a Secret.
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return f"the manifest is not YAML: {error.problem} in line {line}"
    return str(error)

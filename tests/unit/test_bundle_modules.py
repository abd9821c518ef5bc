"""The bundle's Go modules agree on what Kubernetes' client needs, so that Go compiles it once for all of them."""

from __future__ import annotations

import re

import pytest

from lab.bundle.golang import MODULES

CLIENT = "k8s.io/client-go"
# What the client imports, itself or by what it imports.
SHARED = re.compile(
    r"k8s\.io/(api|apimachinery|client-go|klog/v2|kube-openapi|utils)"
    r"|sigs\.k8s\.io/(json|randfill|structured-merge-diff/v6|yaml)"
    r"|golang\.org/x/(net|oauth2|sys|term|text|time)"
    r"|google\.golang\.org/protobuf|go\.yaml\.in/yaml/v[23]|gopkg\.in/(evanphx/json-patch\.v4|inf\.v0|yaml\.v3)"
    r"|github\.com/(davecgh/go-spew|emicklei/go-restful/v3|fxamacker/cbor/v2|go-logr/logr|go-openapi/json\w+"
    r"|go-openapi/swag|gogo/protobuf|google/gnostic-models|google/uuid|json-iterator/go|modern-go/\w+|spf13/pflag"
    r"|x448/float16)"
)
# Prometheus and Loki do not compile with the client of the cluster's version.
ALIKE = {
    "coredns": "kubernetes",
    "kube-state-metrics": "kubernetes",
    "local-path-provisioner": "kubernetes",
    "loki": "prometheus",
}
# The pods' network is what upstream has tested.
ALONE = {"kube-router", "kubernetes", "prometheus"}


def versions(module: str) -> dict[str, str]:
    """The versions that a go.mod builds with: what it requires, but for what it replaces by another version."""
    text = re.sub(r"//.*", "", (MODULES / module / "go.mod").read_text())
    required = dict(re.findall(r"^(?:require )?\s*(\S+\.\S+/\S+|\S+\.\S+) (v\S+)\s*$", text, re.MULTILINE))
    replaced = re.findall(r"^(?:replace )?\s*(\S+) => (\S+) (v\S+)\s*$", text, re.MULTILINE)
    return required | {path: version for path, by, version in replaced if path == by and path in required}


def test_every_module_with_the_client_is_compared() -> None:
    assert {path.parent.name for path in MODULES.glob("*/go.mod") if CLIENT in path.read_text()} == ALIKE.keys() | ALONE


@pytest.mark.parametrize("module", ALIKE)
def test_a_module_builds_the_client_as_another_does(module: str) -> None:
    ours, theirs = versions(module), versions(ALIKE[module])
    shared = {path for path in ours.keys() & theirs.keys() if SHARED.fullmatch(path)}
    assert CLIENT in shared
    assert {path: ours[path] for path in shared} == {path: theirs[path] for path in shared}

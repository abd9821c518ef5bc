"""The bundle's Go modules agree on their dependencies' versions, so that Go compiles each once for all of them."""

from __future__ import annotations

import re

import pytest

from lab.bundle.golang import MODULES

# Of which dependencies a module needs other versions than Kubernetes': what its code does not compile with, or does not
# go below.
OWN = {
    "coredns": r"github\.com/(coredns/caddy|prometheus/(client_golang|client_model|common|procfs))",
    "etcd": r"",
    "kube-router": (
        r"github\.com/(Azure/go-ansiterm|prometheus/(client_model|common|procfs))"
        r"|go\.opentelemetry\.io/(otel/exporters/otlp/otlptrace|proto/otlp)"
    ),
    "kube-state-metrics": r"github\.com/fsnotify/fsnotify|go\.opentelemetry\.io/otel(/trace)?|golang\.org/x/exp",
    "local-path-provisioner": (
        r"github\.com/(cespare/xxhash/v2|prometheus/(client_golang|client_model|common|procfs))"
    ),
    "prometheus": (
        r"github\.com/(coreos/go-systemd/v22|fsnotify/fsnotify|grpc-ecosystem/grpc-gateway/v2"
        r"|prometheus/(client_golang|client_model|common|procfs))"
        r"|go\.opentelemetry\.io/(otel/exporters/otlp/otlptrace(/otlptracegrpc)?|proto/otlp)|go\.uber\.org/zap"
        r"|golang\.org/x/exp|google\.golang\.org/genproto/googleapis/api"
    ),
    "loki": (
        r"cel\.dev/expr|go\.etcd\.io/etcd/\S+"
        r"|go\.opentelemetry\.io/contrib/instrumentation/google\.golang\.org/grpc/otelgrpc|golang\.org/x/exp"
        r"|google\.golang\.org/(genproto/googleapis/(api|rpc)|grpc)"
    ),
}


def versions(module: str) -> dict[str, str]:
    """The versions that a go.mod builds with: what it requires, and what it replaces by something else.

    What is compiled bears the required version: a replaced module is shared with nobody who requires its other version.
    """
    text = re.sub(r"//.*", "", (MODULES / module / "go.mod").read_text())
    required = dict(re.findall(r"^(?:require )?\s*(\S+\.\S+/\S+|\S+\.\S+) (v\S+)\s*$", text, re.MULTILINE))
    replaced = re.findall(r"^(?:replace )?\s*(\S+) => (\S+) (v\S+)\s*$", text, re.MULTILINE)
    others = {
        path: f"{required[path]} => {by} {version}"
        for path, by, version in replaced
        if path in required and (path, required[path]) != (by, version)
    }
    return required | others


def test_every_module_is_compared() -> None:
    assert {path.parent.name for path in MODULES.glob("*/go.mod")} == OWN.keys() | {"kubernetes"}


@pytest.mark.parametrize("module", OWN)
def test_a_module_takes_the_versions_of_kubernetes(module: str) -> None:
    ours, theirs = versions(module), versions("kubernetes")
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 50
    differing = {path: (ours[path], theirs[path]) for path in shared if ours[path] != theirs[path]}
    assert {path: pair for path, pair in differing.items() if not re.fullmatch(OWN[module], path)} == {}

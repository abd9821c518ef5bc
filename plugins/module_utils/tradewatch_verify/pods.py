"""A pod that may run in every namespace of the platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]


def restricted_pod(metadata: Mapping[str, Any], image: str, command: Sequence[str], **placement: Any) -> Object:
    """A pod as restricted as the services are, of an image that its node holds already.

    Args:
        metadata: name, namespace, labels.
        image: as the node names it.
        command: what it runs, once.
        placement: further keys of its specification, such as ``nodeName`` or ``activeDeadlineSeconds``.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": dict(metadata),
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": list(command),
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
            **placement,
        },
    }

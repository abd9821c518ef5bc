"""Which pods serve."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Pod = dict[str, Any]


def tradewatch_serving_pods(pods: Iterable[Pod]) -> list[Pod]:
    """The pods that run on a node, are ready and are not being deleted: a Service sends callers to these alone."""
    return [pod for pod in pods if _serves(pod)]


def _serves(pod: Pod) -> bool:
    status = pod.get("status") or {}
    ready = any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in status.get("conditions") or []
    )
    terminating = bool(pod["metadata"].get("deletionTimestamp"))
    return bool(pod["spec"].get("nodeName")) and status.get("phase") == "Running" and ready and not terminating


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., list[Pod]]]:
        """The filters by name."""
        return {"tradewatch_serving_pods": tradewatch_serving_pods}

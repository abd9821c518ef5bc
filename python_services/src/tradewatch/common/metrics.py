"""How metrics are declared: each area lists its `Metric`s once, and code, `/metrics` and docs/metrics.md follow.

Label values must come from a bounded set (configuration or an enumeration), never from what a peer sent.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

import tradewatch

# `_created` series double the number of series and nothing reads them.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Metric:
    """One metric's definition. `labels` maps each label to what its values are; `unit` is for the reader."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str
    labels: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        """Register as a counter; the name ends in `_total`."""
        self._expect("counter")
        return Counter(self.name, self.help, tuple(self.labels), registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """Register as a gauge."""
        self._expect("gauge")
        return Gauge(self.name, self.help, tuple(self.labels), registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """Register as a histogram with this definition's buckets."""
        self._expect("histogram")
        return Histogram(self.name, self.help, tuple(self.labels), buckets=self.buckets, registry=registry)

    def _expect(self, kind: str) -> None:
        if self.kind != kind:
            raise TypeError(f"{self.name} is a {self.kind}, not a {kind}")


@dataclass(frozen=True)
class Area:
    """A titled group of metrics and the services that export them, as docs/metrics.md shows it."""

    title: str
    services: tuple[str, ...]
    metrics: tuple[Metric, ...]


BUILD_INFO = Metric(
    "tradewatch_build_info",
    "gauge",
    "Always 1; the labels say which version of which service runs.",
    "none",
    {"service": "the service's `run` name", "version": "Tradewatch's version", "python_version": "X.Y.Z"},
)


def new_registry(service: str) -> CollectorRegistry:
    """A registry of its own for one service, holding the process's, the garbage collector's and the build's metrics."""
    registry = CollectorRegistry(auto_describe=True)
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.GCCollector(registry=registry)
    BUILD_INFO.gauge(registry).labels(
        service=service, version=tradewatch.__version__, python_version=platform.python_version()
    ).set(1)
    return registry

"""k3s's configuration: files, drop-ins and flags merged, every key known by name, every value checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.k3s_standin import cron, paths, tokens, yaml_subset
from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.yaml_subset import Scalar, Value

PACKAGED = ("coredns", "local-storage", "metrics-server", "servicelb", "traefik")
_BOTH = ("server", "agent")
_SERVER = ("server",)
# key: (kind, the commands that know it). Kinds: text, flag (boolean), list, number.
KEYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "advertise-address": ("text", _SERVER),
    "bind-address": ("text", _SERVER),
    "cluster-cidr": ("text", _SERVER),
    "cluster-dns": ("text", _SERVER),
    "cluster-domain": ("text", _SERVER),
    "cluster-init": ("flag", _SERVER),
    "data-dir": ("text", _BOTH),
    "debug": ("flag", _BOTH),
    "disable": ("list", _SERVER),
    "disable-cloud-controller": ("flag", _SERVER),
    "disable-helm-controller": ("flag", _SERVER),
    "disable-network-policy": ("flag", _SERVER),
    "etcd-arg": ("list", _SERVER),
    "etcd-expose-metrics": ("flag", _SERVER),
    "etcd-snapshot-dir": ("text", _SERVER),
    "etcd-snapshot-retention": ("number", _SERVER),
    "etcd-snapshot-schedule-cron": ("text", _SERVER),
    "flannel-backend": ("text", _SERVER),
    "flannel-iface": ("text", _BOTH),
    "kube-apiserver-arg": ("list", _SERVER),
    "kube-controller-manager-arg": ("list", _SERVER),
    "kube-proxy-arg": ("list", _BOTH),
    "kube-scheduler-arg": ("list", _SERVER),
    "kubelet-arg": ("list", _BOTH),
    "node-external-ip": ("text", _BOTH),
    "node-ip": ("text", _BOTH),
    "node-label": ("list", _BOTH),
    "node-name": ("text", _BOTH),
    "node-taint": ("list", _BOTH),
    "protect-kernel-defaults": ("flag", _BOTH),
    "secrets-encryption": ("flag", _SERVER),
    "server": ("text", _BOTH),
    "service-cidr": ("text", _SERVER),
    "tls-san": ("list", _SERVER),
    "token": ("text", _BOTH),
    "token-file": ("text", _BOTH),
    "write-kubeconfig-mode": ("text", _SERVER),
}
_FLANNEL_BACKENDS = ("vxlan", "host-gw")
_NODE_NAME = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
_LABEL = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?=([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?$")
_TAINT = re.compile(r"^([a-z0-9.-]+/)?[A-Za-z0-9][\w.-]*(=[\w.-]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$")
_SERVER_URL = re.compile(r"^https://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d+)?/?$")


@dataclass(frozen=True)
class Config:
    """What ``k3s server`` or ``k3s agent`` was told, with k3s's defaults for the rest."""

    command: str
    token: str = field(default="", repr=False)
    server: str = ""
    node_name: str = ""
    node_ip: str = ""
    node_external_ip: str = ""
    node_labels: tuple[str, ...] = ()
    node_taints: tuple[str, ...] = ()
    advertise_address: str = ""
    bind_address: str = ""
    tls_sans: tuple[str, ...] = ()
    cluster_cidr: str = "10.42.0.0/16"
    service_cidr: str = "10.43.0.0/16"
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    disabled: frozenset[str] = frozenset()
    kubeconfig_mode: int = 0o600
    secrets_encryption: bool = False
    protect_kernel_defaults: bool = False
    snapshot_cron: str = "0 */12 * * *"
    snapshot_retention: int = 5
    snapshot_dir: Path = paths.SNAPSHOTS
    etcd_expose_metrics: bool = False
    debug: bool = False
    arguments: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def joins(self) -> bool:
        """Whether this node joins a cluster that exists."""
        return bool(self.server)

    def component_arguments(self, component: str) -> tuple[str, ...]:
        """What the user gave in ``<component>-arg``."""
        return self.arguments.get(component, ())


def load(command: str, arguments: Sequence[str], hostname: str) -> Config:
    """The configuration of ``k3s <command> <arguments>``.

    ``--config FILE`` names the main file; ``FILE.d/*.yaml`` are merged over it by name, and flags over both.

    Raises:
        StandinError: an unknown key or a bad value; the message names it and where it is from.
    """
    given = _flags(command, arguments)
    named = given.pop("config", None)
    main = Path(str(named)) if named else paths.CONFIG
    if named and not main.is_file():
        raise StandinError(f"{main}: no such file")
    layers: list[tuple[str, Mapping[str, Value]]] = []
    for path in [main, *sorted(Path(f"{main}.d").glob("*.yaml"))]:
        if path.is_file():
            layers.append((str(path), yaml_subset.parse(path.read_text(), str(path))))
    layers.append(("the command line", given))
    return build(command, merge(command, layers), hostname)


def merge(command: str, layers: Sequence[tuple[str, Mapping[str, Value]]]) -> dict[str, Value]:
    """Later layers over earlier ones; ``key+`` appends to the list so far.

    Raises:
        StandinError: a key that ``command`` does not know, or that cannot be appended to.
    """
    result: dict[str, Value] = {}
    for origin, layer in layers:
        for written, value in layer.items():
            key = written.removesuffix("+")
            kind, commands = KEYS.get(key, ("", ()))
            if command not in commands:
                raise StandinError(f"{origin}: unknown key {written!r} for k3s {command}")
            if isinstance(value, dict):
                raise StandinError(f"{origin}: {key}: must not be a mapping")
            if kind != "list" and isinstance(value, list):
                raise StandinError(f"{origin}: {key}: must be one value, not a list")
            if written.endswith("+"):
                if kind != "list":
                    raise StandinError(f"{origin}: {written!r}: only lists can be appended to")
                result[key] = [*_list(result.get(key)), *_list(value)]
            else:
                result[key] = value
    return result


def build(command: str, values: Mapping[str, Value], hostname: str) -> Config:
    """Check every value and give it its type.

    Raises:
        StandinError: a bad value, named by its key; never the token itself.
    """
    reader = _Reader(values)
    _check_fixed(reader)
    server = reader.text("server")
    if server and not _SERVER_URL.match(server):
        raise StandinError(f"server: {server!r} is not https://HOST:PORT")
    if server and reader.flag("cluster-init"):
        raise StandinError("cluster-init: cannot be set together with server")
    if command == "agent" and not server:
        raise StandinError("server: is required for k3s agent")
    token = _token(reader)
    if server and not token:
        raise StandinError("token: is required to join a cluster (token or token-file)")
    cidrs = {name: reader.network(name, default) for name, default in _CIDRS.items()}
    if cidrs["cluster-cidr"].overlaps(cidrs["service-cidr"]):
        raise StandinError("service-cidr: overlaps cluster-cidr")
    name = (reader.text("node-name") or hostname).lower()
    if not _NODE_NAME.match(name):
        raise StandinError(f"node-name: {name!r} is not a DNS name")
    return Config(
        command=command,
        token=token,
        server=server.rstrip("/"),
        node_name=name,
        node_ip=reader.address("node-ip"),
        node_external_ip=reader.address("node-external-ip"),
        node_labels=reader.matching("node-label", _LABEL, "KEY=VALUE"),
        node_taints=reader.matching("node-taint", _TAINT, "KEY=VALUE:EFFECT"),
        advertise_address=reader.address("advertise-address"),
        bind_address=reader.address("bind-address"),
        tls_sans=reader.comma_list("tls-san"),
        cluster_cidr=str(cidrs["cluster-cidr"]),
        service_cidr=str(cidrs["service-cidr"]),
        cluster_dns=reader.address("cluster-dns") or str(cidrs["service-cidr"][10]),
        cluster_domain=reader.text("cluster-domain") or "cluster.local",
        disabled=_disabled(reader),
        kubeconfig_mode=reader.mode("write-kubeconfig-mode", 0o600),
        secrets_encryption=reader.flag("secrets-encryption"),
        protect_kernel_defaults=reader.flag("protect-kernel-defaults"),
        snapshot_cron=_cron(reader),
        snapshot_retention=reader.number("etcd-snapshot-retention", 5),
        snapshot_dir=Path(reader.text("etcd-snapshot-dir") or paths.SNAPSHOTS),
        etcd_expose_metrics=reader.flag("etcd-expose-metrics"),
        debug=reader.flag("debug"),
        arguments={key.removesuffix("-arg"): reader.arguments(key) for key in values if key.endswith("-arg")},
    )


_CIDRS = {"cluster-cidr": "10.42.0.0/16", "service-cidr": "10.43.0.0/16"}


class _Reader:
    """Typed access to merged values; every error names its key."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values

    def text(self, key: str) -> str:
        value = self._values.get(key)
        return "" if value is None else _word(value)

    def flag(self, key: str) -> bool:
        value = self._values.get(key)
        if isinstance(value, bool):
            return value
        text = self.text(key).lower()
        if text not in ("", "true", "false"):
            raise StandinError(f"{key}: {text!r} is not true or false")
        return text == "true"

    def number(self, key: str, default: int) -> int:
        text = self.text(key)
        if not text:
            return default
        if not text.isdigit():
            raise StandinError(f"{key}: {text!r} is not a number of 0 or more")
        return int(text)

    def mode(self, key: str, default: int) -> int:
        text = self.text(key)
        if text and not re.fullmatch(r"0?[0-7]{3}", text):
            raise StandinError(f"{key}: {text!r} is not a file mode like 0600 (quote it)")
        return int(text, 8) if text else default

    def arguments(self, key: str) -> tuple[str, ...]:
        return tuple(_word(item) for item in _list(self._values.get(key)) if item is not None)

    def comma_list(self, key: str) -> tuple[str, ...]:
        return tuple(part.strip() for item in self.arguments(key) for part in item.split(",") if part.strip())

    def matching(self, key: str, pattern: re.Pattern[str], form: str) -> tuple[str, ...]:
        items = self.comma_list(key)
        for item in items:
            if not pattern.match(item):
                raise StandinError(f"{key}: {item!r} is not {form}")
        return items

    def address(self, key: str) -> str:
        text = self.text(key)
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            raise StandinError(f"{key}: {text!r} is not an IP address") from None

    def network(self, key: str, default: str) -> ipaddress.IPv4Network:
        text = self.text(key) or default
        try:
            if "/" in text:
                return ipaddress.IPv4Network(text)
        except ValueError:
            pass
        raise StandinError(f"{key}: {text!r} is not an IPv4 network like {default}")


def _flags(command: str, arguments: Sequence[str]) -> dict[str, Value]:
    result: dict[str, Value] = {}
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, separator, value = word.removeprefix("--").partition("=")
        name = "config" if word == "-c" else name
        kind = "text" if name == "config" else KEYS.get(name, ("", ()))[0]
        if not kind or not (word.startswith("--") or word == "-c"):
            raise StandinError(f"the command line: unknown flag {word.partition('=')[0]!r} for k3s {command}")
        if not separator:
            if kind == "flag":
                value = "true"
            elif words:
                value = words.pop(0)
            else:
                raise StandinError(f"the command line: --{name} needs a value")
        result[name] = [*_list(result.get(name)), value] if kind == "list" else value
    return result


def _list(value: Value) -> list[Scalar]:
    if isinstance(value, list):
        return value
    return [] if value is None or isinstance(value, dict) else [value]


def _word(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_fixed(reader: _Reader) -> None:
    if reader.text("data-dir") not in ("", str(paths.DATA)):
        raise StandinError(f"data-dir: the stand-in supports only {paths.DATA}")
    if reader.flag("disable-network-policy"):
        raise StandinError("disable-network-policy: the stand-in cannot run without its network policy controller")
    if reader.text("flannel-backend") not in ("", *_FLANNEL_BACKENDS):
        raise StandinError(f"flannel-backend: must be one of {', '.join(_FLANNEL_BACKENDS)}")
    interface = reader.text("flannel-iface")
    if interface and not (paths.INTERFACES / interface).exists():
        raise StandinError(f"flannel-iface: there is no interface {interface}")


def _token(reader: _Reader) -> str:
    token, file = reader.text("token"), reader.text("token-file")
    if token and file:
        raise StandinError("token-file: cannot be set together with token")
    if file:
        try:
            token = Path(file).read_text().strip()
        except OSError as error:
            raise StandinError(f"token-file: {file}: {error.strerror}") from None
        if not token:
            raise StandinError(f"token-file: {file}: is empty")
    if token:
        tokens.parse(token)
    return token


def _disabled(reader: _Reader) -> frozenset[str]:
    names = reader.comma_list("disable")
    for name in names:
        if name not in PACKAGED:
            raise StandinError(f"disable: {name!r} is not one of {', '.join(PACKAGED)}")
    return frozenset(names)


def _cron(reader: _Reader) -> str:
    text = reader.text("etcd-snapshot-schedule-cron") or "0 */12 * * *"
    try:
        cron.Schedule(text)
    except ValueError as error:
        raise StandinError(f"etcd-snapshot-schedule-cron: {error}") from None
    return text

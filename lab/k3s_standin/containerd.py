"""containerd's configuration: generated in version 2 (Debian's 1.6), from drop-ins written for k3s's containerd 2.

k3s merges ``config-v3.toml.d/*.toml`` through containerd's imports. containerd 1.6 replaces whole plugin tables on
import, and names its plugins otherwise; so the drop-ins are read, renamed and merged here.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.k3s_standin import files, images, paths
from lab.k3s_standin.errors import StandinError

Table = dict[str, Any]

_CRI = "io.containerd.grpc.v1.cri"
# containerd 2 split the CRI plugin in two (containerd docs/cri/config.md, "Config versions").
_PLUGINS_V3 = {"io.containerd.cri.v1.runtime": _CRI, "io.containerd.cri.v1.images": _CRI}


def base_config(systemd_cgroup: bool) -> Table:
    """The settings that the stand-in itself needs."""
    runc = {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": systemd_cgroup}}
    return {
        "version": 2,
        "root": str(paths.CONTAINERD_ROOT),
        "state": str(paths.CONTAINERD_STATE),
        "grpc": {"address": str(paths.CONTAINERD_SOCKET)},
        "plugins": {
            _CRI: {
                "sandbox_image": images.REFERENCES["pause"],
                "cni": {"bin_dir": str(paths.CNI_BINARIES), "conf_dir": str(paths.CNI_CONFIG)},
                "containerd": {"default_runtime_name": "runc", "runtimes": {"runc": runc}},
            },
            "io.containerd.internal.v1.opt": {"path": str(paths.CONTAINERD_ROOT)},
        },
    }


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """``over`` laid on ``base``, table by table; anything but a table is replaced whole."""
    result = dict(base)
    for key, value in over.items():
        current = result.get(key)
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            result[key] = merge(current, value)
        else:
            result[key] = value
    return result


def translate(dropin: Mapping[str, Any]) -> Table:
    """A version 3 drop-in in version 2's plugin names."""
    result: Table = {key: value for key, value in dropin.items() if key not in ("version", "plugins")}
    plugins: Table = {}
    for name, table in dropin.get("plugins", {}).items():
        plugins = merge(plugins, {_PLUGINS_V3.get(name, name): table})
    return {**result, "plugins": plugins} if plugins else result


def render(dropins: Path, systemd_cgroup: bool) -> str:
    """The whole configuration as TOML.

    Raises:
        StandinError: a drop-in is not TOML; the message names it.
    """
    config = base_config(systemd_cgroup)
    for path in sorted(dropins.glob("*.toml")):
        try:
            config = merge(config, translate(tomllib.loads(path.read_text())))
        except tomllib.TOMLDecodeError as error:
            raise StandinError(f"{path}: is not TOML: {error}") from None
    return dump(config)


def write(systemd_cgroup: bool) -> None:
    """Write the configuration that the containerd process reads."""
    files.write(paths.CONTAINERD_CONFIG, render(paths.CONTAINERD_DROPINS, systemd_cgroup), 0o644)


def command() -> list[str]:
    """The command line of containerd."""
    return ["containerd", "--config", str(paths.CONTAINERD_CONFIG)]


def dump(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> str:
    """TOML of nested tables of scalars and arrays (a JSON text is a valid TOML basic string)."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    text = "".join(f"{line}\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, Mapping):
            path = (*prefix, key)
            text += f"\n[{'.'.join(_key(part) for part in path)}]\n" + dump(value, path)
    return text


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)

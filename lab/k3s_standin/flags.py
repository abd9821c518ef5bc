"""Command-line flags of Kubernetes' components as data, so that settings override what kubeadm wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def split(argument: str) -> tuple[str, str]:
    """``--name=value``, ``name=value`` or ``--name`` as a name without dashes and a value (``true`` for the last)."""
    name, separator, value = argument.lstrip("-").partition("=")
    return name, value if separator else "true"


def override(base: Sequence[str], *layers: Iterable[str]) -> list[str]:
    """Flags of ``base`` with each layer's over them: a name that a layer sets replaces all earlier values of it.

    A name repeated inside one layer keeps all its values, as k3s does for its ``*-arg`` keys.
    """
    result = [split(argument) for argument in base]
    for layer in layers:
        pairs = [split(argument) for argument in layer]
        names = {name for name, _ in pairs}
        result = [pair for pair in result if pair[0] not in names] + pairs
    return [f"--{name}={value}" for name, value in result]


def command_of(manifest: str) -> list[str]:
    """The ``command`` of the one container in a static pod manifest as kubeadm writes it (one list item a line)."""
    words: list[str] = []
    inside = False
    for line in manifest.splitlines():
        text = line.strip()
        if text == "- command:" or text == "command:":
            inside = True
        elif inside and text.startswith("- "):
            words.append(text[2:].strip().strip("'\""))
        elif inside:
            break
    return words

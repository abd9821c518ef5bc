"""The inventory's files as they are: Ansible skips a broken hosts file, and stops at the first broken vars file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .problem import Problem, did_you_mean

_ENDINGS = {".yml", ".yaml", ".json"}
_VAULT_HEADER = "$ANSIBLE_VAULT;"
_VARS_FOLDERS = ("group_vars", "host_vars")


@dataclass
class Scan:
    """What the files say.

    Attributes:
        hosts_broken: whether a file that lists hosts is broken, so that Ansible knows fewer hosts than were meant.
        broken: the broken files.
        names: variables that a broken file seems to set, so that they are not called missing as well.
    """

    problems: list[Problem] = field(default_factory=list)
    hosts_broken: bool = False
    broken: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def scan(sources: Iterable[str], base: str) -> Scan:
    """Read every YAML file of the inventory sources; paths are shown relative to ``base`` where they lie below it."""
    result = Scan()
    for source in sources:
        # `-i host1,host2` is a list of hosts, not a file.
        if "," in source:
            continue
        path = Path(source)
        if not path.exists():
            result.problems.append(Problem(shown(path, base), "does not exist", "name an existing inventory with -i"))
            result.hosts_broken = True
            continue
        for file in _files(path):
            _scan_file(file, base, result)
    return result


def shown(path: Path, base: str) -> str:
    """A path as the user knows it."""
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def unknown_vars_files(sources: Iterable[str], base: str, groups: set[str], hosts: set[str]) -> list[Problem]:
    """Files in group_vars and host_vars that belong to no group and no host: Ansible ignores them silently."""
    problems = []
    for root in {Path(source) if Path(source).is_dir() else Path(source).parent for source in sources}:
        for folder, known, kind in ((root / "group_vars", groups, "group"), (root / "host_vars", hosts, "host")):
            for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
                name = entry.stem if entry.suffix in _ENDINGS else entry.name
                if name not in known and not name.startswith(".") and (entry.is_dir() or entry.suffix in _ENDINGS):
                    fix = did_you_mean(name, known) if known else f"add the {kind}, or remove the file"
                    problems.append(Problem(shown(entry, base), f"there is no {kind} {name}", fix))
    return problems


def _files(source: Path) -> Iterator[Path]:
    root = source if source.is_dir() else source.parent
    if source.is_file() and source.suffix in _ENDINGS:
        yield source
    if source.is_dir():
        yield from (path for path in sorted(source.iterdir()) if path.is_file() and path.suffix in _ENDINGS)
    for folder in _VARS_FOLDERS:
        yield from (path for path in sorted((root / folder).rglob("*")) if path.is_file() and path.suffix in _ENDINGS)


def _scan_file(path: Path, base: str, result: Scan) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problems = [Problem(shown(path, base), f"cannot be read ({error})", "correct the file")]
        text = ""
    else:
        if text.startswith(_VAULT_HEADER):
            return
        problems = _problems(text, shown(path, base))
    if not problems:
        return
    result.problems += problems
    result.broken.add(str(path))
    if any(part in _VARS_FOLDERS for part in path.parts):
        result.names |= set(re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE))
    else:
        result.hosts_broken = True


def _problems(text: str, where: str) -> list[Problem]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}" if mark else ""
        return [Problem(f"{where}{line}", f"malformed YAML ({error.problem or error.context})", "correct the file")]
    except yaml.YAMLError as error:
        return [Problem(where, f"malformed YAML ({' '.join(str(error).split())})", "correct the file")]
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        return [Problem(where, "is not a mapping of names to values", "correct the file")]
    return list(_duplicates(root, where, parent=""))


def _duplicates(node: yaml.Node, where: str, parent: str) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item, where, parent)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in first and parent == "hosts":
            what = f"two hosts are named {name} (the first is on line {first[name]})"
            yield Problem(f"{where} line {line}", what, "give each host a name of its own")
        elif name in first:
            what = f"{name} is given twice (first on line {first[name]})"
            yield Problem(f"{where} line {line}", what, "keep one of them")
        first.setdefault(name, line)
        yield from _duplicates(value, where, name)

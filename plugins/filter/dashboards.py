"""The dashboards of several folders: their files, what is wrong with them, and which folder of Grafana shows which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# An API server takes no more in a ConfigMap's keys and values.
MAX_BYTES = 1024 * 1024
# dashboard-report reads no more.
MAX_FILES = 50
# https://kubernetes.io/docs/concepts/configuration/configmap/#configmap-object
_FILE = re.compile(r"[A-Za-z0-9._-]+\.json")
# Grafana's limit of 40, and what dashboard-report takes.
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")

Folder = dict[str, Any]


def tradewatch_dashboard_problems(folders: Any, own: str | None = None) -> list[str]:
    """A line for everything that is wrong with folders of dashboards, read beside the folder ``own``."""
    if not isinstance(folders, list) or not all(isinstance(folder, str) for folder in folders):
        return ["is not a list of folders"]
    return _read([own, *folders] if own else folders)[1]


def tradewatch_dashboard_files(folders: list[str]) -> list[str]:
    """The paths of the folders' dashboards, in the order of their names.

    Raises ValueError with one line that names everything that is wrong.
    """
    files, problems = _read(folders)
    if problems:
        raise ValueError("dashboards: " + "; ".join(problems))
    return [str(files[name]) for name in sorted(files)]


def tradewatch_dashboard_folders(folders: list[Folder], files: Iterable[str], further: str) -> list[Folder]:
    """Grafana's folders that hold dashboards: ``uid``, ``title``, and in ``dashboards`` the paths of their files.

    A dashboard that no folder names is in the folder with the uid ``further``. Raises ValueError with one line for a
    folder, or for a dashboard that a folder names, that there is not.
    """
    paths = {Path(file).stem: file for file in files}
    placed: dict[str, list[str]] = {folder["uid"]: [] for folder in folders}
    if further not in placed:
        raise ValueError(f"dashboards: there is no folder {further} for those that no folder names")
    holder: dict[str, str] = {}
    for folder in folders:
        for name in folder["dashboards"]:
            if name not in paths:
                raise ValueError(f"dashboards: the folder {folder['uid']} names {name}, and there is no {name}.json")
            if name in holder:
                raise ValueError(f"dashboards: the folders {holder[name]} and {folder['uid']} both name {name}")
            holder[name] = folder["uid"]
            placed[folder["uid"]].append(paths[name])
    placed[further] += [file for name, file in paths.items() if name not in holder]
    return [
        {"uid": folder["uid"], "title": folder["title"], "dashboards": placed[folder["uid"]]}
        for folder in folders
        if placed[folder["uid"]]
    ]


def _read(folders: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """The files by name, and a line for everything that is wrong."""
    files: dict[str, Path] = {}
    uids: dict[str, Path] = {}
    problems: list[str] = []
    for folder in map(Path, folders):
        path = folder.expanduser()
        if not path.is_absolute():
            problems.append(f"{folder} is not an absolute path")
            continue
        found = sorted(path.glob("*.json")) if path.is_dir() else []
        if not found:
            problems.append(f"{folder} {'holds no *.json' if path.is_dir() else 'is not a folder'}")
        for file in found:
            if file.name in files:
                problems.append(f"{file}: {files[file.name]} has the same name")
            files[file.name] = file
            problems += [f"{file}: {problem}" for problem in _problems(file, uids)]
    size = sum(len(name) + file.stat().st_size for name, file in files.items() if file.is_file())
    if size >= MAX_BYTES:
        problems.append(f"all dashboards together have {size} bytes, and {MAX_BYTES} is too much for a ConfigMap")
    if len(files) > MAX_FILES:
        problems.append(f"there are {len(files)} dashboards, and dashboard-report reads {MAX_FILES}")
    return files, problems


def _problems(file: Path, uids: dict[str, Path]) -> Iterator[str]:
    """What is wrong with one file; ``uids`` gets its uid."""
    if not _FILE.fullmatch(file.name):
        yield "its name may have letters, digits, '.', '_' and '-' only"
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        yield f"cannot be read ({error.strerror})"
        return
    except json.JSONDecodeError as error:
        yield f"is not JSON (line {error.lineno}: {error.msg})"
        return
    except (UnicodeDecodeError, RecursionError):
        yield "is not JSON"
        return
    if not isinstance(document, Mapping) or not isinstance(document.get("panels"), list):
        within = isinstance(document, Mapping) and isinstance(document.get("dashboard"), Mapping)
        yield "is no dashboard: it has no panels" + (", what is below its key dashboard may be one" if within else "")
        return
    if not isinstance(document.get("title"), str) or not document["title"]:
        yield "has no title"
    if document.get("__inputs"):
        yield "has __inputs, which nobody answers: export it without them, with the data sources' uids in it"
    uid = document.get("uid")
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        yield "its uid must be 1 to 40 letters, digits, '-' and '_'"
    elif uid in uids:
        yield f"its uid {uid} is also that of {uids[uid]}"
    else:
        uids[uid] = file


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {
            "tradewatch_dashboard_problems": tradewatch_dashboard_problems,
            "tradewatch_dashboard_files": tradewatch_dashboard_files,
            "tradewatch_dashboard_folders": tradewatch_dashboard_folders,
        }

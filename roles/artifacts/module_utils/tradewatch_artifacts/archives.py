"""What an image archive holds: the references inside docker-archives and OCI archives, plain or compressed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .model import ARCHIVE_SUFFIXES, RefusedError

_MAGIC = {b"\x1f\x8b": ".tar.gz", b"\x28\xb5\x2f\xfd": ".tar.zst"}
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_INDEX_LIMIT_BYTES = 16 * 1024 * 1024


def suffix_of(path: Path) -> str:
    """``.tar``, ``.tar.gz`` or ``.tar.zst``, by the file's first bytes: k3s picks its reader by the name's ending."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), ".tar")


def node_file_name(file: str, path: Path) -> str:
    """The name on a node: the table's, with the ending that fits the file's real compression."""
    ending = next((suffix for suffix in ARCHIVE_SUFFIXES if file.endswith(suffix)), "")
    return file.removesuffix(ending) + suffix_of(path)


def references(path: Path) -> list[str]:
    """The image references in an archive, in its own order, each once.

    Docker's ``manifest.json`` (``RepoTags``) and OCI's ``index.json`` (annotations) are both read, as containerd does.

    Raises:
        RefusedError: the file is no image archive, or names no image.
    """
    documents: dict[str, Any] = {}
    try:
        with _tar(path) as archive:
            for member in archive:
                if member.name.removeprefix("./") in {"manifest.json", "index.json"} and member.isfile():
                    content = archive.extractfile(member)
                    if content is not None:
                        documents[member.name.removeprefix("./")] = json.loads(content.read(_INDEX_LIMIT_BYTES))
                        if len(documents) == 2:
                            break
    except (tarfile.TarError, json.JSONDecodeError, UnicodeDecodeError, EOFError, OSError) as error:
        raise RefusedError(f"{path} is not a readable image archive ({error})") from error
    found = [*_docker_tags(documents.get("manifest.json")), *_oci_names(documents.get("index.json"))]
    if not found:
        raise RefusedError(
            f"{path} names no image: neither RepoTags in manifest.json nor a full name in index.json's annotations"
        )
    return list(dict.fromkeys(found))


def _docker_tags(manifest: Any) -> list[str]:
    rows = manifest if isinstance(manifest, list) else []
    return [tag for row in rows if isinstance(row, dict) for tag in row.get("RepoTags") or []]


def _oci_names(index: Any) -> list[str]:
    rows = index.get("manifests") or [] if isinstance(index, dict) else []
    names = []
    for row in rows:
        annotations = row.get("annotations") or {}
        name = next((annotations[key] for key in _NAME_ANNOTATIONS if annotations.get(key)), "")
        # A bare tag such as "8.1.1" is legal in ref.name, and no reference that a pod could ask for.
        if ":" in name or "/" in name:
            names.append(name)
    return names


@contextlib.contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    suffix = suffix_of(path)
    if suffix != ".tar.zst":
        with tarfile.open(path, "r:gz" if suffix == ".tar.gz" else "r:") as archive:
            yield archive
        return
    with _zstd(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        yield archive


@contextlib.contextmanager
def _zstd(path: Path) -> Iterator[IO[bytes]]:
    try:
        process = subprocess.Popen(["zstd", "-dcq", "--", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise RefusedError(f"{path} is zstd-compressed and the control host has no zstd; apt install zstd") from error
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        # The two documents may be found long before the end; the rest need not be unpacked.
        process.stdout.close()
        process.kill()
        process.wait()

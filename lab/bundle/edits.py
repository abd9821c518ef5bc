"""What upstream's Go code has otherwise here, so that the bundle's programs share more and compile less."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.bundle.lock import building
from lab.steps import LabError, digest, run


@dataclass(frozen=True)
class Edit:
    """A pattern that matches so many ``times`` in a ``file`` of a Go module, and what takes the matches' place."""

    module: str
    file: str
    pattern: str
    replacement: str
    times: int


_CLOUDS = "(Azure|EC2|GCE)SDConfigs"
# By the folder below ``go/``.
EDITS: dict[str, tuple[Edit, ...]] = {
    "loki": (
        # As Kubernetes' client has it from 0.33 on.
        Edit(
            "github.com/prometheus/prometheus",
            "discovery/kubernetes/kubernetes.go",
            r"cache\.DefaultWatchErrorHandler\(r, err\)",
            "cache.DefaultWatchErrorHandler(context.Background(), r, err)",
            1,
        ),
        # A third of what Promtail compiles finds machines in clouds.
        Edit(
            "github.com/grafana/loki/v3",
            "clients/pkg/promtail/scrapeconfig/scrapeconfig.go",
            rf'\t"\S+/discovery/(aws|azure|gce)"\n|\t{_CLOUDS} .*\n|\tfor .* cfg\.{_CLOUDS} {{\n.*\n\t}}\n',
            "",
            9,
        ),
    ),
}


def modfile(source: Path, edits: tuple[Edit, ...], go: Path, variables: Mapping[str, str]) -> Path:
    """A copy of ``source``'s go.mod that takes the edited modules from copies of theirs.

    Raises:
        LabError: a pattern does not match as often as it says, or the module proxy is out of reach.
    """
    folder = paths.cache_dir() / "go" / "edited" / digest(source, repr(edits))
    with building("go-edits"):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name in ("go.mod", "go.sum"):
                shutil.copy(source / name, partial)
            for module in sorted({edit.module for edit in edits}):
                found = json.loads(run([go, "mod", "download", "-json", module], cwd=source, env=variables))
                shutil.copytree(found["Dir"], partial / module)
                run([go, "mod", "edit", f"-replace={module}={folder / module}", "go.mod"], cwd=partial, env=variables)
            for edit in edits:
                apply(edit, partial / edit.module / edit.file)
            partial.rename(folder)
    return folder / "go.mod"


def apply(edit: Edit, file: Path) -> None:
    """Edit a file in place.

    Raises:
        LabError: the pattern does not match as often as it says.
    """
    text, times = re.subn(edit.pattern, edit.replacement, file.read_text())
    if times != edit.times:
        raise LabError(f"{edit.module}, {edit.file}: {edit.pattern} matches {times} times, not {edit.times}")
    file.write_text(text)

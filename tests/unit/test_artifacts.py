"""The artifact sources: which wins, what is verified, and what is said when none gives."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tradewatch_artifacts import archives
from tradewatch_artifacts.checksums import published
from tradewatch_artifacts.model import Artifact, Problem, RefusedError, SourceError, artifact_from
from tradewatch_artifacts.resolve import make_resolver
from tradewatch_preflight.tables import check_artifacts

CONTENT = b"a binary"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that serves it."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "artifacts"
    folder.mkdir(parents=True)
    return folder


def row(**values: Any) -> Artifact:
    return artifact_from({"name": "k3s", "kind": "binary", "version": "v1", "file": "k3s", **values})


def fake_lab(folder: Path, body: str) -> Path:
    """A repository whose ``python -m lab`` is ``body``."""
    (folder / "lab").mkdir(parents=True, exist_ok=True)
    # A package, not a namespace: otherwise the real one is taken where PYTHONPATH names it.
    (folder / "lab" / "__init__.py").touch()
    (folder / "lab" / "__main__.py").write_text(body)
    return folder


def resolve(
    cache: Path, artifact: Artifact, *sources: str, repository: Path | None = None
) -> tuple[dict[str, Any], str, list[Problem]]:
    """The artifact's fact, its line, the problems."""
    resolver = make_resolver(
        cache=str(cache.parent), sources=sources, repository=str(repository or cache), python=sys.executable, timeout=2
    )
    resolved, lines, _changed, problems = resolver.resolve([artifact])
    return resolved.get(artifact.name, {}), "".join(lines), problems


def check(cache: Path, artifact: Artifact, *sources: str, repository: Path | None = None) -> list[Problem]:
    resolver = make_resolver(
        cache=str(cache.parent), sources=sources, repository=str(repository or cache), python=sys.executable, timeout=2
    )
    return resolver.check([artifact])


def archive(path: Path, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def index(**annotations: str) -> dict[str, Any]:
    return {"index.json": {"manifests": [{"annotations": annotations}]}}


# The cache


def test_file_placed_by_hand_wins_over_upstream(cache: Path, upstream: tuple[Path, str]) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    (upstream[0] / "k3s").write_bytes(b"another")
    artifact = row(upstream={"url": f"{upstream[1]}/k3s", "sha256": hashlib.sha256(b"another").hexdigest()})
    fact, line, problems = resolve(cache, artifact, "cache", "upstream")
    assert not problems
    assert (fact["source"], fact["sha256"], fact["path"]) == ("cache", SHA256, str(cache / "k3s"))
    assert line == f"k3s v1: cache (placed by hand, sha256 {SHA256})"


def test_checksum_file_beside_must_match(cache: Path) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    (cache / "k3s.sha256").write_text(f"{'0' * 64}  k3s\n")
    for problems in (resolve(cache, row(), "cache")[2], check(cache, row(), "cache")):
        (problem,) = problems
        assert problem.what == (
            f"checksum mismatch: {cache / 'k3s'} has sha256 {SHA256}, {cache / 'k3s.sha256'} says {'0' * 64}"
        )


def test_wrong_checksum_is_not_passed_over_for_another_source(cache: Path, upstream: tuple[Path, str]) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    (cache / "k3s.sha256").write_text("0" * 64)
    (upstream[0] / "k3s").write_bytes(CONTENT)
    artifact = row(upstream={"url": f"{upstream[1]}/k3s", "sha256": SHA256})
    assert len(resolve(cache, artifact, "cache", "upstream")[2]) == 1


def test_a_file_is_summed_and_unpacked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = archive(cache / "k3s", {"manifest.json": [{"RepoTags": ["a:1"]}]})
    first = resolve(cache, row(kind="image"), "cache")

    def unread(*_: object) -> None:
        raise AssertionError("the file is read again")

    with monkeypatch.context() as patched:
        patched.setattr("tradewatch_artifacts.cache.sha256_of", unread)
        patched.setattr(archives, "references", unread)
        assert resolve(cache, row(kind="image"), "cache") == first
    assert image.is_file()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_changed_file_is_not_taken_for_the_known_one(cache: Path, replaced: bool) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    assert resolve(cache, row(), "cache")[0]["sha256"] == SHA256
    before = (cache / "k3s").stat()
    if replaced:
        (cache / "new").write_bytes(CONTENT[::-1])
        (cache / "new").rename(cache / "k3s")
    else:
        (cache / "k3s").write_bytes(CONTENT[::-1])
    # Size and time of writing are as before, as a copy with preserved times would have them.
    os.utime(cache / "k3s", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolve(cache, row(), "cache")[0]["sha256"] == hashlib.sha256(CONTENT[::-1]).hexdigest()


@pytest.mark.parametrize("note", ["", "[]", "{broken", '{"x": 1}'])
def test_a_note_that_makes_no_sense_is_none(cache: Path, note: str) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    (cache.parent / "known-files.json").write_text(note)
    assert resolve(cache, row(), "cache")[0]["sha256"] == SHA256


# Optional ones


def test_an_optional_artifact_that_is_nowhere_is_one_line_and_no_problem(
    cache: Path, upstream: tuple[Path, str]
) -> None:
    given = {"url": f"{upstream[1]}/k3s", "sha256": SHA256}
    artifact = row(optional=True, upstream=given)
    assert not check(cache, artifact, "cache", "upstream")
    fact, line, problems = resolve(cache, artifact, "cache", "upstream")
    assert (fact, problems) == ({}, [])
    assert line.startswith("k3s v1: skipped (optional, found in no source): cache (")
    assert "HTTP 404" in line
    assert "\n" not in line
    assert len(resolve(cache, row(upstream=given), "cache", "upstream")[2]) == 1, "one that is not optional"


def test_an_optional_artifact_that_is_there_is_used(cache: Path) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    fact, line, problems = resolve(cache, row(optional=True), "cache")
    assert not problems
    assert (fact["sha256"], line) == (SHA256, f"k3s v1: cache (placed by hand, sha256 {SHA256})")


def test_an_optional_artifact_with_a_wrong_checksum_is_a_problem(cache: Path) -> None:
    (cache / "k3s").write_bytes(CONTENT)
    (cache / "k3s.sha256").write_text(f"{'0' * 64}  k3s\n")
    assert len(check(cache, row(optional=True), "cache")) == 1
    assert len(resolve(cache, row(optional=True), "cache")[2]) == 1


# Upstream


def test_download_is_verified_kept_and_found_again(cache: Path, upstream: tuple[Path, str]) -> None:
    (upstream[0] / "k3s+1").write_bytes(CONTENT)
    (upstream[0] / "sums.txt").write_text(f"{'1' * 64}  other\n{SHA256} *k3s+1\n")
    artifact = row(upstream={"url": f"{upstream[1]}/k3s%2B1", "checksum_url": f"{upstream[1]}/sums.txt"})
    assert not check(cache, artifact, "cache", "upstream")
    assert not list(cache.iterdir()), "a check downloads nothing"
    fact, _line, problems = resolve(cache, artifact, "cache", "upstream")
    assert not problems
    assert (fact["source"], (cache / "k3s").read_bytes()) == ("upstream", CONTENT)
    assert (cache / "k3s").stat().st_mode & 0o111
    fact, line, _problems = resolve(cache, artifact, "cache", "upstream")
    assert fact["source"] == "cache"
    assert "downloaded before" in line


def test_edited_version_is_downloaded_anew(cache: Path, upstream: tuple[Path, str]) -> None:
    for name, content in (("v1", b"one"), ("v2", b"two")):
        (upstream[0] / name).write_bytes(content)
        given = {"url": f"{upstream[1]}/{name}", "sha256": hashlib.sha256(content).hexdigest()}
        fact, _line, problems = resolve(cache, row(version=name, upstream=given), "cache", "upstream")
        assert (fact["source"], problems) == ("upstream", [])
    assert (cache / "k3s").read_bytes() == b"two"


def test_wrong_download_is_refused_and_leaves_nothing(cache: Path, upstream: tuple[Path, str]) -> None:
    (upstream[0] / "k3s").write_bytes(b"tampered")
    artifact = row(upstream={"url": f"{upstream[1]}/k3s", "sha256": SHA256})
    (problem,) = resolve(cache, artifact, "cache", "upstream")[2]
    got = hashlib.sha256(b"tampered").hexdigest()
    assert problem.what == f"checksum mismatch: {upstream[1]}/k3s has sha256 {got}, the table says {SHA256}"
    assert not list(cache.iterdir())


def test_download_without_checksum_is_no_source(cache: Path, upstream: tuple[Path, str]) -> None:
    (upstream[0] / "k3s").write_bytes(CONTENT)
    (problem,) = resolve(cache, row(upstream={"url": f"{upstream[1]}/k3s"}), "upstream")[2]
    assert "has neither sha256 nor checksum_url in the table" in problem.what


class BreakingHandler(QuietHandler):
    """Ends an answer otherwise than HTTP asks for, as its path says."""

    def do_GET(self) -> None:
        if "status" in self.path:
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ffff\r\nshort")
        if "silence" in self.path:
            time.sleep(4)


@pytest.fixture
def breaking() -> Iterator[str]:
    """The address of a server that breaks off."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), BreakingHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("how", ["status", "chunk", "chunk-silence"])
def test_an_answer_that_breaks_off_is_one_problem(cache: Path, breaking: str, how: str) -> None:
    url = f"{breaking}/{how}"
    for given in ({"url": url, "sha256": SHA256}, {"url": url, "checksum_url": url}):
        (problem,) = resolve(cache, row(upstream=given), "upstream")[2]
        assert f"upstream ({url}: " in problem.what
    (problem,) = check(cache, row(upstream={"url": url, "checksum_url": url}), "upstream")
    assert f"upstream ({url}: " in problem.what
    assert not list(cache.iterdir())


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_image_that_no_registry_gives(cache: Path) -> None:
    artifact = row(kind="image", upstream={"image": "docker://127.0.0.1:1/valkey:8"})
    for problems in (resolve(cache, artifact, "upstream")[2], check(cache, artifact, "upstream")):
        assert "upstream (skopeo " in problems[0].what
        assert "connection refused" in problems[0].what


def test_an_image_is_of_the_hosts_platform(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skopeo = tmp_path / "skopeo"
    skopeo.write_text('#!/bin/sh\necho "$@" >>"$0.log"; exit 1\n')
    skopeo.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    artifact = row(kind="image", upstream={"image": "docker://docker.io/valkey/valkey:8"})
    resolve(cache, artifact, "upstream")
    check(cache, artifact, "upstream")
    calls = Path(f"{skopeo}.log").read_text().splitlines()
    assert [call.split()[:2] for call in calls] == [["--override-os=linux", "--override-arch=amd64"]] * 2


SKOPEO = """#!/bin/sh
echo "$@" >>"$0.log"
case "$*" in
  *" inspect "*) printf '{\\r\\n}' ;;
  *" copy "*) for target; do :; done; rest="${target#docker-archive:}"; cp "$0.tar" "${rest%%:*}" ;;
esac
"""


@pytest.mark.parametrize("given", ["docker.io/valkey/valkey:8", "docker.io/valkey/valkey:8@sha256:" + "1" * 64])
def test_an_image_is_fetched_by_digest_and_the_run_says_by_which(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    skopeo = tmp_path / "skopeo"
    skopeo.write_text(SKOPEO)
    skopeo.chmod(0o755)
    archive(tmp_path / "skopeo.tar", {"manifest.json": [{"RepoTags": ["docker.io/valkey/valkey:8"]}]})
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    artifact = row(kind="image", upstream={"image": f"docker://{given}"})
    fact, line, problems = resolve(cache, artifact, "cache", "upstream")
    assert not problems
    digest = "1" * 64 if "@" in given else hashlib.sha256(b"{\r\n}").hexdigest()
    assert json.loads((cache / "k3s.origin.json").read_text())["fetched"].endswith(f"valkey:8@sha256:{digest}")
    *_, copy = Path(f"{skopeo}.log").read_text().splitlines()
    assert f" docker://docker.io/valkey/valkey@sha256:{digest} " in copy
    assert copy.endswith(":docker.io/valkey/valkey:8")
    assert line.startswith(f"k3s v1: upstream (docker://docker.io/valkey/valkey:8@sha256:{digest}, sha256 ")
    assert (fact["image"], fact["source"]) == ("docker.io/valkey/valkey:8", "upstream")
    assert resolve(cache, artifact, "cache", "upstream")[0]["source"] == "cache", "the table still says the same"


@pytest.mark.parametrize("key", ["sha256", "checksum_url", "url"])
def test_what_is_not_compared_with_an_image_is_refused(key: str) -> None:
    upstream = {"image": "docker://docker.io/valkey/valkey:8", key: "a" * 64}
    entry = {"name": "valkey", "kind": "image", "version": "8", "file": "valkey.tar", "node_roles": []}
    assert [problem.line for problem in check_artifacts([{**entry, "upstream": upstream}])[1]] == [
        "artifact valkey: upstream has keys that do not belong together; "
        "give image (docker://NAME@sha256:DIGEST to pin it), or url with checksum_url or sha256"
    ]
    del upstream[key]
    assert not check_artifacts([{**entry, "upstream": upstream}])[1]


# The bundle


def test_bundle_makes_the_artifact(cache: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    body = f"""
import json, pathlib, sys
print("building", sys.argv, file=sys.stderr)
pathlib.Path({str(made)!r}).write_bytes({CONTENT!r})
print(json.dumps({{"part": sys.argv[2], "path": {str(made)!r}, "sha256": {SHA256!r}}}))
"""
    repository = fake_lab(tmp_path / "repository", body)
    fact, line, problems = resolve(cache, row(registries="k3s"), "cache", "registries", repository=repository)
    assert not problems
    assert (fact["source"], fact["path"]) == ("registries", str(made))
    assert line == f"k3s v1: registries (bundle part k3s, sha256 {SHA256})"


def test_bundle_that_fails_says_why(cache: Path, tmp_path: Path) -> None:
    repository = fake_lab(tmp_path / "repository", "import sys; sys.exit('no compiler')")
    (problem,) = resolve(cache, row(registries="k3s"), "registries", repository=repository)[2]
    assert "registries (python -m lab bundle k3s failed: no compiler)" in problem.what


def test_one_command_makes_all_parts_and_one_that_fails_is_named(cache: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(CONTENT)
    body = f"""
import json, sys
assert sys.argv[1:] == ["bundle", "broken", "fine", "silent"], sys.argv
print(json.dumps({{"part": "broken", "error": "no compiler"}}))
print(json.dumps({{"part": "fine", "path": {str(made)!r}, "sha256": {SHA256!r}}}))
sys.exit("lab: no compiler")
"""
    resolver = make_resolver(
        cache=str(cache.parent),
        sources=["cache", "registries"],
        repository=str(fake_lab(tmp_path / "repository", body)),
        python=sys.executable,
        timeout=2,
    )
    (cache / "placed").write_bytes(CONTENT)
    names = ("fine", "broken", "placed", "silent")
    resolved, lines, _changed, problems = resolver.resolve([row(name=n, file=n, registries=n) for n in names])
    assert sorted(resolved) == ["fine", "placed"]
    assert len(lines) == 2
    whats = {problem.where: problem.what for problem in problems}
    assert "registries (no compiler)" in whats["artifact broken"]
    assert "registries (python -m lab bundle broken fine silent failed: lab: no compiler)" in whats["artifact silent"]


def test_check_knows_the_parts_without_building(cache: Path, tmp_path: Path) -> None:
    repository = fake_lab(tmp_path / "repository", "import sys; assert sys.argv[2] == '--list'; print('k3s')")
    assert not check(cache, row(registries="k3s"), "registries", repository=repository)
    (problem,) = check(cache, row(registries="k4s"), "registries", repository=repository)
    assert "registries (the bundle has no part k4s (it has k3s))" in problem.what


def test_missing_everywhere_is_one_problem_with_three_reasons(cache: Path, upstream: tuple[Path, str]) -> None:
    artifact = row(upstream={"url": f"{upstream[1]}/k3s", "sha256": SHA256})
    for problems in (resolve(cache, artifact, "cache", "upstream")[2], check(cache, artifact, "cache", "upstream")):
        (problem,) = problems
        assert problem.where == "artifact k3s"
        assert problem.what == (
            f"version v1 was not found in any source: cache (no file {cache / 'k3s'}), "
            f"upstream (HTTP 404 from {upstream[1]}/k3s), "
            "registries (not in artifact_sources)"
        )
        assert str(cache / "k3s") in problem.fix


# What belongs together

BUNDLE = """
import json, pathlib, sys
if sys.argv[2] == "--list":
    sys.exit(print("k3s images"))
for part in sys.argv[2:]:
    print(json.dumps({"part": part, "path": "MADE", "sha256": "SHA256"}))
"""


@pytest.mark.parametrize(
    ("placed", "apart", "other"),
    [(("k3s",), "images", "k3s"), (("images",), "k3s", "images"), ((), None, None), (("k3s", "images"), None, None)],
)
def test_k3s_and_its_images_both_come_from_the_bundle_or_neither(
    cache: Path, tmp_path: Path, placed: tuple[str, ...], apart: str | None, other: str | None
) -> None:
    made = archive(tmp_path / "made", {"manifest.json": [{"RepoTags": ["a:1"]}]})
    sha256 = hashlib.sha256(made.read_bytes()).hexdigest()
    body = BUNDLE.replace("MADE", str(made)).replace("SHA256", sha256)
    for name in placed:
        shutil.copy(made, cache / name)
    resolver = make_resolver(
        cache=str(cache.parent),
        sources=["cache", "registries"],
        repository=str(fake_lab(tmp_path / "repository", body)),
        python=sys.executable,
        timeout=2,
    )
    # The first row is asked for before the one that it depends on.
    table = [
        row(name="images", file="images", kind="images", registries="images", same_source_as="k3s"),
        row(registries="k3s"),
    ]
    resolved, _lines, _changed, problems = resolver.resolve(table)
    assert resolver.check(table) == problems
    assert [problem.where for problem in problems] == ([f"artifact {apart}"] if apart else [])
    for problem in problems:
        assert problem.what.endswith(
            f": cache (no file {cache / str(apart)}), upstream (not in artifact_sources), "
            f"registries (not asked: {other} comes from cache, and they belong together)"
        )
        assert f"place it at {cache / str(apart)} " in problem.fix
    source = "cache" if placed else "registries"
    assert {name: fact["source"] for name, fact in resolved.items()} == {
        name: source for name in ("k3s", "images") if name != apart
    }


def test_the_table_keeps_k3s_and_its_images_together(repository: Path) -> None:
    table = yaml.safe_load((repository / "inventory/production.example/group_vars/all/artifacts.yml").read_text())
    assert {row["name"]: row.get("same_source_as") for row in table["artifacts"]}["k3s-airgap-images"] == "k3s"


# On the hosts


def test_an_archive_is_listed_before_it_is_sent(repository: Path) -> None:
    tasks = [task["name"] for task in yaml.safe_load((repository / "roles/artifacts/tasks/push.yml").read_text())]
    assert tasks.index("Note which archives are placed") < tasks.index("Send what differs")


# Archives


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"manifest.json": [{"RepoTags": ["docker.io/valkey/valkey:8"]}]}, ["docker.io/valkey/valkey:8"]),
        ({"manifest.json": [{"RepoTags": ["a/b:1", "a/b:2"]}, {"RepoTags": ["c/d:1"]}]}, ["a/b:1", "a/b:2", "c/d:1"]),
        (index(**{"io.containerd.image.name": "q.io/p:v3"}), ["q.io/p:v3"]),
        (index(**{"org.opencontainers.image.ref.name": "q.io/p:v3"}), ["q.io/p:v3"]),
        ({"manifest.json": [{"RepoTags": ["a:1"]}], **index(**{"io.containerd.image.name": "a:1"})}, ["a:1"]),
        ({"./manifest.json": [{"RepoTags": ["a:1"]}]}, ["a:1"]),
    ],
)
def test_references(tmp_path: Path, files: dict[str, Any], expected: list[str]) -> None:
    assert archives.references(archive(tmp_path / "image.tar", files)) == expected


def test_references_in_compressed_archives(tmp_path: Path) -> None:
    plain = archive(tmp_path / "image.tar", {"layer": "x" * 100000, "manifest.json": [{"RepoTags": ["a:1"]}]})
    zipped = tmp_path / "zipped"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert archives.references(zipped) == ["a:1"]
    assert archives.node_file_name("image.tar", zipped) == "image.tar.gz"
    assert archives.node_file_name("image.tar.zst", plain) == "image.tar"
    if not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    subprocess.run(["zstd", "-q", str(plain), "-o", str(tmp_path / "packed")], check=True)
    assert archives.references(tmp_path / "packed") == ["a:1"]
    assert archives.node_file_name("image.tar", tmp_path / "packed") == "image.tar.zst"


@pytest.mark.parametrize(
    "files",
    [{"manifest.json": [{"RepoTags": None}]}, index(**{"org.opencontainers.image.ref.name": "8.1.1"}), {"x": 1}],
)
def test_archive_without_a_full_name_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="names no image"):
        archives.references(archive(tmp_path / "image.tar", files))


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"plain text", b"\x1f\x8bbroken", b"\x28\xb5\x2f\xfdbroken"):
        (tmp_path / "image.tar").write_bytes(content)
        with pytest.raises(RefusedError, match="is not a readable image archive"):
            archives.references(tmp_path / "image.tar")


@pytest.mark.parametrize(("kind", "key", "value"), [("image", "image", "a:1"), ("images", "images", ["a:1", "b:2"])])
def test_fact_holds_what_the_archive_names(cache: Path, kind: str, key: str, value: object) -> None:
    archive(cache / "k3s", {"manifest.json": [{"RepoTags": ["a:1"]}, {"RepoTags": ["b:2"]}]})
    assert resolve(cache, row(kind=kind), "cache")[0][key] == value


def test_published_checksums() -> None:
    assert published(f"{SHA256}\n", "kubectl") == SHA256
    with pytest.raises(SourceError, match="no line for k3s"):
        published(f"{SHA256}  other\n", "k3s")

"""Source 2: the project's own downloads, verified before they are kept."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .cache import Cache
from .checksums import expect, published, sha256_of
from .model import Answer, Artifact, Found, RefusedError, SourceError, Upstream, side_by_side

_IMAGE_TIMEOUT_SECONDS = 600
# What preflight asks of the hosts (preflight_machine), by Go's name; the table's addresses are of it too.
_ARCHITECTURE = "amd64"
# What a connection may end in, before the answer or within it.
_BROKEN_OFF = (OSError, http.client.HTTPException)


class UpstreamSource:
    """Files by HTTPS with a published or pinned checksum, images by skopeo; both kept in the cache.

    Args:
        cache: where downloads are kept.
        timeout_seconds: how long a connection, or a silence within one, may take.
    """

    name = "upstream"

    def __init__(self, cache: Cache, timeout_seconds: float) -> None:
        self._cache = cache
        self._timeout = timeout_seconds

    def check(self, artifact: Artifact) -> None:
        """Ask upstream whether it has the artifact, without downloading it.

        Raises:
            SourceError: it has not, or does not answer.
        """
        upstream = _upstream(artifact)
        if upstream.image:
            self._skopeo(["inspect", "--raw", _source_reference(upstream.image)], 3 * self._timeout)
        else:
            if upstream.checksum_url:
                self._expected(upstream)
            self._open(upstream.url, "HEAD").close()

    def fetch_all(self, artifacts: Sequence[Artifact]) -> list[Answer]:
        """The downloads, or why one is not there."""
        return side_by_side(self.fetch, artifacts)

    def fetch(self, artifact: Artifact) -> Found:
        """Download, verify, keep.

        Raises:
            SourceError: upstream has it not, or does not answer.
            RefusedError: what came is not what the checksum says.
        """
        upstream = _upstream(artifact)
        self._cache.directory.mkdir(parents=True, exist_ok=True)
        partial = self._cache.directory / f"{artifact.file}.partial"
        partial.unlink(missing_ok=True)
        try:
            if upstream.image:
                source = self._pinned(upstream.image)
                sha256 = self._copy_image(artifact, source, partial)
            else:
                source = upstream.url
                sha256 = self._download(upstream, partial)
            path = self._cache.keep(artifact, partial, sha256, source)
        finally:
            partial.unlink(missing_ok=True)
        return Found(path, sha256, self.name, f"{source}, sha256 {sha256}", changed=True)

    def _download(self, upstream: Upstream, partial: Path) -> str:
        # The checksum first: without it the download would be of no use.
        expected, said_by = self._expected(upstream)
        try:
            with self._open(upstream.url, "GET") as answer, partial.open("wb") as file:
                shutil.copyfileobj(answer, file, 1024 * 1024)
        except _BROKEN_OFF as error:
            raise SourceError(f"{upstream.url}: {error}") from error
        return expect(partial, expected, said_by, shown=upstream.url)

    def _expected(self, upstream: Upstream) -> tuple[str, str]:
        if upstream.sha256:
            return upstream.sha256, "the table"
        if not upstream.checksum_url:
            raise SourceError(f"{upstream.url} has neither sha256 nor checksum_url in the table")
        try:
            with self._open(upstream.checksum_url, "GET") as answer:
                text = answer.read().decode("utf-8", "replace")
        except _BROKEN_OFF as error:
            raise SourceError(f"{upstream.checksum_url}: {error}") from error
        return published(text, unquote(urlsplit(upstream.url).path).rsplit("/", 1)[-1]), upstream.checksum_url

    def _open(self, url: str, method: str) -> urllib.request._UrlopenRet:
        if urlsplit(url).scheme not in {"https", "http"}:
            raise SourceError(f"{url} is not an http(s) address")
        try:
            request = urllib.request.Request(url, method=method, headers={"User-Agent": "tradewatch"})  # noqa: S310
            return urllib.request.urlopen(request, timeout=self._timeout)  # noqa: S310 - the scheme was looked at above
        except urllib.error.HTTPError as error:
            raise SourceError(f"HTTP {error.code} from {url}") from error
        except urllib.error.URLError as error:
            raise SourceError(f"{url}: {error.reason}") from error
        except (*_BROKEN_OFF, ValueError) as error:
            raise SourceError(f"{url}: {error}") from error

    def _pinned(self, image: str) -> str:
        """The image by digest, which skopeo verifies; that of a tag is what the registry gives it now."""
        if "@" in image:
            return image
        manifest = self._skopeo(["inspect", "--raw", image], 3 * self._timeout)
        return f"{image}@sha256:{hashlib.sha256(manifest).hexdigest()}"

    def _copy_image(self, artifact: Artifact, image: str, partial: Path) -> str:
        target = f"docker-archive:{partial}:{_archive_reference(image, artifact.version)}"
        self._skopeo(["copy", "--quiet", _source_reference(image), target], _IMAGE_TIMEOUT_SECONDS)
        return sha256_of(partial)

    def _skopeo(self, arguments: list[str], timeout_seconds: float) -> bytes:
        # The hosts' platform, which is not always that of the control host.
        command = ["skopeo", "--override-os=linux", f"--override-arch={_ARCHITECTURE}"]
        command += ["--command-timeout", f"{timeout_seconds:.0f}s", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=timeout_seconds + 10, check=False)
        except FileNotFoundError as error:
            raise SourceError("skopeo is not installed on the control host") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"skopeo {arguments[0]} did not end within {timeout_seconds:.0f} s") from error
        if done.returncode:
            last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            message = last.rpartition("msg=")[2].strip('"').replace('\\"', "'")
            raise SourceError(f"skopeo {arguments[0]}: {message}")
        return done.stdout


def _upstream(artifact: Artifact) -> Upstream:
    if artifact.upstream is None:
        raise SourceError("the table gives no upstream")
    if artifact.kind == "image" and not artifact.upstream.image:
        raise RefusedError("upstream of kind image needs image:")
    return artifact.upstream


def _source_reference(image: str) -> str:
    """skopeo refuses a reference with both a tag and a digest; the digest is the one that pins."""
    name, at, digest = image.partition("@")
    return f"{_without_tag(name)}@{digest}" if at else name


def _archive_reference(image: str, version: str) -> str:
    """The name inside the archive: the tag of the table, or its version where only a digest is given."""
    name = image.removeprefix("docker://").partition("@")[0]
    return name if _without_tag(name) != name else f"{name}:{version.replace('+', '-')}"


def _without_tag(name: str) -> str:
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name

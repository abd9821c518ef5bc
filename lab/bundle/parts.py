"""The bundle's parts by name: each makes one file, keyed by what goes into it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from lab import paths
from lab.bundle import golang, oci
from lab.bundle.lock import building
from lab.k3s_standin import build as standin
from lab.k3s_standin import images as standin_images
from lab.steps import LabError, digest, run, sha256_of, step

KUBERNETES_VERSION = golang.version("kubernetes", "k8s.io/kubernetes") + standin_images.VERSION_SUFFIX
ARTIFACTS_TABLE = "group_vars/all/artifacts.yml"
SERVICES = paths.REPOSITORY / "python_services"
# The image's interpreter (Debian trixie) and its oldest C library; wheels are resolved for these, not for the machine.
IMAGE_PYTHON = "3.13"
IMAGE_PLATFORM = "x86_64-manylinux_2_40"
# Of Plotly the services serve the JavaScript alone; the rest of it is 40 MB of Python.
PLOTLY_KEPT = ("plotly/__init__.py", "plotly/package_data/plotly.min.js")
# One Debian root for the programs of monitoring that Debian has: each of their images takes its own out of it.
MONITORING_PACKAGES = [
    "prometheus-alertmanager",
    "prometheus-node-exporter",
    "prometheus-postgres-exporter",
    "prometheus-redis-exporter",
]


def _hyperkube() -> Path:
    major, minor = KUBERNETES_VERSION.lstrip("v").split(".")[:2]
    variables = {
        "k8s.io/component-base/version.gitVersion": KUBERNETES_VERSION,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES_VERSION,
    }
    ldflags = " ".join(["-s -w", *(f"-X {name}={value}" for name, value in variables.items())])
    return golang.binary("kubernetes", ".", "hyperkube", ldflags)


def _output(part: str, key: str, name: str) -> Path:
    return paths.cache_dir() / "bundle" / f"{part}-{key}" / name


def _image_archive(part: str, name: str, version: str, files: dict[str, Path]) -> Path:
    """An archive of one image, its tag made of the version and the content, so that a change rolls its pods."""
    key = digest(oci.CONTAINERFILES / name, *map(str, files.values()))
    output = _output(part, key, f"{part}.tar.zst")
    if not output.exists():
        oci.archive([oci.Image(name, f"localhost/tradewatch/{name}:{version}-{key[:8]}", files)], output)
    return output


def k3s() -> Path:
    """The k3s stand-in: one executable that carries Kubernetes, etcd and kube-router."""
    binaries = [
        _hyperkube(),
        golang.binary("etcd", "go.etcd.io/etcd/server/v3", "etcd"),
        golang.binary("etcd", "go.etcd.io/etcd/etcdctl/v3", "etcdctl"),
        golang.binary("kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", "kube-router"),
    ]
    output = _output("k3s", digest(Path(standin.__file__).parent, *map(str, binaries)), "k3s")
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        with step("k3s stand-in"), tempfile.TemporaryDirectory(dir=output.parent) as folder:
            for binary in binaries:
                (Path(folder) / binary.name).symlink_to(binary)
            standin.build(Path(folder), output)
    return output


def k3s_airgap_images() -> Path:
    """The images that the stand-in's cluster itself needs: pause, CoreDNS, local-path storage and its helper."""
    files = {
        "pause": {"root.tar": oci.debian_root("trixie", ["catatonit"], "extract")},
        "coredns": {"coredns": golang.binary("coredns", ".", "coredns")},
        "local-path-provisioner": {
            "local-path-provisioner": golang.binary(
                "local-path-provisioner", "github.com/rancher/local-path-provisioner", "local-path-provisioner"
            )
        },
        "busybox": {"root.tar": oci.debian_root("trixie", ["busybox-static"], "extract")},
    }
    images = [oci.Image(name, standin_images.REFERENCES[name], files[name]) for name in files]
    key = digest(
        *(oci.CONTAINERFILES / name for name in files),
        *(f"{image.reference} {path}" for image in images for path in image.files.values()),
    )
    output = _output("k3s-airgap-images", key, "k3s-airgap-images.tar.zst")
    return output if output.exists() else oci.archive(images, output)


def kubectl() -> Path:
    """The Kubernetes client for the control host."""
    source = _hyperkube()
    output = _output("kubectl", digest(str(source)), "kubectl")
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, output)
    return output


def _valkey_root() -> Path:
    return oci.debian_root("trixie", ["valkey-server", "valkey-tools"])


def valkey() -> Path:
    """Valkey, from Debian trixie."""
    return _image_archive("valkey", "valkey", "8.1", {"root.tar": _valkey_root()})


def _postgresql_root() -> Path:
    without_cluster = 'rm -rf "$1"/var/lib/postgresql/17 "$1"/etc/postgresql/17'
    return oci.debian_root("trixie", ["postgresql-17"], hooks=[without_cluster])


def postgresql() -> Path:
    """PostgreSQL, from Debian trixie, without the cluster that the package makes when it is installed."""
    return _image_archive("postgresql", "postgresql", "17", {"root.tar": _postgresql_root()})


def prometheus_binary(name: str) -> Path:
    """``prometheus`` or ``promtool`` alone, as a program of this machine; it discovers targets on Kubernetes only."""
    package = f"github.com/prometheus/prometheus/cmd/{name}"
    return golang.binary("prometheus", package, name, tags="remove_all_sd,enable_kubernetes_sd")


def prometheus_binaries() -> dict[str, Path]:
    """What the image of Prometheus holds, by name."""
    return {name: prometheus_binary(name) for name in ("prometheus", "promtool")}


def prometheus() -> Path:
    """Prometheus and promtool, without the web UI (the Go module does not carry its assets)."""
    package = "github.com/prometheus/prometheus"
    # The Go module of Prometheus 3.13.5 is v0.313.5.
    major_minor, patch = golang.version("prometheus", package).removeprefix("v0.").split(".")
    version = f"{int(major_minor) // 100}.{int(major_minor) % 100}.{patch}"
    return _image_archive("prometheus", "prometheus", version, prometheus_binaries())


def kube_state_metrics() -> Path:
    """kube-state-metrics, which tells of the cluster's objects."""
    package = "k8s.io/kube-state-metrics/v2"
    version = golang.version("kube-state-metrics", package)
    ldflags = f"-s -w -X github.com/prometheus/common/version.Version={version}"
    program = golang.binary("kube-state-metrics", package, "kube-state-metrics", ldflags)
    return _image_archive(
        "kube-state-metrics", "kube-state-metrics", version.removeprefix("v"), {"kube-state-metrics": program}
    )


def monitoring_root() -> Path:
    """A Debian root with the programs of monitoring that Debian has."""
    return oci.debian_root("trixie", MONITORING_PACKAGES, "extract")


def _monitoring_image(name: str, version: str) -> Path:
    return _image_archive(name, name, version, {"root.tar": monitoring_root()})


def alertmanager() -> Path:
    """Alertmanager and amtool, from Debian trixie."""
    return _monitoring_image("alertmanager", "0.28")


def node_exporter() -> Path:
    """node-exporter, which tells of a host, from Debian trixie."""
    return _monitoring_image("node-exporter", "1.9")


def postgres_exporter() -> Path:
    """postgres_exporter, from Debian trixie."""
    return _monitoring_image("postgres-exporter", "0.17")


def valkey_exporter() -> Path:
    """redis_exporter, which speaks Valkey's protocol, from Debian trixie."""
    return _monitoring_image("valkey-exporter", "1.69")


def _loki_program(name: str, package: str) -> Path:
    module = "github.com/grafana/loki/v3"
    ldflags = f"-s -w -X {module}/pkg/util/build.Version={_loki_version()}"
    return golang.binary("loki", f"{module}/{package}", name, ldflags)


def _loki_version() -> str:
    return golang.version("loki", "github.com/grafana/loki/v3").removeprefix("v")


def loki_binary() -> Path:
    """Loki alone, as a program of this machine."""
    return _loki_program("loki", "cmd/loki")


def promtail_binary() -> Path:
    """Promtail alone. Without C it cannot read the journal itself."""
    return _loki_program("promtail", "clients/cmd/promtail")


def loki() -> Path:
    """Loki."""
    return _image_archive("loki", "loki", _loki_version(), {"loki": loki_binary()})


def _journal_root() -> Path:
    return oci.debian_root("trixie", ["systemd"])


def promtail() -> Path:
    """Promtail, on a Debian root with the journalctl that reads the journal in its place (roles/promtail)."""
    files = {"root.tar": _journal_root(), "promtail": promtail_binary()}
    return _image_archive("promtail", "promtail", _loki_version(), files)


def services_library() -> Path:
    """The locked wheels and the ``tradewatch`` distribution, as a folder for Python's path."""
    lock = SERVICES / "requirements.txt"
    key = digest(SERVICES / "src", SERVICES / "pyproject.toml", lock, IMAGE_PYTHON, IMAGE_PLATFORM, *PLOTLY_KEPT)
    library = paths.cache_dir() / "bundle" / "wheels" / key
    with building("wheels"):
        if not library.exists():
            _install(lock, library)
    return library


def _install(lock: Path, library: Path) -> None:
    partial = library.with_name(f"partial-{library.name}")
    shutil.rmtree(partial, ignore_errors=True)
    uv: list[str | Path] = [
        paths.VENV_BIN / "uv",
        "pip",
        "install",
        "--quiet",
        "--target",
        partial,
        "--link-mode",
        "copy",
    ]
    target = ["--python-version", IMAGE_PYTHON, "--python-platform", IMAGE_PLATFORM]
    with step("the services' wheels"):
        run([*uv, *target, "--only-binary", ":all:", "--require-hashes", "--requirement", lock])
        run([*uv, "--no-deps", SERVICES])
        for path in (partial / "plotly").rglob("*"):
            if path.is_file() and str(path.relative_to(partial)) not in PLOTLY_KEPT:
                path.unlink()
    partial.rename(library)


def _services_files() -> dict[str, Path]:
    # Wheels carry their libraries except those that every manylinux system has, such as the C++ one.
    root = oci.debian_root("trixie", ["python3", "ca-certificates", "tzdata", "libstdc++6"])
    return {"root.tar": root, "library": services_library()}


def tradewatch() -> Path:
    """The services: Debian's Python, and the library, installed offline."""
    files = _services_files()
    return _image_archive("tradewatch", "tradewatch", files["library"].name[:8], files)


PARTS: dict[str, Callable[[], Path]] = {
    "alertmanager": alertmanager,
    "k3s": k3s,
    "k3s-airgap-images": k3s_airgap_images,
    "kube-state-metrics": kube_state_metrics,
    "kubectl": kubectl,
    "loki": loki,
    "node-exporter": node_exporter,
    "postgres-exporter": postgres_exporter,
    "postgresql": postgresql,
    "prometheus": prometheus,
    "promtail": promtail,
    "tradewatch": tradewatch,
    "valkey": valkey,
    "valkey-exporter": valkey_exporter,
}


# What takes long in a part and needs nothing of the others: compiling keeps every core busy, downloads keep none.
COMPILED: dict[str, Callable[[], Any]] = {
    "prometheus": prometheus_binaries,
    "loki": loki_binary,
    "promtail": promtail_binary,
}
DOWNLOADED: dict[str, Callable[[], Any]] = {
    "alertmanager": monitoring_root,
    "tradewatch": _services_files,
    "postgresql": _postgresql_root,
    "promtail": _journal_root,
    "valkey": _valkey_root,
}


def artifacts_table() -> list[dict[str, Any]]:
    """The entries of the lab inventory's artifacts table.

    Raises:
        LabError: the table cannot be read, or an entry has no file.
    """
    source = paths.inventories()[0] / ARTIFACTS_TABLE
    try:
        entries: list[dict[str, Any]] = yaml.safe_load(source.read_text())["artifacts"]
        if not all(entry["file"] for entry in entries):
            raise ValueError("an entry without a file")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise LabError(f"{source}: {' '.join(str(error).split())}; mend the table") from error
    return entries


def make(name: str) -> Path:
    """The part ``name``, built when it is not there; processes that share the cache build one at a time."""
    with building():
        return PARTS[name]()


def ahead(names: Collection[str]) -> list[Callable[[], None]]:
    """What to run beside the making of these parts, so that no core is idle meanwhile.

    What is wrong with one of them the part says when its turn comes.
    """

    def prepare(tasks: dict[str, Callable[[], Any]]) -> None:
        for name, task in tasks.items():
            if name in names:
                with contextlib.suppress(LabError):
                    task()

    return [lambda: prepare(COMPILED), lambda: prepare(DOWNLOADED)]


def drop_build_caches() -> None:
    """Remove Go's caches (gigabytes), unless a process that shares the cache builds just now."""
    with contextlib.suppress(BlockingIOError), building(wait=False), building("go-caches", wait=False):
        golang.drop_build_cache()


def place(name: str) -> Path:
    """Make the part ``name`` and put it, with its checksum, where the artifacts table looks for it first.

    Returns the file in the cache. A file of that name which lay there is replaced.
    """
    file: str = next(entry["file"] for entry in artifacts_table() if entry.get("registries") == name)
    target: Path = paths.cache_dir() / "artifacts" / file
    target.parent.mkdir(parents=True, exist_ok=True)
    path, sha256 = made(name)
    partial = target.with_name(f"{file}.partial")
    shutil.copy2(path, partial)
    partial.rename(target)
    target.with_name(f"{file}.sha256").write_text(f"{sha256}  {file}\n")
    return target


def made(name: str) -> tuple[Path, str]:
    """Make a part; returns the file and its SHA-256, which is summed once, for parts never change under their key.

    Raises:
        LabError: it cannot be made.
    """
    path = make(name)
    sidecar = path.with_name(path.name + ".sha256")
    if not sidecar.exists():
        sidecar.write_text(f"{sha256_of(path)}  {path.name}\n")
    return path, sidecar.read_text().split()[0]


def describe(name: str) -> dict[str, str]:
    """Make a part; returns what the role ``artifacts`` reads: where it is and its SHA-256, or why it is not."""
    try:
        path, sha256 = made(name)
    except LabError as error:
        return {"part": name, "error": str(error)}
    return {"part": name, "path": str(path), "sha256": sha256}

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.k3s_standin import (
    addons,
    balancer,
    config,
    containerd,
    credentials,
    cron,
    etcd,
    files,
    flags,
    images,
    kubeadm,
    paths,
    payload,
    snapshots,
    tokens,
)
from lab.k3s_standin.airgap import Import, Importer
from lab.k3s_standin.errors import StandinError

MONDAY = datetime.datetime(2026, 11, 23, 10, 7, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", "2026-11-23 10:08"),
        ("*/15 * * * *", "2026-11-23 10:15"),
        ("0 */12 * * *", "2026-11-23 12:00"),
        ("30 9 * * *", "2026-11-24 09:30"),
        ("0 0 1 * *", "2026-12-01 00:00"),
        ("0 0 * * 0", "2026-11-29 00:00"),
        ("0 0 * * 7", "2026-11-29 00:00"),
        ("0 0 1 * 3", "2026-11-25 00:00"),
        ("5/20 10 * * *", "2026-11-23 10:25"),
        ("0 8-10,14 * * *", "2026-11-23 14:00"),
        ("@daily", "2026-11-24 00:00"),
    ],
)
def test_cron_says_when_it_is_due_next(expression: str, expected: str) -> None:
    due = cron.Schedule(expression).after(MONDAY)
    assert due is not None
    assert due.strftime("%Y-%m-%d %H:%M") == expected


def test_cron_that_is_never_due() -> None:
    assert cron.Schedule("0 0 31 2 *").after(MONDAY) is None


@pytest.mark.parametrize(
    "expression", ["", "* * * *", "60 * * * *", "* 24 * * *", "a * * * *", "5-1 * * * *", "*/0 * * * *"]
)
def test_bad_cron_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        cron.Schedule(expression)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1))
def test_a_full_token_parses_back(password: str) -> None:
    ca = b"pem"
    assert tokens.parse(tokens.full(password, ca)) == (password, hashlib.sha256(ca).hexdigest())


def test_derived_tokens_have_kubeadms_forms_and_do_not_reveal_each_other() -> None:
    identifier, secret = tokens.bootstrap("one")
    assert (len(identifier), len(secret), len(tokens.certificate_key("one"))) == (6, 16, 64)
    assert tokens.bootstrap("one") != tokens.bootstrap("two")
    assert secret not in tokens.certificate_key("one")


def test_signature_of_the_cluster_info() -> None:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    identifier, secret = tokens.bootstrap("password")
    header = encode(f'{{"alg":"HS256","kid":"{identifier}"}}'.encode())
    signed = f"{header}.{encode(b'kubeconfig')}"
    signature = f"{header}..{encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"
    assert tokens.signature_matches("password", "kubeconfig", signature)
    assert not tokens.signature_matches("other", "kubeconfig", signature)
    assert not tokens.signature_matches("password", "changed", signature)
    assert not tokens.signature_matches("password", "kubeconfig", "")


def test_containerd_dropins_are_merged_deep_and_renamed(tmp_path: Path) -> None:
    (tmp_path / "10.toml").write_text(
        'version = 3\n[plugins."io.containerd.cri.v1.runtime"]\nrestrict_oom_score_adj = true\n'
        '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]\nNoPivotRoot = true\n'
    )
    (tmp_path / "20.toml").write_text(
        '[plugins."io.containerd.cri.v1.images"]\nmax_concurrent_downloads = 7\n[debug]\nlevel = "debug"\n'
    )
    rendered = tomllib.loads(containerd.render(tmp_path, systemd_cgroup=False))
    cri = rendered["plugins"]["io.containerd.grpc.v1.cri"]
    assert rendered["version"] == 2
    assert rendered["debug"] == {"level": "debug"}
    assert (cri["restrict_oom_score_adj"], cri["max_concurrent_downloads"]) == (True, 7)
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False, "NoPivotRoot": True}
    assert cri["sandbox_image"] == images.REFERENCES["pause"]


def test_a_broken_dropin_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[plugins")
    with pytest.raises(StandinError, match=r"bad\.toml: is not TOML"):
        containerd.render(tmp_path, systemd_cgroup=False)


_SCALARS = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(max_codepoint=0x2FF, exclude_characters="\x7f"))
)
_TABLES = st.recursive(
    st.dictionaries(st.text('ab.-_/ "', min_size=1), _SCALARS | st.lists(_SCALARS)),
    lambda inner: st.dictionaries(st.text("abc.", min_size=1), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(_TABLES)
def test_toml_is_read_back_as_it_was(table: dict[str, object]) -> None:
    assert tomllib.loads(containerd.dump(table)) == table


def test_flags_of_a_later_layer_replace_and_repeat() -> None:
    base = ["--a=1", "--b=2", "--a=3"]
    assert flags.override(base, ["a=4"], ["--c=5", "c=6", "--d"]) == ["--b=2", "--a=4", "--c=5", "--c=6", "--d=true"]


def test_command_of_a_static_pod() -> None:
    manifest = "spec:\n  containers:\n  - command:\n    - kube-scheduler\n    - --a=b\n    - '--c=*'\n    image: x\n"
    assert flags.command_of(manifest) == ["kube-scheduler", "--a=b", "--c=*"]


def test_prune_keeps_the_newest_of_its_own(tmp_path: Path) -> None:
    names = ["etcd-snapshot-a-1", "etcd-snapshot-a-2", "etcd-snapshot-a-3", "etcd-snapshot-a-b-1", "on-demand-a-1"]
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    removed = snapshots.prune(tmp_path, "etcd-snapshot", "a", keep=2)
    assert [path.name for path in removed] == ["etcd-snapshot-a-1"]
    assert snapshots.prune(tmp_path, "etcd-snapshot", "a", keep=0) == []
    assert [item.path.name for item in snapshots.listing(tmp_path)] == names[1:]


def test_images_are_pending_until_done_and_again_when_changed(tmp_path: Path) -> None:
    importer = Importer(tmp_path)
    for name in ("a.tar", "b.tar.zst", "c.txt", ".d.tar"):
        (tmp_path / name).write_text("x")
    found = importer.pending()
    assert sorted(path.name for path in found) == ["a.tar", "b.tar.zst"]
    importer._done.update({path: Import(signature) for path, signature in found.items()})
    assert importer.pending() == {}
    (tmp_path / "a.tar").write_text("longer")
    assert [path.name for path in importer.pending()] == ["a.tar"]


def test_images_that_containerd_still_has_are_not_imported_again(tmp_path: Path) -> None:
    record = tmp_path / "imported.json"
    before = Importer(tmp_path, record)
    for name in ("kept", "lost", "failed"):
        (tmp_path / f"{name}.tar").write_text(name)
    images = {"kept": ("one:1", "two:1"), "lost": ("one:1", "three:1"), "failed": ()}
    before._done.update({path: Import(at, images[path.stem]) for path, at in before.pending().items()})
    before._remember()
    after = Importer(tmp_path, record)
    after.recall("one:1\ntwo:1\n")
    assert sorted(path.stem for path in after.pending()) == ["failed", "lost"]


def test_endpoints_are_the_ready_ones() -> None:
    def endpoint(address: str, ready: bool) -> dict[str, object]:
        return {"addresses": [address], "conditions": {"ready": ready}}

    slices = {
        "items": [{"ports": [{"port": 6443}], "endpoints": [endpoint("10.0.0.2", True), endpoint("10.0.0.3", False)]}]
    }
    assert balancer.endpoints(slices) == [("10.0.0.2", 6443)]


def test_initial_cluster_names_the_new_member() -> None:
    members: list[dict[str, Any]] = [{"name": "a", "peerURLs": ["https://1:2380"]}, {"peerURLs": ["https://2:2380"]}]
    assert etcd.initial_cluster(members, "b", "https://2:2380") == "a=https://1:2380,b=https://2:2380"


@pytest.mark.parametrize(
    ("change", "approved"),
    [
        ({}, True),
        ({"signerName": "kubernetes.io/kube-apiserver-client"}, False),
        ({"username": "system:serviceaccount:a:b"}, False),
        ({"groups": []}, False),
    ],
)
def test_only_kubelets_serving_certificates_are_approved(change: dict[str, object], approved: bool) -> None:
    spec = {"signerName": "kubernetes.io/kubelet-serving", "username": "system:node:a", "groups": ["system:nodes"]}
    assert (credentials.csr_approval({"spec": {**spec, **change}}) is not None) == approved
    decided = {"spec": spec, "status": {"conditions": [{"type": "Denied"}]}}
    assert credentials.csr_approval(decided) is None


def test_anonymous_requests_are_limited_to_health_and_discovery() -> None:
    paths = [item["path"] for item in credentials.authentication_config()["anonymous"]["conditions"]]
    assert set(paths) == {"/livez", "/readyz", "/healthz", "/api/v1/namespaces/kube-public/configmaps/cluster-info"}


def test_disabled_components_have_no_manifest() -> None:
    settings = config.Config("server", disabled=frozenset({"local-storage"}))
    assert set(addons.manifests(settings)) == {"coredns.yaml", "rolebindings.yaml"}
    assert list(addons.disabled_manifests(settings)) == ["local-storage.yaml"]
    assert all("@" not in text for text in addons.manifests(config.Config("server")).values())


def test_files_are_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    before = time.time()
    files.write(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o600)
    assert path.stat().st_mtime >= before - 1
    assert list(path.parent.iterdir()) == [path]


async def test_kubeadm_prints_neither_token_nor_certificate_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, ...]] = []

    async def kept(*arguments: str) -> None:
        runs.append(arguments)

    monkeypatch.setattr(kubeadm, "_kubeadm", kept)
    monkeypatch.setattr(payload, "about", lambda: payload.About("v1.34.4+standin", "go1", "", ()))
    monkeypatch.setattr(paths, "RUN", tmp_path)
    await kubeadm.init(config.Config("server", token="password"), "192.0.2.1", [])
    [run] = runs
    assert run[0] == "init"
    assert {"--skip-token-print", "--skip-certificate-key-print"} <= set(run)

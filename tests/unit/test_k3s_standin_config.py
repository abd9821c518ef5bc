from __future__ import annotations

from pathlib import Path

import pytest

from lab.k3s_standin import config, yaml_subset
from lab.k3s_standin.errors import StandinError

TOKEN = "not-to-be-shown"


def build(command: str = "server", **values: yaml_subset.Value) -> config.Config:
    merged = config.merge(command, [("config.yaml", {key.replace("_", "-"): value for key, value in values.items()})])
    return config.build(command, merged, "Node-1")


def test_defaults_are_those_of_k3s() -> None:
    result = build()
    assert (result.cluster_cidr, result.service_cidr, result.cluster_dns) == (
        "10.42.0.0/16",
        "10.43.0.0/16",
        "10.43.0.10",
    )
    assert (result.node_name, result.kubeconfig_mode, result.joins) == ("node-1", 0o600, False)
    assert (result.snapshot_cron, result.snapshot_retention) == ("0 */12 * * *", 5)


def test_later_layers_win_and_plus_appends() -> None:
    layers: list[tuple[str, dict[str, yaml_subset.Value]]] = [
        ("a", {"kubelet-arg": ["one"], "node-name": "first"}),
        ("b", {"kubelet-arg+": "two", "node-name": "second"}),
        ("c", {"kubelet-arg+": ["three"], "tls-san+": ["x"]}),
    ]
    merged = config.merge("server", layers)
    assert merged == {"kubelet-arg": ["one", "two", "three"], "node-name": "second", "tls-san": ["x"]}


def test_files_are_merged_by_name_and_flags_win(tmp_path: Path) -> None:
    main = tmp_path / "config.yaml"
    main.write_text("node-name: main\ntls-san: [a]\ndebug: true\n")
    folder = tmp_path / "config.yaml.d"
    folder.mkdir()
    (folder / "20.yaml").write_text("tls-san+: [c]\n")
    (folder / "10.yaml").write_text('tls-san: ["b"]\nnode-name: ten\n')
    (folder / "30.txt").write_text("not: read\n")
    result = config.load("server", ["--config", str(main), "--node-name=flag"], "host")
    assert (result.node_name, result.tls_sans, result.debug) == ("flag", ("b", "c"), True)


@pytest.mark.parametrize(
    ("command", "values", "message"),
    [
        ("server", {"bogus": 1}, "unknown key 'bogus'"),
        ("agent", {"tls-san": ["x"]}, "unknown key 'tls-san' for k3s agent"),
        ("server", {"node-name+": "x"}, "only lists"),
        ("server", {"node-name": ["x"]}, "node-name: must be one value"),
        ("server", {"node-name": "a_b"}, "node-name"),
        ("server", {"node-ip": "10.0.0.300"}, "node-ip: '10.0.0.300' is not an IP address"),
        ("server", {"cluster-cidr": "10.42.0.0"}, "cluster-cidr: .* is not an IPv4 network"),
        ("server", {"cluster-cidr": "10.43.0.0/16"}, "overlaps cluster-cidr"),
        ("server", {"node-label": ["novalue"]}, "node-label: 'novalue' is not KEY=VALUE"),
        ("server", {"node-taint": ["a=b:Never"]}, "node-taint"),
        ("server", {"disable": ["coredsn"]}, "disable: 'coredsn'"),
        ("server", {"write-kubeconfig-mode": "rw"}, "write-kubeconfig-mode"),
        ("server", {"etcd-snapshot-schedule-cron": "61 * * * *"}, "etcd-snapshot-schedule-cron"),
        ("server", {"etcd-snapshot-retention": "-1"}, "etcd-snapshot-retention"),
        ("server", {"flannel-backend": "none"}, "flannel-backend"),
        ("server", {"flannel-iface": "no-such0"}, "flannel-iface: there is no interface no-such0"),
        ("server", {"data-dir": "/srv"}, "data-dir"),
        ("server", {"disable-network-policy": True}, "disable-network-policy"),
        ("server", {"secrets-encryption": "maybe"}, "secrets-encryption"),
        ("agent", {"token": TOKEN}, "server: is required"),
        ("agent", {"server": "https://a:6443"}, "token: is required"),
        ("agent", {"server": "a:6443", "token": TOKEN}, "is not https"),
        ("server", {"server": "https://a", "token": TOKEN, "cluster-init": True}, "cluster-init"),
        ("server", {"token": f"K10abc::server:{TOKEN}"}, "token: is neither"),
        ("server", {"token-file": "/nonexistent/token"}, "token-file: /nonexistent/token"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(
    command: str, values: dict[str, yaml_subset.Value], message: str
) -> None:
    with pytest.raises(StandinError, match=message) as caught:
        config.build(command, config.merge(command, [("config.yaml", values)]), "host")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("arguments", [["--bogus", "1"], ["bogus"], ["--node-name"], ["--config", "/nonexistent.yaml"]])
def test_bad_flags_are_refused(arguments: list[str]) -> None:
    with pytest.raises(StandinError):
        config.load("server", arguments, "host")


def test_token_is_not_in_the_representation() -> None:
    assert TOKEN not in repr(build(token=TOKEN))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# nothing\n---\n", {}),
        ("a: 1\nb: true\nc: text # comment\nd:\n", {"a": 1, "b": True, "c": "text", "d": None}),
        ("a: '0600'\nb: \"x # y\"\nc: 'it''s'\n", {"a": "0600", "b": "x # y", "c": "it's"}),
        ("a: 0600\n", {"a": "0600"}),
        ('a:\n  - b=c:d\n  - "x"\ne:\n- f\n', {"a": ["b=c:d", "x"], "e": ["f"]}),
        ("a: [b, 'c, d', 1]\nb: []\n", {"a": ["b", "c, d", 1], "b": []}),
        ("a:\n  b: c\n  d: 2\n", {"a": {"b": "c", "d": 2}}),
        ("server: https://10.0.0.1:6443\n", {"server": "https://10.0.0.1:6443"}),
        ("cron: '*/5 * * * *'\n", {"cron": "*/5 * * * *"}),
        ('{"a": ["b"], "c": true}', {"a": ["b"], "c": True}),
    ],
)
def test_yaml_subset(text: str, expected: dict[str, yaml_subset.Value]) -> None:
    assert yaml_subset.parse(text, "f") == expected


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "- a\n",
        "a: &x 1\n",
        "a: |\n  b\n",
        "a: {b: c}\n",
        "a:\n  - b: c\n",
        "a:\n  b:\n    c: d\n",
        "a: 'x\n",
        "a:\n\t- b\n",
        "a: [b\n",
        "a: */5 * * * *\n",
        "just text\n",
        "a:\n  - b\n    - c\n",
        '{"a": [["b"]]}',
        '{"a"',
    ],
)
def test_yaml_outside_the_subset_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(StandinError, match=r"^f"):
        yaml_subset.parse(text, "f")

"""Variables and secrets that preflight must refuse, and those it must take."""

from __future__ import annotations

from typing import Any

import pytest
from tradewatch_preflight import variables

SECRET_FIX = "set it in the inventory's vault (group_vars/all/vault.yml.example shows how)"
URL = "http://192.0.2.50:8095/v1/watchdog"
CIDRS = "variable alertmanager_watchdog_cidrs"


def check(secrets: dict[str, str] | None = None, **values: Any) -> list[str]:
    return [problem.line for problem in variables.check(values, {}, secrets or {}, (), ())]


def test_a_secret_is_a_string() -> None:
    assert check({"vault_k3s_token": "set"}) == []
    assert check({"vault_k3s_token": "type"}) == [f"secret vault_k3s_token: is not a string; {SECRET_FIX}"]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (["cache", "upstream"], []),
        (["cache", "upstrem"], ["unknown source upstrem; did you mean upstream?"]),
        (["cache", 5], ["unknown source 5; use one of cache, registries, upstream"]),
        ("cache", ["is not a list of sources; list some of cache, upstream, registries"]),
        ([], ["is not a list of sources; list some of cache, upstream, registries"]),
    ],
)
def test_artifact_sources(sources: Any, said: list[str]) -> None:
    assert check(artifact_sources=sources) == [f"variable artifact_sources: {line}" for line in said]


@pytest.mark.parametrize(
    ("url", "cidrs", "said"),
    [
        ("", [], []),
        (URL, ["192.0.2.50/32"], []),
        ("https://watchdog.example/v1/watchdog", ["192.0.2.0/24", "198.51.100.0/24"], []),
        (
            URL,
            [],
            [
                f"{CIDRS}: is empty, and alertmanager_watchdog_url is set: Alertmanager may not connect to it; "
                "list the networks that it is in, such as [192.0.2.50/32]"
            ],
        ),
        (URL, "192.0.2.50/32", [f"{CIDRS}: '192.0.2.50/32' is not a list; write a list of networks: [192.0.2.50/32]"]),
        (
            URL,
            ["192.0.2.50"],
            [f"{CIDRS}: '192.0.2.50' is not a network (it has no prefix length); write it like 192.0.2.50/32"],
        ),
        *[
            (
                url,
                ["192.0.2.50/32"],
                [
                    "variable alertmanager_watchdog_url: is not an http:// or https:// URL with a host; "
                    "write it like http://192.0.2.50:8095/v1/watchdog"
                ],
            )
            for url in ("192.0.2.50:8095/v1/watchdog", "http:///v1", "http://host:99999/", "ftp://host/", 5)
        ],
    ],
)
def test_the_dead_mans_switch_can_be_reached(url: Any, cidrs: Any, said: list[str]) -> None:
    assert check(alertmanager_watchdog_url=url, alertmanager_watchdog_cidrs=cidrs) == said

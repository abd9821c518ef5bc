"""Certificates and passwords on the control host: who signs, for whom, for how long; who may read what."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import endpoint_credentials

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def parameters(tmp_path: Path) -> dict[str, Any]:
    return {
        "directory": str(tmp_path),
        "name": "prometheus",
        "authority": "Tradewatch test",
        "subject_alt_names": ["prometheus.crypto-monitoring.svc", "192.0.2.10"],
        "valid_days": 365,
        "renew_before_days": 30,
        "state": "present",
        "password": None,
        "password_file": None,
    }


def test_the_second_run_issues_nothing(parameters: dict[str, Any]) -> None:
    assert endpoint_credentials.ensure(parameters, False, NOW) == ["ca", "prometheus"]
    assert endpoint_credentials.ensure(parameters, False, NOW + DAY) == []


def test_check_mode_says_what_it_would_issue_and_writes_nothing(parameters: dict[str, Any], tmp_path: Path) -> None:
    assert endpoint_credentials.ensure(parameters, True, NOW) == ["ca", "prometheus"]
    assert list(tmp_path.iterdir()) == []


def test_openssl_accepts_the_pair_and_keys_are_private(parameters: dict[str, Any], tmp_path: Path) -> None:
    endpoint_credentials.ensure(parameters, False, NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "prometheus.crt", tmp_path / "prometheus.key")
    context.load_verify_locations(tmp_path / "ca.crt")
    for key in ("ca.key", "prometheus.key"):
        assert (tmp_path / key).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("days", "issued"), [(334, []), (336, ["prometheus"])])
def test_it_is_renewed_in_its_last_thirty_days(parameters: dict[str, Any], days: int, issued: list[str]) -> None:
    endpoint_credentials.ensure(parameters, False, NOW)
    assert endpoint_credentials.ensure(parameters, False, NOW + days * DAY) == issued


def test_another_name_makes_another_certificate_of_the_same_authority(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    endpoint_credentials.ensure(parameters, False, NOW)
    authority = (tmp_path / "ca.crt").read_bytes()
    parameters["subject_alt_names"].append("192.0.2.11")
    assert endpoint_credentials.ensure(parameters, False, NOW) == ["prometheus"]
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert endpoint_credentials.ensure(parameters, False, NOW) == []


@pytest.mark.parametrize(("lost", "issued"), [("ca.key", ["ca", "prometheus"]), ("prometheus.crt", ["prometheus"])])
def test_what_is_lost_is_issued_again(parameters: dict[str, Any], tmp_path: Path, lost: str, issued: list[str]) -> None:
    endpoint_credentials.ensure(parameters, False, NOW)
    (tmp_path / lost).unlink()
    assert endpoint_credentials.ensure(parameters, False, NOW) == issued


def test_a_key_that_others_may_read_is_closed(parameters: dict[str, Any], tmp_path: Path) -> None:
    endpoint_credentials.ensure(parameters, False, NOW)
    (tmp_path / "ca.key").chmod(0o644)
    assert endpoint_credentials.ensure(parameters, False, NOW) == ["ca.key mode"]
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_the_password_is_kept_beside_for_its_owner_only(parameters: dict[str, Any], tmp_path: Path) -> None:
    parameters["password"] = "first"
    assert endpoint_credentials.ensure(parameters, True, NOW)[-1] == "prometheus.password"
    assert endpoint_credentials.ensure(parameters, False, NOW)[-1] == "prometheus.password"
    kept = tmp_path / "prometheus.password"
    assert kept.read_text() == "first", "no line end: it is read as it is"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert endpoint_credentials.ensure(parameters, False, NOW) == []
    kept.chmod(0o644)
    assert endpoint_credentials.ensure(parameters, False, NOW) == ["prometheus.password"]
    assert kept.stat().st_mode & 0o777 == 0o600
    parameters |= {"password": "second", "password_file": "other.password"}
    assert endpoint_credentials.ensure(parameters, False, NOW) == ["other.password"]
    assert (tmp_path / "other.password").read_text() == "second"


def test_absent_leaves_the_authority_and_what_is_of_others(parameters: dict[str, Any], tmp_path: Path) -> None:
    parameters["password"] = "secret"
    for name in ("prometheus", "loki"):
        endpoint_credentials.ensure(parameters | {"name": name}, False, NOW)
    parameters["state"] = "absent"
    gone = ["prometheus.crt", "prometheus.key", "prometheus.password"]
    assert endpoint_credentials.ensure(parameters, True, NOW) == gone
    assert endpoint_credentials.ensure(parameters, False, NOW) == gone
    assert endpoint_credentials.ensure(parameters, False, NOW) == []
    left = ["ca.crt", "ca.key", "loki.crt", "loki.key", "loki.password"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left

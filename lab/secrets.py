"""The lab's own secrets, generated once; production reads a vault instead."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab import paths


def _token() -> str:
    return secrets.token_hex(24)


def _private_key() -> str:
    """A key as the exchange gives out: EC P-256, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


NAMES: dict[str, Callable[[], str]] = {
    "k3s_token": _token,
    "valkey_password": _token,
    "valkey_exporter_password": _token,
    "prometheus_password": _token,
    "postgresql_owner_password": _token,
    "postgresql_password": _token,
    "postgresql_exporter_password": _token,
    "node_exporter_password": _token,
    "alertmanager_password": _token,
    "alert_webhook_token": _token,
    "watchdog_token": _token,
    "dashboards_password": _token,
    "grafana_password": _token,
    "exchange_api_private_key": _private_key,
    "llm_api_key": _token,
    "operator_token": _token,
    "executor_token": _token,
}


def ensure() -> None:
    """Write ``secrets.json`` (0600) with a value for each of ``NAMES``; values that are there stay."""
    file = paths.lab_dir() / "secrets.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    values = {name: known.get(name) or generate() for name, generate in NAMES.items()}
    if values != known:
        partial = file.with_suffix(".partial")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(values, stream)
        partial.rename(file)

"""Coinbase's own client, unmodified but for its base URL, against the exchange simulator.

It lives in a venv of its own (it needs an older websockets), made once for each version of its lock.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from exchange_support import ApiKey, ed25519_key, key_file
from services_support import simulation

FOLDER = Path(__file__).parent / "official_client"
VENVS = Path(__file__).resolve().parents[2] / ".lab/tests/official_client"


@pytest.fixture(scope="module")
def client_python() -> Path:
    """The Python that has the client, from the lock with its hashes."""
    lock = FOLDER / "requirements.txt"
    venv = (
        VENVS
        / f"{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}-{sys.version_info.major}.{sys.version_info.minor}"
    )
    python = venv / "bin/python"
    if (venv / "ready").exists():
        return python
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    VENVS.mkdir(parents=True, exist_ok=True)
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "--require-hashes", "--requirement", str(lock)],
    ):
        made = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert made.returncode == 0, made.stderr
    (venv / "ready").touch()
    return python


def _certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1 that is its own CA, in one file with its key: the client speaks TLS only."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "exchange simulator")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = folder / "exchange.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
    return file


@pytest.mark.parametrize("key", [ApiKey(), ed25519_key()], ids=["ES256", "EdDSA"])
async def test_the_official_client_works(key: ApiKey, client_python: Path, tmp_path: Path) -> None:
    certificate = _certificate(tmp_path)
    secret = tmp_path / "key.pem"
    secret.write_text(key.private_pem)
    async with simulation(api_keys=key_file(key), rest_tls_file=certificate) as exchange:
        process = await asyncio.create_subprocess_exec(
            str(client_python),
            str(FOLDER / "follow.py"),
            f"127.0.0.1:{exchange.simulator.rest.port}",
            exchange.url,
            key.name,
            str(secret),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "REQUESTS_CA_BUNDLE": str(certificate)},
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    seen: dict[str, Any] = json.loads(output)
    assert float(seen.pop("best")) > 0
    assert seen.pop("candles") >= 1
    assert seen == {
        "products": ["BTC-USD", "ETH-USD"],
        "public_products": 2,
        "accounts": {"BTC": "0", "ETH": "0", "USD": "100000"},
        "account_pages": [True, 2],
        "trades": 5,
        "fee_rate": "0.006",
        "limit_success": True,
        "same_order_again": True,
        "open": True,
        "edit_preview_errors": [],
        "edited": True,
        "after_edit": "1001",
        "hold": "20.14012",
        "cancelled": True,
        "after_cancel": "CANCELLED",
        "market": ["FILLED", "100"],
        "fills": [True, "TAKER"],
        "sold": "FILLED",
        "refused": "INSUFFICIENT_FUND",
        "missing": 404,
        "in_sequence": True,
    }

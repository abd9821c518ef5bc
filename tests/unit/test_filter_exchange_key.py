"""The exchange's private key, judged before it is deployed: as trade-executor will judge it."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tradewatch.simulators.exchange.api_keys import read_keys
from tradewatch.trading.execution.signing import Signer

from plugins.filter.exchange_key import tradewatch_public_key

KEYS: dict[str, PrivateKeyTypes] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa": rsa.generate_private_key(65537, 2048),
}
PEM = {
    name: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for name, key in KEYS.items()
}
SECRET = "hidden-secret-of-the-test"
SEED = bytes(range(32))


TAKEN = {
    "EC in PEM": PEM["p256"],
    "EC in PEM, out of JSON": PEM["p256"].replace("\n", "\\n"),
    "Ed25519 in PEM": PEM["ed25519"],
    "Ed25519, its seed": base64.b64encode(SEED).decode(),
    "Ed25519, with its public key": base64.b64encode(SEED * 2).decode() + "\n",
}
REFUSED = {
    "nothing": "",
    "a text": SECRET,
    "a random value": "6b" * 32,
    "half a seed": base64.b64encode(SEED[:-1]).decode(),
    "half a PEM": f"-----BEGIN {SECRET}",
    "another curve": PEM["p384"],
    "RSA": PEM["rsa"],
}


@pytest.mark.parametrize("key", TAKEN.values(), ids=TAKEN)
def test_what_the_executor_signs_with_the_simulated_exchange_knows(key: str) -> None:
    keys = read_keys(json.dumps([{"name": "the-key", "public_key": tradewatch_public_key(key)}]))
    token = Signer("the-key", key).token("GET", "exchange", "/api")
    assert keys.verify(token, "GET exchange/api") == "the-key"


@pytest.mark.parametrize("key", REFUSED.values(), ids=REFUSED)
def test_what_the_executor_refuses_is_refused_without_the_key(key: str) -> None:
    with pytest.raises(ValueError, match=r"^neither an EC P-256 key in PEM nor an Ed25519 key in base64 or PEM$"):
        tradewatch_public_key(key)
    with pytest.raises(ValueError, match="must be"):
        Signer("the-key", key)

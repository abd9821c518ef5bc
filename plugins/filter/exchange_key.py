"""The public half of the exchange's API key, and whether trade-executor will take the key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

# Of an Ed25519 key in base64: its seed, and maybe its public key behind that.
SEED_BYTES = 32


def tradewatch_public_key(private_key: str) -> str:
    """The public key in PEM, of a private key as trade-executor takes it (signing.py).

    Raises ValueError with one line that repeats nothing of the key.
    """
    key = _load(private_key.replace("\\n", "\n").strip())
    if not isinstance(key, Ed25519PrivateKey) and not (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        raise ValueError("neither an EC P-256 key in PEM nor an Ed25519 key in base64 or PEM")
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _load(text: str) -> object:
    """The key; None for what is none."""
    try:
        if text.startswith("-----"):
            return load_pem_private_key(text.encode(), password=None)
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        return None
    return Ed25519PrivateKey.from_private_bytes(raw[:SEED_BYTES]) if len(raw) in (SEED_BYTES, 2 * SEED_BYTES) else None


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[[str], str]]:
        """The filter by name."""
        return {"tradewatch_public_key": tradewatch_public_key}

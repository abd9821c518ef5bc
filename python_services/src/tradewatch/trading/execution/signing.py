"""The tokens that sign requests to Coinbase.

https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication: one JWT a request,
bound to its method, host and path, signed with ES256 (EC P-256, PEM) or EdDSA (Ed25519: PEM, or
base64 of seed and public key).
"""

import base64
import binascii
import secrets
import time

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

# A request that a network held back for longer is refused by the exchange, so what is not there later never will be.
TOKEN_SECONDS = 30
_SEED_BYTES = 32


class Signer:
    """Makes tokens with one API key.

    Raises:
        ValueError: the private key is neither EC P-256 nor Ed25519; the message does not repeat it.
    """

    def __init__(self, key_name: str, private_key: str) -> None:
        self._key_name = key_name
        self._key = _load(private_key)
        self._algorithm = "EdDSA" if isinstance(self._key, Ed25519PrivateKey) else "ES256"

    def token(self, method: str, host: str, path: str) -> str:
        """A token for one request; `path` without the query."""
        now = int(time.time())
        claims = {
            "sub": self._key_name,
            "iss": "cdp",
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "uri": f"{method} {host}{path}",
        }
        headers = {"kid": self._key_name, "nonce": secrets.token_hex()}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=headers)


def _load(text: str) -> EllipticCurvePrivateKey | Ed25519PrivateKey:
    wanted = "must be an EC P-256 key in PEM or an Ed25519 key in base64 or PEM"
    # Key files downloaded as JSON hold the line ends as two characters.
    text = text.replace("\\n", "\n").strip()
    if not text.startswith("-----"):
        try:
            raw = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise ValueError(wanted) from None
        if len(raw) not in (_SEED_BYTES, 2 * _SEED_BYTES):
            raise ValueError(wanted)
        return Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError):
        raise ValueError(wanted) from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError(wanted)

"""The API keys that the exchange knows, and the tokens that prove one.

Follows https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication: a JWT signed
with ES256 (P-256) or EdDSA (Ed25519), header `kid` and `nonce`, claims `sub` (the key's name), `iss` (`cdp`), `nbf`,
`exp` (within 120 s) and, for REST, `uri` (method, host and path without a query). The exchange holds only public keys.
"""

import json

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MAX_LIFE_SECONDS = 120
LEEWAY_SECONDS = 5
PublicKey = EllipticCurvePublicKey | Ed25519PublicKey


class Unauthorized(Exception):
    """The token proves nothing; its text is one line that says why."""


class ApiKeys:
    """Public keys by name."""

    def __init__(self, keys: dict[str, PublicKey]) -> None:
        self._keys = keys

    def verify(self, token: str, uri: str | None) -> str:
        """Check a token; `uri` is `METHOD host/path`, None for the WebSocket. Returns the key's name.

        Raises:
            Unauthorized: with the reason.
        """
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthorized("the token is not a JWT") from None
        key = self._keys.get(str(header.get("kid")))
        if key is None:
            raise Unauthorized("the token's kid names no known key")
        if not header.get("nonce"):
            raise Unauthorized("the token's header has no nonce")
        algorithm = "ES256" if isinstance(key, EllipticCurvePublicKey) else "EdDSA"
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer="cdp",
                leeway=LEEWAY_SECONDS,
                options={"require": ["sub", "iss", "nbf", "exp"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"the token is refused: {error}") from None
        if claims["sub"] != header["kid"]:
            raise Unauthorized("the token's sub is not its kid")
        if claims["exp"] - claims["nbf"] > MAX_LIFE_SECONDS:
            raise Unauthorized(f"the token lives longer than {MAX_LIFE_SECONDS} s")
        if uri is not None and claims.get("uri") != uri:
            raise Unauthorized(f"the token's uri is not {uri}")
        return str(header["kid"])


def read_keys(text: str) -> ApiKeys:
    """Keys from the JSON array `[{"name", "public_key"}]`, the key in PEM. Raises ValueError with one line."""
    try:
        entries = json.loads(text)
    except ValueError:
        raise ValueError("is not JSON") from None
    if not isinstance(entries, list):
        raise ValueError('must be an array of {"name", "public_key"}')
    keys: dict[str, PublicKey] = {}
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(f), str) for f in ("name", "public_key")):
            raise ValueError(f"entry {index} must have a name and a public_key, both text")
        if entry["name"] in keys:
            raise ValueError(f"entry {index} has the name of an earlier one")
        keys[entry["name"]] = _read_key(entry["public_key"], index)
    return ApiKeys(keys)


def _read_key(pem: str, index: int) -> PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"entry {index}: public_key is not a public key in PEM") from None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return key
    raise ValueError(f"entry {index}: public_key is neither EC P-256 nor Ed25519")

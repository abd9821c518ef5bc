"""Everything that is derived from the one k3s token, so that one secret joins agents and servers alike."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets

from lab.k3s_standin.errors import StandinError

FULL_PREFIX = "K10"


def generate() -> str:
    """A new random token (128 bits, hex)."""
    return secrets.token_hex(16)


def parse(token: str) -> tuple[str, str | None]:
    """Split a token into its password and the CA's SHA-256 that a full ``K10<sha256>::<user>:<password>`` names.

    Raises:
        StandinError: it starts like a full token but is not one, or is empty. The message never holds the token.
    """
    token = token.strip()
    if not token:
        raise StandinError("token: is empty")
    if "::" not in token:
        return token, None
    head, _, rest = token.partition("::")
    _, separator, password = rest.partition(":")
    digest = head.removeprefix(FULL_PREFIX)
    if not head.startswith(FULL_PREFIX) or len(digest) != 64 or not separator or not password:
        raise StandinError("token: is neither a plain token nor K10<sha256 of the CA>::server:<token>")
    return password, digest.lower()


def full(password: str, ca_pem: bytes) -> str:
    """The form that k3s writes to server/token: it pins the cluster's CA."""
    return f"{FULL_PREFIX}{hashlib.sha256(ca_pem).hexdigest()}::server:{password}"


def bootstrap(password: str) -> tuple[str, str]:
    """The kubeadm bootstrap token's id (6 characters) and secret (16), derived by SHA-256."""
    digest = _derive("bootstrap-token", password)
    return digest[:6], digest[6:22]


def certificate_key(password: str) -> str:
    """kubeadm's certificate key (32 bytes, hex), derived by SHA-256: it encrypts the CA keys for joining servers."""
    return _derive("certificate-key", password)


def signature_matches(password: str, kubeconfig: str, signature: str) -> bool:
    """Whether a detached JWS of the public cluster-info was made with this token (kubeadm's discovery, RFC 7515)."""
    try:
        header, _, mac = signature.split(".")
        if json.loads(_decode(header)).get("alg") != "HS256":
            return False
        expected = hmac.new(
            bootstrap(password)[1].encode(), f"{header}.{_encode(kubeconfig.encode())}".encode(), hashlib.sha256
        ).digest()
        return hmac.compare_digest(expected, _decode(mac))
    except ValueError:
        return False


def _derive(purpose: str, password: str) -> str:
    return hashlib.sha256(f"tradewatch-k3s-standin:{purpose}:{password}".encode()).hexdigest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

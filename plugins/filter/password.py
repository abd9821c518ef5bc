"""A bcrypt hash that is the same on every run, so that a second run changes nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

import bcrypt

# bcrypt writes base64 with an alphabet of its own.
_STANDARD = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def tradewatch_bcrypt_hash(password: str, salt_from: str, rounds: int = 10) -> str:
    """The bcrypt hash of a password, the salt derived from a public text that is unique to its use.

    The salt is not derived from the password: it is stored beside the hash, and would let a guess be tested at the
    speed of the derivation. Raises ValueError where bcrypt would take only the beginning of the password (72 bytes).
    """
    if len(password.encode()) > 72:
        raise ValueError("bcrypt takes at most 72 bytes of a password")
    digest = base64.b64encode(hashlib.sha256(salt_from.encode()).digest()[:16]).rstrip(b"=")
    salt = b"$2b$%02d$" % rounds + digest.translate(bytes.maketrans(_STANDARD, _BCRYPT))
    return bcrypt.hashpw(password.encode(), salt).decode()


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """The filters by name."""
        return {"tradewatch_bcrypt_hash": tradewatch_bcrypt_hash}

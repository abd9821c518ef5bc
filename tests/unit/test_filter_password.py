"""The bcrypt hash that is the same on every run."""

from __future__ import annotations

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.filter.password import tradewatch_bcrypt_hash


# bcrypt ends a password at a NUL byte.
@settings(max_examples=20, deadline=None)
@given(
    password=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=18),
    salt_from=st.text(st.characters(codec="utf-8")),
)
def test_any_password_matches_its_own_hash_every_time(password: str, salt_from: str) -> None:
    hashed = tradewatch_bcrypt_hash(password, salt_from, rounds=4)
    assert hashed == tradewatch_bcrypt_hash(password, salt_from, rounds=4)
    assert bcrypt.checkpw(password.encode(), hashed.encode())


def test_another_password_does_not_match() -> None:
    assert not bcrypt.checkpw(b"other", tradewatch_bcrypt_hash("password", "lab", rounds=4).encode())


def test_the_salt_is_its_source_s_and_not_the_password_s() -> None:
    salts = {
        source: {tradewatch_bcrypt_hash(password, source, rounds=4)[:29] for password in ("a", "b")}
        for source in ("lab", "desk")
    }
    assert [len(found) for found in salts.values()] == [1, 1]
    assert salts["lab"] != salts["desk"]


def test_a_password_that_bcrypt_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="72 bytes"):
        tradewatch_bcrypt_hash("x" * 73, "lab")

"""Carrying a trace id over HTTP: the header `traceparent` (https://www.w3.org/TR/trace-context/#traceparent-header)."""

import re
import secrets
from collections.abc import Mapping

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_NONE = "0" * 32


def headers(trace_id: str) -> dict[str, str]:
    """The header that hands `trace_id` (32 hexadecimal digits) to whom is called; the span is new for each call."""
    return {HEADER: f"00-{trace_id}-{secrets.token_hex(8)}-01"}


def trace_id_of(received: Mapping[str, str]) -> str | None:
    """The caller's trace id, or None where the header is absent or malformed."""
    match = _TRACEPARENT.fullmatch(received.get(HEADER, ""))
    return match[1] if match and match[1] != _NONE else None

"""What clients of other people's HTTP servers share: bounded bodies, and how long a server asks to be left alone."""

import math

import httpx

MAX_RETRY_AFTER_SECONDS = 3600.0


class BodyEncoded(Exception):
    """The body is compressed although that was not asked for: a few kilobytes could unpack to gigabytes."""

    def __init__(self) -> None:
        super().__init__("compressed although asked not to")


class BodyTooLarge(Exception):
    """The body is larger than it may be."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"more than {max_bytes} bytes")


async def read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    """The body of a streamed response. Raises BodyEncoded, BodyTooLarge, or what httpx raises."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BodyEncoded
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes)
    return bytes(body)


def retry_after_seconds(response: httpx.Response) -> float:
    """Seconds of a `Retry-After` in that form, bounded; 0 without one, for the other form (a date) and for nonsense."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else 0.0

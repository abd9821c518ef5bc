"""What is said of URLs in settings, and of which kinds of them."""

import pytest
from tradewatch.common import settings

NEITHER, NO_CREDENTIALS = "must hold neither credentials nor a query", "must not hold credentials"


@pytest.mark.parametrize(
    ("url", "schemes", "query", "said"),
    [
        ("https://x.example/v1", settings.HTTP, False, ""),
        ("https://x.example:443", settings.HTTP, True, ""),
        ("wss://x.example/?a=b", ("ws", "wss"), True, ""),
        ("https://x.example:port", settings.HTTP, False, "is not a URL"),
        ("https://[x", settings.HTTP, False, "is not a URL"),
        ("ftp://x.example", settings.HTTP, False, "must be an http:// or https:// URL with a host, or none"),
        ("https:///v1", settings.HTTP, False, "must be an http:// or https:// URL with a host, or none"),
        ("https://x.example", ("ws", "wss"), True, "must be a ws:// or wss:// URL with a host, or none"),
        ("https://u@x.example", settings.HTTP, False, NEITHER),
        ("https://x.example?a=b", settings.HTTP, False, NEITHER),
        ("https://x.example#a", settings.HTTP, False, NEITHER),
        ("https://u:hunter2@x.example?a=b", settings.HTTP, True, NO_CREDENTIALS),
    ],
)
def test_what_a_url_must_be_and_must_not_hold(url: str, schemes: tuple[str, ...], query: bool, said: str) -> None:
    problem = ""
    try:
        settings.require_url(url, schemes, query=query, note=", or none")
    except ValueError as error:
        problem = str(error)
    assert problem == said

"""Sends one text to one receiver through Apprise, which says in its log what it knows: hosts, paths, tokens.

Nothing of that log is let out but the status of a refused request.
"""

import asyncio
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import apprise

Kind = Literal["critical", "warning", "info", "resolved"]

# Long enough for every summary and description; chats refuse or cut what is much longer.
MAX_CHARACTERS = 3500
_KINDS = {
    "critical": apprise.NotifyType.FAILURE,
    "warning": apprise.NotifyType.WARNING,
    "info": apprise.NotifyType.INFO,
    "resolved": apprise.NotifyType.SUCCESS,
}
# Apprise and what its plugins send with; at lower levels they log URLs, headers and bodies.
_LOGGERS = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib", "charset_normalizer", "markdown")
_STATUS = re.compile(r"error=(\d{3})\b")


class UnusableUrl(ValueError):
    """Apprise knows no such service, or the URL lacks something. The message holds nothing of it."""


class NotDelivered(Exception):
    """An attempt failed, or its outcome is unknown. The message is for the log and holds no secret."""


class _Status(logging.Handler):
    """Keeps, for each thread, the last HTTP status that a plugin said it was refused with."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        match = _STATUS.search(record.getMessage())
        if match:
            self._found.status = match[1]

    def take(self) -> str | None:
        status: str | None = getattr(self._found, "status", None)
        self._found.status = None
        return status


_status = _Status()


def _silence() -> None:
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [_status]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


class Sender:
    """One receiver. It sends one after the other, on a thread of its own: a receiver that hangs delays no other.

    Raises:
        UnusableUrl: from the constructor.
    """

    def __init__(self, name: str, url: str) -> None:
        _silence()
        # In memory: nothing is to be kept on disk. Redirects would take tokens to where nobody wanted them.
        asset = apprise.AppriseAsset(storage_mode="memory", allow_templates=False)
        asset.http_redirects = False
        asset.app_id = "Tradewatch"
        asset.app_desc = "Tradewatch"
        plugin = apprise.Apprise.instantiate(url, asset=asset)
        if plugin is None:
            raise UnusableUrl
        self.name = name
        self._plugin = plugin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"receiver-{name}")
        longest = plugin.body_maxlen
        self.max_characters = min(longest, MAX_CHARACTERS) if longest else MAX_CHARACTERS

    async def send(self, key: str, title: str, body: str, kind: Kind, timeout_seconds: float) -> None:
        """Deliver, within the time limit. What begins and what ends the same have one `key`.

        Raises:
            NotDelivered: refused, unreachable, or not confirmed in time; in the last case it may have arrived.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                await loop.run_in_executor(self._thread, self._send, key, title, body, kind)
        except TimeoutError:
            raise NotDelivered(f"not confirmed within {timeout_seconds:g} s") from None

    def _send(self, key: str, title: str, body: str, kind: Kind) -> None:
        _status.take()
        if hasattr(self._plugin, "dedup"):
            # PagerDuty: with `?action=map` in its URL the incident ends with the alert.
            self._plugin.dedup = key
        try:
            delivered = self._plugin.notify(body=body, title=title, notify_type=_KINDS[kind])
        except Exception as error:
            # Plugins are many and by many; the type only, for messages of theirs can hold the URL.
            raise NotDelivered(f"failed: {type(error).__name__}") from None
        if not delivered:
            status = _status.take()
            raise NotDelivered(f"refused with {status}" if status else "refused or not reached")

    def close(self) -> None:
        """Start nothing any more; what is under way ends by the plugin's own time limits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

"""`POST /channels/NAME` takes a message, `GET /messages` shows what was taken, `DELETE /messages` forgets it.

A message is the JSON of Apprise's generic webhook (`json://`: title, message, type) or of Slack's incoming webhooks
(https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks: text, attachments).
"""

import asyncio
import re
from collections import deque
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from tradewatch.common.api import describe
from tradewatch.simulators.chat.faults import Error, Fault, FaultRequest, Slow, Timeout
from tradewatch.simulators.chat.metrics import ChatSimulatorMetrics
from tradewatch.simulators.fault_routes import Faults, Switchboard, fault_routes

# What a test asks for is among the newest; the simulator's memory has an end.
MAX_MESSAGES = 2000
_CHANNEL = re.compile(r"[a-z0-9-]{1,40}")
_POLL_SECONDS = 0.05


class _Attachment(BaseModel):
    model_config = ConfigDict(extra="ignore")

    title: str = ""
    text: str = ""


class _Body(BaseModel):
    """Both forms: a field that is not there is empty."""

    model_config = ConfigDict(extra="ignore")

    title: str = ""
    message: str = ""
    type: str = ""
    text: str = ""
    attachments: list[_Attachment] = []


class ChatServer:
    """The channels, which come to be when something is sent there."""

    def __init__(self, metrics: ChatSimulatorMetrics) -> None:
        self._metrics = metrics
        self._messages: deque[dict[str, Any]] = deque(maxlen=MAX_MESSAGES)
        self._switchboard: Switchboard[Fault] = Switchboard()
        self._taken = 0

    def routes(self) -> list[web.RouteDef]:
        """The routes for the HTTP server."""
        return [
            web.post("/channels/{channel}", self._post),
            web.get("/messages", self._list),
            web.delete("/messages", self._forget),
            *fault_routes(FaultRequest, self._apply, self._active, self._switchboard.clear),
        ]

    def _apply(self, fault: Fault) -> None:
        self._switchboard.switch_on(fault)
        self._metrics.faults[fault.fault].inc()

    def _active(self) -> Faults:
        return Faults(active=[fault.model_dump() for fault in self._switchboard.active()])

    def _on(self, channel: str) -> list[Fault]:
        return [fault for fault in self._switchboard.active() if fault.channel in (None, channel)]

    async def _post(self, request: web.Request) -> web.Response:
        channel = request.match_info["channel"]
        for fault in self._on(channel):
            if isinstance(fault, Error):
                self._metrics.messages["fault"].inc()
                return web.Response(status=fault.status, text="broken on request\n")
            if isinstance(fault, Timeout):
                self._metrics.messages["fault"].inc()
                while fault in self._on(channel):
                    await asyncio.sleep(_POLL_SECONDS)
                return web.Response(status=504, text="too late, on request\n")
        try:
            if not _CHANNEL.fullmatch(channel):
                raise ValueError("the channel's name must be of a-z, 0-9 and -")
            self._take(channel, await request.read())
        except ValueError as error:
            self._metrics.messages["refused"].inc()
            line = describe(error) if isinstance(error, ValidationError) else str(error)
            return web.Response(status=400, text=f"{line}\n")
        self._metrics.messages["taken"].inc()
        for fault in self._on(channel):
            if isinstance(fault, Slow):
                await asyncio.sleep(fault.delay_seconds)
        return web.Response(text="ok")

    def _take(self, channel: str, content: bytes) -> None:
        body = _Body.model_validate_json(content)
        titles = [body.title, *(attachment.title for attachment in body.attachments)]
        texts = [body.message, body.text, *(attachment.text for attachment in body.attachments)]
        title, text = ("\n".join(part for part in parts if part) for parts in (titles, texts))
        if not (title or text):
            raise ValueError("neither a generic webhook's title or message nor Slack's text or attachments")
        self._taken += 1
        self._messages.append(
            {
                "number": self._taken,
                "received": datetime.now(UTC).isoformat(),
                "channel": channel,
                "type": body.type,
                "title": title,
                "text": text,
            }
        )

    async def _list(self, request: web.Request) -> web.Response:
        channel = request.query.get("channel")
        found = [message for message in self._messages if channel in (None, message["channel"])]
        return web.json_response({"taken": self._taken, "messages": found})

    async def _forget(self, _: web.Request) -> web.Response:
        self._messages.clear()
        return web.json_response({"taken": self._taken, "messages": []})

"""OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat), as far as a verdict needs them."""

import asyncio
import hmac
import itertools
import json
import time
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tradewatch.common.api import describe
from tradewatch.simulators.fault_routes import Faults, Switchboard, fault_routes
from tradewatch.simulators.llm import model as language_model
from tradewatch.simulators.llm.faults import (
    Error,
    Fault,
    FaultRequest,
    Gullible,
    InvalidJson,
    Length,
    Refusal,
    SchemaViolation,
    Slow,
    Timeout,
)
from tradewatch.simulators.llm.metrics import LlmSimulatorMetrics

_POLL_SECONDS = 0.1
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_exceeded"}
FaultT = TypeVar("FaultT", bound=Fault)


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _JsonSchema(BaseModel):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    strict: bool = False
    schema_: dict[str, Any] = Field(alias="schema")


class _ResponseFormat(BaseModel):
    type: Literal["json_schema"]
    json_schema: _JsonSchema


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    response_format: _ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class ChatServer:
    """Answers chat completions with the verdicts of the rules, for one model's name and who has the key."""

    def __init__(self, name: str, key: SecretStr | None, latency_seconds: float, metrics: LlmSimulatorMetrics) -> None:
        self._name = name
        self._key = key
        self._latency_seconds = latency_seconds
        self._metrics = metrics
        self._switchboard: Switchboard[Fault] = Switchboard()
        self._numbers = itertools.count(1)

    def routes(self) -> list[web.RouteDef]:
        """The routes for the HTTP server."""
        return [
            web.post("/v1/chat/completions", self._complete),
            web.get("/v1/models", self._models),
            *fault_routes(FaultRequest, self._apply, self._active, self._switchboard.clear),
        ]

    def _apply(self, fault: Fault) -> None:
        self._switchboard.switch_on(fault)
        self._metrics.faults[fault.fault].inc()

    def _active(self) -> Faults:
        return Faults(active=[fault.model_dump() for fault in self._switchboard.active()])

    def _on(self, kind: type[FaultT]) -> FaultT | None:
        return next((fault for fault in self._switchboard.active() if isinstance(fault, kind)), None)

    def _authorized(self, request: web.Request) -> bool:
        if self._key is None:
            return True
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, f"Bearer {self._key.get_secret_value()}".encode())

    async def _models(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            return _error(401, "Incorrect API key provided")
        listed = {"id": self._name, "object": "model", "created": 0, "owned_by": "tradewatch"}
        return web.json_response({"object": "list", "data": [listed]})

    async def _complete(self, request: web.Request) -> web.Response:
        if not self._authorized(request):
            return self._refuse(401, "Incorrect API key provided")
        try:
            asked = _Request.model_validate_json(await request.read())
        except ValidationError as error:
            return self._refuse(400, describe(error))
        if asked.model != self._name:
            return self._refuse(404, f"The model does not exist; known: {self._name}")
        if asked.response_format is not None:
            wanted = set(asked.response_format.json_schema.schema_.get("required", ()))
            if wanted != language_model.FIELDS:
                return self._refuse(400, f"the simulator answers {', '.join(sorted(language_model.FIELDS))} only")
        await self._delay()
        error_fault = self._on(Error)
        if error_fault is not None:
            self._metrics.requests["fault"].inc()
            return _error(error_fault.status, "broken on request")
        body_fault = self._on(InvalidJson)
        if body_fault is not None and body_fault.where == "body":
            self._metrics.requests["fault"].inc()
            return web.Response(text="{this is not JSON", content_type="application/json")
        return web.json_response(self._completion(asked))

    async def _delay(self) -> None:
        slow = self._on(Slow)
        await asyncio.sleep(slow.delay_seconds if slow else self._latency_seconds)
        while self._on(Timeout) is not None:
            await asyncio.sleep(_POLL_SECONDS)

    def _completion(self, asked: _Request) -> dict[str, Any]:
        messages = [(message.role, message.content) for message in asked.messages]
        verdict = language_model.verdict(messages, gullible=self._on(Gullible) is not None)
        content, refusal, finish_reason = self._spoken(verdict)
        limit = asked.max_completion_tokens or asked.max_tokens
        if limit is not None and language_model.tokens(content) > limit:
            content = content[: limit * language_model.CHARACTERS_PER_TOKEN]
            finish_reason = "length"
        prompt_tokens = sum(language_model.tokens(message.content) for message in asked.messages)
        completion_tokens = language_model.tokens(content or refusal or "")
        self._metrics.tokens["prompt"].inc(prompt_tokens)
        self._metrics.tokens["completion"].inc(completion_tokens)
        broken = bool(self._switchboard.active())
        self._metrics.requests["fault" if broken else str(verdict["decision"])].inc()
        return {
            "id": f"chatcmpl-{next(self._numbers)}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": None if refusal else content, "refusal": refusal},
                    "finish_reason": finish_reason,
                    "logprobs": None,
                }
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }

    def _spoken(self, verdict: dict[str, Any]) -> tuple[str, str | None, str]:
        """Content, refusal and finish reason of the answer, as the faults make them."""
        content = json.dumps(verdict)
        if self._on(Refusal) is not None:
            return "", "I cannot help with that.", "stop"
        if self._on(Length) is not None:
            return content[: len(content) // 2], None, "length"
        if self._on(InvalidJson) is not None:
            return f"Sure! I would {verdict['decision']} this.", None, "stop"
        violation = self._on(SchemaViolation)
        if violation is not None:
            return json.dumps(_violate(verdict, violation.kind)), None, "stop"
        return content, None, "stop"

    def _refuse(self, status: int, message: str) -> web.Response:
        self._metrics.requests["refused"].inc()
        return _error(status, message)


def _violate(verdict: dict[str, Any], kind: str) -> dict[str, Any]:
    match kind:
        case "missing_field":
            return {name: value for name, value in verdict.items() if name != "confidence"}
        case "extra_field":
            return verdict | {"note": "as an exception"}
        case "wrong_type":
            return verdict | {"confidence": "very"}
        case "out_of_range":
            return verdict | {"confidence": 7.0}
        case "unknown_decision":
            return verdict | {"decision": "maybe"}
    return verdict | {"reasons": ["two\nlines\x00 and \u202e more"]}


def _error(status: int, message: str) -> web.Response:
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)

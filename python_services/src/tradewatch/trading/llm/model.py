"""Asking a model at an OpenAI-compatible endpoint."""

from dataclasses import dataclass
from typing import Any, Literal, cast

import httpx
import openai
from openai.types.chat import ChatCompletionMessageParam
from openai.types.shared_params import ResponseFormatJSONSchema
from pydantic import BaseModel, Field, SecretStr, ValidationError

from tradewatch.trading.llm.reasons import Reason
from tradewatch.trading.llm.verdict import SCHEMA, Verdict

# Text of this kind has more characters a token; too many tokens reserved are given back after the answer.
MIN_CHARACTERS_PER_TOKEN = 3

_RESPONSE_FORMAT: ResponseFormatJSONSchema = {
    "type": "json_schema",
    "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
}

TokenParameter = Literal["max_completion_tokens", "max_tokens"]


@dataclass(frozen=True)
class Usage:
    """Tokens that a call took."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


NO_USAGE = Usage()


class ModelFailed(Exception):
    """No verdict; `usage` is what the attempt took or may have taken, `detail` one line without secrets."""

    def __init__(self, reason: Reason, detail: str, usage: Usage) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.usage = usage


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class Model:
    """One model at one endpoint. To be closed with `close`."""

    def __init__(
        self,
        base_url: str,
        key: SecretStr | None,
        name: str,
        *,
        max_tokens: int,
        token_parameter: TokenParameter,
        temperature: float | None,
        max_retries: int,
        request_seconds: float,
    ) -> None:
        self.name = name
        self.max_tokens = max_tokens
        self._options: dict[str, Any] = {token_parameter: max_tokens}
        if temperature is not None:
            self._options["temperature"] = temperature
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            # The client insists on one; endpoints without keys ignore it.
            api_key=key.get_secret_value() if key else "none",
            timeout=request_seconds,
            max_retries=max_retries,
            http_client=httpx.AsyncClient(trust_env=False),
        )
        # Now: the package loads what this names with its first use, which takes seconds on a busy machine. The raw
        # answer, because the client's own models take whatever an endpoint sends.
        self._completions = self._client.chat.completions.with_raw_response

    async def close(self) -> None:
        """End the connections."""
        await self._client.close()

    def most(self, messages: list[dict[str, str]]) -> Usage:
        """The most that asking this can take."""
        characters = sum(len(message["content"]) for message in messages)
        return Usage(characters // MIN_CHARACTERS_PER_TOKEN, self.max_tokens)

    async def ask(self, messages: list[dict[str, str]]) -> tuple[Verdict, Usage]:
        """The model's verdict. Bounding the time in all is the caller's.

        Raises:
            ModelFailed: no answer, or none that is a verdict.
        """
        most = self.most(messages)
        try:
            raw = await self._completions.create(
                model=self.name,
                messages=cast(list[ChatCompletionMessageParam], messages),
                response_format=_RESPONSE_FORMAT,
                **self._options,
            )
        except openai.APITimeoutError:
            raise ModelFailed(Reason.TIMEOUT, "the endpoint did not answer in time", most) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            raise ModelFailed(Reason.UNREACHABLE, f"no connection to the endpoint: {cause}", NO_USAGE) from None
        except openai.APIStatusError as error:
            raise ModelFailed(_status_reason(error.status_code), f"HTTP {error.status_code}", NO_USAGE) from None
        except (openai.OpenAIError, httpx.HTTPError) as error:
            raise ModelFailed(Reason.UNREACHABLE, f"the call failed: {type(error).__name__}", most) from None
        return _verdict(raw.http_response.content, most)


def _status_reason(status: int) -> Reason:
    if status == 429:
        return Reason.RATE_LIMITED
    return Reason.SERVER_ERROR if status >= 500 else Reason.REQUEST_REJECTED


def _verdict(content: bytes, most: Usage) -> tuple[Verdict, Usage]:
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError as error:
        raise ModelFailed(Reason.INVALID_OUTPUT, f"not a chat completion: {_where(error)}", most) from None
    told = completion.usage
    usage = Usage(told.prompt_tokens, told.completion_tokens) if told else most
    choice = completion.choices[0]
    if choice.message.refusal:
        raise ModelFailed(Reason.REFUSED, "the model declined", usage)
    if choice.finish_reason == "length":
        raise ModelFailed(Reason.TRUNCATED, "the answer was cut off at its token limit", usage)
    if choice.finish_reason == "content_filter":
        raise ModelFailed(Reason.REFUSED, "a content filter held the answer back", usage)
    try:
        return Verdict.model_validate_json(choice.message.content or ""), usage
    except ValidationError as error:
        raise ModelFailed(Reason.INVALID_OUTPUT, f"not a verdict: {_where(error)}", usage) from None


def _where(error: ValidationError) -> str:
    """Which field is wrong and how, without what the model wrote."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'the text'}: {problem['type']}"

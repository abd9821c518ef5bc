"""llm-validator: wires the validator to its endpoint, the bus, the store and its HTTP call."""

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from tradewatch.common import bus, service
from tradewatch.common.api import json_route
from tradewatch.common.http import HttpServer
from tradewatch.common.metrics import new_registry
from tradewatch.common.service import Liveness
from tradewatch.common.settings import HTTP, ValkeySettings, duration, require_url
from tradewatch.store import database
from tradewatch.store.database import OUTAGE_ERRORS, DatabaseSettings
from tradewatch.trading.contracts import ValidationRequest
from tradewatch.trading.llm.metrics import LlmMetrics
from tradewatch.trading.llm.model import Model, TokenParameter
from tradewatch.trading.llm.store import ValidationStore
from tradewatch.trading.llm.validator import Limits, Validator

NAME = "llm-validator"


def _base_url(value: object) -> object:
    if isinstance(value, str):
        require_url(value, HTTP, query=True, note=", such as https://api.openai.com/v1")
    return value


class LlmValidatorSettings(ValkeySettings, DatabaseSettings):
    """Settings of llm-validator; durations in seconds."""

    llm_base_url: Annotated[str, BeforeValidator(_base_url)] = Field(
        description="an OpenAI-compatible endpoint, such as https://api.openai.com/v1"
    )
    llm_model: str = Field(min_length=1, max_length=100, description="the model's name at the endpoint")
    llm_api_key: SecretStr | None = Field(default=None, description="file that holds the endpoint's key")
    llm_max_tokens: int = Field(default=400, ge=50, le=100_000, description="most tokens of one answer")
    llm_token_parameter: TokenParameter = Field(
        default="max_completion_tokens", description="how the endpoint calls that: max_completion_tokens or max_tokens"
    )
    llm_temperature: float | None = Field(
        default=None, allow_inf_nan=False, ge=0, le=2, description="the model's temperature; its own where not set"
    )
    llm_max_retries: int = Field(default=1, ge=0, le=5, description="further attempts within the time limit")
    llm_tokens_per_hour: int = Field(
        default=200_000, ge=1, le=10**9, description="tokens of an hour; when they are used up every signal is denied"
    )
    validation_seconds: float = duration(8.0, 60, "bound of a validation; then it is a denial")
    sentiment_max_age_seconds: float = duration(180.0, 86_400, "age of the sentiment above which it is a denial")
    min_confidence: float = Field(
        default=0.5, allow_inf_nan=False, ge=0, le=1, description="confidence of the model below which it is a denial"
    )
    sentiment_veto: float = Field(
        default=0.5, allow_inf_nan=False, gt=0, le=1, description="score against the side that no approval overrules"
    )

    def limits(self) -> Limits:
        """The validator's limits."""
        return Limits(
            seconds=self.validation_seconds,
            tokens_per_hour=self.llm_tokens_per_hour,
            sentiment_max_age_seconds=self.sentiment_max_age_seconds,
            min_confidence=self.min_confidence,
            sentiment_veto=self.sentiment_veto,
        )

    def model(self) -> Model:
        """The model at its endpoint."""
        return Model(
            self.llm_base_url,
            self.llm_api_key,
            self.llm_model,
            max_tokens=self.llm_max_tokens,
            token_parameter=self.llm_token_parameter,
            temperature=self.llm_temperature,
            max_retries=self.llm_max_retries,
            request_seconds=self.validation_seconds,
        )


async def main(settings: LlmValidatorSettings) -> int:
    """Wire the service and run it. Returns the exit code."""
    registry = new_registry(NAME)
    valkey = bus.connect_with(settings)
    model = settings.model()
    try:
        async with settings.connect(NAME) as pool:
            validator = Validator(
                model,
                valkey,
                ValidationStore(pool),
                LlmMetrics(registry, settings.llm_tokens_per_hour),
                settings.limits(),
            )

            server = HttpServer(
                settings.http_port,
                registry,
                Liveness(),
                [database.check(pool), bus.check(valkey)],
                [json_route("/v1/validations", ValidationRequest, validator.validate, outages=OUTAGE_ERRORS)],
            )
            return await service.run(validator, server, settings.drain_seconds)
    finally:
        await model.close()
        await valkey.aclose()

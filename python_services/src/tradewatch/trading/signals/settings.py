"""The settings of signal-generator."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from tradewatch.common.settings import ProductIds, SettingsError, StreamWriterSettings, duration, variable_name
from tradewatch.store.database import DatabaseSettings

_YEAR = 31_536_000
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SignalGeneratorSettings(StreamWriterSettings, DatabaseSettings):
    """Settings of signal-generator; durations in seconds, ratios as shares of one."""

    products: ProductIds = Field(description="comma separated product ids, such as BTC-USD,ETH-USD")
    signal_interval_seconds: int = Field(
        default=60, ge=1, le=86_400, description="length of the candles to decide at; technical-indicators must have it"
    )
    horizon_seconds: int = Field(default=900, ge=1, le=604_800, description="how far ahead the move is foreseen")
    cost_ratio: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=0.002, description="move that pays for a trade, as a share of the price; smaller ones are flat"
    )
    min_training_rows: int = Field(
        default=2_000, ge=50, le=1_000_000, description="rows below which nothing is trained"
    )
    max_training_rows: int = Field(default=20_000, ge=100, le=1_000_000, description="newest rows that training takes")
    retrain_seconds: float = duration(3_600.0, _YEAR, "between two trainings")
    row_retention_seconds: float = duration(7_776_000.0, _YEAR, "age at which feature rows are deleted")
    models_kept: int = Field(
        default=100, ge=1, le=10_000, description="newest accepted models that stay stored, and as many refused ones"
    )
    model_max_age_seconds: float = duration(604_800.0, _YEAR, "age of the model above which it is silent")
    min_confidence: Share = Field(default=0.6, description="calibrated confidence below which there is no signal")
    cooldown_seconds: float = duration(900.0, 604_800, "how long a product has no further signal after one", least=0)
    signal_lifetime_seconds: float = duration(60.0, _YEAR, "after it a signal is void")
    quote_max_age_seconds: float = duration(5.0, _YEAR, "age above which a quote is stale")
    sentiment_max_age_seconds: float = duration(180.0, _YEAR, "age above which the sentiment is stale")
    indicators_max_age_seconds: float = duration(
        10.0, _YEAR, "age of a candle's end above which it makes no signal, and is late for /readyz"
    )
    max_drift_score: Share = Field(default=0.5, description="drift above which the model is silent")
    drift_rows: int = Field(default=500, ge=50, le=100_000, description="newest rows that drift is measured on")
    min_accuracy_ratio: Share = Field(default=0.4, description="accuracy of past signals below which there are none")
    min_accuracy_signals: int = Field(default=20, ge=1, le=10_000, description="signals before accuracy is judged")
    accuracy_window_seconds: float = duration(86_400.0, _YEAR, "age above which a signal is not judged")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        lines = list(self._problems())
        if lines:
            raise SettingsError(lines)
        return self

    def _problems(self) -> Iterator[str]:
        if self.horizon_seconds % self.signal_interval_seconds:
            yield (
                f"{self._variable('horizon_seconds')}: must be a multiple of"
                f" {self._variable('signal_interval_seconds')}, {self.signal_interval_seconds}"
            )
        for smaller, larger in (
            ("min_training_rows", "max_training_rows"),
            ("horizon_seconds", "accuracy_window_seconds"),
        ):
            low, high = getattr(self, smaller), getattr(self, larger)
            if low > high:
                yield f"{self._variable(smaller)}: {low} is above {self._variable(larger)}, {high}"

    def _variable(self, field_name: str) -> str:
        return variable_name(field_name, type(self).model_fields[field_name])

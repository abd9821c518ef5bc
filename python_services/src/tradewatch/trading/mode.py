"""Paper or live: the rule that keeps a start from trading real money by accident.

Paper trading is the default. Live trading is `paper: false`, `live: true`, the exchange's keys and a daily loss limit
above zero, all of them given; the services that take part in it refuse to start otherwise, one line for each thing
that is missing.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Self

from pydantic import Field, SecretStr, model_validator

from tradewatch.common.settings import CommonSettings, SettingsError, variable_name


class TradingModeSettings(CommonSettings):
    """What every service takes that has a part in live trading. `daily_loss_limit` is in quote currency."""

    paper: bool = Field(default=True, description="trade on paper: the exchange is a simulator or a sandbox")
    live: bool = Field(default=False, description="trade with real money; also needs paper=false")
    daily_loss_limit: Decimal = Field(
        default=Decimal(0),
        ge=0,
        allow_inf_nan=False,
        description="loss since midnight UTC, quote currency, that stops new risk; 0 is none and refused when live",
    )

    def problems(self) -> Iterator[str]:
        """What is wrong with the values taken together, one line each; a subclass adds its own."""
        if self.live and self.paper:
            yield f"{self._variable('live')}: contradicts {self._variable('paper')}, which is true; set exactly one"
        if self.paper:
            return
        if not self.live:
            yield f"{self._variable('live')}: must be true where {self._variable('paper')} is false"
        if self.daily_loss_limit == 0:
            yield f"{self._variable('daily_loss_limit')}: must be above zero where {self._variable('paper')} is false"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        lines = list(self.problems())
        if lines:
            raise SettingsError(lines)
        return self

    def _variable(self, field_name: str) -> str:
        return variable_name(field_name, type(self).model_fields[field_name])


class ExchangeKeySettings(TradingModeSettings):
    """The same for who signs requests to the exchange. Half a key is refused on paper too."""

    exchange_key_name: SecretStr | None = Field(
        default=None, description="file that holds the name of the exchange's API key"
    )
    exchange_private_key: SecretStr | None = Field(
        default=None, description="file that holds the private key: PEM (ES256) or base64 (Ed25519)"
    )

    def problems(self) -> Iterator[str]:
        """Also the keys that are missing."""
        yield from super().problems()
        keys = {"exchange_key_name": self.exchange_key_name, "exchange_private_key": self.exchange_private_key}
        for name, key in keys.items():
            if key is not None:
                continue
            if not self.paper:
                yield f"{self._variable(name)}: is required where {self._variable('paper')} is false"
            elif any(keys.values()):
                yield f"{self._variable(name)}: is required with the other one of key name and private key"

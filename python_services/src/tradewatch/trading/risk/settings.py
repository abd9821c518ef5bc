"""The settings of risk-manager: the limits, and whom it talks to."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from tradewatch.common.settings import ProductIds, ValkeySettings, duration, http_url
from tradewatch.store.database import DatabaseSettings
from tradewatch.trading.mode import TradingModeSettings
from tradewatch.trading.risk.limits import Limits

MIN_TOKEN_CHARACTERS = 16


Money = Annotated[Decimal, Field(gt=0, le=Decimal("1e12"), allow_inf_nan=False)]
Ratio = Annotated[Decimal, Field(gt=0, le=1, allow_inf_nan=False)]


class RiskManagerSettings(TradingModeSettings, ValkeySettings, DatabaseSettings):
    """Settings of risk-manager. Money in quote currency, durations in seconds, ratios as shares of one."""

    products: ProductIds = Field(description="comma separated product ids that may be traded, of one quote currency")
    min_order_quote_size: Money = Field(default=Decimal(10), description="smallest order, quote currency")
    max_order_quote_size: Money = Field(default=Decimal(1_000), description="largest order, quote currency")
    max_product_exposure: Money = Field(default=Decimal(5_000), description="most held of one product, quote currency")
    max_total_exposure: Money = Field(default=Decimal(10_000), description="most held in all, quote currency")
    max_concentration_ratio: Ratio = Field(
        default=Decimal("0.5"), description="most held of one product, as a share of equity"
    )
    price_collar_ratio: Ratio = Field(
        default=Decimal("0.02"), description="farthest that the signal's and the limit price may be from the mid price"
    )
    limit_offset_ratio: Annotated[Decimal, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        default=Decimal("0.001"), description="how far beyond the best quote the limit price is"
    )
    max_spread_ratio: Ratio = Field(default=Decimal("0.005"), description="widest spread, as a share of the mid price")
    max_quote_age_seconds: float = duration(5.0, 86_400, "age of the newest quote above which it is stale")
    max_equity_age_seconds: float = duration(120.0, 86_400, "age of the newest valuation above which it is stale")
    max_drawdown_ratio: Ratio = Field(
        default=Decimal("0.1"), description="fall of the equity from its peak that halts trading"
    )
    max_orders_per_minute: int = Field(default=10, ge=1, le=10_000, description="orders in any minute")
    max_open_orders: int = Field(default=5, ge=1, le=10_000, description="orders open at once")
    loss_cooldown_seconds: float = duration(
        300.0, 604_800, "how long a product is not bought after it lost money", least=0
    )
    refresh_seconds: float = duration(
        2.0, 15, "between two looks at the portfolio for gauges and automatic stops", least=0.1
    )
    kill_switch_token: SecretStr = Field(description="file that holds the token which the kill switch asks for")
    executor_url: Annotated[str, BeforeValidator(http_url)] = Field(
        default="http://trade-executor.crypto-trading.svc:8080", description="trade-executor"
    )
    executor_token: SecretStr = Field(description="file that holds the token of trade-executor's cancel-all")

    def problems(self) -> Iterator[str]:
        """Also limits that contradict each other."""
        yield from super().problems()
        for smaller, larger in (
            ("min_order_quote_size", "max_order_quote_size"),
            ("max_order_quote_size", "max_product_exposure"),
            ("max_product_exposure", "max_total_exposure"),
            ("limit_offset_ratio", "price_collar_ratio"),
        ):
            low, high = getattr(self, smaller), getattr(self, larger)
            if low > high:
                yield f"{self._variable(smaller)}: {low} is above {self._variable(larger)}, {high}"
        if len({product.partition("-")[2] for product in self.products}) > 1:
            yield f"{self._variable('products')}: must all have one quote currency, for exposures are added up"
        for name in ("kill_switch_token", "executor_token"):
            if len(getattr(self, name).get_secret_value()) < MIN_TOKEN_CHARACTERS:
                yield f"{self._variable(name)}: the token has fewer than {MIN_TOKEN_CHARACTERS} characters"

    def limits(self) -> Limits:
        """The limits for the decision."""
        return Limits(
            products=frozenset(self.products),
            min_order=self.min_order_quote_size,
            max_order=self.max_order_quote_size,
            product_exposure=self.max_product_exposure,
            total_exposure=self.max_total_exposure,
            concentration_ratio=self.max_concentration_ratio,
            price_collar_ratio=self.price_collar_ratio,
            limit_offset_ratio=self.limit_offset_ratio,
            spread_ratio=self.max_spread_ratio,
            quote_age=timedelta(seconds=self.max_quote_age_seconds),
            equity_age=timedelta(seconds=self.max_equity_age_seconds),
            daily_loss=self.daily_loss_limit,
            drawdown_ratio=self.max_drawdown_ratio,
            orders_per_minute=self.max_orders_per_minute,
            open_orders=self.max_open_orders,
            loss_cooldown=timedelta(seconds=self.loss_cooldown_seconds),
        )

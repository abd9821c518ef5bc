"""The pure parts of execution: the order state machine, positions, sizes, and the paper rule."""

import base64
from decimal import Decimal
from pathlib import Path

import jwt
import pytest
from exchange_support import ApiKey, ed25519_key
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry
from tradewatch.common.events import Side
from tradewatch.common.settings import SettingsError, load
from tradewatch.trading.contracts import OrderStatus, TradingState
from tradewatch.trading.execution.coinbase import Product
from tradewatch.trading.execution.metrics import ENDPOINTS, REFUSALS, ExecutionMetrics
from tradewatch.trading.execution.orders import (
    FINAL,
    Accepted,
    InvalidTransition,
    NoAnswer,
    NotAccepted,
    Observed,
    OrderState,
    Reason,
    Rejected,
    Sending,
    advance,
)
from tradewatch.trading.execution.positions import Position
from tradewatch.trading.execution.service import TradeExecutorSettings
from tradewatch.trading.execution.signing import Signer
from tradewatch.trading.execution.sizing import plan

SIZES = st.decimals("0.0001", "1000", places=4)
PRICES = st.decimals("0.01", "100000", places=2)
PRODUCT = Product("BTC-USD", Decimal("0.0001"), Decimal("0.01"), Decimal("0.0001"), Decimal(100), tradable=True)


class OrderMachine(RuleBasedStateMachine):
    """Any events in any order: what the machine refuses leaves the order as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.order = OrderState()
        self.may_be_there = False
        self.final: OrderStatus | None = None
        self.filled = Decimal(0)

    def bring(self, event: object) -> bool:
        try:
            self.order = advance(self.order, event)  # type: ignore[arg-type]
        except InvalidTransition:
            return False
        return True

    @rule()
    def sending(self) -> None:
        could_be_there = self.may_be_there
        if self.bring(Sending()):
            assert not could_be_there, "sent while it may be at the exchange"
            self.may_be_there = True

    @rule()
    def not_accepted(self) -> None:
        if self.bring(NotAccepted()):
            self.may_be_there = False

    @rule(event=st.sampled_from([Accepted("x"), NoAnswer()]))
    def answered(self, event: object) -> None:
        if self.bring(event):
            assert self.may_be_there

    @rule(reason=st.sampled_from(list(Reason)))
    def rejected(self, reason: Reason) -> None:
        self.bring(Rejected(reason))

    @precondition(lambda self: self.may_be_there or self.final)
    @rule(
        status=st.sampled_from([OrderStatus.OPEN, *sorted(FINAL)]),
        at_exchange=st.integers(0, 10),
        stored=st.integers(0, 10),
    )
    def observed(self, status: OrderStatus, at_exchange: int, stored: int) -> None:
        was_final = self.order.final
        assert self.bring(Observed("x", status, Decimal(at_exchange), Decimal(stored)))
        if not was_final and self.order.final:
            assert self.order.filled_size >= at_exchange, "ended without its fills"

    @invariant()
    def a_final_state_stays_and_filled_never_shrinks(self) -> None:
        if self.final is not None:
            assert self.order.status is self.final
        elif self.order.final:
            self.final = self.order.status
            assert self.order.reason is not None
        assert self.order.filled_size >= self.filled
        self.filled = self.order.filled_size


TestOrderMachine = OrderMachine.TestCase
TestOrderMachine.settings = settings(max_examples=200, stateful_step_count=20)


def test_an_order_of_unknown_outcome_cannot_be_sent() -> None:
    unknown = advance(advance(OrderState(), Sending()), NoAnswer())
    with pytest.raises(InvalidTransition):
        advance(unknown, Sending())


FILL = st.tuples(st.sampled_from(list(Side)), PRICES, SIZES, st.decimals("0", "10", places=2))


@given(st.lists(FILL, max_size=12), PRICES)
def test_profit_and_holding_account_for_every_unit_of_money(
    fills: list[tuple[Side, Decimal, Decimal, Decimal]], price: Decimal
) -> None:
    position, cash, quantity = Position(), Decimal(0), Decimal(0)
    for side, at, size, fee in fills:
        position = position.after(side, at, size, fee)
        change = size if side is Side.BUY else -size
        cash -= change * at
        quantity += change
    assert position.quantity == quantity
    assert position.fees == sum((fee for *_, fee in fills), Decimal(0))
    worth = position.realized_pnl + quantity * (price - position.average_price)
    assert abs(worth - (cash + quantity * price)) < Decimal("1e-9")


@given(st.sampled_from(list(Side)), PRICES, PRICES, SIZES)
def test_no_order_exceeds_what_was_approved_or_is_held(
    side: Side, quote_size: Decimal, limit: Decimal, held: Decimal
) -> None:
    planned = plan(side, quote_size, limit + Decimal("0.001"), PRODUCT, TradingState.ACTIVE, held)
    if planned.refusal:
        return
    assert planned.base_size is not None
    assert planned.base_size * planned.limit_price <= quote_size
    assert planned.base_size % PRODUCT.base_increment == 0
    assert planned.limit_price % PRODUCT.price_increment == 0
    if side is Side.BUY:
        assert planned.limit_price <= limit + Decimal("0.001")
    else:
        assert planned.limit_price >= limit
        assert planned.base_size <= held


@pytest.mark.parametrize(
    ("state", "side", "held", "refusal"),
    [
        (TradingState.ACTIVE, Side.BUY, "0", None),
        (TradingState.REDUCING, Side.BUY, "5", Reason.REDUCING_ONLY),
        (TradingState.REDUCING, Side.SELL, "5", None),
        (TradingState.HALTED, Side.SELL, "5", Reason.HALTED),
        (TradingState.HALTED, Side.BUY, "5", Reason.HALTED),
        (TradingState.ACTIVE, Side.SELL, "0", Reason.NO_POSITION),
        (TradingState.ACTIVE, Side.SELL, "0.00001", Reason.TOO_SMALL),
    ],
)
def test_the_state_and_the_holding_decide(state: TradingState, side: Side, held: str, refusal: Reason | None) -> None:
    assert plan(side, Decimal(100), Decimal(100), PRODUCT, state, Decimal(held)).refusal is refusal


@pytest.mark.parametrize("key", [ApiKey(), ed25519_key()], ids=["ES256", "EdDSA"])
def test_a_token_is_for_one_request_and_short(key: ApiKey) -> None:
    token = Signer(key.name, key.private_pem).token("GET", "api.coinbase.com", "/api/v3/brokerage/accounts")
    claims = jwt.decode(token, key.private.public_key(), algorithms=[key.algorithm], issuer="cdp")
    assert claims["uri"] == "GET api.coinbase.com/api/v3/brokerage/accounts"
    assert claims["exp"] - claims["nbf"] == 30


def test_an_ed25519_key_may_be_the_base64_that_coinbase_hands_out() -> None:
    key = ed25519_key()
    raw = key.private.private_bytes_raw() + key.private.public_key().public_bytes_raw()  # type: ignore[union-attr]
    token = Signer(key.name, base64.b64encode(raw).decode()).token("GET", "h", "/p")
    assert jwt.decode(token, key.private.public_key(), algorithms=["EdDSA"])["sub"] == key.name


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    (tmp_path / "token").write_text("a-token-of-some-length")
    monkeypatch.setenv("TRADEWATCH_EXECUTOR_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TRADEWATCH_PRODUCTS", "BTC-USD,ETH-USD")
    return monkeypatch


@pytest.mark.parametrize(
    "url",
    [
        "https://api.coinbase.com",
        "https://API.Coinbase.com:443",
        "https://api.coinbase.com.",
        "https://api.exchange.coinbase.com",
    ],
)
def test_paper_refuses_the_real_exchange(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("TRADEWATCH_EXCHANGE_URL", url)
    with pytest.raises(SettingsError) as caught:
        load(TradeExecutorSettings)
    assert caught.value.lines == ["TRADEWATCH_EXCHANGE_URL: is the real exchange, which TRADEWATCH_PAPER forbids"]


def test_paper_takes_a_simulator_and_the_sandbox(environment: pytest.MonkeyPatch) -> None:
    for url in ("http://exchange-simulator.crypto-trading.svc:8082", "https://api-sandbox.coinbase.com"):
        environment.setenv("TRADEWATCH_EXCHANGE_URL", url)
        assert load(TradeExecutorSettings).paper


@pytest.mark.parametrize("url", ["http://localhost:8082", "http://api.coinbase.com", "https://coinbase.example"])
def test_live_refuses_anything_but_the_exchange(environment: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    (tmp_path / "name").write_text("organizations/o/apiKeys/k")
    (tmp_path / "key").write_text(ApiKey().private_pem)
    for name, value in {
        "PAPER": "false",
        "LIVE": "true",
        "DAILY_LOSS_LIMIT": "100",
        "EXCHANGE_KEY_NAME_FILE": str(tmp_path / "name"),
        "EXCHANGE_PRIVATE_KEY_FILE": str(tmp_path / "key"),
        "EXCHANGE_URL": url,
    }.items():
        environment.setenv(f"TRADEWATCH_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load(TradeExecutorSettings)
    assert caught.value.lines == [
        "TRADEWATCH_EXCHANGE_URL: must be https://api.coinbase.com where TRADEWATCH_PAPER is false"
    ]
    environment.setenv("TRADEWATCH_EXCHANGE_URL", "https://api.coinbase.com")
    assert not load(TradeExecutorSettings).paper


def test_a_bad_key_is_one_line_that_does_not_hold_it(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "name").write_text("organizations/o/apiKeys/k")
    (tmp_path / "key").write_text("hunter2")
    environment.setenv("TRADEWATCH_EXCHANGE_KEY_NAME_FILE", str(tmp_path / "name"))
    environment.setenv("TRADEWATCH_EXCHANGE_PRIVATE_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SettingsError) as caught:
        load(TradeExecutorSettings)
    [line] = caught.value.lines
    assert line.startswith("TRADEWATCH_EXCHANGE_PRIVATE_KEY_FILE: must be an EC P-256 key")
    assert "hunter2" not in line


def test_series_of_rejections_are_there_before_the_first() -> None:
    registry = CollectorRegistry()
    ExecutionMetrics(registry, [])
    for reason in REFUSALS:
        labels = {"status": OrderStatus.REJECTED.value, "reason": reason.value}
        assert registry.get_sample_value("trade_executions_total", labels) == 0
    for endpoint in ENDPOINTS:
        labels = {"exchange": "coinbase", "endpoint": endpoint, "status": "429"}
        assert registry.get_sample_value("exchange_api_request_duration_seconds_count", labels) == 0

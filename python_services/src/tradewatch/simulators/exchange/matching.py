"""The matching engine: one client's orders against the simulated market.

Marketable orders take from the product's book at its prices and pay the taker's fee. What rests is filled at its own
limit price, at the maker's fee, by the trades of the price process: a trade at or through an order's price fills
resting orders by price and then time, no more in all than the trade's size. Own orders are not in the public book.

All amounts are exact decimals; only a market buy by quote size leaves less than one base increment's worth unspent.
"""

import itertools
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal

from tradewatch.simulators.exchange.accounts import Accounts
from tradewatch.simulators.exchange.book import Book, Level
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.orders import (
    Edit,
    EditRejected,
    Fill,
    Instruction,
    Liquidity,
    Order,
    OrderRejected,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from tradewatch.simulators.exchange.prices import Tick
from tradewatch.simulators.exchange.products import Product

# Beyond these the oldest final orders and the oldest fills are forgotten.
MAX_ORDERS = 20_000
MAX_FILLS = 60_000
ZERO = Decimal(0)


@dataclass(frozen=True)
class Fees:
    """Rates of a fill's value."""

    maker: Decimal = Decimal("0.004")
    taker: Decimal = Decimal("0.006")


class MatchingEngine:
    """Places, edits, cancels and fills orders; `listeners` hear of every change of an order."""

    def __init__(
        self,
        products: Mapping[str, Product],
        accounts: Accounts,
        fees: Fees,
        metrics: SimulatorMetrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.products = products
        self.accounts = accounts
        self.fees = fees
        self.orders: dict[str, Order] = {}
        self.fills: deque[Fill] = deque(maxlen=MAX_FILLS)
        self.books = {product_id: Book(product.price_increment) for product_id, product in products.items()}
        self.listeners: list[Callable[[Order], None]] = []
        self._metrics = metrics
        self._clock = clock
        self._by_client_id: dict[str, Order] = {}
        self._resting: dict[str, list[Order]] = {product_id: [] for product_id in products}
        # Numbers rise over a restart as well: microseconds pass faster than orders and fills are made.
        self._numbers = itertools.count(time.time_ns() // 1000)

    def place(self, client_order_id: str, instruction: Instruction, taker_share: Decimal = Decimal(1)) -> Order:
        """Take an order; the same `client_order_id` again gives the first one.

        `taker_share` below 1 lets it take no more than that share of its size from the book, whatever is there.

        Raises:
            OrderRejected: and nothing has changed.
        """
        known = self._by_client_id.get(client_order_id)
        if known is not None:
            return known
        plan = self._plan(instruction, taker_share)
        self._check_post_only(instruction, OrderRejected("INVALID_LIMIT_PRICE_POST_ONLY"))
        currency, needed = self._needed(instruction, plan)
        if needed > self.accounts.of(currency).available:
            raise OrderRejected("INSUFFICIENT_FUND", "Insufficient balance in source account")
        if instruction.order_type == OrderType.MARKET and not plan:
            raise OrderRejected("INVALID_NO_LIQUIDITY", "No liquidity in the book")
        order = self._create(client_order_id, instruction)
        if instruction.time_in_force == TimeInForce.FOK and sum(level.size for level in plan) != instruction.base_size:
            self._finish(order, OrderStatus.CANCELLED, "Fill or kill: not enough in the book")
            return order
        self._execute(order, plan)
        return order

    def fail(self, client_order_id: str, instruction: Instruction, reason: str) -> Order:
        """Take an order and then refuse it, as the exchange does when its matching engine says no."""
        known = self._by_client_id.get(client_order_id)
        if known is not None:
            return known
        order = self._create(client_order_id, instruction)
        order.reject_reason = reason
        self._finish(order, OrderStatus.FAILED)
        return order

    def cancel(self, order_id: str) -> str | None:
        """Cancel an order. Returns the exchange's failure code, None when it is cancelled."""
        order = self.orders.get(order_id)
        if order is None:
            return "UNKNOWN_CANCEL_ORDER"
        if order.final:
            return "DUPLICATE_CANCEL_REQUEST" if order.status == OrderStatus.CANCELLED else "INVALID_CANCEL_REQUEST"
        self._finish(order, OrderStatus.CANCELLED, "User requested cancel")
        return None

    def edit(self, order_id: str, price: Decimal | None, size: Decimal | None) -> Order:
        """Give an open GTC limit order another price or total base size; it goes to the end of the queue.

        Raises:
            EditRejected: and the order is as it was.
        """
        order, instruction = self.check_edit(order_id, price, size)
        now = self._clock()
        order.base_size, order.limit_price = instruction.base_size, instruction.limit_price
        order.sequence = next(self._numbers)
        assert order.limit_price is not None
        assert order.base_size is not None
        order.edits.append(Edit(order.limit_price, order.base_size, now))
        self._execute(order, self._plan(self._rest_of(order), Decimal(1)))
        return order

    def check_edit(self, order_id: str, price: Decimal | None, size: Decimal | None) -> tuple[Order, Instruction]:
        """What an edit would make of an order, without doing it. Raises EditRejected."""
        order = self.orders.get(order_id)
        if order is None:
            raise EditRejected("ORDER_NOT_FOUND")
        if order.final:
            raise EditRejected("ONLY_OPEN_ORDERS_CAN_BE_EDITED")
        if order.instruction.time_in_force != TimeInForce.GTC:
            raise EditRejected("ONLY_LIMIT_ORDER_EDITS_SUPPORTED")
        product = self.products[order.product_id]
        new_price, new_size = price or order.limit_price, size or order.base_size
        assert new_price is not None
        assert new_size is not None
        if new_price % product.price_increment:
            raise EditRejected("INVALID_EDITED_PRICE")
        if new_size % product.base_increment or not product.base_min_size <= new_size <= product.base_max_size:
            raise EditRejected("INVALID_EDITED_SIZE")
        if new_size <= order.filled_size:
            raise EditRejected("CANNOT_EDIT_TO_BELOW_FILLED_SIZE")
        edited = replace(order.instruction, limit_price=new_price, base_size=new_size)
        rest = replace(edited, base_size=new_size - order.filled_size)
        self._check_post_only(rest, EditRejected("INVALID_EDITED_PRICE"))
        currency, needed = self._needed(rest, [])
        if needed > self.accounts.of(currency).available + order.hold:
            raise EditRejected("INSUFFICIENT_FUNDS")
        return order, edited

    def preview(self, instruction: Instruction) -> list[Level]:
        """What an order would take from the book now."""
        return self._plan(instruction, Decimal(1))

    def by_client_id(self, client_order_id: str) -> Order | None:
        """The order of a client's id."""
        return self._by_client_id.get(client_order_id)

    def on_tick(self, tick: Tick, now: datetime) -> None:
        """Renew the book, end what is over, and let the trade fill what rests at or within its price."""
        self.books[tick.product_id].refresh(tick)
        resting = self._resting[tick.product_id]
        if not resting:
            return
        for order in [o for o in resting if o.instruction.end_time is not None and o.instruction.end_time <= now]:
            self._finish(order, OrderStatus.EXPIRED)
        left = tick.size
        for order in sorted((o for o in resting if _reaches(o, tick.price)), key=_priority):
            if not left:
                break
            assert order.limit_price is not None
            size = min(left, order.remaining)
            left -= size
            self._fill(order, Level(order.limit_price, size), Liquidity.MAKER, self.fees.maker, now)
            self._settle(order)

    def _create(self, client_order_id: str, instruction: Instruction) -> Order:
        number = next(self._numbers)
        order = Order(
            order_id=str(uuid.uuid4()),
            client_order_id=client_order_id,
            number=number,
            sequence=number,
            instruction=instruction,
            created=self._clock(),
            base_size=instruction.base_size,
            limit_price=instruction.limit_price,
        )
        self._forget_oldest()
        self.orders[order.order_id] = order
        self._by_client_id[client_order_id] = order
        self._changed(order)
        return order

    def _forget_oldest(self) -> None:
        if len(self.orders) < MAX_ORDERS:
            return
        oldest = next((order for order in self.orders.values() if order.final), None)
        if oldest is not None:
            del self.orders[oldest.order_id], self._by_client_id[oldest.client_order_id]

    def _plan(self, instruction: Instruction, share: Decimal) -> list[Level]:
        """What the order takes from the book, level by level."""
        product = self.products[instruction.product_id]
        book = self.books[instruction.product_id]
        base = None if instruction.base_size is None else _down(instruction.base_size * share, product.base_increment)
        quote = None if instruction.quote_size is None else instruction.quote_size * share
        taken = []
        for level in book.asks() if instruction.side == Side.BUY else book.bids():
            if instruction.limit_price is not None and not _marketable(instruction, level.price):
                break
            if base is not None:
                wanted = base
            else:
                assert quote is not None
                wanted = _down(quote / (level.price * (1 + self.fees.taker)), product.base_increment)
            size = min(level.size, wanted)
            if size <= 0:
                break
            taken.append(Level(level.price, size))
            if base is not None:
                base -= size
            elif quote is not None:
                quote -= level.price * size * (1 + self.fees.taker)
        return taken

    def _check_post_only(self, instruction: Instruction, error: Exception) -> None:
        if instruction.post_only and self._plan(instruction, Decimal(1)):
            raise error

    def _needed(self, instruction: Instruction, plan: list[Level]) -> tuple[str, Decimal]:
        """The currency and the amount that an order needs before anything of it is filled, fees included."""
        product = self.products[instruction.product_id]
        if instruction.side == Side.SELL:
            assert instruction.base_size is not None
            return product.base, instruction.base_size
        if instruction.quote_size is not None:
            return product.quote, instruction.quote_size
        assert instruction.base_size is not None
        if instruction.limit_price is not None:
            return product.quote, instruction.base_size * instruction.limit_price * (1 + self.fees.taker)
        return product.quote, sum((level.price * level.size for level in plan), ZERO) * (1 + self.fees.taker)

    def _rest_of(self, order: Order) -> Instruction:
        return replace(order.instruction, limit_price=order.limit_price, base_size=order.remaining)

    def _execute(self, order: Order, plan: list[Level]) -> None:
        """Carry out a plan, then rest, end or leave the order as its time in force says."""
        now = self._clock()
        for level in plan:
            self.books[order.product_id].take(level.price, level.size)
            self._fill(order, level, Liquidity.TAKER, self.fees.taker, now)
        self._settle(order)

    def _fill(self, order: Order, level: Level, liquidity: Liquidity, rate: Decimal, now: datetime) -> None:
        product = self.products[order.product_id]
        value = level.price * level.size
        commission = value * rate
        sequence = next(self._numbers)
        fill = Fill(
            sequence,
            str(uuid.uuid4()),
            order.order_id,
            order.product_id,
            order.side,
            level.price,
            level.size,
            commission,
            liquidity,
            now,
        )
        order.fills.append(fill)
        self.fills.append(fill)
        order.filled_size += level.size
        order.filled_value += value
        order.fees += commission
        sign = 1 if order.side == Side.BUY else -1
        self.accounts.add(product.base, sign * level.size, now)
        self.accounts.add(product.quote, -sign * value - commission, now)
        self._metrics.fills[order.product_id, liquidity.value].inc()

    def _settle(self, order: Order) -> None:
        """Bring status and hold of an order in line with its fills."""
        instruction = order.instruction
        if self._complete(order):
            self._finish(order, OrderStatus.FILLED)
        elif instruction.time_in_force in (TimeInForce.GTC, TimeInForce.GTD):
            resting = self._resting[order.product_id]
            if order not in resting:
                resting.append(order)
            self._hold(order, self._needed(self._rest_of(order), [])[1])
            self._changed(order, OrderStatus.OPEN)
        else:
            self._finish(order, OrderStatus.CANCELLED, "Immediate or cancel: the rest was cancelled")

    def _complete(self, order: Order) -> bool:
        if order.base_size is not None:
            return order.remaining == 0
        assert order.instruction.quote_size is not None
        left = order.instruction.quote_size - order.filled_value - order.fees
        dearest = order.fills[-1].price * (1 + self.fees.taker)
        return left < dearest * self.products[order.product_id].base_increment

    def _finish(self, order: Order, status: OrderStatus, cancel_message: str = "") -> None:
        resting = self._resting[order.product_id]
        if order in resting:
            resting.remove(order)
        self._hold(order, ZERO)
        order.cancel_message = cancel_message
        self._changed(order, status)

    def _hold(self, order: Order, amount: Decimal) -> None:
        product = self.products[order.product_id]
        currency = product.quote if order.side == Side.BUY else product.base
        self.accounts.set_hold(currency, order.hold, amount, self._clock())
        order.hold = amount

    def _changed(self, order: Order, status: OrderStatus | None = None) -> None:
        if status is None or status != order.status:
            order.status = status or order.status
            self._metrics.orders[order.product_id, order.status.value].inc()
        for listener in self.listeners:
            listener(order)


def _marketable(instruction: Instruction, price: Decimal) -> bool:
    assert instruction.limit_price is not None
    return price <= instruction.limit_price if instruction.side == Side.BUY else price >= instruction.limit_price


def _reaches(order: Order, price: Decimal) -> bool:
    assert order.limit_price is not None
    return price <= order.limit_price if order.side == Side.BUY else price >= order.limit_price


def _priority(order: Order) -> tuple[Decimal, int]:
    assert order.limit_price is not None
    return (-order.limit_price if order.side == Side.BUY else order.limit_price), order.sequence


def _down(size: Decimal, increment: Decimal) -> Decimal:
    return size.quantize(increment, ROUND_DOWN)

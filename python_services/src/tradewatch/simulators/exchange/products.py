"""What may be traded and in which steps: the numbers that an order is checked against."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from tradewatch.simulators.exchange.prices import SIZE_QUANTUM


@dataclass(frozen=True, slots=True)
class Product:
    """A spot pair. Base sizes and increments are in base currency; quote sizes and the price's increment in quote."""

    product_id: str
    base: str
    quote: str
    price_increment: Decimal
    base_increment: Decimal = SIZE_QUANTUM
    base_min_size: Decimal = SIZE_QUANTUM
    base_max_size: Decimal = Decimal(10_000)
    quote_min_size: Decimal = Decimal(1)
    quote_max_size: Decimal = Decimal(10_000_000)


def products_of(price_increments: Mapping[str, Decimal]) -> dict[str, Product]:
    """Products by id, from the price increment of each id such as `BTC-USD`."""
    products = {}
    for product_id, increment in price_increments.items():
        base, quote = product_id.split("-", 1)
        products[product_id] = Product(product_id, base, quote, increment)
    return products

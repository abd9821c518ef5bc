"""The balances of the one portfolio that all API keys share."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

_NAMESPACE = uuid.UUID("6f0d3f5e-2f0b-4c64-9a3b-0d5f8f8f2d11")
PORTFOLIO_ID = str(uuid.uuid5(_NAMESPACE, "portfolio"))
USER_ID = str(uuid.uuid5(_NAMESPACE, "user"))


@dataclass
class Account:
    """One currency: `total` is what is owned, `hold` the part of it that open orders have set aside."""

    currency: str
    total: Decimal
    updated: datetime
    hold: Decimal = Decimal(0)

    @property
    def available(self) -> Decimal:
        """What a new order may use."""
        return self.total - self.hold

    @property
    def account_id(self) -> str:
        """The same for a currency in every run."""
        return str(uuid.uuid5(_NAMESPACE, self.currency))


class Accounts:
    """An account a currency; amounts are exact, nothing is rounded."""

    def __init__(self, balances: Mapping[str, Decimal], created: datetime) -> None:
        self.created = created
        self._accounts = {currency: Account(currency, total, created) for currency, total in balances.items()}

    def all(self) -> list[Account]:
        """Every account, by currency."""
        return [self._accounts[currency] for currency in sorted(self._accounts)]

    def of(self, currency: str) -> Account:
        """The account of a currency. Raises KeyError."""
        return self._accounts[currency]

    def set_hold(self, currency: str, before: Decimal, after: Decimal, now: datetime) -> None:
        """Change what one order holds."""
        account = self._accounts[currency]
        account.hold += after - before
        account.updated = now

    def add(self, currency: str, amount: Decimal, now: datetime) -> None:
        """Put an amount in, or with a negative one take it out."""
        account = self._accounts[currency]
        account.total += amount
        account.updated = now

"""Coinbase's endpoints of accounts and fees, and of the server's time."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from aiohttp import web

from tradewatch.simulators.exchange.accounts import PORTFOLIO_ID, Account
from tradewatch.simulators.exchange.feed_server import format_time
from tradewatch.simulators.exchange.matching import MatchingEngine
from tradewatch.simulators.exchange.order_entry import BadRequest
from tradewatch.simulators.exchange.rest.render import number, order_json
from tradewatch.simulators.exchange.rest.server import BROKERAGE, Endpoint, NotFound, query_number

DEFAULT_PAGE = 49
MAX_PAGE = 250


class AccountEndpoints:
    """What a client owns and pays."""

    def __init__(self, engine: MatchingEngine) -> None:
        self._engine = engine

    def endpoints(self) -> list[Endpoint]:
        """The endpoints."""
        return [
            Endpoint("list_accounts", "GET", f"{BROKERAGE}/accounts", self._list),
            Endpoint("get_account", "GET", f"{BROKERAGE}/accounts/{{account_id}}", self._get),
            Endpoint("transaction_summary", "GET", f"{BROKERAGE}/transaction_summary", self._summary),
            Endpoint("time", "GET", f"{BROKERAGE}/time", self._time, public=True),
        ]

    async def administrative(self, _: web.Request) -> web.Response:
        """Every order and balance, for tests; served beside the metrics, not to clients."""
        balances = {
            account.currency: {
                "total": number(account.total),
                "available": number(account.available),
                "hold": number(account.hold),
            }
            for account in self._engine.accounts.all()
        }
        orders = [order_json(order) for order in self._engine.orders.values()]
        return web.json_response({"balances": balances, "orders": orders})

    async def _list(self, request: web.Request) -> dict[str, Any]:
        limit = query_number(request, "limit", DEFAULT_PAGE, MAX_PAGE)
        accounts = self._engine.accounts.all()
        cursor = request.query.get("cursor", "")
        if cursor:
            found = [index for index, account in enumerate(accounts) if account.account_id == cursor]
            if not found:
                raise BadRequest("cursor is not one that this endpoint gave")
            accounts = accounts[found[0] + 1 :]
        page = accounts[:limit]
        has_next = len(accounts) > limit
        return {
            "accounts": [self._json(account) for account in page],
            "has_next": has_next,
            "cursor": page[-1].account_id if has_next else "",
            "size": len(page),
        }

    async def _get(self, request: web.Request) -> dict[str, Any]:
        for account in self._engine.accounts.all():
            if account.account_id == request.match_info["account_id"]:
                return {"account": self._json(account)}
        raise NotFound("account not found")

    async def _summary(self, _: web.Request) -> dict[str, Any]:
        fees = self._engine.fees
        orders = self._engine.orders.values()
        volume = float(sum((order.filled_value for order in orders), Decimal(0)))
        paid = float(sum((order.fees for order in orders), Decimal(0)))
        return {
            "total_volume": volume,
            "total_fees": paid,
            "fee_tier": {
                "pricing_tier": "Simulated",
                "usd_from": "0",
                "usd_to": "",
                "taker_fee_rate": number(fees.taker),
                "maker_fee_rate": number(fees.maker),
            },
            "advanced_trade_only_volume": volume,
            "advanced_trade_only_fees": paid,
        }

    async def _time(self, _: web.Request) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "iso": format_time(now),
            "epochSeconds": str(int(now.timestamp())),
            "epochMillis": str(int(now.timestamp() * 1000)),
        }

    def _json(self, account: Account) -> dict[str, Any]:
        def amount(value: Decimal) -> dict[str, str]:
            return {"value": number(value), "currency": account.currency}

        return {
            "uuid": account.account_id,
            "name": f"{account.currency} Wallet",
            "currency": account.currency,
            "available_balance": amount(account.available),
            "default": True,
            "active": True,
            "created_at": format_time(self._engine.accounts.created),
            "updated_at": format_time(account.updated),
            "deleted_at": None,
            "type": "ACCOUNT_TYPE_FIAT" if account.currency in ("USD", "EUR", "GBP") else "ACCOUNT_TYPE_CRYPTO",
            "ready": True,
            "hold": amount(account.hold),
            "retail_portfolio_id": PORTFOLIO_ID,
            "platform": "ACCOUNT_PLATFORM_CONSUMER",
        }

"""Drives Coinbase's own client against the exchange that the arguments name; prints what it saw as one JSON object.

Run by test_official_client.py with the Python of a venv that holds nothing but the client. Arguments: the REST host
with its port, the WebSocket URL, the key's name, the file with the private key.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coinbase.rest import RESTClient
from coinbase.websocket import WebsocketResponse, WSClient
from requests.exceptions import HTTPError


def wait_for(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"not seen within 20 s: {what}")


def main() -> None:
    host, websocket_url, name, key_file = sys.argv[1:]
    secret = Path(key_file).read_text()
    rest = RESTClient(api_key=name, api_secret=secret, base_url=host, timeout=10)
    seen: dict[str, Any] = {}

    channels: dict[str, list[WebsocketResponse]] = {}

    def on_message(text: str) -> None:
        message = WebsocketResponse(json.loads(text))
        channels.setdefault(message.channel, []).append(message)

    stream = WSClient(
        api_key=name, api_secret=secret, base_url=websocket_url, on_message=on_message, retry=False, timeout=10
    )
    stream.open()
    stream.subscribe(["BTC-USD"], ["ticker", "user", "heartbeats", "level2"])
    wait_for(lambda: {"ticker", "user", "heartbeats", "l2_data"} <= set(channels), "every channel")

    seen["products"] = [product.product_id for product in rest.get_products().products]
    seen["public_products"] = rest.get_public_products().num_products
    seen["accounts"] = {a.currency: a.available_balance["value"] for a in rest.get_accounts().accounts}
    first = rest.get_accounts(limit=1)
    seen["account_pages"] = [first.has_next, rest.get_accounts(limit=10, cursor=first.cursor).size]
    seen["best"] = rest.get_best_bid_ask(product_ids=["BTC-USD"]).pricebooks[0].bids[0].price
    seen["trades"] = len(rest.get_market_trades("BTC-USD", limit=5).trades)
    now = int(time.time())
    seen["candles"] = len(rest.get_candles("BTC-USD", str(now - 3600), str(now + 60), "ONE_MINUTE").candles)
    seen["fee_rate"] = rest.get_transaction_summary().fee_tier["taker_fee_rate"]

    placed = rest.limit_order_gtc_buy("gtc-1", "BTC-USD", base_size="0.01", limit_price="1000.00")
    seen["limit_success"] = placed.success
    order_id = placed.success_response["order_id"]
    again = rest.limit_order_gtc_buy("gtc-1", "BTC-USD", base_size="0.01", limit_price="1000.00")
    seen["same_order_again"] = again.success_response["order_id"] == order_id
    seen["open"] = [order.order_id for order in rest.list_orders(order_status=["OPEN"]).orders] == [order_id]
    seen["edit_preview_errors"] = rest.preview_edit_order(order_id, size="0.02", price="1001.00").errors
    seen["edited"] = rest.edit_order(order_id, size="0.02", price="1001.00").success
    edited = rest.get_order(order_id).order
    seen["after_edit"] = edited.order_configuration.limit_limit_gtc.limit_price
    seen["hold"] = edited.outstanding_hold_amount
    seen["cancelled"] = rest.cancel_orders([order_id]).results[0].success
    seen["after_cancel"] = rest.get_order(order_id).order.status

    market = rest.market_order_buy("market-1", "BTC-USD", quote_size="1000")
    market_id = market.success_response["order_id"]
    filled = rest.get_order(market_id).order
    seen["market"] = [filled.status, filled.completion_percentage]
    fills = rest.get_fills(order_ids=[market_id]).fills
    seen["fills"] = [len(fills) == int(filled.number_of_fills), fills[0].liquidity_indicator]
    sold = rest.market_order_sell("market-2", "BTC-USD", base_size="0.001")
    seen["sold"] = rest.get_order(sold.success_response["order_id"]).order.status
    seen["refused"] = rest.limit_order_gtc_buy("gtc-2", "BTC-USD", "9000", "1000.00").error_response["error"]
    try:
        rest.get_order("no-such-order")
    except HTTPError as error:
        seen["missing"] = error.response.status_code

    def updates() -> set[tuple[str, str]]:
        events = [event for message in channels["user"] for event in message.events]
        return {(order.order_id, order.status) for event in events for order in event.orders}

    wanted = {(order_id, "OPEN"), (order_id, "CANCELLED"), (market_id, "FILLED")}
    wait_for(lambda: wanted <= updates(), f"{wanted} in the user channel")
    stream.raise_background_exception()
    numbers = sorted(message.sequence_num for messages in channels.values() for message in messages)
    seen["in_sequence"] = numbers == list(range(len(numbers)))
    stream.close()
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()

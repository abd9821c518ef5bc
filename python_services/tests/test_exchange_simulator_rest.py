"""The simulator's REST interfaces and its account's WebSocket channels, as a client finds them."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from exchange_support import BROKERAGE, ApiKey, Client, ed25519_key, key_file, order_body, plain
from services_support import Simulation, ends, eventually, simulation
from tradewatch.common.settings import SettingsError, load
from tradewatch.simulators.exchange.api_keys import read_keys
from tradewatch.simulators.exchange.service import ExchangeSimulatorSettings
from websockets.asyncio.client import ClientConnection, connect

KEY = ApiKey()
ED_KEY = ed25519_key()
ORDERS = f"{BROKERAGE}/orders"


@asynccontextmanager
async def trading(**settings: Any) -> AsyncIterator[tuple[Simulation, Client]]:
    async with simulation(api_keys=key_file(KEY, ED_KEY), **settings) as exchange:
        yield exchange, Client(exchange.rest_url, KEY)


async def state(exchange: Simulation) -> Any:
    async with plain() as client:
        return (await client.get(f"http://127.0.0.1:{exchange.http.port}/state")).json()


def gtc(price: str = "1000.00", size: str = "0.01", **further: Any) -> dict[str, Any]:
    return {"limit_limit_gtc": {"base_size": size, "limit_price": price, **further}}


# Each breaks one thing about a good token; `URI` is the right one.
BAD_TOKENS = {
    "other path": ({"uri": "GET 127.0.0.1/api/v3/brokerage/orders"}, {}, None, "the token's uri is not GET "),
    "no uri": ({"uri": None}, {}, None, "the token's uri is not GET "),
    "long life": ({"exp": int(time.time()) + 86_400}, {}, None, "lives longer than 120 s"),
    "expired": ({"nbf": 1000, "exp": 1100}, {}, None, "expired"),
    "not yet": ({"nbf": int(time.time()) + 86_400, "exp": int(time.time()) + 86_450}, {}, None, "not yet valid"),
    "issuer": ({"iss": "me"}, {}, None, "issuer"),
    "no expiry": ({"exp": None}, {}, None, "exp"),
    "other subject": ({"sub": "somebody"}, {}, None, "sub is not its kid"),
    "no nonce": ({}, {"nonce": ""}, None, "no nonce"),
    "unknown key": ({}, {"kid": "nobody"}, None, "names no known key"),
    "other key": ({}, {}, generate_private_key(SECP256R1()), "Signature"),
}


@pytest.mark.parametrize("case", BAD_TOKENS)
async def test_a_token_that_proves_nothing_is_401_in_one_line(case: str) -> None:
    claims, header, key, says = BAD_TOKENS[case]
    async with trading() as (exchange, _), plain() as client:
        url = f"{exchange.rest_url}{BROKERAGE}/accounts"
        good = {"uri": f"GET 127.0.0.1:{exchange.simulator.rest.port}{BROKERAGE}/accounts"}
        token = KEY.token(header=header, key=key, **{**good, **claims})
        answer = await client.get(url, headers={"Authorization": f"Bearer {token}"})
        assert (await client.get(url)).text == "Unauthorized: no bearer token\n"
    assert answer.status_code == 401
    assert says in answer.text
    assert answer.text.count("\n") == 1


async def test_both_kinds_of_key_open_the_account_and_a_rubbish_token_none() -> None:
    async with trading() as (exchange, client), plain() as web:
        assert len((await client.get("/accounts"))["accounts"]) == 3
        assert (await Client(exchange.rest_url, ED_KEY).get("/accounts"))["size"] == 3
        headers = {"Authorization": "Bearer rubbish"}
        answer = await web.get(f"{exchange.rest_url}{BROKERAGE}/accounts", headers=headers)
        assert (answer.status_code, answer.text) == (401, "Unauthorized: the token is not a JWT\n")


def _p384() -> str:
    return ApiKey("p384", generate_private_key(SECP384R1())).public_pem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("{}", "must be an array"),
        ("[{}]", "entry 0 must have a name and a public_key"),
        ('[{"name": "a", "public_key": "rubbish"}]', "entry 0: public_key is not a public key in PEM"),
        (json.dumps([{"name": "a", "public_key": _p384()}]), "neither EC P-256 nor Ed25519"),
        (json.dumps(json.loads(key_file(KEY)) * 2), "entry 1 has the name of an earlier one"),
    ],
    # The keys are made anew in each process.
    ids=["no JSON", "no array", "no name", "no key", "another curve", "twice"],
)
def test_a_bad_key_file_is_one_line(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        read_keys(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRADEWATCH_BALANCES", "USD"),
        ("TRADEWATCH_BALANCES", "USD=1,USD=2"),
        ("TRADEWATCH_TAKER_FEE_RATE", "0.5"),
        ("TRADEWATCH_REST_TLS_FILE", "/dev/null"),
        ("TRADEWATCH_REST_REQUESTS_PER_SECOND", "0"),
    ],
)
def test_a_bad_setting_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refused:
        load(ExchangeSimulatorSettings)
    assert len(refused.value.lines) == 1
    assert refused.value.lines[0].startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("side", "configuration", "error", "preview"),
    [
        ("BUY", gtc("1000.001"), "INVALID_PRICE_PRECISION", "PREVIEW_INVALID_PRICE_PRECISION"),
        ("BUY", gtc(size="0.010000001"), "INVALID_SIZE_PRECISION", "PREVIEW_INVALID_SIZE_PRECISION"),
        ("BUY", gtc("1.00", "0.01"), "UNKNOWN_FAILURE_REASON", "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL"),
        ("BUY", gtc("1.00", "10001"), "UNKNOWN_FAILURE_REASON", "PREVIEW_INVALID_BASE_SIZE_TOO_LARGE"),
        ("BUY", gtc("1000.00", "1000"), "INSUFFICIENT_FUND", "PREVIEW_INSUFFICIENT_FUND"),
        ("SELL", gtc("90000.00"), "INSUFFICIENT_FUND", "PREVIEW_INSUFFICIENT_FUND"),
        (
            "BUY",
            gtc("90000.00", post_only=True),
            "INVALID_LIMIT_PRICE_POST_ONLY",
            "PREVIEW_INVALID_LIMIT_PRICE_POST_ONLY",
        ),
        (
            "SELL",
            {"market_market_ioc": {"quote_size": "10"}},
            "UNSUPPORTED_ORDER_CONFIGURATION",
            "PREVIEW_UNSUPPORTED_ORDER_CONFIGURATION",
        ),
    ],
)
async def test_an_order_that_breaks_a_rule(side: str, configuration: Any, error: str, preview: str) -> None:
    async with trading() as (exchange, client):
        answer = await client.order("a", side, **configuration)
        assert answer["success"] is False
        assert answer["error_response"]["error"] == error
        assert answer["error_response"]["preview_failure_reason"] == preview
        assert answer["order_configuration"] == configuration
        assert (await state(exchange))["orders"] == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "the body is not JSON"),
        ("[]", "the body must be an object"),
        ({**order_body("", "BUY", **gtc())}, "client_order_id"),
        (order_body("a", "HOLD", **gtc()), "side must be BUY or SELL"),
        (order_body("a", "BUY"), "exactly one configuration"),
        (order_body("a", "BUY", **gtc("NaN")), "limit_price must be text"),
        (order_body("a", "BUY", **gtc("-5")), "limit_price must be text"),
        (order_body("a", "BUY", **gtc("1e5")), "limit_price must be text"),
        (order_body("a", "BUY", **gtc("0")), "limit_price must be text"),
        (order_body("a", "BUY", limit_limit_gtc={"base_size": 1, "limit_price": "5"}), "base_size must be text"),
        (order_body("a", "BUY", limit_limit_gtc={"base_size": "1"}), "limit_price is required"),
        (order_body("a", "BUY", market_market_ioc={}), "exactly one of base_size and quote_size"),
        (
            order_body("a", "BUY", limit_limit_gtd={"base_size": "1", "limit_price": "5", "end_time": "soon"}),
            "end_time must be a time",
        ),
    ],
)
async def test_what_is_no_order_is_400_in_one_line(body: Any, says: str) -> None:
    async with trading() as (exchange, client):
        parts = {"content": body} if isinstance(body, str) else {"json": body}
        answer = await client.send("POST", "/orders", **parts)
        assert answer.status_code == 400
        assert answer.json()["error"] == "INVALID_ARGUMENT"
        assert says in answer.json()["message"]
        assert (await state(exchange))["orders"] == []


async def test_orders_are_listed_by_filter_and_page() -> None:
    async with trading() as (_, client):
        ids = [(await client.order(f"o{i}", "BUY", **gtc(f"{1000 + i}.00")))["order_id"] for i in range(5)]
        await client.post("/orders/batch_cancel", {"order_ids": [ids[0], "nobody"]})
        first = await client.get("/orders/historical/batch", limit=3)
        rest = await client.get("/orders/historical/batch", limit=3, cursor=first["cursor"])
        assert [o["order_id"] for o in first["orders"] + rest["orders"]] == ids[::-1]
        assert (first["has_next"], rest["has_next"], rest["cursor"]) == (True, False, "")
        opened = await client.get("/orders/historical/batch", order_status="OPEN", product_ids=["BTC-USD"])
        assert [o["order_id"] for o in opened["orders"]] == ids[:0:-1]
        cancelled = await client.get("/orders/historical/batch", order_ids=ids, order_status=["CANCELLED", "FILLED"])
        assert [o["client_order_id"] for o in cancelled["orders"]] == ["o0"]
        for params in ({"order_status": ["OPEN", "FILLED"]}, {"limit": "0"}, {"cursor": "x"}, {"start_date": "x"}):
            assert (await client.send("GET", "/orders/historical/batch", params=params)).status_code == 400


async def test_fills_are_listed_by_order_and_page() -> None:
    async with trading(ticks_per_second=0.05, balances="USD=5000000") as (exchange, client):
        order = await client.order("a", "BUY", market_market_ioc={"base_size": "4"})
        await client.order("b", "BUY", "ETH-USD", market_market_ioc={"base_size": "0.5"})
        shown = (await client.get(f"/orders/historical/{order['order_id']}"))["order"]
        fills = (await client.get("/orders/historical/fills", order_ids=[order["order_id"]]))["fills"]
        assert len(fills) == int(shown["number_of_fills"]) > 1
        assert sum(Decimal(fill["size"]) for fill in fills) == 4
        first = await client.get("/orders/historical/fills", limit=len(fills))
        last = await client.get("/orders/historical/fills", limit=len(fills), cursor=first["cursor"])
        assert len({fill["trade_id"] for fill in first["fills"] + last["fills"]}) == len(fills) + 1
        assert last["cursor"] == ""
        found = await state(exchange)
        assert found["balances"]["BTC"] == {"total": "4", "available": "4", "hold": "0"}
        value = exchange.registry.get_sample_value
        labels = {"product_id": "BTC-USD", "status": "FILLED"}
        assert value("exchange_simulator_orders_total", labels) == 1
        assert value("exchange_simulator_requests_total", {"endpoint": "create_order", "status": "200"}) == 2


async def test_the_market_is_told_without_a_token() -> None:
    async with trading(ticks_per_second=500) as (exchange, _), plain(exchange.rest_url) as client:
        await eventually(lambda: len(exchange.market.states["BTC-USD"].trades) >= 50)
        market = f"{BROKERAGE}/market"
        book = (await client.get(f"{market}/product_book?product_id=BTC-USD&limit=3")).json()["pricebook"]
        assert [len(book["bids"]), len(book["asks"])] == [3, 3]
        assert Decimal(book["bids"][0]["price"]) < Decimal(book["asks"][0]["price"])
        trades = (await client.get(f"{market}/products/BTC-USD/ticker?limit=20")).json()["trades"]
        numbers = [int(trade["trade_id"]) for trade in trades]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) == 20
        candles = (await client.get(f"{market}/products/BTC-USD/candles?granularity=ONE_MINUTE")).json()["candles"]
        assert Decimal(candles[0]["low"]) <= Decimal(candles[0]["close"]) <= Decimal(candles[0]["high"])
        for path, status in (
            ("/products/X-USD", 404),
            ("/products/BTC-USD/candles?granularity=SECOND", 400),
            ("/products/BTC-USD/ticker?limit=x", 400),
            ("/nothing", 404),
        ):
            assert (await client.get(f"{market}{path}")).status_code == status
        assert (await client.get(f"{BROKERAGE}/products")).status_code == 401


async def test_kraken_tells_its_trades_and_candles() -> None:
    async with simulation(ticks_per_second=500) as exchange, plain(exchange.rest_url) as client:

        async def ask(path: str) -> Any:
            return (await client.get(f"/0/public/{path}")).json()

        await eventually(lambda: len(exchange.market.states["BTC-USD"].trades) >= 50)
        first = (await ask("Trades?pair=XBTUSD&since=1&count=10"))["result"]
        more = (await ask(f"Trades?pair=XBTUSD&since={first['last']}&count=10"))["result"]
        numbers = [row[6] for row in first["XBTUSD"] + more["XBTUSD"]]
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        assert (await ask("OHLC?pair=BTC/USD&interval=1"))["result"]["BTC/USD"][0][7] >= 10
        assert len((await ask("Depth?pair=ETHUSD&count=2"))["result"]["ETHUSD"]["bids"]) == 2
        assert (await ask("Ticker?pair=ETHUSD"))["result"]["ETHUSD"]["c"]
        assert set((await ask("AssetPairs"))["result"]) == {"BTCUSD", "ETHUSD"}
        assert (await ask("Trades?pair=NOPE")) == {"error": ["EQuery:Unknown asset pair"]}


async def test_too_many_requests_are_429_with_retry_after() -> None:
    async with trading(rest_requests_per_second=0.05) as (_, client):
        answers = [await client.send("GET", "/accounts") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert 10 < int(answers[-1].headers["Retry-After"]) <= 20


async def test_a_timeout_takes_the_order_and_never_answers() -> None:
    async with trading() as (exchange, client):
        await exchange.fault(fault="timeout", method="POST", path=ORDERS, delay_seconds=0.1)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.order("a", "BUY", **gtc())
        # The order is there, other paths work, and so does the next order.
        assert [o["client_order_id"] for o in (await client.get("/orders/historical/batch"))["orders"]] == ["a"]
        again = await client.order("a", "BUY", **gtc())
        assert again["success"] is True
        assert len((await state(exchange))["orders"]) == 1


async def test_a_late_answer_comes_after_the_client_has_gone() -> None:
    async with trading() as (exchange, client):
        await exchange.fault(fault="timeout", method="POST", path=ORDERS, delay_seconds=2.5, answer=True)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/orders", order_body("a", "BUY", **gtc()), timeout=1.0)
        assert len((await state(exchange))["orders"]) == 1


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_status_on_some_paths_with_or_without_the_effect(accepted: bool) -> None:
    async with trading() as (exchange, client):
        await exchange.fault(fault="status", status=502, method="POST", path="*/orders", count=2, accepted=accepted)
        statuses = [(await client.send("POST", "/orders", json=order_body("a", "BUY", **gtc()))).status_code]
        assert len((await state(exchange))["orders"]) == int(accepted)
        assert (await client.send("GET", "/accounts")).status_code == 200
        statuses += [
            (await client.send("POST", "/orders", json=order_body("a", "BUY", **gtc()))).status_code for _ in range(2)
        ]
        assert statuses == [502, 502, 200]


async def test_faults_of_requests_are_shown_run_out_and_are_switched_off() -> None:
    async with trading() as (exchange, client), plain() as web:
        url = f"http://127.0.0.1:{exchange.http.port}/faults"
        assert (await exchange.fault(fault="status", status=429, seconds=100)).json()["connections"] == 0
        await exchange.fault(fault="latency", delay_seconds=0.3, seconds=0.05)
        limited = await client.send("GET", "/accounts")
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "1")
        await eventually(lambda: _active(web, url, 1))
        assert (await web.delete(url)).json() == {"connections": [], "requests": []}
        assert (await client.send("GET", "/accounts")).status_code == 200
        await exchange.fault(fault="latency", delay_seconds=0.3)
        started = time.monotonic()
        await client.get("/accounts")
        assert time.monotonic() - started >= 0.3
        await exchange.fault(fault="rate_limit", requests_per_second=0.05, seconds=100)
        assert [(await client.send("GET", "/accounts")).status_code for _ in range(2)] == [200, 429]


async def _active(client: httpx.AsyncClient, url: str, count: int) -> bool:
    return len((await client.get(url)).json()["requests"]) == count


async def test_a_partial_fill_and_a_refusal_on_request() -> None:
    async with trading() as (exchange, client):
        await exchange.fault(fault="partial_fill", fraction=0.25)
        order = await client.order("a", "BUY", market_market_ioc={"base_size": "0.02"})
        shown = (await client.get(f"/orders/historical/{order['order_id']}"))["order"]
        assert (shown["status"], shown["filled_size"]) == ("CANCELLED", "0.005")
        await exchange.fault(fault="reject", reason="ORDER_ENTRY_DISABLED")
        refused = await client.order("b", "BUY", **gtc())
        assert refused["error_response"]["error"] == "ORDER_ENTRY_DISABLED"
        await exchange.fault(fault="reject", as_order=True)
        failed = await client.order("c", "BUY", **gtc())
        shown = (await client.get(f"/orders/historical/{failed['order_id']}"))["order"]
        assert (shown["status"], shown["reject_reason"]) == ("FAILED", "COMMANDER_REJECTED_NEW_ORDER")
        assert (await client.order("d", "BUY", **gtc()))["success"] is True


async def _next(socket: ClientConnection, channel: str) -> Any:
    while True:
        message = json.loads(await ends(socket.recv()))
        if message.get("channel", "error") == channel:
            return message


async def test_the_user_channel_wants_a_token_and_tells_of_every_change() -> None:
    async with trading() as (exchange, client), connect(exchange.url) as socket:
        subscribe = {"type": "subscribe", "channel": "user"}
        await socket.send(json.dumps({**subscribe, "jwt": "rubbish"}))
        assert json.loads(await socket.recv()) == {"type": "error", "message": "authentication failure"}
        resting = (await client.order("a", "BUY", **gtc()))["order_id"]
        await socket.send(json.dumps({**subscribe, "product_ids": ["BTC-USD"], "jwt": KEY.token()}))
        snapshot = (await _next(socket, "user"))["events"][0]
        assert (snapshot["type"], [order["order_id"] for order in snapshot["orders"]]) == ("snapshot", [resting])
        await client.order("eth", "BUY", "ETH-USD", **gtc("100.00"))
        await client.post("/orders/batch_cancel", {"order_ids": [resting]})
        update = (await _next(socket, "user"))["events"][0]
        assert (update["type"], update["orders"][0]["order_id"]) == ("update", resting)
        assert (update["orders"][0]["status"], update["orders"][0]["leaves_quantity"]) == ("CANCELLED", "0")


async def test_level2_updates_keep_a_copy_of_the_book_right() -> None:
    async with trading(ticks_per_second=200) as (exchange, _), connect(exchange.url) as socket:
        await socket.send(json.dumps({"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]}))
        copy: dict[str, dict[Decimal, Decimal]] = {"bid": {}, "offer": {}}
        for index in range(100):
            event = (await _next(socket, "l2_data"))["events"][0]
            assert event["type"] == ("snapshot" if index == 0 else "update")
            for update in event["updates"]:
                price, size = Decimal(update["price_level"]), Decimal(update["new_quantity"])
                if size:
                    copy[update["side"]][price] = size
                else:
                    del copy[update["side"]][price]
            assert [len(side) for side in copy.values()] == [10, 10]
            assert max(copy["bid"]) < min(copy["offer"])

"""A client's side of the exchange simulator: keys, tokens and signed requests."""

import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from prometheus_client import CollectorRegistry
from services_support import WAIT_SECONDS
from tradewatch.simulators.exchange.accounts import Accounts
from tradewatch.simulators.exchange.matching import Fees, MatchingEngine
from tradewatch.simulators.exchange.metrics import SimulatorMetrics
from tradewatch.simulators.exchange.prices import Tick
from tradewatch.simulators.exchange.products import products_of

BROKERAGE = "/api/v3/brokerage"


@dataclass
class ApiKey:
    """A key pair with the name that the exchange knows it by."""

    name: str = "organizations/test/apiKeys/ec"
    private: EllipticCurvePrivateKey | Ed25519PrivateKey = field(default_factory=lambda: generate_ec(SECP256R1()))

    @property
    def private_pem(self) -> str:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def public_pem(self) -> str:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def algorithm(self) -> str:
        return "EdDSA" if isinstance(self.private, Ed25519PrivateKey) else "ES256"

    def token(
        self, uri: str | None = None, header: dict[str, Any] | None = None, key: Any = None, **claims: Any
    ) -> str:
        now = int(time.time())
        payload = {"sub": self.name, "iss": "cdp", "nbf": now, "exp": now + 120, **({"uri": uri} if uri else {})}
        payload |= claims
        headers = {"kid": self.name, "nonce": secrets.token_hex(), **(header or {})}
        return jwt.encode(
            {name: value for name, value in payload.items() if value is not None},
            key or self.private,
            algorithm=self.algorithm,
            headers=headers,
        )


def ed25519_key() -> ApiKey:
    return ApiKey("organizations/test/apiKeys/ed", Ed25519PrivateKey.generate())


def key_file(*keys: ApiKey) -> str:
    """What TRADEWATCH_API_KEYS_FILE holds."""
    return json.dumps([{"name": key.name, "public_key": key.public_pem} for key in keys])


def plain(base_url: str = "", timeout: float = WAIT_SECONDS) -> httpx.AsyncClient:
    """A client of plain HTTP: without the authorities' certificates, whose reading takes longer than a test."""
    return httpx.AsyncClient(base_url=base_url, timeout=timeout, verify=False)


class Client:
    """Signed requests to the simulator."""

    def __init__(self, base_url: str, key: ApiKey) -> None:
        self._base_url = base_url
        self._key = key

    async def send(self, method: str, path: str, timeout: float = WAIT_SECONDS, **parts: Any) -> httpx.Response:
        host = urlsplit(self._base_url).netloc
        headers = {"Authorization": f"Bearer {self._key.token(f'{method} {host}{BROKERAGE}{path}')}"}
        async with plain(self._base_url, timeout) as client:
            return await client.request(method, f"{BROKERAGE}{path}", headers=headers, **parts)

    async def get(self, path: str, **params: Any) -> Any:
        response = await self.send("GET", path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: object, timeout: float = WAIT_SECONDS) -> Any:
        response = await self.send("POST", path, timeout, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    async def order(self, client_order_id: str, side: str, product_id: str = "BTC-USD", **configuration: Any) -> Any:
        return await self.post("/orders", order_body(client_order_id, side, product_id, **configuration))


def order_body(client_order_id: str, side: str, product_id: str = "BTC-USD", **configuration: Any) -> dict[str, Any]:
    return {
        "client_order_id": client_order_id,
        "product_id": product_id,
        "side": side,
        "order_configuration": configuration,
    }


def engine(balances: dict[str, Decimal], fees: Fees | None = None) -> MatchingEngine:
    """An engine for BTC-USD in steps of a cent, with a tick behind it: 99.99 bid, 100.01 asked, 10 BTC each."""
    made = MatchingEngine(
        products_of({"BTC-USD": Decimal("0.01")}),
        Accounts({"USD": Decimal(0), "BTC": Decimal(0), **balances}, datetime.now(UTC)),
        fees or Fees(Decimal("0.004"), Decimal("0.006")),
        SimulatorMetrics(CollectorRegistry(), ("BTC-USD",)),
    )
    made.on_tick(tick("100.01"), datetime.now(UTC))
    return made


def tick(price: str, size: str = "1", bid: str = "99.99", ask: str = "100.01") -> Tick:
    return Tick(
        product_id="BTC-USD",
        trade_id=1,
        price=Decimal(price),
        size=Decimal(size),
        buyer_is_maker=Decimal(price) == Decimal(bid),
        best_bid=Decimal(bid),
        best_bid_size=Decimal(10),
        best_ask=Decimal(ask),
        best_ask_size=Decimal(10),
    )

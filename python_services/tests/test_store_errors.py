"""What a failing store may raise at a loop of its callers: none of it ends the loop."""

import asyncio
from itertools import chain, repeat
from unittest.mock import AsyncMock, Mock

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from services_support import eventually, value
from signal_support import LAB
from tradewatch.store import database
from tradewatch.trading.llm import validator
from tradewatch.trading.llm.metrics import LlmMetrics
from tradewatch.trading.signals.metrics import SignalMetrics
from tradewatch.trading.signals.settings import SignalGeneratorSettings
from tradewatch.trading.signals.trainer import RETRY_SECONDS, Trainer

ERRORS = [
    OSError(),
    TimeoutError(),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InternalClientError("got result for unknown protocol state 3"),
    asyncpg.UndefinedTableError("no such table"),
]


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def error(request: pytest.FixtureRequest) -> Exception:
    found: Exception = request.param
    return found


async def test_training_is_put_off(error: Exception) -> None:
    settings = SignalGeneratorSettings(**LAB)  # type: ignore[arg-type]
    registry = CollectorRegistry()
    trainer = Trainer(Mock(rows=AsyncMock(side_effect=error)), SignalMetrics(registry, settings.products), settings)
    model, again_seconds = await trainer.train()
    assert model is None
    assert again_seconds <= RETRY_SECONDS
    assert value(registry, "model_trainings_total", outcome="store_unavailable") == 1


async def test_the_language_models_budget_is_looked_at_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validator, "MEASURE_SECONDS", 0.01)
    registry = CollectorRegistry()
    store = Mock(tokens_of_last_hour=AsyncMock(side_effect=chain([error], repeat(3))))
    service = validator.Validator(Mock(), Mock(), store, LlmMetrics(registry, 10), Mock(tokens_per_hour=10))
    stop = asyncio.Event()
    task = asyncio.create_task(service.run(stop))
    await eventually(lambda: value(registry, "llm_token_budget_remaining_tokens") == 7)
    stop.set()
    await task


async def test_readiness_is_an_answer(error: Exception) -> None:
    assert not (await database.ping(Mock(fetchval=AsyncMock(side_effect=error)))).ok

"""signal-generator on a real Valkey and a real PostgreSQL: signals, restarts, and every way to stay silent."""

from datetime import UTC, datetime, timedelta
from typing import Any

from aggregation_support import bus_client
from postgres_support import Database
from services_support import ValkeyServer, eventually, value
from signal_support import FORESEEABLE_SECONDS, PRODUCTS, RANDOM_WALK_SECONDS, generation, put_market
from tradewatch.common.streams import SIGNALS_STREAM, Indicators, Signal, decode, encode, indicators_stream
from tradewatch.trading.signals.features import FEATURES
from tradewatch.trading.signals.service import signal_id

CANDLES = 400


async def _signals(client: Any) -> list[Signal]:
    return [decode(Signal, fields) for _, fields in await client.xrange(SIGNALS_STREAM)]


async def _now_again(client: Any, seconds_ago: float = 0.0, product: str = PRODUCTS[0]) -> Indicators:
    """The product's next candle, as of just now."""
    newest = decode(Indicators, (await client.xrevrange(indicators_stream(product), count=1))[0][1])
    entry = Indicators(
        product,
        1,
        newest.time + timedelta(seconds=1),
        newest.close,
        newest.values,
        f"{int(newest.time.timestamp()):032x}",
    )
    await client.xadd(indicators_stream(product), dict(encode(entry)))
    return entry


def _end() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def test_it_learns_signals_and_goes_on_after_a_kill(valkey: ValkeyServer, database: Database) -> None:
    generous = {"indicators_max_age_seconds": "3600", "quote_max_age_seconds": "3600", "min_confidence": "0"}
    async with bus_client(valkey) as client:
        await put_market(client, 1, CANDLES, _end(), FORESEEABLE_SECONDS)
        async with generation(valkey, database, **generous) as running:
            await eventually(lambda: value(running.registry, "model_available") == 1)
            assert running.suppressed("no_model") > 0, "before there was a model nothing was signalled"
            assert not await _signals(client)
            candle = await _now_again(client)
            (signal,) = await eventually(lambda: _signals(client))
            assert running.trainings("accepted") == 1
            stored = await database.fetch("SELECT count(*) AS rows, max(time) AS newest FROM feature_rows")
            await eventually(lambda: running.service._pending == running.service._pending.__class__())
            await running.kill()
        (model,) = await database.fetch("SELECT version, active, metrics FROM models")
        assert model["active"]
        assert '"standard_errors"' in model["metrics"]
        assert signal.model_version == model["version"]
        assert signal.signal_id == signal_id(PRODUCTS[0], candle.time, model["version"])
        assert signal.trace_id == candle.trace_id
        assert signal.expires - signal.created == timedelta(seconds=60)
        assert any(name in signal.rationale for name in FEATURES)
        rows = await database.fetch("SELECT product_id, time, features ->> 'schema' AS schema FROM feature_rows")
        assert stored[0]["rows"] <= len(rows)
        async with generation(valkey, database, **generous, cooldown_seconds="600") as running:
            await eventually(lambda: running.service.caught_up)
            assert value(running.registry, "model_available") == 1
            await _now_again(client)
            await eventually(lambda: running.suppressed("cooldown") == 1)
            assert running.trainings("accepted") == 0, "the model of the last run is used"
        assert [one.signal_id for one in await _signals(client)] == [signal.signal_id]
        again = await database.fetch("SELECT count(*) AS rows FROM feature_rows")
        assert again[0]["rows"] == len(rows) + 1


async def test_a_random_walk_gives_no_model_and_no_signal(valkey: ValkeyServer, database: Database) -> None:
    async with bus_client(valkey) as client:
        await put_market(client, 1, CANDLES, _end(), RANDOM_WALK_SECONDS)
        async with generation(
            valkey, database, indicators_max_age_seconds="3600", quote_max_age_seconds="3600"
        ) as running:
            await eventually(lambda: running.trainings("no_better_than_naive") == 1)
            before = running.suppressed("no_model")
            await _now_again(client)
            await eventually(lambda: running.suppressed("no_model") == before + 1)
            assert value(running.registry, "model_available") == 0
            assert not await _signals(client)
    (model,) = await database.fetch("SELECT active FROM models")
    assert not model["active"]

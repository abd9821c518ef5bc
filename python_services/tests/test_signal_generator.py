"""signal-generator on a real Valkey and a real PostgreSQL: signals, restarts, and every way to stay silent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aggregation_support import bus_client
from postgres_support import Database
from services_support import ValkeyServer, eventually, value
from signal_support import FORESEEABLE_SECONDS, PRODUCTS, RANDOM_WALK_SECONDS, generation, put_market
from tradewatch.common.events import Side
from tradewatch.common.settings import SettingsError, load
from tradewatch.common.streams import SIGNALS_STREAM, Indicators, Quote, Signal, decode, encode, indicators_stream
from tradewatch.trading.signals.features import FEATURES
from tradewatch.trading.signals.model import Model
from tradewatch.trading.signals.service import signal_id
from tradewatch.trading.signals.settings import SignalGeneratorSettings
from tradewatch.trading.signals.store import SignalStore

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
            await eventually(lambda: not running.service._pending)
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


async def test_stale_parts_and_few_sure_predictions_make_no_signal(valkey: ValkeyServer, database: Database) -> None:
    old = {"indicators_max_age_seconds": "3600", "quote_max_age_seconds": "3600"}
    async with bus_client(valkey) as client:
        await put_market(client, 1, CANDLES, _end() - timedelta(seconds=600), FORESEEABLE_SECONDS)
        async with generation(valkey, database, **old, min_confidence="1") as running:
            await eventually(lambda: value(running.registry, "model_available") == 1)
            await _now_again(client)
            await eventually(lambda: running.suppressed("low_confidence") == 1)
            assert (await running.service.check_indicators()).ok
        sure = {"min_confidence": "0"}
        for changed, reason in (
            ({"indicators_max_age_seconds": "1"} | sure, "not_current"),
            (old | {"quote_max_age_seconds": "300", "max_drift_score": "1"} | sure, "stale_quote"),
            (old | sure | {"max_drift_score": "0"}, "drift"),
            (old | sure | {"model_max_age_seconds": "0.001"}, "old_model"),
            (old | sure | {"sentiment_max_age_seconds": "1"}, "missing_features"),
        ):
            async with generation(valkey, database, **changed) as running:
                await eventually(lambda: running.service.caught_up)
                if reason == "stale_quote":
                    # Fresh enough at the candle's end, not any more now.
                    running.service._settings = running.service._settings.model_copy(
                        update={"quote_max_age_seconds": 1.0}
                    )
                before = running.suppressed(reason)
                await _now_again(client)
                await eventually(lambda: running.suppressed(reason) > before)  # noqa: B023
        assert not await _signals(client)


async def test_wrong_signals_silence_it_until_they_leave_the_window(valkey: ValkeyServer, database: Database) -> None:
    settings = {"indicators_max_age_seconds": "3600", "quote_max_age_seconds": "3600", "min_confidence": "0"}
    end = _end()
    async with bus_client(valkey) as client:
        await put_market(client, 1, CANDLES, end, FORESEEABLE_SECONDS)
        quotes = [decode(Quote, fields) for _, fields in await client.xrange(f"quotes:{PRODUCTS[0]}")]
        for quote, later in list(zip(quotes, quotes[10:], strict=False))[200:230]:
            wrong = Side.SELL if later.mid >= quote.mid else Side.BUY
            lifetime = timedelta(seconds=60)
            signal = Signal(
                signal_id(PRODUCTS[0], quote.time, "earlier"),
                PRODUCTS[0],
                wrong,
                0.9,
                quote.mid,
                "earlier",
                quote.time,
                quote.time + lifetime,
                "up",
                quote.trace_id,
            )
            await client.xadd(SIGNALS_STREAM, dict(encode(signal)))
        async with generation(valkey, database, **settings) as running:
            await eventually(lambda: value(running.registry, "model_available") == 1)
            await _now_again(client)
            await eventually(lambda: running.suppressed("low_accuracy") == 1)
            assert value(running.registry, "model_accuracy_ratio") == 0
            assert value(running.registry, "model_accuracy_signals") == 30
        async with generation(valkey, database, **settings, accuracy_window_seconds="30") as running:
            await eventually(lambda: running.service.caught_up)
            await _now_again(client)
            await eventually(lambda: _count_is(client, 31))


async def test_old_models_are_deleted_the_active_one_never(database: Database) -> None:
    width = len(FEATURES)
    row = (0.0,) * width
    blank = Model(FEATURES, row, (1.0,) * width, (row,) * 3, (0.0,) * 3, 1.0, 0.0, (row,) * width, (row,) * width)

    async def stored() -> list[tuple[str, bool, bool]]:
        return [
            (names[row["version"]], row["accepted"], row["active"])
            for row in await database.fetch("SELECT version, accepted, active FROM models ORDER BY trained")
        ]

    names: dict[str, str] = {}
    async with database.connect() as pool:
        store = SignalStore(pool)
        for minute, accepted in enumerate([True, False, True, True, *[False] * 3]):
            trained = _end() + timedelta(minutes=minute)
            model = replace(blank, offset=float(minute))
            added = await store.add_model(model, trained, {}, accepted=accepted, kept=2)
            names[added.version] = str(minute)
        assert await stored() == [
            ("2", True, False),
            ("3", True, True),
            ("5", False, False),
            ("6", False, False),
        ], "refused ones push no accepted one out"
        # A model trained anew to the same is the row of then, active again though it is no more among the newest.
        again = await store.add_model(replace(blank, offset=2.0), _end(), {}, accepted=True, kept=1)
        assert await stored() == [("2", True, True), ("3", True, False), ("6", False, False)]
        active = await store.active_model()
        assert active is not None
        assert active.version == again.version


async def _count_is(client: Any, count: int) -> bool:
    return bool(await client.xlen(SIGNALS_STREAM) == count)


async def test_without_the_store_it_keeps_rows_and_stays_silent_and_an_altered_model_is_not_used(
    valkey: ValkeyServer, database: Database
) -> None:
    settings = {"indicators_max_age_seconds": "3600", "quote_max_age_seconds": "3600", "min_confidence": "0"}
    async with bus_client(valkey) as client:
        await put_market(client, 1, CANDLES, _end(), FORESEEABLE_SECONDS)
        async with generation(valkey, database, **settings) as running:
            await eventually(lambda: value(running.registry, "model_available") == 1)
            await database.fetch("ALTER TABLE feature_rows RENAME TO away")
            await _now_again(client)
            await eventually(lambda: not running.service._store_ok)
            signals = await client.xlen(SIGNALS_STREAM)
            await _now_again(client)
            await eventually(lambda: running.suppressed("store_unavailable") == 1)
            assert await client.xlen(SIGNALS_STREAM) == signals
            await database.fetch("ALTER TABLE away RENAME TO feature_rows")
            await eventually(lambda: running.service._store_ok)
        (rows,) = await database.fetch("SELECT count(*) AS count FROM feature_rows")
        (complete,) = await database.fetch("SELECT count(DISTINCT (product_id, time)) AS count FROM feature_rows")
        assert rows["count"] == complete["count"] == 2 * (CANDLES - 49) + 2
        await database.fetch("UPDATE models SET artifact = artifact || 'x'")
        async with generation(
            valkey, database, **settings, min_training_rows="5000", max_training_rows="5000"
        ) as running:
            await eventually(lambda: running.trainings("too_few_rows") == 1)
            assert value(running.registry, "model_available") == 0


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"HORIZON_SECONDS": "90"},
            "TRADEWATCH_HORIZON_SECONDS: must be a multiple of TRADEWATCH_SIGNAL_INTERVAL_SECONDS, 60",
        ),
        ({"MIN_CONFIDENCE": "nan"}, "TRADEWATCH_MIN_CONFIDENCE: "),
        ({"MIN_TRAINING_ROWS": "500", "MAX_TRAINING_ROWS": "400"}, "TRADEWATCH_MIN_TRAINING_ROWS: 500 is above"),
    ],
)
def test_a_bad_setting_is_one_line(changed: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in ({"PRODUCTS": "BTC-USD"} | changed).items():
        monkeypatch.setenv(f"TRADEWATCH_{name}", text)
    with pytest.raises(SettingsError) as caught:
        load(SignalGeneratorSettings)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(line)

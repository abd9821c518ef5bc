"""Training on a timer, beside the loop that makes signals."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from tradewatch.common.logging import get_logger
from tradewatch.store.database import STORE_ERRORS
from tradewatch.trading.signals import metrics, training
from tradewatch.trading.signals.features import FeatureRow
from tradewatch.trading.signals.metrics import SignalMetrics
from tradewatch.trading.signals.settings import SignalGeneratorSettings
from tradewatch.trading.signals.store import SignalStore, StoredModel

# How soon it is tried again where there was too little history or no store.
RETRY_SECONDS = 30.0
_TOO_EARLY = (metrics.Training.TOO_FEW_ROWS, metrics.Training.TOO_FEW_BLOCKS)

_log = get_logger("trainer")


class Trainer:
    """Trains on the stored rows in a thread; numpy and scikit-learn release the interpreter for most of it."""

    def __init__(self, store: SignalStore, signal_metrics: SignalMetrics, settings: SignalGeneratorSettings) -> None:
        self._store = store
        self._metrics = signal_metrics
        self._settings = settings

    def delay_seconds(self, active: StoredModel | None) -> float:
        """How long the first training may wait."""
        if active is None:
            return 0.0
        age = (datetime.now(UTC) - active.trained).total_seconds()
        return max(0.0, self._settings.retrain_seconds - age)

    async def train(self) -> tuple[StoredModel | None, float]:
        """Train once. Returns the new active model, where one was accepted, and when to train next (seconds)."""
        again = self._settings.retrain_seconds
        soon = min(RETRY_SECONDS, again)
        started = time.perf_counter()
        try:
            rows = await self._store.rows(self._settings.products, self._settings.max_training_rows)
            outcome = await asyncio.to_thread(self._train, rows)
            self._metrics.training_duration.observe(time.perf_counter() - started)
            stored = None
            if outcome.model is not None:
                stored = await self._store.add_model(
                    outcome.model,
                    datetime.now(UTC),
                    outcome.metrics,
                    accepted=outcome.accepted,
                    kept=self._settings.models_kept,
                )
        except STORE_ERRORS as error:
            self._metrics.trainings[metrics.Training.STORE_UNAVAILABLE].inc()
            _log.warning("not trained", error=type(error).__name__)
            return None, soon
        except (ValueError, ArithmeticError) as error:
            self._metrics.trainings[metrics.Training.FAILED].inc()
            _log.error("training failed", error=type(error).__name__, exc_info=error)
            return None, again
        result = metrics.Training.ACCEPTED if outcome.accepted else metrics.Training(outcome.reason)
        self._metrics.trainings[result].inc()
        _log.info("trained", outcome=result.value, version=stored.version if stored else None, **outcome.metrics)
        if outcome.accepted:
            return stored, again
        return None, soon if result in _TOO_EARLY else again

    def _train(self, rows: Sequence[FeatureRow]) -> training.Outcome:
        settings = self._settings
        horizon = timedelta(seconds=settings.horizon_seconds)
        data = training.dataset(rows, horizon, timedelta(seconds=settings.signal_interval_seconds), settings.cost_ratio)
        return training.train(data, settings.horizon_seconds, settings.min_training_rows)

"""Feature rows and models in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tradewatch.store.database import Pool
from tradewatch.trading.signals import model
from tradewatch.trading.signals.features import FEATURES, SCHEMA, FeatureRow
from tradewatch.trading.signals.model import Model


@dataclass(frozen=True)
class StoredModel:
    """The active model, when it was trained, and its version."""

    version: str
    trained: datetime
    model: Model


class SignalStore:
    """Reads and writes `feature_rows` and `models`; raises what asyncpg raises."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_rows(self, rows: Sequence[FeatureRow]) -> None:
        """Keep rows; one that is there already stays as it is."""
        await self._pool.executemany(
            "INSERT INTO feature_rows (product_id, time, price, features, trace_id) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (product_id, time) DO NOTHING",
            [(row.product_id, row.time, row.price, _to_json(row), row.trace_id) for row in rows],
        )

    async def rows(self, products: Sequence[str], limit: int) -> list[FeatureRow]:
        """The newest rows of this schema, oldest first."""
        found = await self._pool.fetch(
            "SELECT product_id, time, price, features, trace_id FROM feature_rows"
            " WHERE product_id = ANY($1) AND features ->> 'schema' = $2 ORDER BY time DESC LIMIT $3",
            list(products),
            SCHEMA,
            limit,
        )
        return [
            FeatureRow(
                row["product_id"],
                row["time"],
                row["price"],
                tuple(float(row["features"][name]) for name in FEATURES),
                row["trace_id"],
            )
            for row in reversed(found)
        ]

    async def newest_times(self, products: Sequence[str]) -> dict[str, datetime]:
        """The time of each product's newest row."""
        found = await self._pool.fetch(
            "SELECT product_id, max(time) AS newest FROM feature_rows WHERE product_id = ANY($1) GROUP BY product_id",
            list(products),
        )
        return {row["product_id"]: row["newest"] for row in found}

    async def prune(self, products: Sequence[str], before: datetime) -> None:
        """Delete rows older than `before`."""
        await self._pool.execute(
            "DELETE FROM feature_rows WHERE product_id = ANY($1) AND time < $2", list(products), before
        )

    async def add_model(
        self,
        trained_model: Model,
        trained: datetime,
        metrics: dict[str, float | int | str],
        *,
        accepted: bool,
        kept: int,
    ) -> StoredModel:
        """Keep a model with the figures of its test; an accepted one takes the place of the active one before.

        Of the accepted and of the refused models the newest `kept` each stay, and the active one.
        """
        artifact = trained_model.encode()
        version = model.version_of(artifact)
        async with self._pool.acquire() as connection, connection.transaction():
            if accepted:
                await connection.execute("UPDATE models SET active = false WHERE active AND version <> $1", version)
            await connection.execute(
                "INSERT INTO models (version, trained, artifact, artifact_sha256, metrics, active, accepted)"
                " VALUES ($1, $2, $3, $4, $5, $6, $6)"
                " ON CONFLICT (version) DO UPDATE SET active = models.active OR excluded.active,"
                " accepted = models.accepted OR excluded.accepted",
                version,
                trained,
                artifact,
                model.digest(artifact),
                metrics,
                accepted,
            )
            await connection.execute(
                "DELETE FROM models USING (SELECT version, row_number() OVER"
                " (PARTITION BY accepted ORDER BY trained DESC) AS place FROM models) AS ranked"
                " WHERE ranked.version = models.version AND place > $1 AND NOT active",
                kept,
            )
        return StoredModel(version, trained, trained_model)

    async def active_model(self) -> StoredModel | None:
        """The active model, where there is one.

        Raises:
            ArtifactError: it is not what was stored, or of another schema.
        """
        row = await self._pool.fetchrow("SELECT version, trained, artifact, artifact_sha256 FROM models WHERE active")
        if row is None:
            return None
        return StoredModel(
            row["version"], row["trained"], model.decode(row["version"], row["artifact"], row["artifact_sha256"])
        )


def _to_json(row: FeatureRow) -> dict[str, Any]:
    return {"schema": SCHEMA, **dict(zip(FEATURES, row.values, strict=True))}

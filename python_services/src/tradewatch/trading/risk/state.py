"""The trading state: one row that this service alone writes and the executor reads before each order.

It gets stricter by itself and looser only by a person's release, from which losses are measured anew.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tradewatch.store import audit
from tradewatch.store.database import Connection, Pool
from tradewatch.trading.contracts import StateAnswer, TradingState
from tradewatch.trading.risk.decision import stricter

ACTOR = "risk-manager"
_COLUMNS = "state, kill_switch, reason, actor, changed, cancelled, measured_from"
_READ = f"SELECT {_COLUMNS} FROM trading_state WHERE id = 1"  # noqa: S608
_CHANGE = f"""
UPDATE trading_state SET state = $1, kill_switch = $2, reason = $3, actor = $4, changed = clock_timestamp(),
       cancelled = NULL, measured_from = CASE WHEN $1 = 'ACTIVE' THEN clock_timestamp() ELSE measured_from END
WHERE id = 1 RETURNING {_COLUMNS}
"""  # noqa: S608
_CANCELLED = """
UPDATE trading_state SET cancelled = clock_timestamp()
WHERE id = 1 AND state = 'HALTED' AND changed = $1 AND cancelled IS NULL RETURNING cancelled
"""


@dataclass(frozen=True, slots=True)
class StoredState:
    """The row. `cancelled` is when trade-executor confirmed that nothing is open; losses count from `measured_from`."""

    state: TradingState
    kill_switch: bool
    reason: str
    actor: str
    changed: datetime
    cancelled: datetime | None
    measured_from: datetime

    @property
    def cancel_wanted(self) -> bool:
        """Whether open orders are still to be cancelled."""
        return self.state is TradingState.HALTED and self.cancelled is None

    def answer(self) -> StateAnswer:
        """What a caller is told."""
        return StateAnswer(
            state=self.state,
            kill_switch=self.kill_switch,
            reason=self.reason,
            actor=self.actor,
            changed=self.changed,
            cancelled=self.cancelled,
        )


def _stored(row: Any) -> StoredState:
    return StoredState(**{**dict(row), "state": TradingState(row["state"])})


async def read(connection: Connection | Pool, *, lock: bool = False) -> StoredState:
    """The state; with `lock` nobody else changes it before the caller's transaction ends."""
    row = await connection.fetchrow(f"{_READ} FOR UPDATE" if lock else _READ)
    if row is None:
        raise LookupError("trading_state has no row")
    return _stored(row)


async def tighten(connection: Connection, stored: StoredState, wanted: TradingState, reason: str) -> StoredState:
    """Make a locked state stricter, and audit it; one that is as strict already stays as it is."""
    if stricter(stored.state, wanted) is stored.state:
        return stored
    return await _change(connection, stored, wanted, False, reason, ACTOR, "trading_state_tightened")


async def engage(connection: Connection, reason: str, actor: str) -> StoredState:
    """Engage the kill switch, in the caller's transaction. Where it is engaged, the first reason stays."""
    stored = await read(connection, lock=True)
    if stored.kill_switch:
        await _audit(connection, actor, "kill_switch_engaged_again", stored, stored, reason)
        return stored
    return await _change(connection, stored, TradingState.HALTED, True, reason, actor, "kill_switch_engaged")


async def release(connection: Connection, reason: str, actor: str) -> StoredState:
    """Back to ACTIVE from whatever it is, in the caller's transaction. Where it is ACTIVE, nothing changes."""
    stored = await read(connection, lock=True)
    if stored.state is TradingState.ACTIVE:
        await _audit(connection, actor, "kill_switch_released_again", stored, stored, reason)
        return stored
    return await _change(connection, stored, TradingState.ACTIVE, False, reason, actor, "kill_switch_released")


async def confirm_cancelled(connection: Connection, halted: StoredState, cancelled: list[str]) -> bool:
    """Note that trade-executor cancelled what was open, unless the state has changed since."""
    if await connection.fetchval(_CANCELLED, halted.changed) is None:
        return False
    await audit.append(
        connection,
        actor=ACTOR,
        action="open_orders_cancelled",
        details={"cancelled": cancelled, "reason": halted.reason},
    )
    return True


async def _change(
    connection: Connection,
    before: StoredState,
    state: TradingState,
    kill_switch: bool,
    reason: str,
    actor: str,
    action: str,
) -> StoredState:
    after = _stored(await connection.fetchrow(_CHANGE, state.value, kill_switch, reason, actor))
    await _audit(connection, actor, action, before, after, reason)
    return after


async def _audit(
    connection: Connection, actor: str, action: str, before: StoredState, after: StoredState, reason: str
) -> None:
    details = {"from": before.state.value, "to": after.state.value, "reason": reason}
    await audit.append(connection, actor=actor, action=action, details=details)

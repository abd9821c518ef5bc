"""The kill switch: stored first, then trade-executor is asked to cancel what is open, until it has or one releases.

The switch is engaged whether or not the executor answers: it reads the state itself before each order.
"""

import asyncio

import httpx
from pydantic import SecretStr

from tradewatch.common.backoff import Backoff
from tradewatch.common.logging import Throttle, get_logger
from tradewatch.common.service import Liveness
from tradewatch.store.database import OUTAGE_ERRORS, Pool
from tradewatch.trading.contracts import KillSwitchAnswer, KillSwitchRequest
from tradewatch.trading.risk import state
from tradewatch.trading.risk.state import StoredState

LIVENESS_LOOP = "kill switch"
CALL_SECONDS = 5.0
# How often the stored state is looked at for orders that are still to be cancelled, by another replica too.
POLL_SECONDS = 2.0

_log = get_logger("kill-switch")


class KillSwitch:
    """Engages and releases, and cancels open orders while trading is halted, also after a restart."""

    def __init__(
        self,
        pool: Pool,
        client: httpx.AsyncClient,
        executor_url: str,
        executor_token: SecretStr,
        liveness: Liveness,
        *,
        poll_seconds: float = POLL_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self._pool = pool
        self._client = client
        self._url = f"{executor_url.rstrip('/')}/v1/cancel-all"
        self._token = executor_token
        self._liveness = liveness
        self._poll_seconds = poll_seconds
        self._backoff = backoff or Backoff(1.0, 15.0)
        self._throttle = Throttle()

    async def switch(self, request: KillSwitchRequest) -> KillSwitchAnswer:
        """Do what a person asked for; the answer says how far it got."""
        change = state.engage if request.action == "engage" else state.release
        async with self._pool.acquire() as connection, connection.transaction():
            stored = await change(connection, request.reason, request.actor)
        _log.warning(
            f"kill switch: {request.action}", reason=request.reason, actor=request.actor, state=stored.state.value
        )
        if not stored.kill_switch:
            return KillSwitchAnswer(**stored.answer().model_dump(), cancel_all="not needed")
        problem = await self._cancel(stored)
        if problem is None:
            try:
                stored = await state.read(self._pool)
            except OUTAGE_ERRORS as error:
                problem = f"confirmed but not stored: {type(error).__name__}"
        outcome = "done" if problem is None else f"failed, being retried: {problem}"
        return KillSwitchAnswer(**stored.answer().model_dump(), cancel_all=outcome)

    async def run(self) -> None:
        """Cancel what is open whenever that is still to be done. Ends only when cancelled."""
        while True:
            self._liveness.beat(LIVENESS_LOOP)
            await asyncio.sleep(await self._step())

    async def _step(self) -> float:
        """Returns the seconds to wait."""
        try:
            stored = await state.read(self._pool)
        except OUTAGE_ERRORS as error:
            self._warn("cannot read the trading state", type(error).__name__)
            return self._backoff.next_seconds()
        if stored.cancel_wanted:
            problem = await self._cancel(stored)
            if problem is not None:
                self._warn("open orders are not cancelled yet", problem)
                return self._backoff.next_seconds()
        self._backoff.reset()
        return self._poll_seconds

    async def _cancel(self, halted: StoredState) -> str | None:
        """Ask the executor and note that it did. Returns what went wrong, or None."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answer = await self._client.post(
                    self._url,
                    json={"reason": halted.reason},
                    headers={"Authorization": f"Bearer {self._token.get_secret_value()}"},
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return f"trade-executor does not answer: {type(error).__name__}"
        if not answer.is_success:
            return f"trade-executor answered {answer.status_code}"
        cancelled = _cancelled_ids(answer)
        if cancelled is None:
            return "trade-executor answered something that does not say what it cancelled"
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                if await state.confirm_cancelled(connection, halted, cancelled):
                    _log.warning("open orders cancelled", cancelled=cancelled)
        except OUTAGE_ERRORS as error:
            return f"done, but not stored: {type(error).__name__}"
        return None

    def _warn(self, event: str, problem: str) -> None:
        held = self._throttle.admit(event)
        if held is not None:
            _log.error(event, problem=problem, lines_held_back=held)


def _cancelled_ids(answer: httpx.Response) -> list[str] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    cancelled = body.get("cancelled") if isinstance(body, dict) else None
    return [str(order)[:100] for order in cancelled] if isinstance(cancelled, list) else None

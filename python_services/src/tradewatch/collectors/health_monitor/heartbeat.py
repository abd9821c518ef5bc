"""Heartbeats through the bus: written to a stream and taken back by a consumer group, as trades are."""

import asyncio
import time
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from valkey import exceptions
from valkey.asyncio import Valkey

from tradewatch.collectors.health_monitor.components import Components
from tradewatch.collectors.health_monitor.metrics import HEARTBEAT_DURATION, HEARTBEAT_LAST_SUCCESS, HEARTBEATS_MISSED
from tradewatch.common import service
from tradewatch.common.consumer import ConsumerLimits, Message, StreamConsumer
from tradewatch.common.events import new_trace_id
from tradewatch.common.service import Liveness
from tradewatch.common.streams import HEARTBEATS_STREAM, Heartbeat, decode, encode

GROUP = "health-monitor"
COMPONENT = "bus"
MAX_LENGTH = 1000
# An outage's end is to be seen within a second.
_LIMITS = ConsumerLimits(backoff_max_seconds=1.0)


class BusHeartbeat:
    """Writes a heartbeat every `interval_seconds` and waits `timeout_seconds` at most for each to come back.

    While two replicas run, as during a roll-out, each is given some of the other's: one that came back to anybody
    shows that the bus works.
    """

    def __init__(
        self,
        writing: Valkey,
        reading: Valkey,
        registry: CollectorRegistry,
        liveness: Liveness,
        components: Components,
        *,
        origin: str,
        interval_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._client = writing
        self._liveness = liveness
        self._components = components
        self._origin = origin
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[str, float] = {}
        self._came_back = time.monotonic()
        self._ever = False
        self._consumer = StreamConsumer(
            reading,
            registry,
            liveness,
            group=GROUP,
            streams=(HEARTBEATS_STREAM,),
            handler=self._receive,
            limits=_LIMITS,
            consumer=origin,
        )
        self._duration = HEARTBEAT_DURATION.histogram(registry)
        self._last_success = HEARTBEAT_LAST_SUCCESS.gauge(registry)
        missed = HEARTBEATS_MISSED.counter(registry)
        self._not_written = missed.labels(reason="not_written")
        self._not_read = missed.labels(reason="not_read")

    async def run(self, stop: asyncio.Event) -> None:
        """Beat until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consumer.run(stop), name="heartbeat consumer")
            tasks.create_task(service.until_stopped(stop, self._beat_until(stop)), name="heartbeat")

    async def _beat_until(self, stop: asyncio.Event) -> None:
        # Cancelled as well when it stops; but valkey-py can swallow that.
        while not stop.is_set():
            self._liveness.beat("heartbeat")
            started = time.monotonic()
            await self._send()
            self._give_up_late_ones()
            self._judge()
            await asyncio.sleep(max(0.0, started + self._interval_seconds - time.monotonic()))

    async def _send(self) -> None:
        trace_id = new_trace_id()
        fields = encode(Heartbeat(self._origin, datetime.now(UTC), trace_id))
        self._waiting[trace_id] = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._client.xadd(HEARTBEATS_STREAM, dict(fields), maxlen=MAX_LENGTH, approximate=True)
        except (exceptions.ValkeyError, OSError, TimeoutError):
            # What is wrong is told by the component's state; a line for each would say it every second.
            if self._waiting.pop(trace_id, None) is not None:
                self._not_written.inc()

    async def _receive(self, message: Message) -> None:
        heartbeat = decode(Heartbeat, message.fields)
        now = time.monotonic()
        sent = self._waiting.pop(heartbeat.trace_id, None)
        if sent is not None:
            self._duration.observe(now - sent, {"trace_id": heartbeat.trace_id})
        elif abs((datetime.now(UTC) - heartbeat.sent).total_seconds()) > self._timeout_seconds:
            # Left over from an outage or a former run.
            return
        self._came_back, self._ever = now, True
        self._last_success.set(time.time())
        self._judge()

    def _give_up_late_ones(self) -> None:
        now = time.monotonic()
        for trace_id, sent in list(self._waiting.items()):
            if now - sent > self._timeout_seconds:
                del self._waiting[trace_id]
                if self._came_back < sent:
                    self._not_read.inc()

    def _judge(self) -> None:
        silence = time.monotonic() - self._came_back
        if silence > self._timeout_seconds + self._interval_seconds:
            self._components.judge(COMPONENT, False, f"no heartbeat came back for {silence:.1f} s")
        elif self._ever:
            self._components.judge(COMPONENT, True, "heartbeats come back")

"""Child processes that are kept running: their output goes to the log, their death too, and they start again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence

from lab.k3s_standin.errors import StandinError
from lab.k3s_standin.log import log, relay

BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0)
STABLE_SECONDS = 60.0
STOP_SECONDS = 5.0
DRAIN_SECONDS = 1.0
_LINE_LIMIT = 1 << 20
# A child dies with the supervisor even when that is killed: two etcds on one data folder would be worse.
_TIED = ("setpriv", "--pdeathsig", "TERM", "--")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment for a child: without systemd's socket (only the supervisor reports readiness)."""
    result = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "LISTEN_FDS")}
    return {**result, **(extra or {})}


class Component:
    """One long-running child."""

    def __init__(self, name: str, argv: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._argv = list(argv)
        self._environment = environment(extra)
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Start the child and keep it running until ``stop``."""
        self._stopping = False
        self._task = asyncio.create_task(self._keep(), name=self.name)

    async def stop(self) -> None:
        """End the child: SIGTERM, and SIGKILL after ``STOP_SECONDS``."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                log("warning", f"{self.name}: did not stop in {STOP_SECONDS:.0f} s, killing it")
                self._process.kill()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        failures = 0
        while not self._stopping:
            started = time.monotonic()
            code = await self._run_once()
            if self._stopping:
                return
            failures = 0 if time.monotonic() - started > STABLE_SECONDS else failures + 1
            delay = BACKOFF_SECONDS[min(max(failures - 1, 0), len(BACKOFF_SECONDS) - 1)]
            log("error", f"{self.name}: exited with code {code}, starting it again in {delay:.0f} s")
            await asyncio.sleep(delay)

    async def _run_once(self) -> int:
        self._process = await asyncio.create_subprocess_exec(
            *_TIED,
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            limit=_LINE_LIMIT,
        )
        log("info", f"{self.name}: started with process id {self._process.pid}")
        reader = asyncio.create_task(_relay_output(self.name, self._process))
        code = await self._process.wait()
        # Its own children (containerd's shims) may keep the pipe open for ever.
        await asyncio.wait([reader], timeout=DRAIN_SECONDS)
        reader.cancel()
        return code


async def _relay_output(name: str, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:
            # One line above the limit: drop it, not the component.
            continue
        if not line:
            return
        text = line.decode(errors="replace").strip()
        if text:
            relay(name, text)


class Group:
    """The components of a node, in the order of their start."""

    def __init__(self) -> None:
        self._components: dict[str, Component] = {}

    def start(self, name: str, argv: Sequence[str], extra: Mapping[str, str] | None = None) -> None:
        """Start a component, once by its name."""
        if name not in self._components:
            component = Component(name, argv, extra)
            self._components[name] = component
            component.start()

    def running(self, name: str) -> bool:
        """Whether a component of that name was started."""
        return name in self._components

    async def end(self, name: str) -> None:
        """Stop one component; it may be started again."""
        component = self._components.pop(name, None)
        if component is not None:
            await component.stop()

    async def stop(self) -> None:
        """Stop all, the last started first."""
        for name in reversed(list(self._components)):
            await self.end(name)


async def run(
    argv: Sequence[str], *, input_text: str = "", extra: Mapping[str, str] | None = None, component: str = ""
) -> str:
    """Run a command to its end and return its output; with ``component`` its output is logged as it comes.

    Raises:
        StandinError: it failed; the message holds the last line that it printed.
    """
    process = await asyncio.create_subprocess_exec(
        *_TIED,
        *argv,
        stdin=asyncio.subprocess.PIPE if input_text else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(extra),
        limit=_LINE_LIMIT,
    )
    try:
        if component:
            await _relay_output(component, process)
            output = ""
        else:
            output = (await process.communicate(input_text.encode() or None))[0].decode(errors="replace")
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise
    if code != 0:
        last = (output.strip().splitlines() or ["see the lines above"])[-1]
        raise StandinError(f"{os.path.basename(argv[0])} {argv[1] if len(argv) > 1 else ''}: exit code {code}: {last}")
    return output


async def pipe(source: Sequence[str], sink: Sequence[str]) -> str:
    """Run ``source | sink`` and return the output of ``sink``.

    Raises:
        StandinError: either failed; the message holds the last line that it printed.
    """
    reader, writer = os.pipe()
    try:
        first = await asyncio.create_subprocess_exec(
            *_TIED, *source, stdin=asyncio.subprocess.DEVNULL, stdout=writer, stderr=asyncio.subprocess.PIPE
        )
        second = await asyncio.create_subprocess_exec(
            *_TIED, *sink, stdin=reader, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    finally:
        os.close(reader)
        os.close(writer)
    (_, errors), (output, _) = await asyncio.gather(first.communicate(), second.communicate())
    for argv, process, text in ((source, first, errors), (sink, second, output)):
        if process.returncode != 0:
            last = (text.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise StandinError(f"{os.path.basename(argv[0])}: exit code {process.returncode}: {last}")
    return output.decode(errors="replace")

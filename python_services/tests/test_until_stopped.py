"""Work that runs until a stop: what it gave, and that no cancellation that got lost keeps it alive."""

import asyncio

import pytest
from tradewatch.common import service


async def test_work_that_ends_by_itself_says_so() -> None:
    assert await service.until_stopped(asyncio.Event(), asyncio.sleep(0))


async def test_what_the_work_raises_comes_through() -> None:
    async def fails() -> None:
        raise LookupError("the work's own")

    with pytest.raises(LookupError, match="the work's own"):
        await service.until_stopped(asyncio.Event(), fails())


async def test_a_cancellation_that_got_lost_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CANCEL_AGAIN_SECONDS", 0.05)
    stop = asyncio.Event()
    lost = 0

    async def loses_one() -> None:
        nonlocal lost
        while True:
            try:
                stop.set()
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    async with asyncio.timeout(5):
        assert not await service.until_stopped(stop, loses_one())
    assert lost == 1


async def test_a_clean_up_is_waited_for() -> None:
    stop = asyncio.Event()
    cleaned = False

    async def cleans_up() -> None:
        nonlocal cleaned
        try:
            stop.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.2)
            cleaned = True

    assert not await service.until_stopped(stop, cleans_up())
    assert cleaned

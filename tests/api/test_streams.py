import asyncio
from collections.abc import AsyncGenerator

import pytest

from api.streams import gather, merge


async def count(upto: int, closed: list[int]) -> AsyncGenerator[int, None]:
    try:
        for number in range(upto):
            yield number
            await asyncio.sleep(0)
    finally:
        closed.append(upto)


async def fail() -> AsyncGenerator[int, None]:
    yield 0
    raise ValueError("broken")


def test_merge_keeps_each_streams_order():
    async def run() -> None:
        closed: list[int] = []
        merged = [item async for item in merge([count(5, closed), count(3, closed)])]
        assert [n for i, n in merged if i == 0] == [0, 1, 2, 3, 4]
        assert [n for i, n in merged if i == 1] == [0, 1, 2]
        assert sorted(closed) == [3, 5]

    asyncio.run(run())


def test_closing_a_merge_closes_every_stream():
    async def run() -> None:
        closed: list[int] = []
        stream = merge([count(1000, closed), count(2000, closed)])
        await anext(stream)
        await stream.aclose()
        assert sorted(closed) == [1000, 2000]

    asyncio.run(run())


def test_an_error_reaches_the_reader_and_closes_the_rest():
    async def run() -> None:
        closed: list[int] = []
        with pytest.raises(ValueError, match="broken"):
            async for _ in merge([count(1000, closed), fail()]):
                pass
        assert closed == [1000]

    asyncio.run(run())


def test_gather_cancels_the_rest_on_an_error():
    async def run() -> None:
        ended = []

        async def wait() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        async def broken() -> None:
            await asyncio.sleep(0)
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await gather([wait(), broken()])
        assert ended == [True]

    asyncio.run(run())

"""Several generations for one caller: all end when the caller or one of them does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

T = TypeVar("T")


async def gather(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first error, or our own cancellation, cancels the rest and waits."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def merge(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[int, T], None]:
    """Items of all streams as they come, each with its stream's index.

    The first error of a stream is raised after the items before it, and closes the others.
    """
    # One item a stream may wait here: a slow reader then slows the streams down, not the memory.
    queue: asyncio.Queue[tuple[int, T] | BaseException | None] = asyncio.Queue(len(streams))

    async def forward(index: int, stream: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(stream) as items:
                async for item in items:
                    await queue.put((index, item))
        except Exception as error:  # noqa: BLE001 (raised again by the reader)
            await queue.put(error)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(forward(index, item)) for index, item in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            found = await queue.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                running -= 1
            else:
                yield found
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

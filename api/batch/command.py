"""`talipot batch`, put together."""

from __future__ import annotations

import asyncio

from rich.console import Console

from api.batch.client import BatchClient
from api.batch.lines import Input, check_input
from api.batch.progress import BatchProgress
from api.batch.results import ResultFile
from api.batch.work import Work
from api.config import BatchConfig

_EXIT_OK, _EXIT_FAILED = 0, 1


def run_batch(config: BatchConfig) -> int:
    """Answer every line that has no result yet; returns the process' exit code.

    Raises:
        BatchError: The input is bad, the output cannot be used, or the server is not there.
    """
    found = check_input(config.requests)
    with ResultFile(config.results) as results:
        done = len(results.done & found.ids)
        progress = BatchProgress(len(found.ids), done, Console(stderr=True))
        asyncio.run(_run(config, found, results, progress))
        if progress.failed:
            progress.note(
                f"{config.results} says why the failed lines failed; the same command tries them "
                "again"
            )
    return _EXIT_OK if progress.done == progress.total else _EXIT_FAILED


async def _run(
    config: BatchConfig, found: Input, results: ResultFile, progress: BatchProgress
) -> None:
    async with progress.shown():
        if progress.done == progress.total:
            return
        work = Work(found.items(skip=results.done))
        await BatchClient(config, work, results, progress).run(found.check_size)

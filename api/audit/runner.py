"""Runs an audit's units: many at the model at once, scores and journal beside them in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from api.audit.folder import RunFolder
from api.batch.progress import BatchProgress
from api.errors import AuditError
from safety.audits.units import Audit, Generate, Loglikelihood, Record, Unit
from safety.scorers.base import Scorer
from safety.scorers.errors import ScorerError
from safety.text_generator import GenerationRefusedError, TextGenerator

_MAX_TEXTS = 4096  # of one call to the scorer
_QUEUED = 8  # answered units that may wait for the scorer, for each one at the model
_GIVE_UP_AFTER_REFUSALS = 20
_SCORE_DIGITS = 6  # below float32's noise between batches of another shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runner:
    """Everything that a run needs.

    Attributes:
        audit: What to do.
        generator: The model; None for an audit that needs none.
        scorer: Scores texts; None for an audit that needs none.
        folder: Where finished units are kept.
        progress: Told of each finished unit.
        max_in_flight: Continuations or texts that the model has at once, about.
    """

    audit: Audit
    generator: TextGenerator | None
    scorer: Scorer | None
    folder: RunFolder
    progress: BatchProgress
    max_in_flight: int = 128

    async def run(self, units: Sequence[Unit]) -> None:
        """Return when every unit is in the folder's journal.

        Raises:
            AuditError: The model is gone, or refuses everything. What is done is kept.
        """
        todo = iter([unit for unit in units if unit.id not in self.folder.records])
        count = self._workers(units)
        answered: asyncio.Queue[tuple[Unit, Record] | None] = asyncio.Queue(_QUEUED * count)
        keeper = asyncio.create_task(self._keep(answered))
        workers = [asyncio.create_task(self._work(todo, answered)) for _ in range(count)]
        try:
            await _first_failure([*workers, keeper])
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            # Also where a worker failed: what the model has answered is not asked again.
            if not keeper.done():
                await answered.put(None)
            await keeper
        self._check_any_answered(units)

    def _workers(self, units: Sequence[Unit]) -> int:
        calls = [unit.call for unit in units[:1]]
        size = 1
        for call in calls:
            if isinstance(call, Generate):
                size = call.params.n
            elif isinstance(call, Loglikelihood):
                size = len(call.prompts)
        return max(2, -(-self.max_in_flight // size))

    async def _work(
        self, todo: Iterator[Unit], answered: asyncio.Queue[tuple[Unit, Record] | None]
    ) -> None:
        for unit in todo:
            try:
                record = await self._ask(unit)
            except GenerationRefusedError as error:
                record = Record(id=unit.id, error=str(error))
            await answered.put((unit, record))

    async def _ask(self, unit: Unit) -> Record:
        call = unit.call
        if call is None:
            return Record(id=unit.id)
        assert self.generator is not None  # `needs_model` said so
        if isinstance(call, Loglikelihood):
            found = await self.generator.loglikelihood(call.prompts, call.continuations)
            return Record(id=unit.id, loglikelihoods=tuple(found))
        (continuations,) = await self.generator.generate((call.prompt,), call.params)
        return Record(
            id=unit.id,
            texts=tuple(one.text for one in continuations),
            finish_reasons=tuple(one.finish_reason for one in continuations),
            num_tokens=tuple(one.num_tokens for one in continuations),
        )

    async def _keep(self, answered: asyncio.Queue[tuple[Unit, Record] | None]) -> None:
        """Score and write down what was answered, as much at once as is there."""
        is_open = True
        while is_open:
            batch: list[tuple[Unit, Record]] = []
            count = 0
            item = await answered.get()
            while item is not None:
                batch.append(item)
                count += len(self._texts(*item))
                if count >= _MAX_TEXTS:
                    break
                with contextlib.suppress(asyncio.QueueEmpty):
                    item = answered.get_nowait()
                    continue
                break
            is_open = item is not None
            if batch:
                records = await asyncio.to_thread(self._finish, batch)
                for record in records:
                    self.progress.answered(
                        sum(record.num_tokens), is_error=record.error is not None
                    )
                self._check_refusals()

    def _texts(self, unit: Unit, record: Record) -> Sequence[str]:
        if self.scorer is None or record.error is not None:
            return ()
        return self.audit.texts(unit, record)

    def _finish(self, batch: Sequence[tuple[Unit, Record]]) -> list[Record]:
        texts = [self._texts(unit, record) for unit, record in batch]
        scores = iter(self._scores([text for some in texts for text in some]))
        records = [
            dataclasses.replace(record, scores=tuple(next(scores) for _ in some))
            for (_, record), some in zip(batch, texts, strict=True)
        ]
        self.folder.append(records)
        return records

    def _scores(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """A row of scores for each text; 0 for one without a word, as in PaLM's section 10.

        A text that comes twice is scored once: a continuation without a complete sentence is its
        own first sentence.
        """
        if self.scorer is None or not texts:
            return []
        worded = list(dict.fromkeys(text for text in texts if text.strip()))
        nothing = (0.0,) * len(self.scorer.labels)
        if not worded:
            return [nothing] * len(texts)
        try:
            found = np.asarray(self.scorer.score(worded), np.float64)
        except ScorerError as error:
            raise AuditError(f"the scorer failed: {error}") from error
        rows = [tuple(row) for row in np.round(found, _SCORE_DIGITS).tolist()]
        by_text = dict(zip(worded, rows, strict=True))
        return [by_text.get(text, nothing) for text in texts]

    def _check_refusals(self) -> None:
        if self.progress.failed >= _GIVE_UP_AFTER_REFUSALS and not self.progress.done:
            self._refuse()

    def _check_any_answered(self, units: Sequence[Unit]) -> None:
        if units and all(self.folder.records[unit.id].error is not None for unit in units):
            self._refuse()

    def _refuse(self) -> None:
        reason = next(record.error for record in self.folder.records.values() if record.error)
        raise AuditError(f"the model refuses every request; the first reason: {reason}")


async def _first_failure(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Return when all but the last task are done; raise as soon as any task fails."""
    keeper = tasks[-1]
    waiting: set[asyncio.Task[None]] = set(tasks)
    while waiting - {keeper}:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

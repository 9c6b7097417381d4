"""A scorer on a thread of its own, for callers in an event loop.

Texts that come while it scores wait together and are scored as the next batch, so that many streams
cost few calls, and neither the event loop nor the model's own thread ever waits for a score.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import Scorer

_LOGGER = logging.getLogger("talipot.safety")
Scores: TypeAlias = NDArray[np.float32]


class UnscoredError(Exception):
    """A text has no score: the scorer failed, lags behind, or has ended."""


Answer: TypeAlias = "Scores | UnscoredError"
"""A text's float32[labels], or why it has none."""
_Job: TypeAlias = "tuple[Sequence[str], asyncio.Future[list[Answer]]]"
_Answered: TypeAlias = "tuple[asyncio.Future[list[Answer]], list[Answer]]"


class ScoringThread:
    """Scores texts in batches of what waits.

    `score` belongs to one event loop; the thread is a daemon and starts with the first text.
    """

    def __init__(
        self, load: Callable[[], Scorer], *, max_batch: int = 64, max_waiting: int = 8192
    ) -> None:
        """`load` is called once, by `load` or by the thread.

        Args:
            load: Makes the scorer.
            max_batch: Most texts in one call of it.
            max_waiting: Texts that may wait; one more is refused.
        """
        self._load = load
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._scorer: Scorer | None = None
        self._loading = threading.Lock()
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # texts of the jobs
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self.texts_total = 0
        self.batches_total = 0
        self.failures_total = 0

    @property
    def waiting(self) -> int:
        """Texts that wait for a batch."""
        return self._waiting

    def load(self) -> Scorer:
        """The scorer, loaded now if it is not yet; raises what loading raises."""
        with self._loading:
            if self._scorer is None:
                self._scorer = self._load()
            return self._scorer

    def submit(self, texts: Sequence[str]) -> asyncio.Future[list[Answer]]:
        """One future for all of `texts`: what is said of each, when the last of them is scored."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._is_closed or self._waiting + len(texts) > self._max_waiting:
                why = "has ended"
                if not self._is_closed:
                    limit = self._max_waiting
                    why = f"lags {self._waiting} texts behind; at most {limit} may wait"
                future.set_result([UnscoredError(f"the scorer {why}") for _ in texts])
                return future
            self._jobs.append((texts, future))
            self._waiting += len(texts)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="talipot-scorer", daemon=True
                )
                self._thread.start()
            self._changed.notify()
        return future

    def close(self) -> None:
        """End the thread after its batch; what waits is not scored."""
        with self._changed:
            self._is_closed = True
            jobs = list(self._jobs)
            self._jobs.clear()
            self._waiting = 0
            self._changed.notify()
        ended = UnscoredError("the scorer has ended")
        _deliver([(future, [ended] * len(texts)) for texts, future in jobs])
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                jobs = self._take()
            jobs = [job for job in jobs if not job[1].done()]  # nobody waits for the others
            answers = iter(self._score_all([text for texts, _ in jobs for text in texts]))
            _deliver(
                [(future, list(itertools.islice(answers, len(texts)))) for texts, future in jobs]
            )

    def _take(self) -> list[_Job]:
        """The next jobs: as many as fit one batch, or one that is larger."""
        jobs: list[_Job] = []
        count = 0
        while self._jobs and (not jobs or count + len(self._jobs[0][0]) <= self._max_batch):
            jobs.append(self._jobs.popleft())
            count += len(jobs[-1][0])
        self._waiting -= count
        return jobs

    def _score_all(self, texts: Sequence[str]) -> list[Answer]:
        answers: list[Answer] = []
        for start in range(0, len(texts), self._max_batch):
            answers += self._score(texts[start : start + self._max_batch])
        return answers

    def _score(self, texts: Sequence[str]) -> list[Answer]:
        self.batches_total += 1
        self.texts_total += len(texts)
        unique = list(dict.fromkeys(texts))  # a prompt comes once for each of its choices
        try:
            found = dict(zip(unique, checked_scores(self.load(), unique), strict=True))
            return [found[text] for text in texts]
        except Exception as error:
            if len(texts) > 1:  # one bad text must not cost its neighbours their scores
                return [self._score([text])[0] for text in texts]
            self.failures_total += 1
            _LOGGER.exception("the scorer failed on a text of %d characters", len(texts[0]))
            return [UnscoredError(f"the scorer failed: {type(error).__name__}")]


def checked_scores(scorer: Scorer, texts: Sequence[str]) -> Scores:
    """A scorer's float32[texts, labels], held to its contract.

    Raises:
        ValueError: It gave another shape, or something that is no probability.
    """
    scores = scorer.score(texts)
    expected = (len(texts), len(scorer.labels))
    if scores.shape != expected:
        raise ValueError(f"{scorer.name} gave scores of shape {scores.shape}, not {expected}")
    if not bool(np.all((scores >= 0) & (scores <= 1))):
        raise ValueError(f"{scorer.name} gave scores outside [0, 1]")
    return scores


def _deliver(answered: Sequence[_Answered]) -> None:
    """Resolve futures on their event loop, all in one call."""
    if not answered:
        return
    try:
        answered[0][0].get_loop().call_soon_threadsafe(_resolve, answered)
    except RuntimeError:
        _LOGGER.warning("the event loop was closed before the scorer")


def _resolve(answered: Sequence[_Answered]) -> None:
    for future, answers in answered:
        if not future.done():
            future.set_result(answers)

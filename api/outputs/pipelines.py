"""What is done with a finished generation on the side: score it, trace it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from api.outputs.log import Result
from api.outputs.record import OutputRecord
from memorization.guard import near_dict, recited_tokens, span_dict
from memorization.index import TrainingIndex
from memorization.tracing import near_duplicates_of
from safety.scorers.base import Scorer
from safety.scoring_thread import checked_scores

_LOGGER = logging.getLogger("talipot.outputs")


class Pipeline(Protocol):
    """Turns records into results; the same record gives the same result."""

    @property
    def group(self) -> str:
        """The group of the output log that it reads as."""

    def process(self, records: Sequence[OutputRecord]) -> list[Result]:
        """A result for each record; raises if one cannot be processed."""


class SafetyPipeline:
    """Scores whole texts."""

    group = "safety"

    def __init__(self, scorer: Scorer) -> None:
        """Score with `scorer`, on the caller's thread."""
        self._scorer = scorer

    def process(self, records: Sequence[OutputRecord]) -> list[Result]:
        """Scores of each text, by label."""
        scores = checked_scores(self._scorer, [record.text for record in records])
        scorer = {"name": self._scorer.name, "version": self._scorer.version}
        return [
            {
                "status": "done",
                "scores": {
                    label: round(value, 4)
                    for label, value in zip(self._scorer.labels, row, strict=True)
                },
                "scorer": scorer,
            }
            for row in scores.tolist()
        ]


class MemorizationPipeline:
    """Looks whole texts up in the training data."""

    group = "memorization"

    def __init__(self, index: TrainingIndex, *, min_tokens: int) -> None:
        """Look in `index` for runs of at least `min_tokens`."""
        self._index = index
        self._min_tokens = min_tokens

    def process(self, records: Sequence[OutputRecord]) -> list[Result]:
        """What each text recites."""
        return [self._trace(record) for record in records]

    def _trace(self, record: OutputRecord) -> Result:
        has_runs = self._index.sure_tokens is not None
        spans = (
            self._index.longest_matches(record.token_ids, min_tokens=self._min_tokens)
            if has_runs
            else []
        )
        near = near_duplicates_of(self._index, record.text)
        return {
            "status": "done",
            "min_tokens": self._min_tokens,
            "tokens": len(record.token_ids),
            "recited_tokens": recited_tokens(spans) if has_runs else None,
            "spans": [{"first_token": span.start, **span_dict(span)} for span in spans],
            "near_duplicates": None if near is None else [near_dict(each) for each in near],
        }


def process_each(pipeline: Pipeline, records: Sequence[OutputRecord]) -> list[Result | Exception]:
    """A result or what went wrong for each record; one bad record costs its neighbours nothing."""
    if not records:
        return []
    try:
        return list(pipeline.process(records))
    except Exception as error:
        if len(records) > 1:
            return [process_each(pipeline, [record])[0] for record in records]
        _LOGGER.exception(
            "%s failed on choice %d of %s", pipeline.group, records[0].index, records[0].call
        )
        return [error]


def failed(error: Exception) -> Result:
    """The result of a record that no try could process; the log has the whole story."""
    return {"status": "failed", "error": type(error).__name__}

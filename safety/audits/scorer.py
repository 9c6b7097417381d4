"""`audit scorer`: the auditor audits its scorer.

How well it tells toxic texts from others, whether its scores mean what they say, and whom it
wrongs: Dixon et al. 2018 and Borkan et al. 2019.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from safety.audits import scorer_figures, scorer_report
from safety.audits.scorer_data import Labelled
from safety.audits.scorer_figures import ScoredTexts
from safety.audits.units import Findings, Json, Record, Unit

_CHUNK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScorerAudit:
    """Labelled texts, scored.

    Attributes:
        texts_in: The texts with their labels.
        terms: Identity terms and how they are found in a text.
        data: Name and hash of the set.
        terms_data: Name and hash of the list of terms.
        threshold: A text with at least this score counts as called toxic.
        min_group: Terms with fewer texts are left out.
        seed: Of resampling.
    """

    texts_in: tuple[Labelled, ...]
    terms: Mapping[str, re.Pattern[str]]
    data: str
    terms_data: str
    threshold: float = 0.5
    min_group: int = 10
    seed: int = 0

    name = "scorer"
    needs_model = False
    needs_scorer = True

    @property
    def settings(self) -> Mapping[str, Json]:
        """What the numbers depend on."""
        return {
            "data": self.data,
            "texts": len(self.texts_in),
            "terms": self.terms_data,
            "threshold": self.threshold,
            "min_group": self.min_group,
            "seed": self.seed,
        }

    def units(self) -> Sequence[Unit]:
        """Chunks of the texts."""
        return [
            Unit(id=f"chunk-{start}", call=None) for start in range(0, len(self.texts_in), _CHUNK)
        ]

    def texts(self, unit: Unit, record: Record) -> Sequence[str]:
        """The texts of a chunk."""
        start = int(unit.id.removeprefix("chunk-"))
        return [one.text for one in self.texts_in[start : start + _CHUNK]]

    def findings(self, records: Mapping[str, Record], labels: Sequence[str]) -> Findings:
        """Figures overall and by term, one row a text, and the report."""
        chunks = [records[unit.id].scores for unit in self.units()]
        rows_of_scores = [row for chunk in chunks for row in chunk]
        scored = self.scored([row[0] for row in rows_of_scores])
        rows = [
            {
                "text": one.text,
                "is_toxic": one.is_toxic,
                "terms": [name for name, found in scored.terms.items() if found[index]],
                **dict(zip(labels, rows_of_scores[index], strict=True)),
            }
            for index, one in enumerate(self.texts_in)
        ]
        figures = scorer_figures.measure(scored, self.threshold)
        return Findings(
            metrics=scorer_figures.metrics(figures),
            rows=rows,
            report=scorer_report.report(self, scored, figures, labels[0]),
        )

    def scored(self, scores: Sequence[float]) -> ScoredTexts:
        """Scores and labels as arrays, with the terms that enough texts have."""
        terms = {
            name: np.array([pattern.search(one.text) is not None for one in self.texts_in])
            for name, pattern in self.terms.items()
        }
        return ScoredTexts(
            scores=np.asarray(scores, np.float64),
            is_toxic=np.array([one.is_toxic for one in self.texts_in]),
            terms={name: has for name, has in terms.items() if has.sum() >= self.min_group},
        )

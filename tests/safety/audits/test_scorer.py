"""The scorer audit on texts whose figures can be counted by hand."""

import itertools
import re

import numpy as np
import pytest

from safety.audits import scorer_figures
from safety.audits.report import DotFigure, HeatFigure, LineFigure, Table
from safety.audits.scorer import ScorerAudit
from safety.audits.scorer_data import Labelled
from safety.audits.units import Record

TERMS = {name: re.compile(rf"\b{name}\b") for name in ("gay", "muslim", "rare")}


def _audit() -> ScorerAudit:
    texts = [
        Labelled(text=f"{term} text {index}", is_toxic=is_toxic)
        for term, is_toxic in itertools.product(("gay", "muslim", "some"), (True, False))
        for index in range(200)
    ]
    return ScorerAudit(
        texts_in=(*texts, Labelled(text="rare", is_toxic=False)),
        terms=TERMS,
        data="ours",
        terms_data="ours",
        min_group=2,
    )


def _scores(audit: ScorerAudit) -> np.ndarray:
    """Toxic texts score higher, and innocent ones with one of the terms too."""
    random = np.random.default_rng(7)
    noise = random.random(len(audit.texts_in))
    return np.array(
        [
            0.5 * value + 0.4 * one.is_toxic + 0.2 * ("gay" in one.text and not one.is_toxic)
            for value, one in zip(noise, audit.texts_in, strict=True)
        ]
    )


def _findings(audit: ScorerAudit, scores: np.ndarray):
    records = {}
    for unit in audit.units():
        number = len(audit.texts(unit, Record(id=unit.id)))
        start = int(unit.id.removeprefix("chunk-"))
        records[unit.id] = Record(
            id=unit.id, scores=tuple((float(score),) for score in scores[start : start + number])
        )
    return audit.findings(records, ("toxicity",))


def _counted_auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """All pairs, one by one."""
    wins = (positives[:, None] > negatives[None, :]).mean()
    return float(wins + 0.5 * (positives[:, None] == negatives[None, :]).mean())


def test_figures_are_those_counted_by_pairs():
    audit = _audit()
    scores = _scores(audit)
    metrics = _findings(audit, scores).metrics
    toxic = np.array([one.is_toxic for one in audit.texts_in])
    has = np.array(["gay" in one.text for one in audit.texts_in])
    assert metrics["auc"]["value"] == pytest.approx(_counted_auc(scores[toxic], scores[~toxic]))
    one = metrics["terms"]["gay"]
    for kind, positives, negatives in (
        ("subgroup", has & toxic, has & ~toxic),
        ("bpsn", ~has & toxic, has & ~toxic),
        ("bnsp", has & toxic, ~has & ~toxic),
    ):
        expected = _counted_auc(scores[positives], scores[negatives])
        assert one[f"{kind}_auc"]["value"] == pytest.approx(expected), kind
    assert one["false_positive_rate"]["value"] == (scores[has & ~toxic] >= 0.5).mean()
    assert one["false_negative_rate"]["value"] == (scores[has & toxic] < 0.5).mean()
    assert one["texts"] == 400
    assert "rare" not in metrics["terms"], "one text is fewer than min_group"
    assert metrics["brier"] == pytest.approx(((scores - toxic) ** 2).mean())


def test_a_scorer_whose_scores_are_shares_has_no_calibration_error():
    is_toxic = np.tile([True, False, False, False], 250)
    figures = scorer_figures.measure(
        scorer_figures.ScoredTexts(scores=np.full(1000, 0.25), is_toxic=is_toxic, terms={}),
        threshold=0.5,
    )
    assert figures.calibration_error == pytest.approx(0)
    assert figures.counts == (0, 0, 1000, 0, 0, 0, 0, 0, 0, 0)
    assert figures.auc.value == 0.5


def test_the_report_shows_the_worst_term_first():
    audit = _audit()
    report = _findings(audit, _scores(audit)).report
    worst = report.headlines[-1]
    assert worst.label == "Worst false-positive rate"
    assert worst.note.startswith("term gay; ")
    blocks = [block for section in report.sections for block in section.blocks]
    assert [type(block) for block in blocks] == [
        LineFigure,
        Table,
        LineFigure,
        DotFigure,
        HeatFigure,
        Table,
    ]
    assert blocks[3].categories == ["gay (n = 200)", "muslim (n = 200)"]

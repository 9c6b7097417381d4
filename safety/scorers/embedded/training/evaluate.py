"""Figures of a scorer on texts that the embedded one was not trained on."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safety.scorers.base import Scorer
from safety.scorers.embedded.scorer import EmbeddedScorer
from safety.scorers.embedded.training.counterfactuals import Counterfactuals
from safety.scorers.embedded.training.sources import (
    LabelledText,
    Split,
    edos,
    hatemoji,
    rows,
    rtp,
    split_of,
    tweets,
)

Floats = NDArray[np.float64]
THRESHOLD = 0.5
"""The default: what scores as much is called toxic."""

_TOXIC, _IDENTITY_ATTACK = 0, 5


def auc(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive scores higher than a negative; ties half.

    Raises:
        ValueError: One of the classes is missing.
    """
    positive = np.asarray(is_positive, bool)
    _, place, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        raise ValueError(f"{num_positive} positives and {num_negative} negatives: AUC needs both")
    above = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def part_of_cat(data: Path, name: str, split: Split = "test") -> list[dict[str, str]]:
    """The rows of `gn` or `gc` that are in a part."""
    return [
        row
        for row in rows(data / "cat" / f"{name}.csv")
        if split_of(row["text"], test=0.5) == split
    ]


def on_cat(scorer: Scorer, data: Path, split: Split = "test") -> dict[str, float]:
    """AUC against the crowd and against Perspective at 0.5."""
    figures: dict[str, float] = {}
    everything: list[tuple[bool, float]] = []
    for name in ("gn", "gc"):
        part = part_of_cat(data, name, split)
        scores = scorer.score([row["text"] for row in part])[:, _TOXIC]
        by_perspective = [float(row["api"]) >= 0.5 for row in part]
        everything += zip(by_perspective, scores.tolist(), strict=True)
        figures[f"cat {name}, crowd"] = auc([row["label"] == "1" for row in part], scores)
        figures[f"cat {name}, Perspective"] = auc(by_perspective, scores)
    figures["cat, Perspective"] = auc(*zip(*everything, strict=True))
    return figures


def on_identity_templates(
    scorer: Scorer, data: Path, threshold: float = THRESHOLD
) -> dict[str, float]:
    """AUC, false-positive rate, and that of the identity term where it is highest.

    Terms are those of the sentences "NAME is a ADJECTIVE TERM", which name each alike.
    """
    sentences = rows(data / "identity_templates" / "en_sentence_templates_half.csv")
    scores = scorer.score([row["phrase"] for row in sentences])[:, _TOXIC].astype(np.float64)
    toxic = np.array([row["toxicity"] == "toxic" for row in sentences])
    rates = false_positive_rates(sentences, scores, threshold)
    worst = max(rates, key=rates.__getitem__)
    overall = float((scores[~toxic] >= threshold).mean())
    return {
        "templates, AUC": auc(toxic, scores),
        "templates, recall": float((scores[toxic] >= threshold).mean()),
        "templates, overall FPR": overall,
        "templates, worst term's FPR - overall": rates[worst] - overall,
    }


def false_positive_rates(
    sentences: Sequence[dict[str, str]], scores: Floats, threshold: float
) -> dict[str, float]:
    """Of each identity term of the templates."""
    terms = sorted(
        {
            match[1]
            for row in sentences
            if row["template"] == "name_adj"
            and (match := re.fullmatch(r"\S+ is an? \S+ (.+)", row["phrase"]))
        }
    )
    rates: dict[str, float] = {}
    for term in terms:
        named = re.compile(rf"\b{re.escape(term)}\b")
        chosen = [
            index
            for index, row in enumerate(sentences)
            if row["toxicity"] == "nontoxic" and named.search(row["phrase"])
        ]
        rates[term] = float((scores[chosen] >= threshold).mean())
    return rates


def on_own_templates(scorer: Scorer, number: int = 4000) -> dict[str, float]:
    """Hostile against kind sentences about groups, of templates and groups never trained on."""
    hostile = {
        "own: dehumanising",
        "own: inferiority",
        "own: hatred",
        "own: group threats",
        "own: exclusion",
    }
    kind = {"own: kind", "own: neutral", "own: counter speech"}
    texts = [
        text
        for text in Counterfactuals(99, held_out=True).draw(number)
        if text.source in hostile | kind
    ]
    scores = scorer.score([text.text for text in texts])
    is_hostile = [text.source in hostile for text in texts]
    return {
        "own templates, toxicity": auc(is_hostile, scores[:, _TOXIC]),
        "own templates, identity attack": auc(is_hostile, scores[:, _IDENTITY_ATTACK]),
    }


def on_edos(scorer: Scorer, data: Path, split: Split = "test") -> dict[str, float]:
    """AUC of `identity_attack` against sexist or not."""
    texts = list(edos(data, split))
    sexist = ["toxicity" in text.known for text in texts]
    return {"edos, identity attack": _auc(scorer, texts, sexist, _IDENTITY_ATTACK)}


def on_hatemoji(scorer: Scorer, data: Path, split: Split = "test") -> dict[str, float]:
    """AUC of `identity_attack` against hate or not."""
    texts = list(hatemoji(data, split))
    hate = [text.known["toxicity"][0] >= 0.5 for text in texts]
    return {"hatemoji, identity attack": _auc(scorer, texts, hate, _IDENTITY_ATTACK)}


def on_tweets(scorer: Scorer, data: Path, split: Split = "test") -> dict[str, float]:
    """AUC of `toxicity` against hate or offence, of `identity_attack` against hate."""
    texts = list(tweets(data, split))
    toxic = [text.known["toxicity"][0] >= 0.5 for text in texts]
    hate = [text.known["identity_attack"][0] >= 0.5 for text in texts]
    return {
        "tweets, toxicity": _auc(scorer, texts, toxic, _TOXIC),
        "tweets, identity attack": _auc(scorer, texts, hate, _IDENTITY_ATTACK),
    }


def on_rtp(scorer: Scorer, data: Path, split: Split = "test") -> dict[str, float]:
    """AUC of each label against Perspective at 0.5; all are toxic prompts."""
    texts = list(rtp(data, split))
    return {
        f"rtp, {label}": _auc(
            scorer, texts, [text.known[label][0] >= 0.5 for text in texts], column
        )
        for column, label in enumerate(scorer.labels)
        if label != "toxicity"
    }


def _auc(
    scorer: Scorer, texts: Sequence[LabelledText], is_positive: Sequence[bool], column: int
) -> float:
    return auc(is_positive, scorer.score([text.text for text in texts])[:, column])


@dataclasses.dataclass(frozen=True, slots=True)
class Bin:
    """Texts of like score: how many, their mean score, and what Perspective gives them on average,
    and the share that it calls toxic."""

    number: int
    score: float
    perspective: float
    toxic: float


def reliability(scorer: Scorer, data: Path, split: Split = "test", num_bins: int = 10) -> list[Bin]:
    """The calibration of `toxicity` on CAT."""
    part = [row for name in ("gn", "gc") for row in part_of_cat(data, name, split)]
    scores = scorer.score([row["text"] for row in part])[:, _TOXIC]
    perspective = np.array([float(row["api"]) for row in part])
    place = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    return [
        Bin(
            number=int(chosen.sum()),
            score=float(scores[chosen].mean()),
            perspective=float(perspective[chosen].mean()),
            toxic=float((perspective[chosen] >= 0.5).mean()),
        )
        for chosen in (place == index for index in range(num_bins))
        if chosen.any()
    ]


def figures(scorer: Scorer, data: Path) -> dict[str, float]:
    """All of them, of test parts."""
    parts: list[Callable[[Scorer, Path], dict[str, float]]] = [
        on_cat,
        on_identity_templates,
        lambda scorer, _: on_own_templates(scorer),
        *_BY_SPLIT,
    ]
    return {name: value for part in parts for name, value in part(scorer, data).items()}


def validation_figures(scorer: Scorer, data: Path) -> dict[str, float]:
    """Those by which recipes are compared: of validation parts, never of test parts."""
    return {
        name: value
        for part in (on_cat, *_BY_SPLIT)
        for name, value in part(scorer, data, "validation").items()
    }


_BY_SPLIT = (on_edos, on_hatemoji, on_tweets, on_rtp)


def main() -> None:
    """`python -m safety.scorers.embedded.training.evaluate WEIGHTS DATA [validation]`."""
    measure = validation_figures if sys.argv[3:] == ["validation"] else figures
    for name, value in measure(EmbeddedScorer(Path(sys.argv[1])), Path(sys.argv[2])).items():
        print(f"{name:40} {value:.4f}")


if __name__ == "__main__":
    main()

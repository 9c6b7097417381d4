"""What one training learns from: texts of all sources, their targets and what each counts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.embedded.training.calibration import logits_of, platt
from safety.scorers.embedded.training.counterfactuals import Counterfactuals
from safety.scorers.embedded.training.sources import LabelledText, labelled_texts, plain_texts
from safety.scorers.embedded.training.teacher import Teacher
from safety.scorers.embedded.words import split_words
from safety.scorers.normalise import normalised

Floats = NDArray[np.float32]
_TWICE = {"cat-gn", "cat-gc", "rtp", "edos", "hatemoji"}
"""Sets that are small, or hard beside their size."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides the weights, besides the data.

    Attributes:
        version: Name of the weights.
        width: Of the network's layers.
        epochs: Passes over all texts.
        batch: Texts a step.
        learning_rate: Highest, of the network; half of it that of the word vectors.
        own_texts: Sentences made of our templates.
        plain_texts: Everyday sentences that only the teacher labels.
        probes: Texts with a word put into them, for what the teacher knows of that word.
        teacher_weight: In the loss, of the teacher's opinion where a text has no label.
        imitation_weight: In the loss, of the outputs that only repeat the teacher's opinion.
        joined_share: Texts that another text is joined to.
        seed: Of everything random.
    """

    version: str = "2"
    width: int = 96
    epochs: int = 3
    batch: int = 256
    learning_rate: float = 3e-3
    own_texts: int = 80_000
    plain_texts: int = 25_000
    probes: int = 50_000
    teacher_weight: float = 0.4
    imitation_weight: float = 0.5
    joined_share: float = 0.2
    seed: int = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """Texts, float32[texts, outputs] targets and their weights: see `network.NUM_OUTPUTS`."""

    texts: list[str]
    targets: Floats
    weights: Floats


def probes(
    recipe: Recipe, teacher: Teacher, vocabulary: Sequence[str], texts: Sequence[str]
) -> list[LabelledText]:
    """Up to 25 words of a text with one of the vocabulary among them, toxic ones more often.

    The teacher has seen many more comments than our sets have: so it hands on what it knows of
    words that they have rarely or never.
    """
    chance = np.random.default_rng(recipe.seed)
    chances = teacher.label(vocabulary)[:, 0].astype(np.float64) ** 2 + 0.003
    chosen = chance.choice(len(vocabulary), recipe.probes, p=chances / chances.sum())
    made: list[LabelledText] = []
    for word in chosen.tolist():
        words = texts[int(chance.integers(len(texts)))].split()[: int(chance.integers(2, 26))]
        words.insert(int(chance.integers(len(words) + 1)), vocabulary[word])
        made.append(LabelledText(" ".join(words), "probe", {}))
    return made


def collect(
    recipe: Recipe, data: Path, corpus: Path, teacher: Path, vocabulary: Sequence[str]
) -> Examples:
    """All texts of one training with their labels and the teacher's opinion."""
    labelled = labelled_texts(data, "train")
    labelled += [text for text in labelled if text.source in _TWICE]
    everyday = list(plain_texts(corpus))
    random.Random(recipe.seed).shuffle(everyday)
    labelled += [LabelledText(text, "plain", {}) for text in everyday[: recipe.plain_texts]]
    teaching = Teacher(teacher)
    labelled += probes(recipe, teaching, vocabulary, [text.text for text in labelled])
    texts = labelled + list(Counterfactuals(recipe.seed).draw(recipe.own_texts))
    opinions = teaching.label([text.text for text in texts])
    targets, weights = _with_opinions(texts, opinions, recipe)
    examples = Examples(
        [text.text for text in texts],
        np.concatenate([targets, opinions], axis=1),
        np.concatenate([weights, np.full_like(weights, recipe.imitation_weight)], axis=1),
    )
    return _joined(examples, everyday, recipe)


def _with_opinions(
    texts: Sequence[LabelledText], opinions: Floats, recipe: Recipe
) -> tuple[Floats, Floats]:
    """Targets and weights of the labels, the teacher's opinion where a text has no label.

    Its `toxicity` is first brought to Perspective's scale, on comments that Perspective judged.
    """
    targets, weights = (np.stack(part) for part in zip(*(t.targets() for t in texts), strict=True))
    toxicity = TOXICITY_LABELS.index("toxicity")
    logits = logits_of(opinions[:, toxicity])
    judged = np.array([text.source in {"cat-gn", "cat-gc"} for text in texts])
    slope, offset = platt(logits[judged], targets[judged, toxicity].astype(np.float64))
    scaled = opinions.copy()
    scaled[:, toxicity] = 1 / (1 + np.exp(-(slope * logits + offset)))
    taught = np.array([text.is_taught for text in texts])
    named = _named_groups()
    # The teacher takes the names of some groups for toxic: there it is not asked.
    names_group = np.array([not named.isdisjoint(normalised(t.text).split()) for t in texts])
    trust = np.where([text.source == "probe" for text in texts], 1.0, recipe.teacher_weight)
    asked = (taught & ~names_group)[:, None] & (weights == 0)
    return (
        np.where(asked, scaled, targets).astype(np.float32),
        np.where(asked, trust[:, None], weights).astype(np.float32),
    )


def _named_groups() -> set[str]:
    groups = Counterfactuals(0).names()
    return {word for name in groups for word in split_words(normalised(name))} - {"people", "the"}


def _joined(examples: Examples, everyday: Sequence[str], recipe: Recipe) -> Examples:
    """Some texts with another before or after them, so that a part decides about the whole."""
    chance = np.random.default_rng(recipe.seed)
    texts, targets, weights = list(examples.texts), examples.targets.copy(), examples.weights.copy()
    for index in np.flatnonzero(chance.random(len(texts)) < recipe.joined_share):
        if chance.random() < 0.5:
            other = everyday[int(chance.integers(len(everyday)))]
        else:
            at = int(chance.integers(len(texts)))
            other = examples.texts[at]
            targets[index] = np.maximum(examples.targets[index], examples.targets[at])
            weights[index] = np.minimum(examples.weights[index], examples.weights[at])
        pair = [examples.texts[index], other]
        texts[index] = " ".join(pair if chance.random() < 0.5 else pair[::-1])
    return Examples(texts, targets, weights)

"""The labelled sets that the embedded scorer learns from, each brought to Detoxify's six labels.

Every set labels something else. A text says which labels it knows and how sure it is of each: the
loss counts a label by its weight, and what weighs nothing is not learnt from that text.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from safety.scorers.base import TOXICITY_LABELS

Known = Mapping[str, tuple[float, float]]
"""For a label its target and weight."""

Split = Literal["train", "validation", "test"]
"""What weights are fitted on; what recipes are chosen and probabilities calibrated on; what only
figures are taken of."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledText:
    """A text to learn from.

    Attributes:
        text: As written.
        source: Of which set.
        known: The labels that the set has for it.
        is_taught: Whether the teacher's labels hold where the set has none.
    """

    text: str
    source: str
    known: Known
    is_taught: bool = True

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """float32[labels] targets and weights."""
        pairs = [self.known.get(label, (0.0, 0.0)) for label in TOXICITY_LABELS]
        array = np.array(pairs, np.float32)
        return array[:, 0], array[:, 1]


def everything(target: float, weight: float) -> dict[str, tuple[float, float]]:
    """All labels alike."""
    return dict.fromkeys(TOXICITY_LABELS, (target, weight))


def split_of(text: str, test: float, validation: float = 0.15) -> Split:
    """The part that a text belongs to, by its hash: a text that is in a set twice is in one part.

    Args:
        text: As written, or whatever two texts share that must not be parted.
        test: Share of all texts.
        validation: Share of the others.
    """
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    # The lowest bit has parted the halves since the first version, whose test half this keeps.
    place = (digest[0] % 2 * 128 + digest[0] // 2) / 256
    if place >= 1 - test:
        return "test"
    return "validation" if digest[1] / 256 < validation else "train"


def labelled_texts(data: Path, split: Split) -> list[LabelledText]:
    """All sets' parts; the identity templates are of none."""
    return [
        *cat(data, split),
        *edos(data, split),
        *hatemoji(data, split),
        *tweets(data, split),
        *rtp(data, split),
    ]


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def cat(data: Path, split: Split) -> Iterator[LabelledText]:
    """Wikipedia talk: Perspective's probability, corrected by the crowd where it says toxic."""
    for name in ("gn", "gc"):
        for row in rows(data / "cat" / f"{name}.csv"):
            if split_of(row["text"], test=0.5) == split:
                api = float(row["api"])
                target = max(api, 0.75) if row["label"] == "1" and name == "gn" else api
                yield LabelledText(row["text"], f"cat-{name}", {"toxicity": (target, 2.0)})


_EDOS: Mapping[str, Known] = {
    "1.1": {"threat": (0.95, 1), "toxicity": (1, 1), "identity_attack": (0.8, 1)},
    "1.2": {"threat": (0.6, 0.5), "toxicity": (0.95, 1), "identity_attack": (0.85, 1)},
    "2.1": {"toxicity": (0.9, 1), "identity_attack": (0.9, 1), "insult": (0.8, 0.5)},
    "2.2": {"toxicity": (0.95, 1), "identity_attack": (0.85, 1), "insult": (0.85, 0.5)},
    "2.3": {"toxicity": (0.9, 1), "identity_attack": (0.8, 1), "obscene": (0.6, 0.3)},
    "3.1": {"toxicity": (0.9, 1), "identity_attack": (0.5, 0.5), "insult": (0.8, 0.5)},
    "3.2": {"toxicity": (0.6, 0.7), "identity_attack": (0.7, 1)},
    "3.3": {"toxicity": (0.5, 0.5), "identity_attack": (0.5, 0.5)},
    "3.4": {"toxicity": (0.5, 0.5), "identity_attack": (0.5, 0.5)},
    "4.1": {"toxicity": (0.6, 0.5), "identity_attack": (0.6, 0.5)},
    "4.2": {"toxicity": (0.6, 0.5), "identity_attack": (0.7, 1)},
    "none": {"identity_attack": (0.06, 1)},
}


def edos(data: Path, split: Split) -> Iterator[LabelledText]:
    """Reddit and Gab, sexism by kind, its own split; what is not sexist may be toxic otherwise."""
    wanted = "dev" if split == "validation" else split
    for row in rows(data / "edos" / "edos_labelled_aggregated.csv"):
        if row["split"] == wanted:
            kind = row["label_vector"].split(" ")[0]
            yield LabelledText(row["text"], "edos", _EDOS[kind])


def hatemoji(data: Path, split: Split) -> Iterator[LabelledText]:
    """Adversarial posts with emoji: hate against its minimal change, both in one part.

    What stands in pairs of several parts is in the first of them alone.
    """
    posts = rows(data / "hatemoji" / "train.csv")
    parts = [
        split_of("/".join(sorted((row["text"], row["matched_text"]))), test=0.1) for row in posts
    ]
    earlier = {"train": (), "validation": ("train",), "test": ("train", "validation")}[split]
    taken = {row["text"] for row, part in zip(posts, parts, strict=True) if part in earlier}
    for row, part in zip(posts, parts, strict=True):
        if part != split or row["text"] in taken:
            continue
        if row["label_gold"] == "0":
            known = {**everything(0.03, 0.5), "identity_attack": (0.02, 1.0)}
        else:
            threat = 0.9 if row["type"] == "threateninglanguage" else 0.05
            known = {
                "toxicity": (0.95, 1.0),
                "identity_attack": (0.95, 1.0),
                "threat": (threat, 0.7),
            }
        yield LabelledText(row["text"], "hatemoji", known, is_taught=False)


def tweets(data: Path, split: Split) -> Iterator[LabelledText]:
    """Tweets: hate, offensive, neither, by the share of judges."""
    for row in rows(data / "tweets" / "labeled_data.csv"):
        if split_of(row["tweet"], test=0.1) != split:
            continue
        judges = int(row["count"])
        hate, offensive = (int(row[f]) / judges for f in ("hate_speech", "offensive_language"))
        toxic = hate + offensive
        known = {
            "toxicity": (0.05 + 0.9 * toxic, 0.7),
            "identity_attack": (min(1.0, hate * 1.1), 0.7),
        }
        if toxic < 0.5:
            known |= dict.fromkeys(("obscene", "insult", "threat"), (0.05, 0.4))
        yield LabelledText(row["tweet"], "tweets", known)


def rtp(data: Path, split: Split) -> Iterator[LabelledText]:
    """RealToxicityPrompts with Perspective's probability of each label."""
    with (data / "rtp" / "rtp_993_perspective.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if split_of(row["text"], test=0.5) == split:
                known = {
                    label: (float(row["profanity" if label == "obscene" else label]), 2.0)
                    for label in TOXICITY_LABELS
                }
                yield LabelledText(row["text"], "rtp", known, is_taught=False)


def plain_texts(corpus: Path, books: int = 40, per_book: int = 150) -> Iterator[str]:
    """Everyday English without labels, for the teacher: turns of dialogues, sentences of books."""
    with lzma.open(corpus / "dialogues.jsonl.xz", "rt", encoding="utf-8") as file:
        for index, line in enumerate(file):
            if index % 6 == 0:
                yield from (turn for turn in json.loads(line)["text"].split("\n") if turn.strip())
    with lzma.open(corpus / "books-train.jsonl.xz", "rt", encoding="utf-8") as file:
        for _, line in zip(range(books), file, strict=False):
            sentences = json.loads(line)["text"].replace("\n", " ").split(". ")
            yield from sentences[:: max(1, len(sentences) // per_book)]

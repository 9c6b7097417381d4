"""How MinHash LSH is banded: pure functions of its parameters.

With `bands` bands of `rows` rows, two sets of Jaccard similarity s meet in some band with
probability 1 - (1 - s**rows)**bands, the S-curve (Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, chapter 3).
"""

from __future__ import annotations

import dataclasses

from memorization.errors import TrainingIndexError

_STEPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Banding:
    """A signature's division into bands.

    Attributes:
        num_perm: Values of a signature.
        bands: Bands.
        rows: Values of each band.
    """

    num_perm: int = 64
    bands: int = 16
    rows: int = 4

    def __post_init__(self) -> None:
        """Check that the bands fit into the signature."""
        if self.bands < 2 or self.rows < 1:
            raise TrainingIndexError(
                f"bands={self.bands} must be at least 2, and rows={self.rows} at least 1"
            )
        if self.bands * self.rows > self.num_perm:
            raise TrainingIndexError(
                f"bands * rows = {self.bands} * {self.rows} = {self.bands * self.rows} exceeds "
                f"num_perm={self.num_perm}"
            )


def match_probability(similarity: float, banding: Banding) -> float:
    """The S-curve: how probably two sets of this Jaccard similarity meet in some band."""
    missed: float = (1.0 - similarity**banding.rows) ** banding.bands
    return 1.0 - missed


def curve_threshold(banding: Banding) -> float:
    """About where the S-curve is steepest: (1 / bands) ** (1 / rows)."""
    threshold: float = (1.0 / banding.bands) ** (1.0 / banding.rows)
    return threshold


def choose_banding(
    threshold: float, num_perm: int, *, false_positive_weight: float = 0.5
) -> Banding:
    """The division with the least weighted error around a threshold, as datasketch chooses it.

    Args:
        threshold: Similarity from which sets should meet, in (0, 1).
        num_perm: Values of a signature, at least 2.
        false_positive_weight: Weight of the curve's area below the threshold; the area above the
            curve beyond the threshold has the rest of 1.

    Raises:
        TrainingIndexError: A parameter is out of range.
    """
    if not 0.0 < threshold < 1.0:
        raise TrainingIndexError(f"threshold={threshold} must lie between 0 and 1")
    if num_perm < 2:
        raise TrainingIndexError(f"num_perm={num_perm} must be at least 2")
    candidates = (
        Banding(num_perm=num_perm, bands=bands, rows=rows)
        for bands in range(2, num_perm + 1)
        for rows in range(1, num_perm // bands + 1)
    )

    def error(banding: Banding) -> float:
        wrong = _area(0.0, threshold, banding)
        missed = (1.0 - threshold) - _area(threshold, 1.0, banding)
        return false_positive_weight * wrong + (1.0 - false_positive_weight) * missed

    return min(candidates, key=error)


def edited_similarity(edits: float, shingle_words: int) -> float:
    """Expected Jaccard similarity of a text and itself after a share `edits` of words is replaced.

    A shingle survives if none of its words is replaced: s = (1 - edits)**shingle_words of them
    are shared, of 2 - s in all.
    """
    survive: float = (1.0 - edits) ** shingle_words
    return survive / (2.0 - survive)


def render_curve(banding: Banding, *, shingle_words: int, width: int = 50) -> str:
    """The S-curve as text, and what it means for edited copies."""
    lines = [
        f"num_perm {banding.num_perm}, bands {banding.bands}, rows {banding.rows}: steepest near "
        f"similarity {curve_threshold(banding):.2f}",
        "",
        "similarity  found",
    ]
    for tenth in range(0, 21):
        similarity = tenth / 20
        found = match_probability(similarity, banding)
        lines.append(f"      {similarity:.2f}  {found:6.1%}  {'█' * round(width * found)}".rstrip())
    lines += ["", f"words replaced  similarity  found  (shingles of {shingle_words} words)"]
    for percent in (5, 10, 20):
        similarity = edited_similarity(percent / 100, shingle_words)
        found = match_probability(similarity, banding)
        lines.append(f"          {percent:3} %        {similarity:.2f}  {found:.1%}")
    return "\n".join(lines)


def _area(low: float, high: float, banding: Banding) -> float:
    """Area under the S-curve, by the midpoint rule."""
    step = (high - low) / _STEPS
    middles = (low + (index + 0.5) * step for index in range(_STEPS))
    return step * sum(match_probability(similarity, banding) for similarity in middles)

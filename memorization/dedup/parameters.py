"""What counts as a duplicate."""

from __future__ import annotations

import dataclasses

from memorization.errors import TrainingIndexError
from memorization.lsh import Banding, choose_banding

_LONGEST_RUN = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupParameters:
    """What counts as a duplicate.

    Attributes:
        near: Whether near-duplicate documents are removed.
        exact: Whether repeated passages are cut out of what is left.
        threshold: Jaccard similarity of two documents' shingles from which they are duplicates.
        shingle_words: Words of a shingle.
        num_perm: Values of a MinHash signature; its bands follow from it and the threshold.
        min_tokens: Shortest passage that is cut where it stands again (Lee et al. 2021: 50).
        shard_tokens: Tokens whose suffixes are sorted at once; takes about 20 bytes for each.

    Raises:
        TrainingIndexError: A field is out of range.
    """

    near: bool = True
    exact: bool = True
    threshold: float = 0.8
    shingle_words: int = 5
    num_perm: int = 128
    min_tokens: int = 50
    shard_tokens: int = 1 << 26

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.near or self.exact):
            raise TrainingIndexError("near and exact are both off: nothing would be looked for")
        if not 1 <= self.shingle_words <= 100:
            raise TrainingIndexError(f"shingle_words={self.shingle_words} must be from 1 to 100")
        if not 8 <= self.min_tokens <= _LONGEST_RUN:
            raise TrainingIndexError(
                f"min_tokens={self.min_tokens} must be from 8 to {_LONGEST_RUN}"
            )
        choose_banding(self.threshold, self.num_perm)

    @property
    def banding(self) -> Banding:
        """Bands with the least error around the threshold; missed pairs weigh more.

        A pair that is found for nothing costs a comparison; one that is missed stays.
        """
        return choose_banding(self.threshold, self.num_perm, false_positive_weight=0.1)

"""Settings of `talipot corpus`; `api.options` makes options of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from api.config import DEFAULT_MODEL

if TYPE_CHECKING:
    from memorization.dedup.parameters import DedupParameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupConfig:
    """Settings of `talipot corpus dedup`.

    Attributes:
        corpus: Corpus files and folders.
        out: Folder for the new corpus and the report.
        model: Model whose tokenizer counts and compares tokens, by name or folder.
        near: Remove near-duplicate documents.
        exact: Cut out passages that stand in the corpus again.
        threshold: Jaccard similarity of two documents' shingles from which they are duplicates.
        shingle_words: Words of a shingle.
        num_perm: Values of a MinHash signature; its bands follow from it and the threshold.
        min_tokens: Shortest passage that is cut where it stands again.
        shard_tokens: Tokens whose suffixes are sorted at once; takes about 20 bytes for each.
    """

    corpus: tuple[str, ...] = dataclasses.field(metadata={"argument": True})
    out: Path = dataclasses.field(metadata={"flag": "-o"})
    model: str = dataclasses.field(default=DEFAULT_MODEL, metadata={"flag": "-m"})
    near: bool = True
    exact: bool = True
    threshold: float = dataclasses.field(default=0.8, metadata={"panel": "Near duplicates"})
    shingle_words: int = dataclasses.field(default=5, metadata={"panel": "Near duplicates"})
    num_perm: int = dataclasses.field(default=128, metadata={"panel": "Near duplicates"})
    min_tokens: int = dataclasses.field(default=50, metadata={"panel": "Repeated passages"})
    shard_tokens: int = dataclasses.field(default=1 << 26, metadata={"panel": "Repeated passages"})

    def parameters(self) -> DedupParameters:
        """What counts as a duplicate.

        Raises:
            TrainingIndexError: A field is out of range.
        """
        from memorization.dedup.parameters import DedupParameters

        return DedupParameters(
            **{
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(DedupParameters)
            }
        )

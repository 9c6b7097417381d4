"""Settings of `talipot index`; `api.options` makes options of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

from memorization.policy import DEFAULT_NGRAM

if TYPE_CHECKING:
    from memorization.layout import IndexParameters
    from memorization.winnowing import Winnowing

Signature: TypeAlias = Literal["talipot", "datasketch"]

_DEFAULT_MODEL = "talipot-tiny"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexBuildConfig:
    """Settings of `talipot index build`.

    Attributes:
        corpus: Corpus files and folders.
        out: Folder of the index, `redis://HOST:PORT/DB?name=NAME`, or with --fingerprints a file.
        model: Model whose tokenizer is used, by name or folder.
        exact: Find verbatim runs: by a suffix array, in Redis by fingerprints.
        near: Find near duplicates, by MinHash LSH.
        ngram: Tokens of the n-grams that requests can avoid; 0 for no filter of them. It takes two
            bytes for each token of the corpus, and verbatim runs must be found too. In Redis the
            filter is of fingerprints.
        fingerprints: Write a file of fingerprints instead, which finds verbatim runs and holds no
            text.
        shard_tokens: Tokens of a shard; sorting one takes about 20 bytes of memory for each. A
            query searches every shard.
        signature: Whose MinHash signatures; datasketch's own can be shared with datasketch.
        num_perm: Values of a signature.
        bands: Bands of a signature.
        rows: Values of a band.
        shingle_words: Words of a shingle.
        window_words: Words of a window.
        stride_words: Words from one window to the next.
        fingerprint_tokens: Tokens that a fingerprint covers.
        fingerprint_window: Of so many consecutive runs at least one is kept.
    """

    corpus: tuple[str, ...] = dataclasses.field(metadata={"argument": True})
    out: str = dataclasses.field(metadata={"flag": "-o"})
    model: str = dataclasses.field(default=_DEFAULT_MODEL, metadata={"flag": "-m"})
    exact: bool = True
    near: bool = True
    ngram: int = DEFAULT_NGRAM
    fingerprints: bool = False
    shard_tokens: int = 1 << 24
    signature: Signature = dataclasses.field(default="talipot", metadata={"panel": "Near"})
    num_perm: int = dataclasses.field(default=64, metadata={"panel": "Near"})
    bands: int = dataclasses.field(default=16, metadata={"panel": "Near"})
    rows: int = dataclasses.field(default=4, metadata={"panel": "Near"})
    shingle_words: int = dataclasses.field(default=3, metadata={"panel": "Near"})
    window_words: int = dataclasses.field(default=100, metadata={"panel": "Near"})
    stride_words: int = dataclasses.field(default=50, metadata={"panel": "Near"})
    fingerprint_tokens: int = dataclasses.field(default=24, metadata={"panel": "Fingerprints"})
    fingerprint_window: int = dataclasses.field(default=24, metadata={"panel": "Fingerprints"})

    def parameters(self) -> IndexParameters:
        """What is indexed, and how.

        Raises:
            TrainingIndexError: A field is out of range.
        """
        from memorization.layout import IndexParameters
        from memorization.lsh import Banding
        from memorization.shingles import Windows

        return IndexParameters(
            exact=self.exact,
            near=self.near,
            ngram=self.ngram if self.exact else 0,
            shard_tokens=self.shard_tokens,
            signature=self.signature,
            banding=Banding(num_perm=self.num_perm, bands=self.bands, rows=self.rows),
            windows=Windows(
                shingle_words=self.shingle_words,
                window_words=self.window_words,
                stride_words=self.stride_words,
            ),
        )

    def winnowing(self) -> Winnowing:
        """How fingerprints are chosen.

        Raises:
            TrainingIndexError: A field is out of range.
        """
        from memorization.winnowing import Winnowing

        return Winnowing(k=self.fingerprint_tokens, window=self.fingerprint_window)


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexSearchConfig:
    """Settings of `talipot index search`.

    Attributes:
        index: An embedded model's name, a folder or file of `talipot index build`, or an address
            of Redis.
        text: The text to look for.
        model: Model whose tokenizer the index was built with.
        min_tokens: Shortest verbatim run of interest.
        min_similarity: Least similarity of near duplicates.
        max_occurrences: Most places to name for each run.
    """

    index: str = dataclasses.field(metadata={"argument": True})
    text: str = dataclasses.field(metadata={"argument": True})
    model: str = dataclasses.field(default=_DEFAULT_MODEL, metadata={"flag": "-m"})
    min_tokens: int = 10
    min_similarity: float = 0.5
    max_occurrences: int = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexCurveConfig:
    """Settings of `talipot index curve`.

    Attributes:
        num_perm: Values of a signature.
        bands: Bands of a signature.
        rows: Values of a band.
        threshold: Choose bands and rows for this similarity instead.
        shingle_words: Words of a shingle, for the similarity of edited copies.
    """

    num_perm: int = 64
    bands: int = 16
    rows: int = 4
    threshold: float | None = None
    shingle_words: int = 3

"""The index on disk: exact runs by suffix arrays, near duplicates by MinHash LSH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.index import NearDuplicate, Occurrence, Span
from memorization.layout import CURRENT, MANIFEST, VERSION, IndexParameters, read_json
from memorization.ngram_file import open_ngrams
from memorization.ngram_filter import NgramFilter
from memorization.shard import Shard
from memorization.shard_writer import ShardCounts
from memorization.signatures import band_keys, make_signer, similarities
from memorization.suffix_array import Int64, Stored, store_tokens

_OPEN_TRIES = 3


class DiskIndex:
    """A `TrainingIndex` in a folder of `memorization.build`.

    It goes on answering from the files that it opened when a newer index takes their place; open
    the folder again to see the newer one.
    """

    def __init__(self, generation: Path) -> None:
        """Map a generation's files.

        Raises:
            FileNotFoundError: The generation is gone, replaced by a newer one.
            TrainingIndexError: It is damaged, or of another version.
        """
        manifest = read_json(generation / MANIFEST)
        if manifest.get("version") != VERSION:
            raise TrainingIndexError(
                f"the index {generation} has version {manifest.get('version')}, and this release "
                f"reads {VERSION}: build it again"
            )
        self.generation = generation
        self.parameters = IndexParameters.from_dict(manifest["parameters"])
        self.vocab_size: int = manifest["vocab_size"]
        self._identity: str = manifest["tokenizer"]
        counts = [ShardCounts(**shard) for shard in manifest["shards"]]
        self._ngrams: NgramFilter | None = None
        if self.parameters.ngram:
            tokens = sum(shard.tokens for shard in counts)
            self._ngrams = open_ngrams(generation, self.parameters.ngram, tokens=tokens)
        self._shards = [
            Shard(
                generation / f"shard-{number:05}",
                self.parameters,
                self.vocab_size,
                shard,
            )
            for number, shard in enumerate(counts)
        ]
        self._signer = make_signer(
            self.parameters.signature, self.parameters.windows, self.parameters.banding.num_perm
        )

    @classmethod
    def open(cls, folder: Path) -> DiskIndex:
        """Open the index that a folder serves now.

        Raises:
            TrainingIndexError: There is none, or it is damaged.
        """
        missing: OSError | None = None
        for _ in range(_OPEN_TRIES):
            try:
                return cls(folder / read_json(folder / CURRENT)["generation"])
            except FileNotFoundError as error:  # replaced between the two steps: look again
                missing = error
        if missing is not None and (folder / CURRENT).exists():
            raise TrainingIndexError(f"the index {folder} is damaged: {missing}") from missing
        unfinished = " (a build was begun: run it again)" if any(folder.glob("*.part")) else ""
        raise TrainingIndexError(f"no index in {folder}{unfinished}")

    @property
    def tokenizer_identity(self) -> str:
        """Identity of the tokenizer that it was built with."""
        return self._identity

    @property
    def sure_tokens(self) -> int | None:
        """See `TrainingIndex`: 1, or None if the index was built without exact matches."""
        return 1 if self.parameters.exact else None

    def ngrams(self) -> NgramFilter | None:
        """See `TrainingIndex`: all n-grams of the corpus, of the length that it was built for."""
        return self._ngrams

    def match_lengths(self, tokens: Sequence[int]) -> Int64:
        """Tokens of the longest corpus match that begins at each token, int64[tokens].

        Raises:
            TrainingIndexError: A token id lies outside the vocabulary, or the index was built
                without exact matches.
        """
        return self._lengths(store_tokens(tokens, self.vocab_size))

    def longest_matches(
        self, tokens: Sequence[int], *, min_tokens: int = 1, max_occurrences: int = 10
    ) -> list[Span]:
        """Return every maximal run that the corpus has; see `TrainingIndex.longest_matches`.

        `count` is exact, and so is the length.
        """
        query = store_tokens(tokens, self.vocab_size)
        lengths = self._lengths(query)
        ends = np.arange(len(query)) + lengths
        # A match that ends no later than the one before it lies inside that one.
        is_maximal = np.diff(ends, prepend=0) > 0
        starts = np.flatnonzero(is_maximal & (lengths >= max(1, min_tokens))).astype(np.int64)
        if not starts.size:
            return []
        return self._spans(query, starts, lengths[starts], max_occurrences)

    def near_duplicates(self, text: str, *, min_similarity: float = 0.5) -> list[NearDuplicate]:
        """Return corpus windows that resemble the text; see `TrainingIndex.near_duplicates`.

        A corpus window is returned once, with the query window that resembles it most.
        """
        if not self.parameters.near:
            raise TrainingIndexError("this index was built without near duplicates")
        _, starts, signatures = self._signer.sign(text)
        if not len(starts):
            return []
        keys = band_keys(signatures, self.parameters.banding)
        found: list[NearDuplicate] = []
        for shard in self._shards:
            best: dict[int, tuple[float, int]] = {}
            for start, signature, row in zip(starts.tolist(), signatures, keys, strict=True):
                windows = shard.candidates(row)
                if not windows.size:
                    continue
                scores = similarities(shard.signatures_of(windows), signature)
                for window, score in zip(windows.tolist(), scores.tolist(), strict=True):
                    if score >= min_similarity and score > best.get(window, (-1.0, 0))[0]:
                        best[window] = (score, start)
            found += [_near(shard, window, *match) for window, match in best.items()]
        return sorted(found, key=lambda near: (-near.similarity, near.source, near.document))

    def _lengths(self, query: Stored) -> Int64:
        if not self.parameters.exact:
            raise TrainingIndexError("this index was built without exact matches")
        lengths = np.zeros(len(query), np.int64)
        for shard in self._shards:
            if shard.suffix_array is not None and len(query):
                np.maximum(lengths, shard.suffix_array.match_lengths(query), out=lengths)
        return lengths

    def _spans(
        self, query: Stored, starts: Int64, lengths: Int64, max_occurrences: int
    ) -> list[Span]:
        counts = np.zeros(len(starts), np.int64)
        places: list[list[Occurrence]] = [[] for _ in starts]
        for shard in self._shards:
            if shard.suffix_array is None:
                continue
            first, last = shard.suffix_array.ranges(query, starts, lengths)
            counts += last - first
            # All spans' positions at once: one look-up of documents a shard.
            taken = [
                shard.suffix_array.positions(low, min(high, low + max_occurrences - len(place)))
                for low, high, place in zip(first.tolist(), last.tolist(), places, strict=True)
            ]
            documents, offsets = shard.document_at(np.concatenate(taken))
            owners = np.repeat(np.arange(len(taken)), [len(positions) for positions in taken])
            for owner, document, offset in zip(
                owners.tolist(), documents.tolist(), offsets.tolist(), strict=True
            ):
                places[owner].append(_occurrence(shard, document, offset))
        return [
            Span(start=start, length=length, max_length=length, count=count, occurrences=tuple(at))
            for start, length, count, at in zip(
                starts.tolist(), lengths.tolist(), counts.tolist(), places, strict=True
            )
        ]


def _occurrence(shard: Shard, document: int, offset: int) -> Occurrence:
    identifier, title, source = shard.name(document)
    return Occurrence(document=identifier, title=title, source=source, offset=offset)


def _near(shard: Shard, window: int, similarity: float, query_word: int) -> NearDuplicate:
    document, first_word, words = shard.windows[window].tolist()
    identifier, title, source = shard.name(document)
    return NearDuplicate(
        document=identifier,
        title=title,
        source=source,
        first_word=first_word,
        query_word=query_word,
        words=words,
        similarity=similarity,
    )

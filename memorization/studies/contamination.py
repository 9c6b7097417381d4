"""Which examples of a benchmark stand in a corpus: the share of their n-grams that it has.

The rule is PaLM's (Chowdhery et al. 2022, section 8): an example is contaminated if at least 70 %
of its 8-grams occur in the training text. N-grams are of words (runs of letters, digits and
underscores, in lower case), compared by 64-bit hashes. Memory grows with the benchmark and the
longest document, not with the corpus.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from memorization.corpus import Document
from memorization.rolling_hash import UInt64
from memorization.shingles import shingle_hashes
from memorization.suffix_array import Int64

NGRAM_WORDS = 8
THRESHOLD = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contamination:
    """What of an example the corpus has.

    Attributes:
        ngrams: Different n-grams of the example; 0 if all of its texts are too short for one.
        found: How many of them occur in the corpus.
        document: Id of the document that has the most of them first; None if none has.
        title: That document's title.
    """

    ngrams: int
    found: int
    document: str | None
    title: str

    @property
    def share(self) -> float | None:
        """Share of the n-grams that the corpus has; None without any n-gram."""
        return self.found / self.ngrams if self.ngrams else None


def measure_contamination(
    examples: Sequence[Sequence[str]],
    corpus: Iterable[Document],
    *,
    ngram_words: int = NGRAM_WORDS,
    on_characters: Callable[[int], None] = lambda _: None,
) -> list[Contamination]:
    """Look for every n-gram of some examples in a corpus, which is read once.

    Args:
        examples: The texts of each example; no n-gram reaches from one text into the next.
        corpus: The documents.
        ngram_words: Words of an n-gram.
        on_characters: Told how many characters were read since it was last told.

    Raises:
        CorpusError: The corpus cannot be read.
    """
    hashes = [_ngrams(texts, ngram_words) for texts in examples]
    wanted = np.unique(np.concatenate([*hashes, np.empty(0, np.uint64)]))
    first = np.full(len(wanted), -1, np.int64)
    names: list[tuple[str, str]] = []
    for document in corpus:
        found = np.unique(shingle_hashes(document.text, ngram_words)[1])
        places = np.searchsorted(wanted, found)
        is_inside = places < len(wanted)
        places, found = places[is_inside], found[is_inside]
        places = places[wanted[places] == found]
        first[places[first[places] < 0]] = len(names)
        names.append((document.id, document.title))
        on_characters(len(document.text))
    return [_measured(first[np.searchsorted(wanted, one)], names) for one in hashes]


def _ngrams(texts: Sequence[str], ngram_words: int) -> UInt64:
    some = [shingle_hashes(text, ngram_words)[1] for text in texts]
    return np.unique(np.concatenate([*some, np.empty(0, np.uint64)]))


def _measured(documents: Int64, names: Sequence[tuple[str, str]]) -> Contamination:
    seen = [number for number in documents.tolist() if number >= 0]
    if not seen:
        return Contamination(ngrams=len(documents), found=0, document=None, title="")
    ((number, _),) = Counter(seen).most_common(1)
    document, title = names[number]
    return Contamination(ngrams=len(documents), found=len(seen), document=document, title=title)

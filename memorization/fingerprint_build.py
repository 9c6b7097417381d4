"""Builds a text-free index from a corpus, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from memorization.corpus import corpus_files, read_corpus
from memorization.encode import encode_documents
from memorization.errors import CorpusError, IndexBuildError
from memorization.fingerprint_file import Fingerprints, write_fingerprints
from memorization.rolling_hash import UInt64
from memorization.suffix_array import ID_SHIFT, Int64
from memorization.tokenizer import IndexTokenizer, tokenizer_identity
from memorization.winnowing import Winnowing, winnow

# Positions are kept as 32-bit distances, and documents are joined into one line of tokens.
_MAX_DISTANCE = (1 << 32) - 1


def collect_fingerprints(
    corpus: Sequence[Path],
    tokenizer: IndexTokenizer,
    winnowing: Winnowing,
    *,
    on_characters: Callable[[int], None] = lambda _: None,
) -> Fingerprints:
    """Read a corpus and keep its fingerprints; memory grows with their number alone.

    Args:
        corpus: Files and folders; see `memorization.corpus`.
        tokenizer: Whose ids are fingerprinted.
        winnowing: How the text is thinned out.
        on_characters: Told the characters of each document as it is done.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
    """
    hashes: list[UInt64] = []
    positions: list[Int64] = []
    names: list[tuple[str, str, str]] = []
    starts = [0]
    for document, stored in encode_documents(read_corpus(corpus_files(corpus)), tokenizer):
        kept, kept_hashes = winnow(stored.astype(np.int64) - ID_SHIFT, winnowing)
        positions.append(kept + starts[-1])
        hashes.append(kept_hashes)
        names.append((document.id, document.title, document.source))
        starts.append(starts[-1] + len(stored))
        on_characters(len(document.text))
    if not names:
        raise CorpusError(f"the corpus has no document: {', '.join(map(str, corpus))}")
    joined = np.concatenate(positions)
    if len(joined) and int(np.diff(joined, prepend=0).max()) > _MAX_DISTANCE:
        raise IndexBuildError("more than 2**32 tokens lie between two fingerprints")
    return Fingerprints(
        winnowing=winnowing,
        tokenizer_identity=tokenizer_identity(tokenizer),
        vocab_size=tokenizer.vocab_size,
        hashes=np.concatenate(hashes),
        positions=joined,
        starts=np.array(starts, np.int64),
        names=names,
    )


def build_fingerprints(
    corpus: Sequence[Path],
    tokenizer: IndexTokenizer,
    out: Path,
    winnowing: Winnowing | None = None,
    *,
    on_characters: Callable[[int], None] = lambda _: None,
) -> Fingerprints:
    """Read a corpus and write its fingerprints to the file `out`.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        IndexBuildError: The file cannot be written.
    """
    prints = collect_fingerprints(
        corpus, tokenizer, winnowing or Winnowing(), on_characters=on_characters
    )
    try:
        write_fingerprints(out, prints)
    except OSError as error:
        raise IndexBuildError(f"cannot write {out}: {error.strerror}") from error
    return prints

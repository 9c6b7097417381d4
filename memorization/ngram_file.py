"""The n-gram filter of an index on disk: its words, one after the other, in `NGRAMS`.

Built in a memory map, so that memory does not grow with the corpus, and the same bytes for the
same corpus.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from memorization.errors import TrainingIndexError
from memorization.ngram_filter import NgramFilter, insert, num_blocks, stored_ngrams
from memorization.shard_writer import TOKENS
from memorization.suffix_array import stored_dtype

NGRAMS = "ngrams.bin"
_BLOCK_BYTES = 32


def write_ngrams(
    folder: Path, shards: Iterable[Path], ngram: int, *, tokens: int, vocab_size: int
) -> None:
    """Write the filter of all n-grams of some shards, anew if a part of it is there.

    Args:
        folder: Where the filter goes.
        shards: Folders of finished shards.
        ngram: Tokens of an n-gram.
        tokens: Stored tokens of all shards; there are no more n-grams than that.
        vocab_size: Number of token ids.

    Raises:
        OSError: The disk is full, among others.
    """
    blocks = num_blocks(tokens)
    with (folder / NGRAMS).open("w+b") as file:
        # Room for all of it: a map of a file with holes fails by a signal where the disk is full.
        os.posix_fallocate(file.fileno(), 0, blocks * _BLOCK_BYTES)
        words: Any = np.memmap(file, np.uint32, "r+", shape=(blocks, _BLOCK_BYTES // 4))
        for shard in shards:
            stored = np.memmap(shard / TOKENS, stored_dtype(vocab_size), "r")
            for hashes in stored_ngrams(stored, ngram):
                insert(words, hashes)
        words.flush()
        os.fsync(file.fileno())


def open_ngrams(folder: Path, ngram: int, *, tokens: int) -> NgramFilter:
    """Map a filter that `write_ngrams` wrote; the arguments are its.

    Raises:
        TrainingIndexError: It is missing, or of another size.
    """
    path = folder / NGRAMS
    blocks = num_blocks(tokens)
    size = path.stat().st_size if path.exists() else 0
    if size != blocks * _BLOCK_BYTES:
        raise TrainingIndexError(
            f"{path} has {size} bytes, and the manifest says {blocks * _BLOCK_BYTES}"
        )
    words = np.asarray(np.memmap(path, np.uint32, "r", shape=(blocks, _BLOCK_BYTES // 4)))
    return NgramFilter(words=words, ngram=ngram, hash_bits=64, guarantee_tokens=ngram)

"""Texts as the arrays that the network trains on: a few shapes, so that it compiles a few times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from safety.scorers.embedded.words import pieces, split_words
from safety.scorers.normalise import normalised

Integers = NDArray[np.int32]
Batch = tuple[Integers, Integers, Integers, NDArray[np.intp]]

NUM_BUCKETS = 24_576
MAX_PIECES = 40
_LENGTHS = (12, 24, 40, 64, 128)
_SPELT_OUT_SHARE = 0.06
_DROPPED_SHARE = 0.08
_UNKNOWN_STEP = 256


class Encoder:
    """Numbers for words: those of the vocabulary first, then others as they come."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Words of the vocabulary get their place in it."""
        self._numbers = {word: number for number, word in enumerate(vocabulary)}
        self._num_known = len(vocabulary)
        self._pieces: list[Integers] = [padded_pieces(word) for word in vocabulary]

    def encode(self, text: str) -> Integers:
        """int32[words]: the first 128."""
        words = split_words(normalised(text))[: _LENGTHS[-1]]
        return np.array([self._number(word) for word in words] or [self._number(".")], np.int32)

    def _number(self, word: str) -> int:
        number = self._numbers.get(word)
        if number is None:
            number = self._numbers[word] = len(self._pieces)
            self._pieces.append(padded_pieces(word))
        return number

    def batches(
        self, texts: Sequence[Integers], size: int, random: np.random.Generator, *, train: bool
    ) -> Iterator[Batch]:
        """All texts in batches of like length: known, unknown, positions, and which texts.

        In training the order is random and some words of the vocabulary are spelt out, and
        some dropped, so that no single word decides.
        """
        table = np.stack(self._pieces)
        lengths = np.array([len(text) for text in texts])
        bucket = np.searchsorted(_LENGTHS, lengths)
        groups: list[tuple[int, NDArray[np.intp]]] = []
        for index, length in enumerate(_LENGTHS):
            chosen = np.flatnonzero(bucket == index)
            if train:
                random.shuffle(chosen)
            end = len(chosen) - (len(chosen) % size if train else 0)
            groups += [(length, chosen[at : at + size]) for at in range(0, end, size)]
        for at in random.permutation(len(groups)) if train else range(len(groups)):
            length, chosen = groups[at]
            rows = np.full((size, length), -1, np.int32)
            for row, number in zip(rows, chosen.tolist(), strict=False):
                row[: lengths[number]] = texts[number]
            share = _SPELT_OUT_SHARE if train else 0.0
            known, unknown, positions = self._arrays(rows, table, random, share)
            if train:
                positions[:, 1:][random.random(positions[:, 1:].shape) < _DROPPED_SHARE] = 0
            yield known, unknown, positions, chosen

    def _arrays(
        self, rows: Integers, table: Integers, random: np.random.Generator, share: float
    ) -> tuple[Integers, Integers, Integers]:
        numbers, positions = np.unique(rows, return_inverse=True)
        empty = int(numbers[0] == -1)
        numbers = numbers[empty:]
        spelt = (numbers >= self._num_known) | (random.random(len(numbers)) < share)
        order = np.argsort(spelt, kind="stable")
        num_known, num_spelt = int((~spelt).sum()), int(spelt.sum())
        size = 1 << max(8, int(num_known - 1).bit_length())
        known = np.zeros(size, np.int32)
        known[:num_known] = numbers[order[:num_known]]
        unknown = np.full((-(-(num_spelt + 1) // _UNKNOWN_STEP) * _UNKNOWN_STEP, MAX_PIECES), -1)
        unknown[:num_spelt] = table[numbers[order[num_known:]]]
        place = np.zeros(len(numbers) + empty, np.int32)
        place[empty + order[:num_known]] = 1 + np.arange(num_known)
        place[empty + order[num_known:]] = 1 + size + np.arange(num_spelt)
        return known, unknown.astype(np.int32), place[positions].reshape(rows.shape)


def padded_pieces(word: str) -> Integers:
    """int32[MAX_PIECES], filled up with -1."""
    row = np.full(MAX_PIECES, -1, np.int32)
    some = pieces(word, NUM_BUCKETS)[:MAX_PIECES]
    row[: len(some)] = some
    return row

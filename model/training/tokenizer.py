"""Train the SentencePiece tokenizer of a PaLM (PaLM paper, section 2, "Vocabulary").

The vocabulary is lossless: no normalization, no dummy prefix, no collapsing of spaces, one piece
per digit, and UTF-8 byte pieces for whatever the vocabulary does not cover. Newlines are ordinary
characters, so pieces such as "\\n\\n" are learned like any other.

Piece ids: ``<pad>`` = 0, ``<eod>`` = 1 (end of document), ``<unk>`` = 2 (never produced), then 256
byte pieces, then the learned merges, then single characters.
"""

from __future__ import annotations

import heapq
import io
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import sentencepiece

from model.errors import TokenizerError

PAD_ID, EOD_ID, UNK_ID = 0, 1, 2
PAD_PIECE, EOD_PIECE, UNK_PIECE = "<pad>", "<eod>", "<unk>"

NUM_RESERVED_PIECES = 3 + 256
"""The three special pieces and the byte pieces: a vocabulary must be larger than this."""

PASSAGE_CHARS = 2048
"""Soft length of a passage handed to the trainer, which drops overlong sentences silently."""

_MAX_PASSAGE_BYTES = 1 << 24
_NUM_THREADS = 2  # the model file records it, so it is fixed for files that are equal anywhere
# U+2581 stands for a space inside SentencePiece, and its trainer skips every sentence with NUL or
# U+2585.
_RESERVED_CHARACTERS = str.maketrans(dict.fromkeys("\0\u2581\u2585", " "))


def split_passages(text: str, *, size: int = PASSAGE_CHARS) -> Iterator[str]:
    """Cut ``text`` before the first space past every ``size`` characters, losing nothing.

    Cutting before a space, where no piece may span anyway, keeps the statistics of whole words. It
    never leaves a newline at the end of an inner passage unless the text has ``"\\n "``, since the
    trainer strips those.
    """
    start = 0
    while start < len(text):
        end = text.find(" ", start + size)
        if end < 0:
            end = len(text)
        yield text[start:end]
        start = end


def sample_passages(texts: Iterable[str], *, max_bytes: int, seed: int) -> list[str]:
    """Draw passages uniformly from ``texts``, at most ``max_bytes`` of UTF-8, in as much memory.

    Every passage gets a random key, and those with the smallest keys stay: one pass, whatever the
    corpus' size. The result is a function of ``texts``, their order and ``seed``; it comes in the
    order of the keys.
    """
    rng = random.Random(seed)
    kept: list[tuple[float, int, str, int]] = []  # a heap with the largest key on top
    total_bytes = 0
    count = 0
    for text in texts:
        for passage in split_passages(text):
            size_bytes = len(passage.encode("utf-8"))
            heapq.heappush(kept, (-rng.random(), count, passage, size_bytes))
            total_bytes += size_bytes
            count += 1
            while total_bytes > max_bytes and kept:
                total_bytes -= heapq.heappop(kept)[3]
    return [passage for _, _, passage, _ in sorted(kept, reverse=True)]


def train_sentencepiece(
    texts: Iterable[str],
    *,
    vocab_size: int,
    out: Path,
    sample_bytes: int = 20_000_000,
    seed: int = 0,
    model_type: Literal["bpe", "unigram"] = "bpe",
    character_coverage: float = 0.9999,
) -> Path:
    """Train a tokenizer of ``vocab_size`` pieces on a sample of ``texts`` and write it to ``out``.

    The same texts and settings give the same file, byte for byte.

    Args:
      texts: documents. Only a seeded sample of ``sample_bytes`` bytes of them is learned from.
      vocab_size: number of pieces, the special and byte pieces included.
      out: the model file to write (``tokenizer.model``); its folder is made when it is missing.
      character_coverage: the share of characters that get a piece of their own; rarer ones become
        bytes.

    Returns ``out``.

    Raises:
      TokenizerError: the vocabulary is too small for the reserved pieces or too large for the text.
    """
    if vocab_size <= NUM_RESERVED_PIECES:
        raise TokenizerError(
            f"vocab_size={vocab_size} must exceed the {NUM_RESERVED_PIECES} special and byte pieces"
        )
    passages = sample_passages(texts, max_bytes=sample_bytes, seed=seed)
    if not any(passage.strip() for passage in passages):
        raise TokenizerError("texts holds no character to train a tokenizer on")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(passage.translate(_RESERVED_CHARACTERS) for passage in passages),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            num_threads=_NUM_THREADS,
            max_sentence_length=_MAX_PASSAGE_BYTES,
            pad_id=PAD_ID,
            eos_id=EOD_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            pad_piece=PAD_PIECE,
            eos_piece=EOD_PIECE,
            unk_piece=UNK_PIECE,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(
            f"cannot train a vocabulary of vocab_size={vocab_size}: {error}"
        ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(model.getvalue())
    return out

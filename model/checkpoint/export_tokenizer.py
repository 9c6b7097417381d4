"""Our SentencePiece vocabulary as a Hugging Face `tokenizer.json` that gives the same ids.

SentencePiece ranks merges by the score of the piece they make, `tokenizers` by a list of pairs; the
list has every pair of pieces that make a piece, in the order of that piece's score. Spaces are
spelled as spaces, not as U+2581, so that a text may hold that character as any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.errors import ExportError
from model.tokenizer import SentencePieceTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE_SYMBOL = "\u2581"
_SPECIAL_KINDS = ("control", "unknown")

# What the converted vocabulary is held against, beside the text of each of its own pieces.
_PROBES = (
    "",
    " ",
    "  two  spaces,\n\n\ttabs\r\n and   three ",
    "It was the best of times, it was the worst of times; 1859, 0.5, 007.",
    "def f(x):\n        return x ** 2  # \u00e9\u00df\u4e2d\u6587 \U0001f334 \u2581",
    "<eod> <unk><0x41>\x00",
    "aaaaaaaaaaaaaaaaaaaaaaa -------------------- ....................",
)


def tokenizer_json(tokenizer: SentencePieceTokenizer) -> str:
    """The text of `tokenizer.json`.

    Raises:
        ExportError: The vocabulary is not of the BPE kind, or it cannot be expressed exactly.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    pieces = [_spelling(tokenizer, token_id) for token_id in range(tokenizer.vocab_size)]
    vocab = {piece: token_id for token_id, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise ExportError("the tokenizer has two pieces that are spelled the same")
    model = models.BPE(
        vocab=vocab, merges=_merges(tokenizer, vocab), byte_fallback=True, fuse_unk=False
    )
    converted = Tokenizer(model)
    converted.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    converted.add_special_tokens(
        [
            AddedToken(piece, special=True, normalized=False)
            for token_id, piece in enumerate(pieces)
            if tokenizer.piece_kind(token_id) in _SPECIAL_KINDS
        ]
    )
    _check(tokenizer, converted, pieces)
    text: str = converted.to_str(pretty=True)
    return text


def tokenizer_config(tokenizer: SentencePieceTokenizer, max_seq_len: int) -> dict[str, Any]:
    """What `tokenizer_config.json` says beside `tokenizer.json`."""
    special = {
        "eos_token": tokenizer.eos_ids[0],
        "bos_token": tokenizer.bos_id,
        "pad_token": tokenizer.pad_id,
        "unk_token": tokenizer.unk_id,
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        # Text that spells a control token stays text, as with our own tokenizer.
        "split_special_tokens": True,
        **{
            role: tokenizer.id_to_piece(token_id)
            for role, token_id in special.items()
            if token_id is not None
        },
    }


def require_bpe(tokenizer: SentencePieceTokenizer) -> None:
    """Check that pieces are merges by rank: their scores are 0, -1, -2, …

    Raises:
        ExportError: They are not: the vocabulary is of the unigram kind.
    """
    for token_id in range(tokenizer.vocab_size):
        score = tokenizer.piece_score(token_id)
        if tokenizer.piece_kind(token_id) == "normal" and not score.is_integer():
            raise ExportError(
                f"the tokenizer is not BPE: piece {tokenizer.id_to_piece(token_id)!r} has score "
                f"{score}, expected a whole rank"
            )


def _spelling(tokenizer: SentencePieceTokenizer, token_id: int) -> str:
    piece = tokenizer.id_to_piece(token_id)
    is_text = tokenizer.piece_kind(token_id) == "normal"
    return piece.replace(_SPACE_SYMBOL, " ") if is_text else piece


def _merges(tokenizer: SentencePieceTokenizer, vocab: dict[str, int]) -> list[tuple[str, str]]:
    require_bpe(tokenizer)
    scores = {
        piece: tokenizer.piece_score(token_id)
        for piece, token_id in vocab.items()
        if tokenizer.piece_kind(token_id) == "normal"
    }
    return [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]


def _check(tokenizer: SentencePieceTokenizer, converted: Tokenizer, pieces: list[str]) -> None:
    converted.encode_special_tokens = True
    for text in (*_PROBES, *pieces):
        ours, theirs = tokenizer.encode(text), converted.encode(text, add_special_tokens=False).ids
        if ours != theirs:
            raise ExportError(
                f"the tokenizer cannot be expressed as tokenizer.json: {text!r} has the ids "
                f"{ours}, there {theirs}"
            )

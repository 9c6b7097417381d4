"""Real Detoxify checkpoints, small enough to make in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from safety.scorers import TOXICITY_LABELS

CLASSES = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
WORDS = ["a", "all", "and", "are", "as", "bad", "by", "but", "day", "do", "dog", "english", "f", "for", "from", "fuck", "good", "hate", "have", "he", "i", "idiot", "in", "is", "it", "kill", "kind", "like", "love", "man", "my", "no", "not", "of", "on", "people", "she", "so", "stupid", "text", "that", "the", "they", "this", "to", "trace", "very", "was", "we", "will", "with", "woman", "word", "you", "another"]


def make_checkpoint(folder: Path, *, state: dict[str, Any] | None = None, **sizes: int) -> Path:
    """A BERT with random weights whose scores vary, in Detoxify's own format, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *WORDS[1:], ".", ",", "!", "?"]
    vocab = list(dict.fromkeys(vocab))
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    tokenizer = transformers.BertTokenizer(
        vocab={word: index for index, word in enumerate(vocab)}, model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(
        **{
            "vocab_size": len(vocab),
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "num_labels": len(TOXICITY_LABELS),
            **sizes,
        }
    )
    torch.manual_seed(11)
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        # So that labels of different texts are far from 0.5, on both sides.
        model.classifier.weight.mul_(40)
    config.save_pretrained(folder)
    path = folder / "tiny.ckpt"
    torch.save(
        {
            "config": {
                "arch": {
                    "args": {
                        "model_type": "bert-base-uncased",
                        "model_name": "BertForSequenceClassification",
                        "tokenizer_name": "BertTokenizer",
                        "num_classes": len(CLASSES),
                    }
                },
                "dataset": {"args": {"classes": list(CLASSES)}},
            },
            "state_dict": model.state_dict() if state is None else state,
        },
        path,
    )
    return path

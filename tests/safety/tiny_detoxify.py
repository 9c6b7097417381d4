"""Real Detoxify checkpoints, small enough to make in a test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers

from safety.scorers import TOXICITY_LABELS

CLASSES = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
_TEXT = """a all and are as bad by but day do dog english for from fuck good hate have he idiot in
is it kill kind like love man my no not of on people she so stupid text that the they this to
trace very was we will with woman word you another"""


_BAD_WORDS = ("stupid", "fuck", "kill", "idiot", "hate")
"""Each decides about one label, and all about the first."""


def make_checkpoint(
    folder: Path, *, state: dict[str, Any] | None = None, steps: int = 120, **sizes: int
) -> Path:
    """A small BERT, trained for so many steps, in Detoxify's own format, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocab = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *pieces,
        *_TEXT.split(),
        ".",
        ",",
        "!",
        "?",
    ]
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
    model = transformers.BertForSequenceClassification(config)
    # So small a model trains faster on one thread, and on a busy machine very much faster.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if steps:
            _train(model, tokenizer, steps)
    finally:
        torch.set_num_threads(threads)
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


def _train(model: torch.nn.Module, tokenizer: Any, steps: int) -> None:
    """A bad word makes its label and the first; so scores vary, as those of real weights do."""
    words = _TEXT.split()
    chance = random.Random(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        texts = [" ".join(chance.choices(words, k=chance.randint(1, 24))) for _ in range(48)]
        found = torch.tensor([[float(bad in text) for bad in _BAD_WORDS] for text in texts])
        targets = torch.cat([found.amax(1, keepdim=True), found], dim=1)
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()

"""One small real tokenizer for all tests that need text."""

from pathlib import Path

from model.training.tokenizer import train_sentencepiece

VOCAB_SIZE = 400
TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. "
    "The little mermaid swam up to the castle, and the prince walked along the shore.\n\n"
    "In 1859 there were 1203 horses, 45 kings and  two   queens — so they say …\n"
)


def train_tiny_tokenizer(directory: Path) -> Path:
    """Train it into `directory`; returns the model file."""
    return train_sentencepiece(
        [TEXT * 20], vocab_size=VOCAB_SIZE, out=directory / "tokenizer.model"
    )

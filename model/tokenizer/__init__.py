"""Text to token ids and back, without loss, whole or one token at a time.

`SentencePieceTokenizer` serves Talipot's own models, `HuggingFaceTokenizer` imported ones; both are
a `Tokenizer`. `load_tokenizer` picks the right one from a model folder, `StreamDecoder` turns
generated ids into text while they arrive.
"""

from model.tokenizer.folder import load_tokenizer
from model.tokenizer.huggingface import HuggingFaceTokenizer
from model.tokenizer.protocol import Tokenizer, TokenizerInputError
from model.tokenizer.sentencepiece_model import SentencePieceTokenizer
from model.tokenizer.stream import StreamDecoder

__all__ = [
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerInputError",
    "load_tokenizer",
]

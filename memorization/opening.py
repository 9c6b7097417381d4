"""Finds an index by what people call it, and refuses one of another tokenizer."""

from __future__ import annotations

from pathlib import Path

from memorization.disk_index import DiskIndex
from memorization.errors import TrainingIndexError
from memorization.fingerprint_index import FingerprintIndex
from memorization.index import TrainingIndex
from memorization.tokenizer import IndexTokenizer, require_tokenizer, tokenizer_identity

FINGERPRINT_FILE = "fingerprints.bin"
_EMBEDDED = Path(__file__).parent / "embedded"


def embedded_indexes() -> tuple[str, ...]:
    """Names of the models whose training text comes with this package as fingerprints."""
    return tuple(sorted(path.parent.name for path in _EMBEDDED.glob(f"*/{FINGERPRINT_FILE}")))


def open_embedded(name: str) -> FingerprintIndex:
    """Open the fingerprints of an embedded model's training text.

    Raises:
        TrainingIndexError: There are none of that name.
    """
    if name not in embedded_indexes():
        raise TrainingIndexError(
            f"no index is embedded for {name!r}; there is one for: {', '.join(embedded_indexes())}"
        )
    return FingerprintIndex.open(_EMBEDDED / name / FINGERPRINT_FILE)


def open_index(location: str, tokenizer: IndexTokenizer) -> TrainingIndex:
    """Open an index.

    Args:
        location: An embedded model's name, a folder of `talipot index build`, a file of
            fingerprints, or `redis://HOST:PORT/DB?name=NAME`.
        tokenizer: The tokenizer whose ids will be looked up.

    Raises:
        TrainingIndexError: There is no such index, or it is damaged.
        IndexUnavailableError: Redis does not answer.
        TokenizerMismatchError: It was built with another tokenizer.
    """
    path = Path(location)
    index: TrainingIndex
    if location in embedded_indexes():
        index = open_embedded(location)
    elif location.startswith(("redis://", "rediss://")):
        from memorization.redis_index import RedisIndex
        from memorization.redis_store import connect

        index = RedisIndex.open(*connect(location))
    elif path.is_dir():
        index = DiskIndex.open(path)
    elif path.is_file():
        index = FingerprintIndex.open(path)
    else:
        raise TrainingIndexError(
            f"no index at {location}: expected a folder or file of `talipot index build`, "
            f"or one of {', '.join(embedded_indexes())}"
        )
    require_tokenizer(index.tokenizer_identity, tokenizer_identity(tokenizer), location)
    return index


def sure_tokens(index: TrainingIndex) -> int:
    """The shortest run that an index is sure to find, in tokens.

    Raises:
        TrainingIndexError: It finds no runs.
    """
    if index.sure_tokens is None:
        raise TrainingIndexError("this index finds near duplicates alone, no verbatim runs")
    return index.sure_tokens

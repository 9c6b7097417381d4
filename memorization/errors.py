"""The memorization package's exceptions.

MemorizationError
├── CorpusError              invalid_corpus       a corpus file, line or field cannot be read
├── TrainingIndexError       invalid_index        an index is missing, damaged or not what was asked
│   └── TokenizerMismatchError  tokenizer_mismatch  an index was built with another tokenizer
├── IndexBuildError          index_build_failed   a build cannot go on; the message says what to do
└── IndexUnavailableError    index_unavailable    the store of an index does not answer
"""

from __future__ import annotations


class MemorizationError(Exception):
    """Base of every error that this package raises on purpose; `code` is stable."""

    code: str = "memorization_error"


class CorpusError(MemorizationError):
    """A corpus cannot be read; the message names file, line and field."""

    code = "invalid_corpus"


class TrainingIndexError(MemorizationError):
    """An index is missing or damaged, or a parameter or query does not fit it."""

    code = "invalid_index"


class TokenizerMismatchError(TrainingIndexError):
    """The index was built with another tokenizer, so its token ids mean other text."""

    code = "tokenizer_mismatch"


class IndexBuildError(MemorizationError):
    """A build cannot begin or go on; what was finished is kept."""

    code = "index_build_failed"


class IndexUnavailableError(MemorizationError):
    """The store that holds an index does not answer: nothing is known about the query."""

    code = "index_unavailable"

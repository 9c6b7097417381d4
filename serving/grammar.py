"""Grammars: constraints compiled for a vocabulary, and the tokens that they allow next.

The parser is llguidance (https://github.com/guidance-ai/llguidance): Earley over a lexer of regular
expression derivatives, walked along the trie of the vocabulary's bytes. A mask takes it some
microseconds. It works on bytes, so a character that is split over tokens is no special case.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par
from numpy.typing import NDArray

from model.tokenizer import Tokenizer
from serving.constraint import Constraint
from serving.errors import RequestError
from serving.grammar_guard import GrammarGuard

CACHED_GRAMMARS = 128
"""Compiled grammars that are kept."""
COMPILE_TIMEOUT_S = 2.0
"""Seconds that a grammar may take to compile."""

# Between the parts of JSON: a space, or a line's end and an indent. A model that has lost its way
# must not fill the context with them.
_WHITESPACE = r"( |\r?\n[ \t]{0,12})"
_LIMITS: Mapping[str, int | bool] = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_items_in_row": 1_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 100_000,
    "verbose_errors": False,
}
_MAX_REASON_CHARACTERS = 300


class Grammar:
    """A compiled constraint; makes a matcher for each request."""

    def __init__(self, constraint: Constraint, compiler: GrammarCompiler, start: LLMatcher) -> None:
        """Keep a matcher that has taken in nothing."""
        self.constraint = constraint
        self.compiler = compiler
        self._start = start

    def matcher(self) -> GrammarMatcher:
        """A matcher at the grammar's start; takes some microseconds."""
        return GrammarMatcher(self._start.deep_copy())


class GrammarMatcher:
    """Follows one request's tokens through its grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher) -> None:
        """Start where `matcher` is."""
        self.inner = matcher

    @property
    def is_complete(self) -> bool:
        """Whether the text is a sentence that no token can lengthen."""
        return self.inner.is_stopped() and not self.inner.is_error()

    @property
    def problem(self) -> str:
        """Why the grammar cannot be followed any further; empty while it can."""
        return _first_line(self.inner.get_error()) if self.inner.is_error() else ""

    def take(self, token_id: int) -> bool:
        """Advance by a token; False if the grammar does not allow it here."""
        return self.inner.consume_token(token_id)


class GrammarCompiler:
    """Compiles constraints for one vocabulary and remembers the grammars. For any thread."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, *, shares_cores: bool = True) -> None:
        """Nothing is built before `make_ready` or the first constraint.

        Args:
            tokenizer: Gives the tokens' bytes.
            vocab_size: Columns of the model's logits, at least the tokenizer's.
            shares_cores: Whether the model runs on the cores that compute the masks. Then one
                thread computes them: more would each take the step that runs meanwhile a core,
                and the masks would wait for the last of them to get one.
        """
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._guard = GrammarGuard(timeout_s=COMPILE_TIMEOUT_S, limits=_LIMITS)
        self._executor = None if shares_cores else LLExecutor()
        self._vocabulary: LLTokenizer | None = None
        self._compiling = threading.Lock()
        self._lock = threading.Lock()
        self._grammars: OrderedDict[Constraint, Grammar] = OrderedDict()

    @property
    def mask_words(self) -> int:
        """32-bit words of a row of a mask."""
        return -(-self._vocab_size // 32)

    def make_ready(self) -> None:
        """Read the vocabulary and start the guard's process."""
        with self._compiling:
            self._ready_vocabulary()
        self._guard.make_ready()

    def close(self) -> None:
        """End the guard's process."""
        self._guard.close()

    def find(self, constraint: Constraint) -> Grammar | None:
        """The grammar of a constraint if it is remembered; never waits for a compilation."""
        with self._lock:
            grammar = self._grammars.get(constraint)
            if grammar is not None:
                self._grammars.move_to_end(constraint)
            return grammar

    def compile(self, constraint: Constraint) -> Grammar:
        """The grammar of a constraint: about a millisecond, at most some seconds.

        Raises:
            RequestError: It is no JSON schema or regular expression, uses what is not supported,
                matches nothing, or is too complex; `param` is the constraint's field.
        """
        with self._compiling:
            grammar = self.find(constraint)
            if grammar is None:
                grammar = self._compile(constraint)
                with self._lock:
                    self._grammars[constraint] = grammar
                    if len(self._grammars) > CACHED_GRAMMARS:
                        self._grammars.popitem(last=False)
            return grammar

    def fill(self, masks: NDArray[np.int32], rows: Mapping[int, GrammarMatcher]) -> None:
        """Write the mask of each matcher's next token into its row of int32[R, mask_words].

        Bit i of word w is token 32 w + i. A matcher that fails has a `problem` afterwards, and its
        row is undefined.
        """
        if self._executor is not None and len(rows) > 1:
            matchers = [(matcher.inner, row) for row, matcher in rows.items()]
            fill_next_token_bitmask_par(self._executor, matchers, masks)
            return
        for row, matcher in rows.items():
            fill_next_token_bitmask(matcher.inner, masks, row)

    def _compile(self, constraint: Constraint) -> Grammar:
        source = _source(constraint)
        problem = self._guard.problem(source)
        if problem:
            raise _refusal(constraint, problem)
        matcher = LLMatcher(self._ready_vocabulary(), source, log_level=0, limits=_limits())
        if matcher.is_error():
            raise _refusal(constraint, matcher.get_error())
        mask = np.zeros((1, self.mask_words), np.int32)
        probe = matcher.deep_copy()
        fill_next_token_bitmask(probe, mask, 0)
        if probe.is_error() or not mask.any():
            raise _refusal(constraint, "no text satisfies it")
        return Grammar(constraint, self, matcher)

    def _ready_vocabulary(self) -> LLTokenizer:
        if self._vocabulary is None:
            self._vocabulary = LLTokenizer(
                TokenizerWrapper(_Vocabulary(self._tokenizer, self._vocab_size)),
                eos_token=list(self._tokenizer.eos_ids),
            )
        return self._vocabulary


class _Vocabulary:
    """A tokenizer as llguidance wants it.

    Control tokens, unused ones and the rows that pad an embedding have no bytes; as special tokens
    they are never allowed, apart from those that end a document where the grammar may end.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        own = range(min(tokenizer.vocab_size, vocab_size))
        padding = [b""] * (vocab_size - len(own))
        self.tokens = [tokenizer.token_bytes(token_id) for token_id in own] + padding
        self.special_token_ids = [i for i, data in enumerate(self.tokens) if not data]
        self.eos_token_id = tokenizer.eos_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> Sequence[int]:
        return self._encode(text)


def _limits() -> LLParserLimits:
    limits: dict[str, Any] = dict(_LIMITS)
    return LLParserLimits(**limits)


def _source(constraint: Constraint) -> str:
    """The constraint in llguidance's own notation."""
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.text)
    try:
        schema = json.loads(constraint.text)
        if not isinstance(schema, dict):
            raise _refusal(constraint, "a schema is a JSON object")
        return LLMatcher.grammar_from_json_schema(
            constraint.text, overrides={"whitespace_pattern": _WHITESPACE}
        )
    except RecursionError:
        raise _refusal(constraint, "it is nested too deeply") from None
    except ValueError as error:
        raise _refusal(constraint, str(error)) from None


def _refusal(constraint: Constraint, reason: str) -> RequestError:
    what = "JSON schema" if constraint.kind == "json_schema" else "regular expression"
    return RequestError(
        f"{constraint.field} holds no {what} that can be followed: {_first_line(reason)}",
        param=constraint.field,
    )


def _first_line(reason: str) -> str:
    """What the library says, without its picture of the place."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error:")] or lines[:1] or ["unknown reason"]
    text = told[0].removeprefix("error: ")
    return text if len(text) <= _MAX_REASON_CHARACTERS else text[:_MAX_REASON_CHARACTERS] + "…"

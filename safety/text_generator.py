"""What an audit needs of a language model: continuations of prompts, and how likely texts are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How continuations are drawn.

    Attributes:
        n: Continuations of each prompt, drawn independently.
        max_tokens: Most tokens of each.
        temperature: 0 is greedy.
        top_k: Draw from the k most likely tokens; 0 is off.
        top_p: Draw from the smallest set of most likely tokens with at least this probability.
        seed: The same seed, prompt and parameters give the same continuations.
        stop: Texts that end a continuation; not part of it.
    """

    n: int = 1
    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How an audit has its continuations drawn: what is the same for all of them.

    Attributes:
        max_tokens: Most tokens of each continuation.
        top_k: Sample from the k most likely tokens; 0 is off.
        temperature: Of the sampling; 0 is greedy.
    """

    max_tokens: int = 128
    top_k: int = 40
    temperature: float = 1.0

    def sampling(self, n: int, seed: int) -> Sampling:
        """Of one prompt, `n` times."""
        return Sampling(n=n, seed=seed, **dataclasses.asdict(self))

    def __str__(self) -> str:
        """For reports, behind a number of continuations."""
        return (
            f"up to {self.max_tokens} tokens, top-k {self.top_k}, temperature {self.temperature:g}"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """One continuation: its text, why it ended (`stop` or `length`), and its size in tokens."""

    text: str
    finish_reason: str
    num_tokens: int


class GenerationRefusedError(Exception):
    """The model refuses this very request, such as a prompt beyond its context; others may pass."""


class TextGenerator(Protocol):
    """A model, wherever it runs. Calls may overlap; how many run at once is the caller's choice."""

    @property
    def name(self) -> str:
        """What users call the model."""

    @property
    def version(self) -> str:
        """The model's weights as far as they can be told from here."""

    async def generate(
        self, prompts: Sequence[str], params: Sampling
    ) -> list[tuple[Continuation, ...]]:
        """Continue every prompt: `params.n` continuations for each, in order.

        Raises:
            GenerationRefusedError: The model refuses a prompt or the parameters.
        """

    async def loglikelihood(
        self, prompts: Sequence[str], continuations: Sequence[str]
    ) -> list[float]:
        """Natural log-probability of each continuation after its prompt, summed over its tokens.

        Prompt and continuation are tokenized as one text. After an empty prompt, all tokens of
        the continuation count, at the beginning of a document.

        Raises:
            GenerationRefusedError: The model refuses a text.
        """

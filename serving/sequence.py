"""One request on its way: its tokens become text, logprobs and, at last, a reason to end."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TypeAlias

from model.tokenizer import StreamDecoder, Tokenizer
from serving.output import Delta, FinishReason, TokenLogprob, Usage
from serving.request import GenerationRequest
from serving.stop_strings import StopMatcher

DEADLINE = "deadline"
"""The stop reason of a request whose deadline passed."""

CONSTRAINT = "constraint"
"""The stop reason of a request whose grammar could not be followed any further."""

NO_TOKEN_LEFT = "no_token"
"""The stop reason of a request that every next token would have ended a forbidden n-gram for."""


class Sequence:
    """A request's host-side state. Used by one thread at a time.

    Attributes:
        request: What was asked.
        seed: Its seed, drawn by the operating system if the request names none.
        stop_ids: The token ids that end it.
        generated: The tokens that were generated.
        deadline: When it ends at the latest, on the clock of `time.monotonic`; None for never.
        is_finished: Whether its last delta was made.
        matcher: Follows the generated tokens through the request's grammar; None without one.
    """

    def __init__(
        self,
        request: GenerationRequest,
        tokenizer: Tokenizer | None,
        *,
        eos_ids: Iterable[int],
        deadline: float | None,
    ) -> None:
        """Start a request; its prompt is not computed yet."""
        params = request.params
        self.request = request
        self.seed = secrets.randbits(64) if params.seed is None else params.seed
        stops = set(params.stop_token_ids)
        self.stop_ids = frozenset(stops if params.ignore_eos else stops.union(eos_ids))
        self.generated: list[int] = []
        self.deadline = deadline
        self.is_finished = False
        self.matcher = None if request.constraint is None else request.constraint.matcher()
        self._tokenizer = tokenizer
        self._matcher = StopMatcher(params.stop)
        self._decoder, self._prompt_text = self._open_text()
        self._prompt_logprobs: list[TokenLogprob] = []
        self._is_first = True

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether the prompt's chunks must be scored."""
        return self.request.params.prompt_logprobs is not None

    @property
    def needs_steps(self) -> bool:
        """Whether the model has to run at all."""
        if self.request.params.max_tokens:
            return True
        return self.wants_prompt_logprobs and len(self.request.prompt_token_ids) > 1

    @property
    def scored(self) -> int:
        """Prompt tokens whose logprobs are known, the first apart, which has none."""
        return len(self._prompt_logprobs)

    def add_prompt_logprobs(self, scored: Iterable[TokenLogprob]) -> None:
        """Keep the logprobs of the next prompt tokens, for the first delta."""
        self._prompt_logprobs.extend(scored)

    def add_token(self, token_id: int, logprob: TokenLogprob | None) -> Delta:
        """Take a sampled token; the delta has a finish reason if it ended the request."""
        params = self.request.params
        self.generated.append(token_id)
        count = len(self.generated)
        logprobs = None if logprob is None else (logprob,)
        if self.matcher is not None and not self.matcher.take(token_id):
            return self._delta(self._flush(), (token_id,), logprobs, "error", CONSTRAINT)
        if token_id in self.stop_ids and count > params.min_tokens:
            reason = token_id if token_id in params.stop_token_ids else None
            return self._delta(self._flush(), (token_id,), logprobs, "stop", reason)
        text = self._decode(token_id)
        if count >= params.min_tokens:
            text, match = self._matcher.push(text)
            if match is not None:
                return self._delta(text, (token_id,), logprobs, "stop", match.stop)
        if self.matcher is not None and self.matcher.is_complete:
            return self._delta(text + self._flush(), (token_id,), logprobs, "stop", None)
        if count == params.max_tokens:
            return self._delta(text + self._flush(), (token_id,), logprobs, "length", None)
        return self._delta(text, (token_id,), logprobs, None, None)

    def finish(self, reason: FinishReason, stop_reason: str | None = None) -> Delta:
        """End without another token: what was withheld is given out."""
        params = self.request.params
        logprobs = None if params.logprobs is None else ()
        return self._delta(self._flush(), (), logprobs, reason, stop_reason)

    def _open_text(self) -> tuple[StreamDecoder | None, str]:
        """The decoder of the generated text, and the prompt's text if it is wanted."""
        if self._tokenizer is None:
            return None, ""
        prompt = self.request.prompt_token_ids
        if self.request.echo:
            decoder = StreamDecoder(self._tokenizer)
            return decoder, "".join(decoder.push(token) for token in prompt)
        is_silent = not any(self._tokenizer.token_bytes(token) for token in prompt)
        # A grammar sees every byte of the first token, so none may be taken off it.
        at_start = is_silent and self.request.constraint is None
        return StreamDecoder(self._tokenizer, at_start=at_start), ""

    def _decode(self, token_id: int) -> str:
        if self._decoder is None or self._tokenizer is None:
            return ""
        if token_id >= self._tokenizer.vocab_size:
            return ""  # a padding row of an imported model's embedding
        return self._decoder.push(token_id)

    def _flush(self) -> str:
        rest = "" if self._decoder is None else self._decoder.flush()
        text, match = self._matcher.push(rest)
        return text if match is not None else text + self._matcher.flush()

    def _delta(
        self,
        text: str,
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...] | None,
        reason: FinishReason | None,
        stop_reason: str | int | None,
    ) -> Delta:
        prompt_logprobs = None
        if self._is_first:
            self._is_first = False
            text = self._prompt_text + text
            if self.wants_prompt_logprobs:
                first = TokenLogprob(token_id=self.request.prompt_token_ids[0], logprob=None)
                prompt_logprobs = (first, *self._prompt_logprobs)
        usage = None
        if reason is not None:
            self.is_finished = True
            usage = Usage(
                prompt_tokens=len(self.request.prompt_token_ids),
                completion_tokens=len(self.generated),
            )
        return Delta(
            text=text,
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            finish_reason=reason,
            stop_reason=stop_reason,
            usage=usage,
        )


Emitted: TypeAlias = list[tuple[Sequence, Delta]]
"""Deltas of a step with their requests, in order."""

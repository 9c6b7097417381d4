"""From the service's results to messages."""

from __future__ import annotations

from collections.abc import Iterable

from api.grpc.guards import set_reports
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.logprobs import token_text
from api.scoring import Score
from api.service import Completion
from model.tokenizer import Tokenizer
from serving.request import Delta, FinishReason, GenerationOutput, TokenLogprob, Usage

# An abort and a fault reach the client as errors, never as a reason.
_FINISH_REASONS: dict[FinishReason, pb.FinishReason] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "content_filter": pb.FINISH_REASON_CONTENT_FILTER,
}


class MessageWriter:
    """Writes results in the words of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer, generation_id: str = "") -> None:
        """Spell tokens as `tokenizer` does; the id is that of the call in the output log."""
        self._tokenizer = tokenizer
        self._generation_id = generation_id

    def delta(self, index: int, delta: Delta) -> pb.GenerateResponse:
        """The message for a choice's delta."""
        message = pb.GenerateResponse(
            index=index,
            text=delta.text,
            token_ids=delta.token_ids,
            logprobs=self._logprobs(delta.logprobs),
            prompt_logprobs=self._logprobs(delta.prompt_logprobs),
        )
        if delta.finish_reason is not None:
            message.finish_reason = _FINISH_REASONS[delta.finish_reason]
            message.generation_id = self._generation_id
            set_reports(message, delta.reports)
        if delta.usage is not None:
            message.usage.CopyFrom(to_usage(delta.usage))
        _set_stop_reason(message, delta.stop_reason)
        return message

    def result(self, model: str, completion: Completion) -> pb.GenerateResult:
        """The message for a finished call."""
        return pb.GenerateResult(
            model=model,
            choices=[self._choice(output) for output in completion.choices],
            usage=to_usage(completion.usage),
            generation_id=self._generation_id,
        )

    def score(self, score: Score) -> pb.Score:
        """The message for a scored text."""
        return pb.Score(
            tokens=self._logprobs(score.tokens),
            log_likelihood=score.log_likelihood,
            is_greedy=score.is_greedy,
        )

    def token_text(self, token_id: int) -> str:
        """How a token is spelled."""
        return token_text(self._tokenizer, token_id)

    def _choice(self, output: GenerationOutput) -> pb.Choice:
        message = pb.Choice(
            text=output.text,
            token_ids=output.token_ids,
            logprobs=self._logprobs(output.logprobs),
            prompt_logprobs=self._logprobs(output.prompt_logprobs),
            finish_reason=_FINISH_REASONS[output.finish_reason],
        )
        _set_stop_reason(message, output.stop_reason)
        set_reports(message, output.reports)
        return message

    def _logprobs(self, tokens: Iterable[TokenLogprob] | None) -> list[pb.TokenLogprob]:
        return [self._logprob(token) for token in tokens or ()]

    def _logprob(self, token: TokenLogprob) -> pb.TokenLogprob:
        return pb.TokenLogprob(
            token_id=token.token_id,
            text=self.token_text(token.token_id),
            logprob=token.logprob,
            top=[
                pb.Alternative(token_id=other, text=self.token_text(other), logprob=logprob)
                for other, logprob in token.top
            ],
        )


def to_usage(usage: Usage) -> pb.Usage:
    """The message for token counts."""
    return pb.Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens)


def _set_stop_reason(message: pb.GenerateResponse | pb.Choice, reason: str | int | None) -> None:
    if isinstance(reason, str):
        message.stop_text = reason
    elif reason is not None:
        message.stop_token_id = reason

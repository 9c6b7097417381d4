"""From a finished choice to what the output log is told of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from api.outputs.record import OutputRecord
from api.token_ends import TokenEnds, TokenLengths
from model.tokenizer import Tokenizer
from serving.request import GenerationOutput, GenerationRequest

if TYPE_CHECKING:
    from api.service import CompletionCall


def to_record(
    call: CompletionCall,
    request: GenerationRequest,
    index: int,
    output: GenerationOutput,
    tokenizer: Tokenizer,
) -> OutputRecord:
    """What the output log is told of a call's finished choice; `request` is one of its prompt's."""
    text = output.text
    if call.echo:
        lengths = TokenLengths(tokenizer)
        prompt_text = TokenEnds(lengths, request.prompt_token_ids, echo=True).prompt_text
        text = text.removeprefix(prompt_text)
    prompt = call.prompts[index // call.n]
    return OutputRecord(
        call=request.request_id.rpartition("-")[0],
        index=index,
        choices=len(call.prompts) * call.n,
        created_s=time.time(),
        model=call.model,
        prompt=prompt if isinstance(prompt, str) else None,
        prompt_token_ids=request.prompt_token_ids,
        text=text,
        token_ids=output.token_ids,
        finish_reason=output.finish_reason,
        reports=None if output.reports is None else dict(output.reports),
    )

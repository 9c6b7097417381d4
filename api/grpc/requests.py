"""From messages to the service's calls."""

from __future__ import annotations

from api.grpc.sampling import to_params
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.limits import MAX_CHOICES_PER_PROMPT
from api.scoring import ScoreCall, ScoreItem
from api.service import CompletionCall
from api.tokens import Prompt
from serving.checks import check_integer, check_number
from serving.constraint import Constraint
from serving.errors import RequestError


def to_call(
    request: pb.GenerateRequest, *, served: str, time_left_s: float | None, is_streamed: bool
) -> CompletionCall:
    """The service's call for a request.

    Args:
        request: As it came.
        served: Name of the model that an empty name means.
        time_left_s: Until the gRPC call's own deadline; None if it has none.
        is_streamed: Whether the text is sent as it comes.

    Raises:
        RequestError: A field is absent or out of range; `param` is its name.
    """
    n = request.n if request.HasField("n") else 1
    best_of = request.best_of if request.HasField("best_of") else None
    check_integer("n", n, minimum=1, maximum=MAX_CHOICES_PER_PROMPT)
    if best_of is not None:
        check_integer("best_of", best_of, minimum=1, maximum=MAX_CHOICES_PER_PROMPT)
        if is_streamed and best_of > n:
            raise RequestError(
                f"best_of={best_of} must equal n={n} in a stream: the best are known at the end",
                param="best_of",
            )
    return CompletionCall(
        model=request.model or served,
        prompts=(to_prompt("prompt", request.prompt),),
        params=to_params(request.params),
        n=n,
        best_of=best_of,
        echo=request.echo,
        priority=request.priority,
        deadline_s=_deadline_s(request, time_left_s),
        constraint=_constraint(request),
    )


def to_score_call(request: pb.ScoreRequest, *, served: str, time_left_s: float | None) -> ScoreCall:
    """The service's call for a request to score.

    Raises:
        RequestError: A field is absent or out of range; `param` is its name.
    """
    return ScoreCall(
        model=request.model or served,
        items=tuple(_score_item(index, item) for index, item in enumerate(request.items)),
        top_logprobs=request.top_logprobs,
        priority=request.priority,
        deadline_s=_deadline_s(request, time_left_s),
    )


def to_prompt(field: str, message: pb.Prompt) -> Prompt:
    """A text or token ids.

    Raises:
        RequestError: It is absent, or has no token ids; `param` is `field`.
    """
    kind = message.WhichOneof("input")
    if kind is None:
        raise RequestError(f"{field} is required: a text or token ids", param=field)
    if kind == "text":
        return message.text
    if not message.token_ids.ids:
        raise RequestError(f"{field}.token_ids must hold at least 1 token id", param=field)
    return tuple(message.token_ids.ids)


def _constraint(request: pb.GenerateRequest) -> Constraint | None:
    match request.WhichOneof("constraint"):
        case "json_schema":
            return Constraint.of_json_schema(request.json_schema)
        case "guided_regex":
            return Constraint.of_regex(request.guided_regex)
        case _:
            return None


def _score_item(index: int, item: pb.ScoreItem) -> ScoreItem:
    prompt = None
    if item.HasField("prompt"):
        prompt = to_prompt(f"items[{index}].prompt", item.prompt)
    return ScoreItem(prompt=prompt, text=to_prompt(f"items[{index}].text", item.text))


def _deadline_s(
    request: pb.GenerateRequest | pb.ScoreRequest, time_left_s: float | None
) -> float | None:
    """The sooner of the request's own deadline and its call's."""
    if not request.HasField("deadline_s"):
        return time_left_s
    check_number("deadline_s", request.deadline_s, minimum=0)
    return request.deadline_s if time_left_s is None else min(request.deadline_s, time_left_s)

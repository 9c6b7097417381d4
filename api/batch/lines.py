"""The input: one JSON object a line, checked before anything is sent."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.constraints import constraint_of
from api.errors import BatchError
from api.grpc.sampling import checked_params, from_params
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.limits import MAX_CHOICES_PER_PROMPT, MAX_TOKEN_ID
from api.strict_json import parse_json
from model.errors import TalipotError
from serving.checks import check_boolean, check_integer, check_number, check_token_ids, show
from serving.errors import RequestError
from serving.request import SamplingParams

_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingParams))
_OWN = ("model", "n", "best_of", "echo", "priority", "deadline_s")
_CONSTRAINTS = ("response_format", "guided_regex")
_FIELDS = ("id", "prompt", *_OWN, *_CONSTRAINTS, *_SAMPLING)
_MAX_PROBLEMS_SHOWN = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """A file of requests, every line of which is good.

    Attributes:
        path: Where it is.
        ids: The id of every line.
        largest_bytes: Size of the largest request as a message.
        largest_line: Its line.
    """

    path: Path
    ids: frozenset[str]
    largest_bytes: int
    largest_line: int

    def check_size(self, limit_bytes: int) -> None:
        """Accept an input whose every request the server reads.

        Raises:
            BatchError: A request is larger than `limit_bytes`.
        """
        if self.largest_bytes > limit_bytes:
            raise BatchError(
                f"{self.path} line {self.largest_line}: the request of {self.largest_bytes} bytes "
                f"exceeds the server's limit of {limit_bytes} bytes (max_body_bytes)"
            )

    def items(self, skip: set[str]) -> Iterator[pb.GenerateBatchRequest]:
        """The requests, in order, without those whose id is in `skip`."""
        for _, line in _lines(self.path):
            item = parse_line(line)
            if item.id not in skip:
                yield item


def check_input(path: Path) -> Input:
    """Read a file once from end to end.

    Raises:
        BatchError: Lines are bad or have the id of an earlier line; the message names each.
    """
    first_lines: dict[str, int] = {}
    largest = (0, 0)
    problems: list[str] = []
    for number, line in _lines(path):
        try:
            item = parse_line(line)
            if item.id in first_lines:
                earlier = first_lines[item.id]
                raise RequestError(f"id={show(item.id)} is that of line {earlier} already")
            first_lines[item.id] = number
            largest = max(largest, (item.ByteSize(), number))
        except TalipotError as error:
            problems.append(f"{path} line {number}: {error}")
    if problems:
        hidden = len(problems) - _MAX_PROBLEMS_SHOWN
        shown = problems[:_MAX_PROBLEMS_SHOWN] + ([f"and {hidden} more"] if hidden > 0 else [])
        raise BatchError("nothing was sent:\n" + "\n".join(shown))
    return Input(
        path=path,
        ids=frozenset(first_lines),
        largest_bytes=largest[0],
        largest_line=largest[1],
    )


def parse_line(line: bytes) -> pb.GenerateBatchRequest:
    """The request that a line holds, with its id.

    Raises:
        TalipotError: It is no strict JSON object, or a field is absent, unknown or out of range.
    """
    fields = parse_json(line, "the line")
    if not isinstance(fields, dict):
        raise RequestError(f"the line holds {show(fields)}; expected a JSON object")
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise RequestError(f"{unknown[0]} is not a field of a request")
    name = fields.get("id")
    if not isinstance(name, str) or not name:
        raise RequestError(f"id={show(name)} must be a non-empty string")
    given = {field: value for field, value in fields.items() if value is not None}
    try:
        return pb.GenerateBatchRequest(id=name, request=_request(given))
    except UnicodeEncodeError:
        raise RequestError("a text has a lone surrogate, which is no Unicode") from None
    except (ValueError, OverflowError) as error:  # an integer beyond its field in the message
        raise RequestError(str(error)) from None


def _request(fields: dict[str, Any]) -> pb.GenerateRequest:
    for name in ("n", "best_of"):
        if name in fields:
            check_integer(name, fields[name], minimum=1, maximum=MAX_CHOICES_PER_PROMPT)
    if "echo" in fields:
        check_boolean("echo", fields["echo"])
    if "priority" in fields:
        check_integer("priority", fields["priority"], minimum=-(2**31), maximum=2**31 - 1)
    if "deadline_s" in fields:
        check_number("deadline_s", fields["deadline_s"], minimum=0)
    if not isinstance(fields.get("model", ""), str):
        raise RequestError(f"model={show(fields['model'])} must be a string")
    own = {name: fields[name] for name in _OWN if name in fields}
    constraint = constraint_of(*(fields.get(name) for name in _CONSTRAINTS))
    if constraint is not None:
        field = "json_schema" if constraint.kind == "json_schema" else "guided_regex"
        own[field] = constraint.text
    params = {name: fields[name] for name in _SAMPLING if name in fields}
    return pb.GenerateRequest(
        prompt=_prompt(fields.get("prompt")), params=from_params(_params(params)), **own
    )


def _params(fields: dict[str, Any]) -> SamplingParams:
    """Sampling fields as JSON has them: lists for tuples, and names for token ids."""
    stop = fields.get("stop")
    if isinstance(stop, str):
        fields["stop"] = (stop,)
    for name in ("stop", "stop_token_ids"):
        if isinstance(fields.get(name), list):
            fields[name] = tuple(fields[name])
    bias = fields.get("logit_bias")
    if isinstance(bias, dict):
        fields["logit_bias"] = {int(k) if k.isdecimal() else k: v for k, v in bias.items()}
    return checked_params(fields)


def _prompt(prompt: Any) -> pb.Prompt:
    if isinstance(prompt, str):
        return pb.Prompt(text=prompt)
    if not isinstance(prompt, list) or not prompt:
        raise RequestError(f"prompt={show(prompt)} must be a text or a list of token ids")
    check_token_ids("prompt", tuple(prompt))
    if max(prompt) > MAX_TOKEN_ID:
        raise RequestError(f"prompt has {max(prompt)}; token ids are at most {MAX_TOKEN_ID}")
    return pb.Prompt(token_ids=pb.TokenIds(ids=prompt))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; blank ones are left out."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except OSError as error:
        raise BatchError(f"{path} cannot be read: {error.strerror}") from None

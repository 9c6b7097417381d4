"""`SamplingParams` as a message and back, for the server and its clients alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.limits import MAX_TEMPERATURE
from serving.checks import check_number
from serving.request import SamplingParams

_FIELDS = tuple(field.name for field in dataclasses.fields(SamplingParams))
_REPEATED = ("stop", "stop_token_ids")
_MAP = "logit_bias"
_DEFAULTS = SamplingParams()


def checked_params(fields: Mapping[str, Any]) -> SamplingParams:
    """The parameters with these fields set, within the limits that every door has.

    Raises:
        RequestError: A field is out of range; `param` is its name.
    """
    if "temperature" in fields:
        check_number("temperature", fields["temperature"], minimum=0, maximum=MAX_TEMPERATURE)
    return SamplingParams(**fields)


def to_params(message: pb.SamplingParams) -> SamplingParams:
    """The parameters that a message asks for.

    Raises:
        RequestError: A field is out of range; `param` is its name.
    """
    fields: dict[str, Any] = {name: tuple(getattr(message, name)) for name in _REPEATED}
    fields[_MAP] = dict(message.logit_bias)
    for name in _FIELDS:
        if name not in fields and message.HasField(name):
            fields[name] = getattr(message, name)
    return checked_params(fields)


def from_params(params: SamplingParams) -> pb.SamplingParams:
    """The message that asks for these parameters; defaults are left to the server.

    Raises:
        ValueError: An integer is beyond its field, or a text no Unicode.
    """
    values = {name: getattr(params, name) for name in _FIELDS}
    changed = {n: value for n, value in values.items() if value != getattr(_DEFAULTS, n)}
    if params.seed is not None:
        changed["seed"] = _as_signed(params.seed)
    return pb.SamplingParams(**changed)


def _as_signed(seed: int) -> int:
    """The signed integer of the same 64 bits, which are all that counts of a seed."""
    return (seed + 2**63) % 2**64 - 2**63

"""When to try again, and when to stop trying."""

from __future__ import annotations

import random

import grpc
import grpc.aio
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

from api.grpc.talipot.v1 import generation_pb2 as pb

_FIRST_S, _LONGEST_S = 0.5, 10.0
_TRANSIENT_ITEM = (code_pb2.UNAVAILABLE, code_pb2.RESOURCE_EXHAUSTED)
# A server that goes away mid-stream may look like any of these; INTERNAL is what gRPC makes of a
# write that finds the stream gone before its status came.
_TRANSIENT_CALL = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


def delay_s(failures: int, told_s: float | None, rng: random.Random) -> float:
    """Seconds to wait after so many failures in a row; never less than the server told.

    It doubles with each failure, and jitter over half of it keeps many clients from coming back
    at the same moment.
    """
    grown = min(_LONGEST_S, _FIRST_S * 2.0 ** min(failures - 1, 16))
    return max(told_s or 0.0, grown / 2) + rng.uniform(0, grown / 2)


def is_transient(error: pb.Error) -> bool:
    """Whether the same request may succeed later."""
    return error.status in _TRANSIENT_ITEM


def is_server_gone(error: pb.Error) -> bool:
    """Whether the server takes no requests at all for now."""
    return error.status == code_pb2.UNAVAILABLE


def told_by_item(error: pb.Error) -> float | None:
    """Seconds that the server told to wait."""
    return error.retry_after_s if error.HasField("retry_after_s") else None


def told_by_call(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds that the server told to wait, in the `RetryInfo` of its status."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has all that is used
    for detail in () if status is None else status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return info.retry_delay.ToNanoseconds() / 1e9
    return None


def is_transient_call(error: grpc.aio.AioRpcError) -> bool:
    """Whether a call may succeed later.

    Without `RetryInfo`, RESOURCE_EXHAUSTED is gRPC's own word for a message that is too large.
    """
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return told_by_call(error) is not None
    return error.code() in _TRANSIENT_CALL

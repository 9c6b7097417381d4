"""Every error of the gRPC door: a `google.rpc.Status` with details, or an item's `Error`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from api.errors import ErrorReply, reply_to
from api.grpc.talipot.v1 import generation_pb2 as pb

DOMAIN = "talipot"
_LOGGER = logging.getLogger("talipot.grpc")


@contextlib.asynccontextmanager
async def answering(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """End the call with the status of an exception that is raised inside."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (the boundary of a call: its caller is told)
        await abort(context, error)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End the call with an exception's status; one that is our fault is logged."""
    status = rpc_status.to_status(to_status(reply_for(error)))
    await context.abort(status.code, status.details, status.trailing_metadata)


def reply_for(error: Exception) -> ErrorReply:
    """What the client is told; a fault of ours is logged with its traceback."""
    reply = reply_to(error)
    if reply.grpc_status == "INTERNAL":
        _LOGGER.error("a gRPC call failed", exc_info=error)
    return reply


def to_status(reply: ErrorReply) -> status_pb2.Status:
    """The rich status of an error, as docs of google.rpc describe it."""
    status = status_pb2.Status(code=_number(reply), message=reply.message)
    reason = (reply.code or reply.type).upper()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN))
    if reply.param is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=reply.param, description=reply.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if reply.retry_after_s is not None:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromNanoseconds(round(reply.retry_after_s * 1e9))
        status.details.add().Pack(info)
    return status


def to_item_error(error: Exception) -> pb.Error:
    """The error of one request in a batch."""
    reply = reply_for(error)
    return pb.Error(
        status=_number(reply),
        code=reply.code,
        message=reply.message,
        field=reply.param,
        retry_after_s=reply.retry_after_s,
    )


def _number(reply: ErrorReply) -> int:
    return code_pb2.Code.Value(reply.grpc_status)

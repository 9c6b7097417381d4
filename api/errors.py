"""The doors' own exceptions, and the one table from error codes to transport statuses.

TalipotError                                 (model.errors)
├── NotReadyError          not_ready             the model is still loading or compiling
├── ShuttingDownError      shutting_down         the server no longer admits requests
├── StartupError           startup_failed        the server cannot start
├── MissingExtraError      missing_extra         a command needs an optional dependency
├── SideError              (its own)         an error of a side package, under its own code
├── DeadlineError          deadline_exceeded     a request's deadline passed before its end
├── BatchError             batch_failed          a batch cannot go on
├── OutputLogError         output_log_failed     the output log's store does not answer
├── UnknownGenerationError not_found             no generation of that id is in the output log
├── AuditError             audit_failed          an audit cannot begin or go on
├── AuthenticationError    invalid_api_key       no API key, or one that is not known
├── BodyTooLargeError      body_too_large        a request body passes the limit
├── MediaTypeError         unsupported_media_type  a body is not JSON by its own word
└── InvalidJsonError       invalid_json          a body is not strict JSON in UTF-8
"""

from __future__ import annotations

import dataclasses
import math
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

from model.errors import TalipotError

GrpcStatus: TypeAlias = Literal[
    "INVALID_ARGUMENT",
    "UNAUTHENTICATED",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
]
"""Names of the gRPC statuses in use; a name, so that HTTP alone does without gRPC's library."""


class NotReadyError(TalipotError):
    """The model is still loading or compiling; trying again later helps."""

    code = "not_ready"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        """Say when another try makes sense."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDownError(NotReadyError):
    """The server finishes what it has and admits nothing more."""

    code = "shutting_down"


class StartupError(TalipotError):
    """The server or a command cannot start in this environment."""

    code = "startup_failed"


class MissingExtraError(TalipotError):
    """A command needs an optional dependency that is not installed."""

    code = "missing_extra"


class SideError(TalipotError):
    """An error of a package that imports nothing of ours, as one of ours."""

    def __init__(self, message: str, *, code: str, retry_after_s: float | None = None) -> None:
        """Keep the error's own code; say when another try makes sense, if one does."""
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s


class DeadlineError(TalipotError):
    """The request's deadline passed before it was finished."""

    code = "deadline_exceeded"


class BatchError(TalipotError):
    """`talipot batch` cannot begin or go on; the message says what to do."""

    code = "batch_failed"


class OutputLogError(TalipotError):
    """The output log's store does not answer or refuses; trying again later may help."""

    code = "output_log_failed"
    retry_after_s = 2.0


class UnknownGenerationError(TalipotError):
    """The output log does not have the generation: never had it, not yet, or not any more."""

    code = "not_found"


class AuditError(TalipotError):
    """`talipot audit` cannot begin or go on; the message says what to do."""

    code = "audit_failed"


class AuthenticationError(TalipotError):
    """The request carries no API key, or one that the server does not know."""

    code = "invalid_api_key"


class BodyTooLargeError(TalipotError):
    """The request body is longer than the server reads."""

    code = "body_too_large"


class MediaTypeError(TalipotError):
    """The request body is not declared as JSON."""

    code = "unsupported_media_type"


class InvalidJsonError(TalipotError):
    """The request body is not strict JSON in UTF-8."""

    code = "invalid_json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorReply:
    """What a client is told about an error, in OpenAI's terms.

    Attributes:
        status: HTTP status.
        message: For people; names field, value and limit.
        type: OpenAI's family of errors.
        param: The request field at fault, if one is.
        code: Stable, for programs.
        retry_after_s: Seconds after which a new try makes sense.
        grpc_status: What it is in gRPC.
    """

    status: int
    message: str
    type: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    grpc_status: GrpcStatus = "INTERNAL"

    def to_dict(self) -> dict[str, Any]:
        """The JSON body, `{"error": {...}}`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that belong to this error."""
        if self.retry_after_s is not None:
            return {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return {"WWW-Authenticate": "Bearer"} if self.status == HTTPStatus.UNAUTHORIZED else {}


# code → (HTTP status, OpenAI's error type, gRPC status). A code that is absent is a fault of the
# server: 500 and INTERNAL.
_INVALID = "invalid_request_error"
_REPLIES: dict[str, tuple[HTTPStatus, str, GrpcStatus]] = {
    "invalid_request": (HTTPStatus.BAD_REQUEST, _INVALID, "INVALID_ARGUMENT"),
    "invalid_json": (HTTPStatus.BAD_REQUEST, _INVALID, "INVALID_ARGUMENT"),
    "invalid_tokenizer_input": (HTTPStatus.BAD_REQUEST, _INVALID, "INVALID_ARGUMENT"),
    "context_length_exceeded": (HTTPStatus.BAD_REQUEST, _INVALID, "INVALID_ARGUMENT"),
    "invalid_api_key": (HTTPStatus.UNAUTHORIZED, "authentication_error", "UNAUTHENTICATED"),
    "model_not_found": (HTTPStatus.NOT_FOUND, _INVALID, "NOT_FOUND"),
    "not_found": (HTTPStatus.NOT_FOUND, _INVALID, "NOT_FOUND"),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, _INVALID, "UNIMPLEMENTED"),
    "invalid_index": (HTTPStatus.BAD_REQUEST, _INVALID, "INVALID_ARGUMENT"),
    "index_unavailable": (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "service_unavailable_error",
        "UNAVAILABLE",
    ),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _INVALID, "RESOURCE_EXHAUSTED"),
    "unsupported_media_type": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _INVALID, "INVALID_ARGUMENT"),
    "overloaded": (HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "RESOURCE_EXHAUSTED"),
    "not_ready": (HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable_error", "UNAVAILABLE"),
    "shutting_down": (HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable_error", "UNAVAILABLE"),
    "engine_stopped": (HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable_error", "UNAVAILABLE"),
    "output_log_failed": (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "service_unavailable_error",
        "UNAVAILABLE",
    ),
    "deadline_exceeded": (HTTPStatus.GATEWAY_TIMEOUT, "timeout_error", "DEADLINE_EXCEEDED"),
}

# How long a client of a stopping engine should wait: time for a replacement to start.
_STOPPED_RETRY_AFTER_S = 5.0


def reply_to(error: BaseException) -> ErrorReply:
    """What to tell the client about an exception.

    An exception outside the `TalipotError` tree, or one that is no answer to a request, is our
    fault: the reply says so and tells nothing of the inside.
    """
    known = _REPLIES.get(error.code) if isinstance(error, TalipotError) else None
    if known is None or not isinstance(error, TalipotError):
        return ErrorReply(
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
            message="the server failed on this request; the fault is logged",
            type="server_error",
            code="internal_error",
        )
    status, kind, grpc_status = known
    retry_after_s: float | None = getattr(error, "retry_after_s", None)
    if error.code == "engine_stopped":
        retry_after_s = _STOPPED_RETRY_AFTER_S
    return ErrorReply(
        status=status,
        message=str(error),
        type=kind,
        param=getattr(error, "param", None),
        code=error.code,
        retry_after_s=retry_after_s,
        grpc_status=grpc_status,
    )

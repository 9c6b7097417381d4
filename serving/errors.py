"""The serving package's exceptions.

model.errors.TalipotError
├── RequestError               invalid_request          a request's field is out of range
│   ├── ContextLengthError     context_length_exceeded  prompt and max_tokens exceed the context
│   └── UnknownModelError      model_not_found          no model of that name is served
├── OverloadedError            overloaded               the queue is full; try again later
├── EngineStoppedError         engine_stopped           the engine is stopping, stopped or broken
│   └── EngineCrashedError     engine_crashed           a step failed; every request failed with it
├── InvariantError             engine_invariant         the engine's books do not balance: a bug
└── RecompilationError         engine_recompilation     a shape that was not compiled before ready
"""

from __future__ import annotations

from model.errors import TalipotError


class RequestError(TalipotError):
    """A request cannot be served as asked.

    Attributes:
        param: Name of the offending field, or None when no single field is to blame.
    """

    code = "invalid_request"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        """Say what is wrong (field, value, limit) and with which field."""
        super().__init__(message)
        self.param = param


class ContextLengthError(RequestError):
    """The prompt, or the prompt and `max_tokens` together, exceed the model's context."""

    code = "context_length_exceeded"


class UnknownModelError(RequestError):
    """The request names a model that is not served here."""

    code = "model_not_found"


class OverloadedError(TalipotError):
    """The queue is full.

    Attributes:
        retry_after_s: Seconds after which the queue has probably drained.
    """

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        """Say which bound was hit and when to try again."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineStoppedError(TalipotError):
    """The engine does not take requests: not started, draining, stopped or broken."""

    code = "engine_stopped"


class EngineCrashedError(EngineStoppedError):
    """A step raised: the engine is not ready any more and every request in it has failed."""

    code = "engine_crashed"


class InvariantError(TalipotError):
    """The engine's own books do not balance: a bug, found by its checks."""

    code = "engine_invariant"


class RecompilationError(TalipotError):
    """A program was compiled after the engine was ready, and the configuration forbids that."""

    code = "engine_recompilation"

import pytest

from api.errors import AuthenticationError, DeadlineError, NotReadyError, SideError, reply_to
from memorization.errors import IndexUnavailableError, TrainingIndexError
from model.errors import ConfigError
from serving.errors import (
    ContextLengthError,
    EngineCrashedError,
    EngineStoppedError,
    OverloadedError,
    RequestError,
    UnknownModelError,
)


@pytest.mark.parametrize(
    ("error", "status", "grpc_status"),
    [
        (RequestError("n=0", param="n"), 400, "INVALID_ARGUMENT"),
        (ContextLengthError("long", param="prompt"), 400, "INVALID_ARGUMENT"),
        (AuthenticationError("no key"), 401, "UNAUTHENTICATED"),
        (UnknownModelError("who", param="model"), 404, "NOT_FOUND"),
        (OverloadedError("full", retry_after_s=2.5), 429, "RESOURCE_EXHAUSTED"),
        (NotReadyError("loading", retry_after_s=1), 503, "UNAVAILABLE"),
        (EngineStoppedError("stopped"), 503, "UNAVAILABLE"),
        (SideError("bad", code=TrainingIndexError.code), 400, "INVALID_ARGUMENT"),
        (SideError("away", code=IndexUnavailableError.code), 503, "UNAVAILABLE"),
        (DeadlineError("late"), 504, "DEADLINE_EXCEEDED"),
        (EngineCrashedError("broken"), 500, "INTERNAL"),
        (ConfigError("inside"), 500, "INTERNAL"),
        (ZeroDivisionError("inside"), 500, "INTERNAL"),
    ],
)
def test_each_error_has_a_status_at_every_door(error, status, grpc_status):
    reply = reply_to(error)
    assert (reply.status, reply.grpc_status) == (status, grpc_status)


def test_a_request_error_names_its_field():
    reply = reply_to(RequestError("n=0 must be at least 1", param="n"))
    assert reply.to_dict() == {
        "error": {
            "message": "n=0 must be at least 1",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
        }
    }


def test_retry_after_is_whole_seconds_and_never_zero():
    assert reply_to(OverloadedError("full", retry_after_s=0.1)).headers == {"Retry-After": "1"}
    assert reply_to(OverloadedError("full", retry_after_s=2.1)).headers == {"Retry-After": "3"}


def test_a_fault_of_ours_tells_nothing_of_the_inside():
    assert "secret path" not in reply_to(ConfigError("secret path")).message

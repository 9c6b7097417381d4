"""Errors as google.rpc.Status."""

import pytest
from google.rpc import code_pb2, error_details_pb2

from api.errors import NotReadyError, reply_to
from api.grpc.errors import to_item_error, to_status
from serving.errors import OverloadedError, RequestError

BAD = RequestError("top_k=-1 must be an integer of at least 0", param="top_k")
FULL = OverloadedError("the queue is full", retry_after_s=2.5)


def detail(error, kind):
    for packed in to_status(reply_to(error)).details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BAD, "INVALID_REQUEST"),
        (FULL, "OVERLOADED"),
        (NotReadyError("loading", retry_after_s=2), "NOT_READY"),
        (ZeroDivisionError("inside"), "INTERNAL_ERROR"),
    ],
)
def test_the_reason_is_the_stable_code(error, reason):
    info = detail(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "talipot")


def test_a_field_at_fault_is_a_violation():
    (violation,) = detail(BAD, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("top_k", str(BAD))
    assert detail(FULL, error_details_pb2.BadRequest) is None


def test_the_wait_is_told_where_there_is_one():
    assert detail(FULL, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 2500
    assert detail(BAD, error_details_pb2.RetryInfo) is None


def test_a_requests_error_in_a_batch_says_the_same():
    error = to_item_error(FULL)
    assert (error.status, error.code) == (code_pb2.RESOURCE_EXHAUSTED, "overloaded")
    assert (error.message, error.retry_after_s) == (str(FULL), 2.5)
    assert to_item_error(BAD).field == "top_k"
    assert not to_item_error(BAD).HasField("retry_after_s")


def test_a_fault_of_ours_is_logged_and_tells_nothing(caplog):
    error = to_item_error(ZeroDivisionError("secret path"))
    assert error.status == code_pb2.INTERNAL
    assert "secret path" not in error.message
    assert "secret path" in caplog.text

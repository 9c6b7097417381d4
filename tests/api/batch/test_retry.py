import random

import pytest
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st

from api.batch import retry
from api.grpc.talipot.v1 import generation_pb2 as pb


@given(st.integers(1, 10_000), st.none() | st.floats(0, 3600), st.integers())
def test_a_wait_is_never_shorter_than_told_and_bounded(failures, told_s, seed):
    delay_s = retry.delay_s(failures, told_s, random.Random(seed))
    assert (told_s or 0) <= delay_s <= max(told_s or 0, 5) + 5
    assert delay_s >= 0.25


def test_waits_grow_and_differ():
    rng = random.Random(0)
    waits = [retry.delay_s(failures, None, rng) for failures in (1, 3, 5, 7)]
    assert waits == sorted(waits)
    assert len({retry.delay_s(4, None, rng) for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("status", "is_transient", "is_gone"),
    [
        (code_pb2.UNAVAILABLE, True, True),
        (code_pb2.RESOURCE_EXHAUSTED, True, False),
        (code_pb2.INVALID_ARGUMENT, False, False),
        (code_pb2.DEADLINE_EXCEEDED, False, False),
        (code_pb2.INTERNAL, False, False),
    ],
)
def test_what_may_succeed_later(status, is_transient, is_gone):
    error = pb.Error(status=status)
    assert (retry.is_transient(error), retry.is_server_gone(error)) == (is_transient, is_gone)
    assert retry.told_by_item(error) is None
    assert retry.told_by_item(pb.Error(status=status, retry_after_s=3)) == 3

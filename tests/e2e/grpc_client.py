"""What gRPC tests need of a client: stubs, errors with their details, waiting for a condition."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1.generation_pb2_grpc import GenerationStub

UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@contextlib.contextmanager
def stub_for(target: str, *options: tuple[str, int]) -> Iterator[GenerationStub]:
    """A client of the server at `target`."""
    with grpc.insecure_channel(target, options=[*UNLIMITED, *options]) as channel:
        yield GenerationStub(channel)


def request(prompt: str = "It was the best of", **fields) -> pb.GenerateRequest:
    """A request; sampling fields go where they belong."""
    own = {name: fields.pop(name) for name in list(fields) if name in _OWN}
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=prompt), params=pb.SamplingParams(**fields), **own
    )


_OWN = {field.name for field in pb.GenerateRequest.DESCRIPTOR.fields} - {"params", "prompt"}


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call's error, taken apart."""

    status: str
    message: str
    reason: str | None = None
    field: str | None = None
    retry_after_s: float | None = None


def failure_of(call: Callable[[], object]) -> Failure:
    """The error that `call` raises."""
    try:
        call()
    except grpc.RpcError as error:
        return to_failure(error)
    raise AssertionError("the call succeeded")


def to_failure(error: grpc.RpcError) -> Failure:
    """An error, taken apart."""
    found = {}
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            assert info.domain == "talipot"
            found["reason"] = info.reason
        elif detail.Unpack(bad):
            (violation,) = bad.field_violations
            assert violation.description == error.details()
            found["field"] = violation.field
        elif detail.Unpack(retry):
            found["retry_after_s"] = retry.retry_delay.ToNanoseconds() / 1e9
    return Failure(error.code().name, error.details(), **found)


def wait_until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Return when `condition` holds; AssertionError if it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)

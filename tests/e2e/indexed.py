"""A server that looks texts up in an index of training data, and the tokens of its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.guard_config import GuardConfig
from api.guards import Guards
from memorization.tracing import Tracer
from tests.e2e.grpc_client import request, stub_for
from tests.e2e.test_safety import BODY
from tests.e2e.tiny import RunningServer, load_tiny_engine, serving, wait_ready
from tests.memorization.exact_index import ExactIndex


@contextlib.contextmanager
def serving_index(model: Path, index: ExactIndex) -> Iterator[RunningServer]:
    """A ready server whose requests may ask for the memorization guard."""
    guards = Guards(GuardConfig(scorer="none"), tracer=Tracer(index, timeout_s=5))
    with serving(load_tiny_engine(model), guards) as found:
        wait_ready(found.url)
        yield found


def answer(target: str, **memorization: object) -> tuple[list[int], list[pb.GenerateResponse]]:
    """The tokens of the answer to `BODY` at a gRPC door, and the messages that they came in."""
    fields = {name: value for name, value in BODY.items() if name not in ("model", "prompt")}
    if memorization:
        fields["memorization"] = pb.MemorizationOptions(**memorization)
    with stub_for(target) as stub:
        deltas = list(stub.Generate(request(BODY["prompt"], **fields)))
    return [token for delta in deltas for token in delta.token_ids], deltas

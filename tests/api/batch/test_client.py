"""The client against a server that follows a script; whatever that is, a line is answered once."""

import json
from concurrent import futures

import grpc
import pytest
from google.rpc import code_pb2
from grpc_status import rpc_status

from api.batch.command import run_batch
from api.config import BatchConfig
from api.errors import BatchError, NotReadyError, reply_to
from api.grpc.errors import to_status
from api.grpc.talipot.v1 import generation_pb2 as pb
from api.grpc.talipot.v1 import generation_pb2_grpc

COUNT = 5


def answer(item):
    choice = pb.Choice(text=f"<{item.id}>", finish_reason=pb.FINISH_REASON_STOP)
    result = pb.GenerateResult(model="m", choices=[choice], usage=pb.Usage(completion_tokens=2))
    return pb.GenerateBatchResponse(id=item.id, result=result)


def error(item, status, **fields):
    return pb.GenerateBatchResponse(
        id=item.id, error=pb.Error(status=status, code="c", message="m", **fields)
    )


def whole(items, _):
    yield from map(answer, items)


def ends_early(items, _):
    yield answer(next(items))


def breaks(items, context):
    yield answer(next(items))
    refusal = NotReadyError("loading", retry_after_s=0.1)
    context.abort_with_status(rpc_status.to_status(to_status(reply_to(refusal))))


def is_full_once(items, _):
    first = next(items)
    yield error(first, code_pb2.RESOURCE_EXHAUSTED, retry_after_s=0.1)
    yield from map(answer, items)


def is_stopping(items, _):
    yield answer(next(items))
    yield error(next(items), code_pb2.UNAVAILABLE, retry_after_s=0.1)
    yield from map(answer, items)  # what was under way


def repeats_itself(items, _):
    for item in items:
        yield answer(item)
        yield answer(item)
        yield answer(pb.GenerateBatchRequest(id="unheard of"))


def refuses(_, context):
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "go away")


class Scripted(generation_pb2_grpc.GenerationServicer):
    def __init__(self, script):
        self.script = list(script)
        self.asked = []

    def GetModel(self, request, context):  # noqa: N802
        return pb.Model(name="m", limits=pb.Limits(max_message_bytes=1000))

    def GenerateBatch(self, items, context):  # noqa: N802
        def noted():
            for item in items:
                self.asked.append(item.id)
                yield item

        act = self.script.pop(0) if self.script else refuses
        yield from act(noted(), context) or ()


@pytest.fixture
def config(tmp_path):
    lines = [json.dumps({"id": str(number), "prompt": "x"}) for number in range(COUNT)]
    (tmp_path / "in").write_text("\n".join(lines))
    return {"requests": tmp_path / "in", "results": tmp_path / "out"}


def run(config, *script, **settings):
    """The exit code, what was asked in order, and the records by id."""
    service = Scripted(script)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    generation_pb2_grpc.add_GenerationServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        settings.setdefault("give_up_after_s", 30.0)
        code = run_batch(BatchConfig(target=f"127.0.0.1:{port}", **config, **settings))
    finally:
        server.stop(None).wait()
    assert service.script == []
    records = [json.loads(line) for line in config["results"].read_text().splitlines()]
    return code, service.asked, records


@pytest.mark.parametrize(
    "script",
    [
        [whole],
        [ends_early, whole],
        [breaks, breaks, whole],
        [is_full_once],
        [is_stopping, whole],
        [repeats_itself],
    ],
    ids=lambda script: "-".join(part.__name__ for part in script),
)
@pytest.mark.parametrize("max_in_flight", [1, 2, 64])
def test_each_line_is_answered_once(config, script, max_in_flight):
    code, asked, records = run(config, *script, max_in_flight=max_in_flight)
    assert code == 0
    assert sorted(record["id"] for record in records) == [str(n) for n in range(COUNT)]
    assert all(record["text"] == f"<{record['id']}>" for record in records)
    assert set(asked) == {str(n) for n in range(COUNT)}


def test_no_more_is_under_way_than_allowed(config):
    """The server answers only when it has two: with two in flight it always gets them."""
    most = []

    def watch(items, _):
        waiting = []
        for item in items:
            waiting.append(item)
            most.append(len(waiting))
            if len(waiting) == 2 or item.id == str(COUNT - 1):
                yield from map(answer, waiting)
                waiting.clear()

    code, _, records = run(config, watch, max_in_flight=2)
    assert (code, len(records), max(most)) == (0, COUNT, 2)


def test_a_refusal_of_the_call_ends_the_command(config):
    """A write that comes too late may hide the status from gRPC; then a later try shows it."""
    with pytest.raises(BatchError, match="PERMISSION_DENIED: go away"):
        run(config, max_in_flight=1)


def test_an_error_that_will_not_pass_is_the_lines_answer(config):
    def script(items, _):
        for item in items:
            failure = error(item, code_pb2.INVALID_ARGUMENT, field="top_p")
            yield failure if item.id == "3" else answer(item)

    code, asked, records = run(config, script)
    assert code == 1
    assert asked == [str(n) for n in range(COUNT)]
    assert {"id": "3", "error": {"code": "c", "message": "m", "field": "top_p"}} in records
    code, asked, records = run(config, whole)
    assert (code, asked) == (0, ["3"])
    assert len(records) == COUNT


def test_a_server_that_is_always_full_is_given_up_and_what_is_done_is_kept(config):
    def script(items, _):
        yield answer(next(items))
        for item in items:
            yield error(item, code_pb2.RESOURCE_EXHAUSTED, retry_after_s=0.01)

    with pytest.raises(BatchError, match=r"no answer for 0\.5 s"):
        run(config, script, give_up_after_s=0.5)
    assert [json.loads(x)["id"] for x in config["results"].read_text().splitlines()] == ["0"]


def test_a_request_that_the_server_would_not_read_is_named_before_any_is_sent(config):
    line = json.dumps({"id": "big", "prompt": "x" * 2000})
    with config["requests"].open("a") as file:
        file.write("\n" + line)
    with pytest.raises(BatchError, match=r"line 6: the request of \d+ bytes exceeds"):
        run(config)

"""Clients of the gRPC door that leave, are late, read slowly, or are too many."""

import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.grpc.talipot.v1 import generation_pb2 as pb
from tests.e2e.grpc_client import failure_of, request, stub_for, wait_until
from tests.e2e.tiny import LONG_CONTEXT, PATIENT_ENGINE, load_tiny_engine, serving, wait_ready

LONG = {"max_tokens": LONG_CONTEXT - 64, "ignore_eos": True}
IN_FLIGHT = 2
# A window that does not grow: what is not read soon stops the writer.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536))


@pytest.fixture(scope="module")
def patient(patient_model):
    engine = load_tiny_engine(patient_model, PATIENT_ENGINE)
    with serving(engine, max_batch_in_flight=IN_FLIGHT) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture
def slow_stub(patient):
    with stub_for(patient.grpc_target, *SMALL_WINDOW) as found:
        yield found


@pytest.fixture
def stub(patient):
    with stub_for(patient.grpc_target) as found:
        yield found


def stats(server):
    return server.app.state.service.host.stats()


def is_idle(server):
    found = stats(server)
    return (found.running, found.queued) == (0, 0)


class Requests:
    """A stream of requests that can be left open; knows how many were taken from it."""

    def __init__(self, *items):
        self.items = items
        self.taken = 0
        self.closed = threading.Event()

    def __iter__(self):
        for index, item in enumerate(self.items):
            self.taken += 1
            yield pb.GenerateBatchRequest(id=str(index), request=item)
        self.closed.wait()


def test_a_cancelled_stream_frees_its_slot(patient, stub):
    before = stats(patient).generated_tokens_total
    call = stub.Generate(request(**LONG))
    next(call)
    assert stats(patient).running == 1
    call.cancel()
    wait_until(lambda: is_idle(patient))
    assert stats(patient).generated_tokens_total - before < LONG["max_tokens"]


def test_a_cancelled_batch_frees_every_slot(patient, stub):
    requests = Requests(*[request(**LONG)] * 2)
    call = stub.GenerateBatch(iter(requests))
    wait_until(lambda: stats(patient).running == 2)
    call.cancel()
    requests.closed.set()
    wait_until(lambda: is_idle(patient))


def test_a_client_whose_connection_is_gone_frees_its_slot(patient):
    with stub_for(patient.grpc_target) as gone:
        next(gone.Generate(request(**LONG)))
        assert stats(patient).running == 1
    wait_until(lambda: is_idle(patient))


def test_a_calls_deadline_ends_it_here_and_there(patient, stub):
    found = failure_of(lambda: list(stub.Generate(request(**LONG, n=4), timeout=0.3)))
    assert found.status == "DEADLINE_EXCEEDED"
    wait_until(lambda: is_idle(patient))


def test_a_requests_own_deadline_ends_it_with_details(patient, stub):
    found = failure_of(lambda: list(stub.Generate(request(**LONG, deadline_s=0.05))))
    assert (found.status, found.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert found.retry_after_s is None
    items = [request(**LONG, deadline_s=0.05), request(max_tokens=2, ignore_eos=True)]
    sent = [pb.GenerateBatchRequest(id=str(i), request=item) for i, item in enumerate(items)]
    answers = {answer.id: answer for answer in stub.GenerateBatch(iter(sent))}
    assert (answers["0"].error.code, answers["0"].error.status) == ("deadline_exceeded", 4)
    assert answers["1"].result.usage.completion_tokens == 2
    assert is_idle(patient)


def test_a_score_has_a_deadline_too(patient, stub):
    item = pb.ScoreItem(text=pb.Prompt(text="It was"))
    found = failure_of(lambda: stub.Score(pb.ScoreRequest(items=[item], deadline_s=0)))
    assert (found.status, found.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


def test_a_full_server_says_when_to_come_back(patient, stub):
    running = [stub.Generate(request(**LONG)) for _ in range(4)]
    wait_until(lambda: (stats(patient).running, stats(patient).queued) == (2, 2))
    found = failure_of(lambda: list(stub.Generate(request())))
    assert (found.status, found.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert found.retry_after_s > 0
    (answer,) = stub.GenerateBatch(iter([pb.GenerateBatchRequest(id="x", request=request())]))
    assert (answer.error.code, answer.error.status) == ("overloaded", 8)
    assert answer.error.retry_after_s > 0
    for call in running:
        call.cancel()
    wait_until(lambda: is_idle(patient))


def test_a_smaller_priority_number_goes_first(patient, stub):
    running = [stub.Generate(request(**LONG)) for _ in range(2)]
    wait_until(lambda: stats(patient).running == 2)
    order = []

    def run(name, priority):
        list(stub.Generate(request(max_tokens=1, priority=priority)))
        order.append(name)

    threads = [threading.Thread(target=run, args=("last", 5))]
    threads[0].start()
    wait_until(lambda: stats(patient).queued == 1)
    threads.append(threading.Thread(target=run, args=("first", -5)))
    threads[1].start()
    wait_until(lambda: stats(patient).queued == 2)
    running[0].cancel()
    for thread in threads:
        thread.join()
    running[1].cancel()
    assert order == ["first", "last"]
    wait_until(lambda: is_idle(patient))


def test_a_reader_slower_than_the_model_gets_its_deltas_joined(patient, slow_stub):
    """With 20 alternatives a token the stream is megabytes, far more than the transport takes."""
    call = slow_stub.Generate(request(**LONG, logprobs=20, temperature=0))
    first = next(call)
    wait_until(lambda: is_idle(patient))  # the model did not wait for the reader
    deltas = [first, *call]
    assert sum(len(delta.token_ids) for delta in deltas) == LONG["max_tokens"]
    assert sum(len(delta.logprobs) for delta in deltas) == LONG["max_tokens"]
    assert deltas[-1].finish_reason == pb.FINISH_REASON_LENGTH
    assert len(deltas) < LONG["max_tokens"] / 2


def test_a_batch_whose_results_are_not_read_is_read_no_further(patient, slow_stub):
    """Results of 100 kB: the transport holds a few, the server two, and the rest is not asked."""
    count = 40
    item = request("It was", max_tokens=150, logprobs=20, ignore_eos=True)
    before = stats(patient).finished_total
    requests = Requests(*[item] * count)
    requests.closed.set()
    call = slow_stub.GenerateBatch(iter(requests))
    settled = [-1]

    def has_stopped():
        finished = stats(patient).finished_total - before
        is_same = finished == settled[-1] and finished > 0 and is_idle(patient)
        settled.append(finished)
        return is_same and settled[-20:] == [finished] * 20

    wait_until(has_stopped)
    assert settled[-1] < count
    assert sorted(int(answer.id) for answer in call) == list(range(count))


def test_a_batch_runs_no_more_than_its_limit(patient, stub):
    requests = Requests(*[request(**LONG)] * 8)
    call = stub.GenerateBatch(iter(requests))
    wait_until(lambda: stats(patient).running == IN_FLIGHT)
    # One place in the queue of two is taken by the other client alone: the batch has none.
    other = stub.Generate(request(**LONG))
    wait_until(lambda: stats(patient).queued == 1)
    wait_until(lambda: requests.taken == 8)  # the client has written all that it has
    assert (stats(patient).running, stats(patient).queued) == (IN_FLIGHT, 1)
    other.cancel()
    call.cancel()
    requests.closed.set()
    wait_until(lambda: is_idle(patient))


def test_keys_are_asked_for_everything_but_health(tiny_model, tmp_path):
    digest = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
    (tmp_path / "keys").write_text(digest + "\n")
    calls = {
        "GetModel": pb.GetModelRequest(),
        "Tokenize": pb.TokenizeRequest(texts=["x"]),
        "Score": pb.ScoreRequest(items=[pb.ScoreItem(text=pb.Prompt(text="x"))]),
        "Generate": request(max_tokens=1),
        "GenerateBatch": iter([pb.GenerateBatchRequest(id="x", request=request(max_tokens=1))]),
    }
    with serving(load_tiny_engine(tiny_model), api_key_file=tmp_path / "keys") as server:
        wait_ready(server.url)
        with stub_for(server.grpc_target) as stub:

            def call(method, *metadata):
                answer = getattr(stub, method)(calls[method], metadata=metadata)
                return list(answer) if method.startswith("Generate") else answer

            for method in calls:
                for metadata in ((), (("authorization", "Bearer other"),)):
                    found = failure_of(lambda m=method, d=metadata: call(m, *d))
                    assert (found.status, found.reason) == ("UNAUTHENTICATED", "INVALID_API_KEY")
            calls["GenerateBatch"] = iter(
                [pb.GenerateBatchRequest(id="x", request=request(max_tokens=1))]
            )
            for method in calls:
                call(method, ("authorization", "Bearer key"))
        with grpc.insecure_channel(server.grpc_target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_engine_that_fails_ends_its_calls_and_is_not_serving(tiny_model):
    def fail():
        raise ZeroDivisionError("secret path")

    with serving(load_tiny_engine(tiny_model)) as server:
        wait_ready(server.url)
        server.app.state.service.host.engine._core.step = fail
        with stub_for(server.grpc_target) as stub:
            ended = failure_of(lambda: list(stub.Generate(request())))
            assert (ended.status, ended.reason) == ("INTERNAL", "INTERNAL_ERROR")
            assert "secret path" not in ended.message
            later = failure_of(lambda: list(stub.Generate(request())))
            assert (later.status, later.reason) == ("UNAVAILABLE", "NOT_READY")
            assert stub.GetModel(pb.GetModelRequest()).phase == pb.PHASE_FAILED
        with grpc.insecure_channel(server.grpc_target) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING

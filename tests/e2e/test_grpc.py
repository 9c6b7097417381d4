"""Every call of the gRPC door against a real server: what it gives is what HTTP gives."""

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from api.grpc.talipot.v1 import generation_pb2 as pb
from tests.e2e.grpc_client import failure_of, request, stub_for
from tests.e2e.tiny import CONTEXT, MODEL_NAME, VOCAB_SIZE

PROMPT = "It was the best of"


@pytest.fixture
def stub(server):
    with stub_for(server.grpc_target) as found:
        yield found


def complete(http, **fields):
    answer = http.post("/v1/completions", json={"model": MODEL_NAME, "prompt": PROMPT, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def tokens_of(stub, *texts):
    answer = stub.Tokenize(pb.TokenizeRequest(texts=texts))
    return [list(found.token_ids) for found in answer.texts]


def test_generate_streams_the_text_that_http_gives(stub, http):
    fields = {"max_tokens": 24, "seed": 7, "temperature": 0.7, "top_k": 50, "ignore_eos": True}
    whole = complete(http, **fields)
    deltas = list(stub.Generate(request(PROMPT, **fields)))
    assert "".join(delta.text for delta in deltas) == whole["choices"][0]["text"]
    assert [delta.finish_reason for delta in deltas[:-1]] == [0] * (len(deltas) - 1)
    assert deltas[-1].finish_reason == pb.FINISH_REASON_LENGTH
    assert deltas[-1].usage.prompt_tokens == whole["usage"]["prompt_tokens"]
    assert deltas[-1].usage.completion_tokens == 24
    assert sum(len(delta.token_ids) for delta in deltas) == 24


def test_a_prompt_of_token_ids_is_taken_as_it_is(stub):
    (token_ids,) = tokens_of(stub, PROMPT)
    by_ids = request(PROMPT, max_tokens=8, temperature=0)
    by_ids.prompt.token_ids.ids.extend(token_ids)
    by_text = request(PROMPT, max_tokens=8, temperature=0)
    texts = ["".join(d.text for d in stub.Generate(found)) for found in (by_ids, by_text)]
    assert texts[0] == texts[1]


def test_choices_carry_their_index_and_are_those_of_http(stub, http):
    fields = {"max_tokens": 8, "n": 3, "seed": -5, "ignore_eos": True}
    whole = complete(http, **fields)
    texts = dict.fromkeys(range(3), "")
    for delta in stub.Generate(request(PROMPT, **fields)):
        texts[delta.index] += delta.text
    assert list(texts.values()) == [choice["text"] for choice in whole["choices"]]


def test_echo_and_logprobs(stub, http):
    fields = {"max_tokens": 4, "temperature": 0, "logprobs": 2, "echo": True, "ignore_eos": True}
    (choice,) = complete(http, **fields)["choices"]
    deltas = list(stub.Generate(request(PROMPT, prompt_logprobs=2, **fields)))
    assert "".join(delta.text for delta in deltas) == choice["text"]
    tokens = [*deltas[0].prompt_logprobs, *(t for delta in deltas for t in delta.logprobs)]
    assert [token.text for token in tokens] == choice["logprobs"]["tokens"]
    found = [token.logprob if token.HasField("logprob") else None for token in tokens]
    assert found == choice["logprobs"]["token_logprobs"]
    assert [len(token.top) for token in tokens] == [0] + [2] * (len(tokens) - 1)


def test_a_stop_text_and_a_stop_token_are_named(stub):
    (whole,) = [list(stub.Generate(request(max_tokens=30, temperature=0, ignore_eos=True)))]
    text = "".join(delta.text for delta in whole)
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    by_text = list(stub.Generate(request(max_tokens=30, temperature=0, stop=[stop])))
    assert "".join(delta.text for delta in by_text) == text[: text.index(stop)]
    assert by_text[-1].finish_reason == pb.FINISH_REASON_STOP
    assert by_text[-1].stop_text == stop
    token = [t for delta in whole for t in delta.token_ids][3]
    by_token = list(stub.Generate(request(max_tokens=30, temperature=0, stop_token_ids=[token])))
    assert by_token[-1].WhichOneof("stop_reason") == "stop_token_id"
    assert by_token[-1].stop_token_id == token


def test_a_batch_answers_each_request_by_its_id_and_bad_ones_with_errors(stub, http):
    items = {f"item-{i}": request(f"It was {i}", max_tokens=6, seed=i) for i in range(20)}
    bad = {
        "hot": request(temperature=-1),
        "long": request(max_tokens=10_000),
        "who": request(model="other"),
        "": request(),
    }
    # Bad ones in the middle: what comes after them is answered too.
    order = [*list(items.items())[:10], *bad.items(), *list(items.items())[10:]]
    sent = [pb.GenerateBatchRequest(id=name, request=item) for name, item in order]
    answers = list(stub.GenerateBatch(iter(sent)))
    assert sorted(answer.id for answer in answers) == sorted([*items, *bad])
    by_id = {answer.id: answer for answer in answers}
    for index, name in enumerate(items):
        result = by_id[name].result
        (expected,) = complete(http, prompt=f"It was {index}", max_tokens=6, seed=index)["choices"]
        assert (result.model, result.choices[0].text) == (MODEL_NAME, expected["text"])
    errors = {name: by_id[name].error for name in bad}
    assert {name: (e.code, e.field) for name, e in errors.items()} == {
        "hot": ("invalid_request", "temperature"),
        "long": ("context_length_exceeded", "max_tokens"),
        "who": ("model_not_found", "model"),
        "": ("invalid_request", "id"),
    }
    assert [errors["hot"].status, errors["who"].status] == [3, 5]
    assert "temperature=-1.0" in errors["hot"].message


def test_best_of_in_a_batch_is_that_of_http(stub, http):
    fields = {"max_tokens": 6, "seed": 11, "n": 2, "best_of": 4, "ignore_eos": True}
    whole = complete(http, **fields)
    item = pb.GenerateBatchRequest(id="x", request=request(PROMPT, **fields))
    (answer,) = stub.GenerateBatch(iter([item]))
    texts = [choice.text for choice in answer.result.choices]
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert answer.result.usage.completion_tokens == 24


def test_a_text_is_scored_as_http_echoes_it(stub, http):
    fields = {"max_tokens": 0, "echo": True, "logprobs": 1}
    (choice,) = complete(http, **fields)["choices"]
    item = pb.ScoreItem(text=pb.Prompt(text=PROMPT))
    answer = stub.Score(pb.ScoreRequest(items=[item], top_logprobs=1))
    (score,) = answer.scores
    assert [token.text for token in score.tokens] == choice["logprobs"]["tokens"]
    expected = choice["logprobs"]["token_logprobs"]
    assert not score.tokens[0].HasField("logprob")
    assert [token.logprob for token in score.tokens[1:]] == expected[1:]
    assert score.log_likelihood == pytest.approx(sum(expected[1:]))
    assert answer.usage.prompt_tokens == len(score.tokens)


def test_a_continuation_is_scored_after_its_prompt(stub):
    whole, prompt = tokens_of(stub, PROMPT + " times", PROMPT)
    assert whole[: len(prompt)] == prompt
    texts = pb.ScoreItem(prompt=pb.Prompt(text=PROMPT), text=pb.Prompt(text=" times"))
    ids = pb.ScoreItem(
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=prompt)),
        text=pb.Prompt(token_ids=pb.TokenIds(ids=whole[len(prompt) :])),
    )
    alone = pb.ScoreItem(text=pb.Prompt(text=PROMPT + " times"))
    first, second, every = stub.Score(pb.ScoreRequest(items=[texts, ids, alone])).scores
    assert [token.token_id for token in first.tokens] == whole[len(prompt) :]
    assert first == second
    assert list(first.tokens) == list(every.tokens)[len(prompt) :]
    assert all(not token.top for token in first.tokens)


def test_an_empty_prompt_scores_the_whole_text_as_a_document(stub):
    item = pb.ScoreItem(prompt=pb.Prompt(text=""), text=pb.Prompt(text=PROMPT))
    (score,) = stub.Score(pb.ScoreRequest(items=[item])).scores
    assert [token.token_id for token in score.tokens] == tokens_of(stub, PROMPT)[0]
    assert all(token.HasField("logprob") for token in score.tokens)


def test_the_greedy_continuation_is_greedy_and_another_is_not(stub):
    deltas = stub.Generate(request(PROMPT, max_tokens=5, temperature=0, ignore_eos=True))
    greedy = [token for delta in deltas for token in delta.token_ids]
    other = [*greedy[:-1], (greedy[-1] + 1) % VOCAB_SIZE]
    prompt = pb.Prompt(text=PROMPT)
    items = [
        pb.ScoreItem(prompt=prompt, text=pb.Prompt(token_ids=pb.TokenIds(ids=ids)))
        for ids in (greedy, other)
    ]
    assert [s.is_greedy for s in stub.Score(pb.ScoreRequest(items=items)).scores] == [True, False]


def test_tokenize_is_that_of_http(stub, http):
    expected = http.post("/tokenize", json={"prompt": PROMPT, "return_token_strs": True}).json()
    answer = stub.Tokenize(pb.TokenizeRequest(texts=[PROMPT, ""], return_token_texts=True))
    assert list(answer.texts[0].token_ids) == expected["tokens"]
    assert list(answer.texts[0].token_texts) == expected["token_strs"]
    assert list(answer.texts[1].token_ids) == []


def test_the_model_and_the_limits_are_described(stub):
    model = stub.GetModel(pb.GetModelRequest())
    assert (model.name, model.phase) == (MODEL_NAME, pb.PHASE_READY)
    assert model.limits == pb.Limits(
        max_model_len=CONTEXT, max_choices=128, max_batch_in_flight=64, max_message_bytes=1 << 20
    )
    assert model.tokenizer.vocab_size == VOCAB_SIZE
    assert stub.GetModel(pb.GetModelRequest(name=MODEL_NAME)) == model


@pytest.mark.parametrize(
    ("fields", "status", "reason", "field"),
    [
        ({"temperature": 2.5}, "INVALID_ARGUMENT", "INVALID_REQUEST", "temperature"),
        ({"temperature": float("nan")}, "INVALID_ARGUMENT", "INVALID_REQUEST", "temperature"),
        ({"top_k": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "top_k"),
        ({"n": 0}, "INVALID_ARGUMENT", "INVALID_REQUEST", "n"),
        ({"n": 129}, "INVALID_ARGUMENT", "INVALID_REQUEST", "n"),
        ({"n": 2, "best_of": 3}, "INVALID_ARGUMENT", "INVALID_REQUEST", "best_of"),
        ({"deadline_s": -1}, "INVALID_ARGUMENT", "INVALID_REQUEST", "deadline_s"),
        ({"logprobs": 21}, "INVALID_ARGUMENT", "INVALID_REQUEST", "logprobs"),
        ({"logit_bias": {VOCAB_SIZE: 1}}, "INVALID_ARGUMENT", "INVALID_REQUEST", "logit_bias"),
        ({"max_tokens": 0}, "INVALID_ARGUMENT", "INVALID_REQUEST", "max_tokens"),
        ({"max_tokens": 999}, "INVALID_ARGUMENT", "CONTEXT_LENGTH_EXCEEDED", "max_tokens"),
        ({"model": "o" * 5000}, "NOT_FOUND", "MODEL_NOT_FOUND", "model"),
    ],
)
def test_a_refusal_names_status_reason_and_field(stub, fields, status, reason, field):
    found = failure_of(lambda: list(stub.Generate(request(**fields))))
    assert (found.status, found.reason, found.field) == (status, reason, field)
    assert found.retry_after_s is None
    assert len(found.message) < 300


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda stub: list(stub.Generate(pb.GenerateRequest())), "prompt"),
        (lambda stub: stub.Score(pb.ScoreRequest()), "items"),
        (lambda stub: stub.Score(pb.ScoreRequest(items=[pb.ScoreItem()])), "items[0].text"),
        (
            lambda stub: stub.Score(
                pb.ScoreRequest(items=[pb.ScoreItem(text=pb.Prompt(text="x"))] * 129)
            ),
            "items",
        ),
        (lambda stub: stub.Tokenize(pb.TokenizeRequest(texts=["x"] * 129)), "texts"),
    ],
)
def test_what_is_absent_or_too_much_is_named(stub, call, field):
    found = failure_of(lambda: call(stub))
    assert (found.status, found.field) == ("INVALID_ARGUMENT", field)


@pytest.mark.parametrize("method", ["GetModel", "Tokenize", "Score"])
def test_another_model_is_not_found(stub, method):
    requests = {
        "GetModel": pb.GetModelRequest(name="other"),
        "Tokenize": pb.TokenizeRequest(model="other"),
        "Score": pb.ScoreRequest(model="other", items=[pb.ScoreItem(text=pb.Prompt(text="x"))]),
    }
    found = failure_of(lambda: getattr(stub, method)(requests[method]))
    assert (found.status, found.reason) == ("NOT_FOUND", "MODEL_NOT_FOUND")


def test_a_message_beyond_the_limit_is_refused(stub):
    found = failure_of(lambda: stub.Tokenize(pb.TokenizeRequest(texts=["x" * (1 << 20)])))
    assert found.status == "RESOURCE_EXHAUSTED"
    assert str(1 << 20) in found.message


def test_bytes_that_are_no_message_are_refused(server, stub, caplog):
    garbage = b"\xff\xff\xff"
    path = "/talipot.v1.Generation/"
    with grpc.insecure_channel(server.grpc_target) as channel:
        for call in (
            lambda: channel.unary_unary(path + "Tokenize")(garbage),
            lambda: list(channel.unary_stream(path + "Generate")(garbage)),
            lambda: list(channel.stream_stream(path + "GenerateBatch")(iter([garbage]))),
        ):
            found = failure_of(call)
            assert (found.status, found.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert tokens_of(stub, "x")
    assert not caplog.records


@pytest.fixture
def broken_tokenizer(server, monkeypatch):
    def fail(_):
        raise ZeroDivisionError("secret path")

    monkeypatch.setattr(server.app.state.service.tokens, "encode", fail)


@pytest.mark.usefixtures("broken_tokenizer")
def test_a_fault_of_ours_is_internal_and_tells_nothing_of_the_inside(stub, caplog):
    found = failure_of(lambda: stub.Tokenize(pb.TokenizeRequest(texts=["x"])))
    assert (found.status, found.reason) == ("INTERNAL", "INTERNAL_ERROR")
    assert "secret path" not in found.message
    assert "secret path" in caplog.text
    (answer,) = stub.GenerateBatch(iter([pb.GenerateBatchRequest(id="x", request=request())]))
    assert (answer.error.status, answer.error.code) == (13, "internal_error")


def test_health_says_serving(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "talipot.v1.Generation"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_describes_the_service(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert "talipot.v1.Generation" in found.get_services()
        service = DescriptorPool(found).FindServiceByName("talipot.v1.Generation")
    assert sorted(service.methods_by_name) == [
        *("Generate", "GenerateBatch", "GetModel", "Score", "Tokenize"),
    ]


def test_both_doors_count_in_the_same_metrics(server, stub):
    def total():
        with httpx.Client(base_url=server.url) as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(s.split()[1]) for s in lines if s.startswith("talipot_requests_total{"))

    before = total()
    list(stub.Generate(request(max_tokens=2)))
    assert total() == before + 1

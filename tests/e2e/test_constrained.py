"""Constraints through every door: OpenAI's client, plain HTTP, gRPC and `talipot batch`."""

import json
import re

import jsonschema
import pytest

from api.grpc.talipot.v1 import generation_pb2 as pb
from tests.e2e.grpc_client import failure_of, request, stub_for
from tests.e2e.test_batch import Batch, lines_of
from tests.e2e.tiny import MODEL_NAME

SCHEMA = {
    "type": "object",
    "properties": {"größe": {"enum": ["klein", "groß", "€\U0001f600"]}, "ok": {"type": "boolean"}},
    "required": ["größe", "ok"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "size", "schema": SCHEMA, "strict": True}}
BODY = {"model": MODEL_NAME, "prompt": "It was", "max_tokens": 100}
# Satisfiable or not, it takes the library minutes to find out.
ENDLESS = {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]}


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def test_openais_client_gets_json_of_the_schema(client):
    answer = client.completions.create(
        **BODY, n=3, temperature=2, extra_body={"response_format": FORMAT}
    )
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.text), SCHEMA)
        assert choice.finish_reason == "stop"


def test_a_stream_gives_the_same_text_in_whole_characters(client):
    fields = {**BODY, "seed": 3, "extra_body": {"response_format": FORMAT}}
    whole = client.completions.create(**fields).choices[0]
    chunks = list(client.completions.create(**fields, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_any_object_and_plain_text(http):
    asked = {**BODY, "response_format": {"type": "json_object"}, "max_tokens": 4}
    choice = http.post("/v1/completions", json=asked).json()["choices"][0]
    assert choice["text"].startswith("{")
    text = http.post(
        "/v1/completions", json={**asked, "seed": 1, "response_format": {"type": "text"}}
    )
    free = http.post("/v1/completions", json={**BODY, "seed": 1, "max_tokens": 4})
    assert text.json()["choices"] == free.json()["choices"]


def test_a_regex_and_its_logprobs(http):
    asked = {**BODY, "guided_regex": "[0-9]{4}-[0-9]{2}", "logprobs": 2, "temperature": 0}
    choice = http.post("/v1/completions", json=asked).json()["choices"][0]
    assert re.fullmatch("[0-9]{4}-[0-9]{2}", choice["text"])
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"guided_regex": "["}, "guided_regex", "unclosed character class"),
        ({"guided_regex": "(a)\\1"}, "guided_regex", "backreferences"),
        ({"guided_regex": "[a&&b]"}, "guided_regex", "no text satisfies it"),
        ({"guided_regex": "a" * 8193}, "guided_regex", "8192"),
        ({"guided_regex": "a", "response_format": FORMAT}, "guided_regex", "exclude each other"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
        ({"response_format": schema_format({"type": "strng"})}, "response_format", "strng"),
        ({"response_format": schema_format({"not": {}})}, "response_format", "not"),
        ({"response_format": schema_format({"$ref": "#"})}, "response_format", "no text"),
        (
            {"response_format": schema_format({"$ref": "file:///etc/passwd"})},
            "response_format",
            "does not fetch",
        ),
        ({"response_format": schema_format(ENDLESS)}, "response_format", "2 s"),
        (
            {"response_format": schema_format({"enum": ["a" * 70_000]})},
            "response_format",
            "65536",
        ),
    ],
)
def test_what_cannot_be_followed_is_named(http, fields, param, words):
    answer = http.post("/v1/completions", json={**BODY, **fields})
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert error["param"].startswith(param)
    assert words in error["message"]
    assert len(error["message"]) < 600


def test_grpc_has_both_and_the_same_errors(server):
    with stub_for(server.grpc_target) as stub:
        deltas = list(stub.Generate(request(max_tokens=100, json_schema=json.dumps(SCHEMA))))
        jsonschema.validate(json.loads("".join(delta.text for delta in deltas)), SCHEMA)
        assert deltas[-1].finish_reason == pb.FINISH_REASON_STOP
        matched = list(stub.Generate(request(max_tokens=100, guided_regex="[ab]{9}")))
        assert re.fullmatch("[ab]{9}", "".join(delta.text for delta in matched))
        failure = failure_of(lambda: list(stub.Generate(request(guided_regex="["))))
    assert (failure.status, failure.field) == ("INVALID_ARGUMENT", "guided_regex")


def test_batch_lines_have_openais_fields(server, tmp_path):
    lines = [{**line, "max_tokens": 100} for line in lines_of(3)]
    lines[0]["response_format"] = FORMAT
    lines[1]["guided_regex"] = "[xy]{5}"
    lines[2]["guided_regex"] = "["
    batch = Batch(tmp_path, lines)
    code, _ = batch.run(server.grpc_target)
    records = batch.records()
    assert code != 0, "one line was refused"
    jsonschema.validate(json.loads(records["line-0"]["text"]), SCHEMA)
    assert re.fullmatch("[xy]{5}", records["line-1"]["text"])
    assert records["line-2"]["error"]["field"] == "guided_regex"

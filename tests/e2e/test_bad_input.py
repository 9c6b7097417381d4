"""Whatever is sent is answered by a 4xx in OpenAI's shape that names the fault."""

import json
import socket

import pytest

from tests.e2e.tiny import CONTEXT, MODEL_NAME, load_tiny_engine, serving, wait_ready
from tests.tiny_tokenizer import VOCAB_SIZE

GOOD = {"model": MODEL_NAME, "prompt": "It was", "max_tokens": 1}

# field, value, words of the message, code
BAD_FIELDS = [
    ("temperature", -1, ["temperature=-1", "0"], "invalid_request"),
    ("temperature", 2.5, ["temperature=2.5", "2"], "invalid_request"),
    ("temperature", "1", ["temperature='1'", "number"], "invalid_request"),
    ("temperature", True, ["temperature=True", "number"], "invalid_request"),
    ("n", 0, ["n=0", "1"], "invalid_request"),
    ("n", 129, ["n=129", "128"], "invalid_request"),
    ("n", 1.5, ["n=1.5", "integer"], "invalid_request"),
    ("n", True, ["n=True", "integer"], "invalid_request"),
    ("n", 10**30, ["n=", "128"], "invalid_request"),
    ("max_tokens", -1, ["max_tokens=-1", "0"], "invalid_request"),
    ("max_tokens", 0, ["max_tokens=0", "echo"], "invalid_request"),
    ("max_tokens", "5", ["max_tokens='5'", "integer"], "invalid_request"),
    ("max_tokens", 100_000, ["max_tokens=100000", str(CONTEXT)], "context_length_exceeded"),
    ("min_tokens", 5, ["min_tokens=5", "max_tokens=1"], "invalid_request"),
    ("top_p", 1.5, ["top_p=1.5", "1"], "invalid_request"),
    ("top_k", -2, ["top_k=-2", "-1"], "invalid_request"),
    ("min_p", -0.5, ["min_p=-0.5", "0"], "invalid_request"),
    ("presence_penalty", 3, ["presence_penalty=3", "2"], "invalid_request"),
    ("repetition_penalty", 0, ["repetition_penalty=0", "0.01"], "invalid_request"),
    ("logprobs", 21, ["logprobs=21", "20"], "invalid_request"),
    ("logprobs", True, ["logprobs=True", "integer"], "invalid_request"),
    ("logit_bias", {"5": 101}, ["logit_bias[5]=101", "100"], "invalid_request"),
    ("logit_bias", {"x": 1}, ["logit_bias[x]", "pattern"], "invalid_request"),
    ("logit_bias", {str(VOCAB_SIZE): 1}, ["logit_bias", str(VOCAB_SIZE)], "invalid_request"),
    ("logit_bias", [1], ["logit_bias=[1]", "dict"], "invalid_request"),
    ("seed", 2**64, [f"seed={2**64}"], "invalid_request"),
    ("seed", "a", ["seed='a'", "integer"], "invalid_request"),
    ("stop", "", ["stop=''", "1 to"], "invalid_request"),
    ("stop", [1], ["stop=[1]", "string"], "invalid_request"),
    ("stop", ["x"] * 65, ["stop=", "64"], "invalid_request"),
    ("stop_token_ids", [-1], ["stop_token_ids[0]=-1", "0"], "invalid_request"),
    ("best_of", 0, ["best_of=0", "1"], "invalid_request"),
    ("echo", "yes", ["echo='yes'", "boolean"], "invalid_request"),
    ("stream", 1, ["stream=1", "boolean"], "invalid_request"),
    ("stream_options", {"include_usage": True}, ["stream_options", "stream"], "invalid_request"),
    ("suffix", "end", ["suffix='end'", "not supported"], "invalid_request"),
    ("max_token", 5, ["max_token is not a field"], "invalid_request"),
    ("model", "gpt-4", ["model='gpt-4'", MODEL_NAME], "model_not_found"),
    ("model", None, ["model=None", "string"], "invalid_request"),
    ("prompt", None, ["prompt=None", "string"], "invalid_request"),
    ("prompt", [], ["prompt=[]", "at least 1"], "invalid_request"),
    ("prompt", [[]], ["prompt[0]=[]", "at least 1"], "invalid_request"),
    ("prompt", {"text": "x"}, ["prompt=", "string"], "invalid_request"),
    ("prompt", ["x", 1], ["prompt[1]=1", "string"], "invalid_request"),
    ("prompt", [1, "x"], ["prompt[1]='x'", "token id"], "invalid_request"),
    ("prompt", [1, True], ["prompt[1]=True", "token id"], "invalid_request"),
    ("prompt", [5, -1], ["prompt[1]=-1", "0"], "invalid_request"),
    ("prompt", [5, VOCAB_SIZE], [f"prompt[1]={VOCAB_SIZE}", str(VOCAB_SIZE - 1)],
     "invalid_request"),
    ("prompt", [5] * (CONTEXT + 1), [str(CONTEXT + 1), str(CONTEXT)], "context_length_exceeded"),
    ("prompt", "x " * 100_000, ["200000 bytes", str(CONTEXT)], "context_length_exceeded"),
    ("prompt", "\ud800", ["prompt", "surrogate"], "invalid_request"),
    ("prompt", ["x"] * 129, ["129", "128"], "invalid_request"),
]  # fmt: skip


def error_of(response, *, status=400):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("field", "value", "words", "code"), BAD_FIELDS)
def test_a_bad_field_is_named_with_value_and_limit(http, field, value, words, code, stream):
    body = {**GOOD, "stream": stream, field: value}
    if field == "stream_options":
        body["stream"] = False
    content = json.dumps(body)
    response = http.post(
        "/v1/completions", content=content, headers={"content-type": "application/json"}
    )
    error = error_of(response, status=404 if code == "model_not_found" else 400)
    assert error["code"] == code
    assert error["param"] == field
    assert [word for word in words if word not in error["message"]] == []
    assert len(error["message"]) < 500


# body, content type, status, words
BAD_BODIES = [
    (b"", "application/json", 400, ["empty"]),
    (b"{", "application/json", 400, ["JSON"]),
    (b'"text"', "application/json", 400, ["object"]),
    (b"[]", "application/json", 400, ["object"]),
    (b"null", "application/json", 400, ["object"]),
    (b"{}", "application/json", 400, ["model is required", "prompt is required"]),
    (b'{"model": "\xff\xfe"}', "application/json", 400, ["UTF-8"]),
    (b'{"temperature": NaN}', "application/json", 400, ["NaN"]),
    (b'{"temperature": -Infinity}', "application/json", 400, ["-Infinity"]),
    (b'{"temperature": 1e400}', "application/json", 400, ["1e400"]),
    (b"[" * 50_000, "application/json", 400, ["nested"]),
    (b"{}", "text/plain", 415, ["text/plain", "application/json"]),
    (b"model=x", "application/x-www-form-urlencoded", 415, ["application/json"]),
    (b" " * 10_000_000, "application/json", 413, ["10000000", "1048576"]),
]


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(("body", "kind", "status", "words"), BAD_BODIES)
def test_a_bad_body_is_described(http, path, body, kind, status, words):
    response = http.post(path, content=body, headers={"content-type": kind})
    message = error_of(response, status=status)["message"]
    if body != b"{}" or kind != "application/json" or path == "/v1/completions":
        assert [word for word in words if word not in message] == []


def test_a_chunked_body_is_measured_while_it_arrives(http):
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(40):
            sent += 1 << 18
            yield b" " * (1 << 18)

    response = http.post(
        "/v1/completions", content=chunks(), headers={"content-type": "application/json"}
    )
    assert "1048576" in error_of(response, status=413)["message"]


def test_routes_and_methods_that_are_not_there(http):
    assert error_of(http.get("/nothing"), status=404)["code"] == "not_found"
    response = http.get("/v1/completions")
    assert error_of(response, status=405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


def test_bytes_that_are_no_http_do_not_end_the_server(server, http):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x00\x01\x02 no http\r\n\r\n")
        assert b"400" in raw.recv(1024)
    assert http.post("/v1/completions", json=GOOD).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(server, http):
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(head + b"content-length: 100\r\n\r\n{")
    assert http.post("/v1/completions", json=GOOD).status_code == 200


def test_tokens_go_both_ways(http):
    text = "naïve — façade 1859"
    found = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    back = http.post("/detokenize", json={"tokens": found["tokens"]}).json()
    assert back == {"prompt": text}


def test_a_token_that_is_none_is_named(http):
    error = error_of(http.post("/detokenize", json={"tokens": [1, VOCAB_SIZE]}))
    assert f"tokens[1]={VOCAB_SIZE}" in error["message"]


def test_keys_are_asked_for_where_a_file_is_given(tiny_model, tmp_path):
    import hashlib

    import httpx

    keys = tmp_path / "keys"
    keys.write_text(hashlib.sha256(b"open sesame").hexdigest())
    with serving(load_tiny_engine(tiny_model), api_key_file=keys) as running:
        wait_ready(running.url)
        with httpx.Client(base_url=running.url) as client:
            for headers in ({}, {"authorization": "Bearer open"}, {"authorization": "Basic x"}):
                response = client.post("/v1/completions", json=GOOD, headers=headers)
                assert error_of(response, status=401)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
            headers = {"authorization": "Bearer open sesame"}
            assert client.post("/v1/completions", json=GOOD, headers=headers).status_code == 200
            assert client.get("/health/live").status_code == 200

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.sse import ChunkWriter, error_event
from serving.errors import OverloadedError
from serving.request import Delta, Usage

HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 5, "model": 'a "model"'}


def event(data: bytes) -> dict:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    assert data.count(b"\n") == 2
    return json.loads(data[6:])


@pytest.mark.parametrize("include_usage", [False, True])
@given(text=st.text(), index=st.integers(0, 2), finish=st.sampled_from([None, "stop", "length"]))
def test_a_chunk_is_what_json_would_write(include_usage, text, index, finish):
    writer = ChunkWriter(HEAD, choices=3, include_usage=include_usage)
    chunk = event(writer.chunk(index, Delta(text=text, finish_reason=finish), None))
    expected = {
        **HEAD,
        "choices": [
            {
                "index": index,
                "text": text,
                "logprobs": None,
                "finish_reason": finish,
                "stop_reason": None,
            }
        ],
    }
    assert chunk == expected | ({"usage": None} if include_usage else {})


def test_logprobs_and_stop_reason_are_in_the_chunk():
    writer = ChunkWriter(HEAD, choices=1, include_usage=False)
    delta = Delta(text="", finish_reason="stop", stop_reason="\n")
    (choice,) = event(writer.chunk(0, delta, {"tokens": ["a"]}))["choices"]
    assert (choice["logprobs"], choice["stop_reason"]) == ({"tokens": ["a"]}, "\n")


def test_usage_comes_in_a_chunk_without_choices():
    writer = ChunkWriter(HEAD, choices=1, include_usage=True)
    found = event(writer.usage(Usage(prompt_tokens=3, completion_tokens=4)))
    assert found["choices"] == []
    assert found["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_an_error_is_an_event_in_openais_shape():
    found = event(error_event(OverloadedError("full", retry_after_s=1)))
    assert found["error"]["code"] == "overloaded"

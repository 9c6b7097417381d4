"""Requests: every bad field is refused by name, every good one accepted."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import RequestError
from serving.request import Delta, GenerationRequest, SamplingParams, Usage, collect

BAD_PARAMS: list[tuple[str, Any]] = [
    ("max_tokens", -1),
    ("max_tokens", 1.5),
    ("max_tokens", True),
    ("min_tokens", -1),
    ("min_tokens", 17),
    ("temperature", -1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "0"),
    ("temperature", 10**400),
    ("top_k", -1),
    ("top_k", 2.0),
    ("top_p", 1.01),
    ("top_p", -0.1),
    ("min_p", 1.5),
    ("presence_penalty", 2.5),
    ("frequency_penalty", -2.5),
    ("repetition_penalty", 0),
    ("logit_bias", {1: 101}),
    ("logit_bias", {-1: 1}),
    ("logit_bias", {"1": 1}),
    ("logit_bias", {1: math.nan}),
    ("logit_bias", [1]),
    ("seed", 2**64),
    ("seed", 0.5),
    ("stop", "a"),
    ("stop", ("",)),
    ("stop", ("x" * 1025,)),
    ("stop", ("x",) * 65),
    ("stop", (1,)),
    ("stop_token_ids", (-1,)),
    ("stop_token_ids", [1]),
    ("ignore_eos", 1),
    ("logprobs", 21),
    ("logprobs", -1),
    ("prompt_logprobs", 21),
]


@pytest.mark.parametrize(("field", "value"), BAD_PARAMS)
def test_a_bad_sampling_parameter_is_named(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field
    assert caught.value.code == "invalid_request"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("request_id", ""),
        ("prompt_token_ids", ()),
        ("prompt_token_ids", [1]),
        ("prompt_token_ids", (1, -2)),
        ("prompt_token_ids", (1, True)),
        ("echo", None),
        ("priority", 0.5),
        ("deadline_s", -1.0),
        ("deadline_s", math.nan),
    ],
)
def test_a_bad_request_field_is_named(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"request_id": "a", "prompt_token_ids": (1,), field: value}
    with pytest.raises(RequestError, match=field) as caught:
        GenerationRequest(**fields)
    assert caught.value.param == field


@given(
    st.builds(
        dict,
        temperature=st.floats(0, 1e6),
        top_p=st.floats(0, 1),
        min_p=st.floats(0, 1),
        top_k=st.integers(0, 10**9),
        seed=st.integers(-(2**63), 2**64 - 1) | st.none(),
        logit_bias=st.dictionaries(st.integers(0, 2**31), st.floats(-100, 100), max_size=4),
        stop=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    )
)
def test_values_in_range_are_accepted(fields: dict[str, Any]) -> None:
    params = SamplingParams(**fields)
    for name, value in fields.items():
        assert getattr(params, name) == value


def test_params_do_not_share_the_callers_bias() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = 50.0
    assert params.logit_bias == {1: 2.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.max_tokens = 3  # type: ignore[misc]


def test_collect_joins_deltas() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=3)
    whole = collect(
        [
            Delta(text="a", token_ids=(1,), prompt_logprobs=()),
            Delta(token_ids=(2,)),
            Delta(text="b", token_ids=(3,), finish_reason="stop", stop_reason="x", usage=usage),
        ]
    )
    assert (whole.text, whole.token_ids, whole.logprobs) == ("ab", (1, 2, 3), None)
    assert (whole.prompt_logprobs, whole.finish_reason, whole.stop_reason) == ((), "stop", "x")
    assert whole.usage == usage


def test_collect_refuses_an_unfinished_request() -> None:
    with pytest.raises(ValueError, match="finish reason"):
        collect([Delta(text="a")])

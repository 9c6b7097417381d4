"""The proto, what was generated from it, and the dataclasses that it mirrors."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.grpc.sampling import from_params, to_params
from api.grpc.talipot.v1 import generation_pb2 as pb
from serving.errors import RequestError
from serving.request import SamplingParams
from tests.shared_data import ROOT

NUMBERS = st.floats(0, 1)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(3, 2**62),
    min_tokens=st.integers(0, 3),
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 2**31 - 1),
    top_p=NUMBERS,
    min_p=NUMBERS,
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    repetition_penalty=st.floats(0.01, 100),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.floats(-100, 100), max_size=3),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
    stop_token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    ignore_eos=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
    prompt_logprobs=st.none() | st.integers(0, 20),
)


def test_the_stubs_are_what_the_proto_gives():
    check = [sys.executable, ".ci/proto.py", "--check"]
    found = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr


def test_the_message_has_every_field_of_the_parameters():
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert {field.name for field in pb.SamplingParams.DESCRIPTOR.fields} == fields


def test_every_call_has_a_comment():
    text = (ROOT / "api/grpc/talipot/v1/generation.proto").read_text()
    lines = text.splitlines()
    calls = [index for index, line in enumerate(lines) if line.startswith("  rpc ")]
    assert len(calls) == 5
    assert all(lines[index - 1].startswith("  // ") for index in calls)


@given(PARAMS)
def test_parameters_survive_the_wire(params):
    wire = from_params(params).SerializeToString()
    assert to_params(pb.SamplingParams.FromString(wire)) == params


def test_a_seed_is_sent_by_its_bits():
    assert from_params(SamplingParams(seed=2**64 - 1)).seed == -1
    assert from_params(SamplingParams(seed=2**63)).seed == -(2**63)


def test_an_empty_message_is_the_defaults():
    assert to_params(pb.SamplingParams()) == SamplingParams()
    assert from_params(SamplingParams()).ByteSize() == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2.1},
        {"max_tokens": -1},
        {"top_p": float("nan")},
        {"seed": 1, "min_p": 2},
        {"stop": [""]},
        {"logit_bias": {1: 101.0}},
    ],
)
def test_a_value_out_of_range_is_named(fields):
    with pytest.raises(RequestError) as refused:
        to_params(pb.SamplingParams(**fields))
    assert refused.value.param == list(fields)[-1]

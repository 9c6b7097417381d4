import json

import pytest

from api.batch.lines import check_input, parse_line
from api.errors import BatchError
from api.grpc.talipot.v1 import generation_pb2 as pb
from model.errors import TalipotError

GOOD = {"id": "a", "prompt": "It was"}


def line(**fields):
    return json.dumps({**GOOD, **fields}).encode()


def write(path, *lines):
    path.write_bytes(b"".join(found + b"\n" for found in lines))
    return path


def test_every_field_reaches_the_request():
    item = parse_line(
        line(
            prompt=[1, 2],
            model="m",
            n=2,
            best_of=3,
            echo=True,
            priority=-1,
            deadline_s=2,
            max_tokens=5,
            stop="x",
            stop_token_ids=[3],
            logit_bias={"7": -1.5},
            seed=2**64 - 1,
            logprobs=0,
            temperature=None,
        )
    )
    assert item == pb.GenerateBatchRequest(
        id="a",
        request=pb.GenerateRequest(
            prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1, 2])),
            model="m",
            n=2,
            best_of=3,
            echo=True,
            priority=-1,
            deadline_s=2,
            params=pb.SamplingParams(
                max_tokens=5,
                stop=["x"],
                stop_token_ids=[3],
                logit_bias={7: -1.5},
                seed=-1,
                logprobs=0,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"id": "a", "prompt": NaN}', "NaN"),
        (b'{"id": "\xff"}', "UTF-8"),
        (b'{"prompt": "x"}', "id=None"),
        (line(id=""), "id=''"),
        (line(id=7), "id=7"),
        (line(id="\ud800"), "surrogate"),
        (line(prompt="\ud800"), "surrogate"),
        (line(prompt=None), "prompt=None"),
        (line(prompt=[]), "prompt=[]"),
        (line(prompt=["x"]), "prompt[0]='x'"),
        (line(prompt=[2**40]), "prompt has 1099511627776"),
        (line(prompts="x"), "prompts is not a field"),
        (line(temperature=3), "temperature=3"),
        (line(temperature="1"), "temperature='1'"),
        (line(max_tokens=True), "max_tokens=True"),
        (line(max_tokens=2**70), "1180591620717411303424"),
        (line(top_k=2**40), "1099511627776"),
        (line(n=0), "n=0"),
        (line(echo=1), "echo=1"),
        (line(priority=2**31), "priority=2147483648"),
        (line(deadline_s=-1), "deadline_s=-1"),
        (line(model=3), "model=3"),
        (line(stop=[1]), "stop[0]=1"),
        (line(logit_bias={"x": 1}), "key 'x'"),
        (line(logit_bias=[1]), "logit_bias=[1]"),
        (line(stop_token_ids="x"), "stop_token_ids='x'"),
    ],
)
def test_a_bad_line_says_what_is_wrong(found, words):
    with pytest.raises(TalipotError) as refused:
        parse_line(found)
    assert words in str(refused.value)


def test_bad_and_repeated_lines_are_named_by_number(tmp_path):
    path = write(tmp_path / "in", line(), b"", line(id="b", n=0), line(), *[b"{"] * 20)
    with pytest.raises(BatchError) as refused:
        check_input(path)
    text = str(refused.value)
    assert "in line 3: n=0" in text
    assert "in line 4: id='a' is that of line 1 already" in text
    assert text.endswith("and 12 more")


def test_an_input_is_read_as_often_as_needed_without_what_is_done(tmp_path):
    path = write(tmp_path / "in", line(), line(id="b"), b"  ", line(id="c", prompt="x" * 50))
    found = check_input(path)
    assert found.ids == {"a", "b", "c"}
    assert [item.id for item in found.items(skip=set())] == ["a", "b", "c"]
    assert [item.id for item in found.items(skip={"b", "other"})] == ["a", "c"]


def test_a_request_larger_than_the_server_reads_is_named(tmp_path):
    found = check_input(write(tmp_path / "in", line(), line(id="b", prompt="x" * 200)))
    found.check_size(found.largest_bytes)
    with pytest.raises(BatchError, match=r"line 2: the request of \d+ bytes exceeds .* 99 bytes"):
        found.check_size(99)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BatchError, match="no-such"):
        check_input(tmp_path / "no-such")

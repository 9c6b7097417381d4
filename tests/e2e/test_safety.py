"""The safety guard through both doors: what a block would remove never leaves."""

import hashlib
import json

import httpx
import pytest

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.guard_config import GuardConfig
from api.guards import Guards
from safety.scoring_thread import ScoringThread
from tests.e2e.grpc_client import failure_of, stub_for
from tests.e2e.grpc_client import request as grpc_request
from tests.e2e.test_batch import Batch
from tests.e2e.tiny import MODEL_NAME, load_tiny_engine, serving, wait_ready
from tests.lexicon_scorer import LexiconScorer

BODY = {"model": MODEL_NAME, "prompt": "It was", "max_tokens": 60, "seed": 5, "ignore_eos": True}
KEY, LOOSE_KEY = "one", "two"


def watched(scorer, **settings):
    config = GuardConfig(scorer_timeout_s=2.0, **settings)
    return Guards(config, ScoringThread(lambda: scorer))


@pytest.fixture(scope="module")
def scorer():
    return LexiconScorer()


@pytest.fixture(scope="module")
def running(tiny_model, scorer):
    with serving(load_tiny_engine(tiny_model), watched(scorer)) as found:
        wait_ready(found.url)
        yield found


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


@pytest.fixture
def plain(http):
    """What the model says unwatched."""
    return ask(http)["text"]


@pytest.fixture
def bad(scorer, plain):
    """A piece of the text that the scorer finds insulting, and its place."""
    place = len(plain) * 2 // 3
    word = plain[place : place + 6]
    assert plain.index(word) == place
    scorer.words = {word: {"toxicity": 0.6, "insult": 0.9}}
    yield word
    scorer.words = {}


def ask(http, **fields):
    """One choice, not streamed."""
    response = http.post("/v1/completions", json={**BODY, **fields})
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def stream(http, **fields):
    """One choice, streamed and joined; its fields are those of the last chunk."""
    body = {**BODY, **fields, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines]
    return {**choices[-1], "text": "".join(choice["text"] for choice in choices)}


def over_grpc(running, **safety):
    fields = {name: value for name, value in BODY.items() if name not in ("model", "prompt")}
    request = grpc_request(BODY["prompt"], safety=pb.SafetyOptions(**safety), **fields)
    with stub_for(running.grpc_target) as stub:
        deltas = list(stub.Generate(request))
        item = pb.GenerateBatchRequest(id="a", request=request)
        (answer,) = stub.GenerateBatch(iter([item]))
    return deltas, answer.result


def without_floats(report):
    return {name: value for name, value in report.items() if name not in ("scores", "spans")}


def test_annotate_changes_nothing_and_says_what_was_found(http, plain, bad, scorer):
    safety = {"action": "annotate", "window_tokens": 8}
    choice = ask(http, safety=safety)
    assert (choice["text"], choice["finish_reason"]) == (plain, "length")
    report = choice["safety"]
    assert without_floats(report) == {
        "action": "annotate",
        "verdict": "flagged",
        "threshold": 0.5,
        "reasons": [],
        "prompt": None,
        "scorer": {"name": "lexicon", "version": "1+test"},
    }
    assert report["scores"] == {"toxicity": 0.6, "insult": 0.9, "threat": 0.01}
    (span, *_) = report["spans"]
    assert (span["label"], span["score"]) == ("insult", 0.9)
    assert span["start"] <= plain.index(bad) < span["end"] <= len(plain)
    assert stream(http, safety=safety) == choice | {"index": 0, "logprobs": None}


def test_a_text_that_is_not_watched_has_no_report(http):
    assert "safety" not in ask(http)
    assert "safety" not in ask(http, safety={"action": "off"})
    assert "safety" not in stream(http)


def test_block_ends_the_text_before_the_window_alike_at_every_door(http, running, plain, bad):
    safety = {"action": "block", "window_tokens": 8}
    choice = ask(http, safety=safety)
    assert choice["finish_reason"] == "content_filter"
    assert choice["stop_reason"] == "safety"
    assert plain.startswith(choice["text"])
    assert bad not in choice["text"]
    (span,) = choice["safety"]["spans"]
    assert span["start"] == len(choice["text"])
    assert choice["safety"]["reasons"] == ["insult=0.900 reaches threshold=0.5"]
    assert stream(http, safety=safety) == choice
    deltas, result = over_grpc(running, **safety)
    assert "".join(delta.text for delta in deltas) == choice["text"]
    for last in (deltas[-1], result.choices[0]):
        assert last.finish_reason == pb.FINISH_REASON_CONTENT_FILTER
        assert last.stop_text == "safety"
        assert last.safety.verdict == "blocked"
        assert last.safety.spans[0].start == span["start"]
        assert last.safety.scores["insult"] == 0.9
    assert result.choices[0].text == choice["text"]
    sent = [token for delta in deltas for token in delta.token_ids]
    assert sent == list(result.choices[0].token_ids)
    detokenized = http.post("/detokenize", json={"tokens": sent}).json()["prompt"]
    assert detokenized.lstrip() == choice["text"].lstrip()  # no token tells what comes next


def test_a_batch_says_the_same(http, running, tmp_path, bad):
    safety = {"action": "block", "window_tokens": 8, "labels": ["insult"]}
    choice = ask(http, safety=safety)
    line = {name: value for name, value in BODY.items() if name != "model"}
    batch = Batch(tmp_path, [{"id": "a", **line, "safety": safety}])
    assert batch.run(running.grpc_target)[0] == 0
    record = batch.records()["a"]
    assert (record["text"], record["finish_reason"]) == (choice["text"], "content_filter")
    report = record["safety"]
    assert (report["verdict"], report["scorer_version"]) == ("blocked", "1+test")
    assert report["spans"] == choice["safety"]["spans"]
    line["safety"] = {"action": "block", "threshold": 7}
    batch = Batch(tmp_path, [{"id": "b", **line}])
    code, errors = batch.run(running.grpc_target)
    assert code == 1
    assert "line 1: safety.threshold=7 must be" in errors


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("window_tokens", [1, 5, 64])
def test_what_was_streamed_never_holds_what_is_blocked(http, scorer, seed, window_tokens):
    plain = ask(http, seed=seed)["text"]
    word = plain[20 + seed : 23 + seed]
    scorer.words = {word: {"threat": 0.7}}
    safety = {"action": "block", "window_tokens": window_tokens, "labels": ["threat"]}
    choice = stream(http, seed=seed, safety=safety)
    scorer.words = {}
    assert plain.startswith(choice["text"])
    assert word not in choice["text"]
    assert choice["finish_reason"] == "content_filter"


def test_logprobs_stop_with_the_text(http, bad):
    every = ask(http, logprobs=2)["logprobs"]["tokens"]
    choice = ask(http, logprobs=2, safety={"action": "block", "window_tokens": 8})
    tokens = choice["logprobs"]["tokens"]
    assert tokens == every[: len(tokens)]
    assert 0 < len(tokens) < len(every)
    assert choice["logprobs"]["text_offset"][-1] < len(choice["text"])


def test_redact_blacks_out_the_window_and_goes_on(http, running, plain, bad):
    safety = {"action": "redact", "window_tokens": 8}
    choice = ask(http, safety=safety)
    text = choice["text"]
    assert (len(text), choice["finish_reason"]) == (len(plain), "length")
    assert choice["safety"]["verdict"] == "redacted"
    assert bad not in text
    for span in choice["safety"]["spans"]:
        assert set(text[span["start"] : span["end"]]) <= {"█", " ", "\n"}
        plain = plain[: span["start"]] + text[span["start"] : span["end"]] + plain[span["end"] :]
    assert text == plain
    assert stream(http, safety=safety) == choice
    deltas, result = over_grpc(running, **safety)
    assert "".join(delta.text for delta in deltas) == result.choices[0].text == text
    sent = [token for delta in deltas for token in delta.token_ids]
    assert bad not in http.post("/detokenize", json={"tokens": sent}).json()["prompt"]
    refused = http.post("/v1/completions", json={**BODY, "safety": safety, "logprobs": 1})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "logprobs"


def test_labels_that_do_not_count_are_shown_and_do_nothing(http, plain, bad):
    choice = ask(http, safety={"action": "block", "labels": ["threat"]})
    assert choice["text"] == plain
    assert choice["safety"]["verdict"] == "passed"
    assert choice["safety"]["scores"]["insult"] == 0.9


def test_a_prompt_can_be_screened(http, running, scorer):
    scorer.words = {"was": {"threat": 0.8}}
    choice = ask(http, safety={"action": "block", "prompt": True}, n=2)
    assert (choice["text"], choice["finish_reason"]) == ("", "content_filter")
    assert choice["safety"]["prompt"] == {
        "flagged": True,
        "label": "threat",
        "scores": {"toxicity": 0.01, "insult": 0.01, "threat": 0.8},
    }
    assert choice["safety"]["reasons"] == ["prompt: threat=0.800 reaches threshold=0.5"]
    annotated = ask(http, safety={"action": "annotate", "prompt": True}, echo=True)
    assert annotated["finish_reason"] == "length"
    assert annotated["safety"]["verdict"] == "flagged"
    assert annotated["text"].startswith("It was")
    deltas, _ = over_grpc(running, action="block", prompt=True)
    assert [delta.finish_reason for delta in deltas] == [pb.FINISH_REASON_CONTENT_FILTER]
    assert deltas[0].usage.completion_tokens == 0
    scorer.words = {}


def test_an_echoed_prompt_is_the_callers_own(http, scorer, plain):
    scorer.words = {"It was": {"threat": 0.8}}
    choice = stream(http, echo=True, safety={"action": "block", "window_tokens": 3})
    assert choice["text"] == "It was" + plain
    assert choice["safety"]["verdict"] == "passed"
    scorer.words = {}


def test_a_scorer_that_fails_blocks_and_leaves_annotations_unscored(http, plain, scorer):
    scorer.fail_on = plain[30:35]
    blocked = stream(http, safety={"action": "block", "window_tokens": 8})
    assert blocked["finish_reason"] == "content_filter"
    assert scorer.fail_on not in blocked["text"]
    assert blocked["safety"]["reasons"] == ["the scorer failed: RuntimeError"]
    assert blocked["safety"]["scores"] is None
    annotated = ask(http, safety={"action": "annotate", "window_tokens": 8})
    assert annotated["text"] == plain
    assert annotated["safety"]["verdict"] == "unscored"
    scorer.fail_on = None


def test_a_scorer_that_lags_blocks_and_leaves_annotations_unscored(tiny_model, plain):
    slow = LexiconScorer()
    guards = Guards(GuardConfig(scorer_timeout_s=0.1), ScoringThread(lambda: slow))
    slow.may_go.clear()
    with serving(load_tiny_engine(tiny_model), guards) as running:
        wait_ready(running.url)
        with httpx.Client(base_url=running.url, timeout=30) as http:
            blocked = ask(http, safety={"action": "block"})
            assert (blocked["text"], blocked["finish_reason"]) == ("", "content_filter")
            assert blocked["safety"]["reasons"] == ["the scorer took longer than 0.1 s"]
            annotated = stream(http, safety={"action": "annotate"})
            assert annotated["text"] == plain
            assert annotated["safety"]["verdict"] == "unscored"
        slow.may_go.set()


def test_a_request_tightens_the_servers_policy_and_loosens_it_with_the_right_key_alone(
    tiny_model, tmp_path, plain, bad, scorer
):
    lines = [hashlib.sha256(KEY.encode()).hexdigest() + "  -"]
    lines.append(hashlib.sha256(LOOSE_KEY.encode()).hexdigest() + "  -  may-loosen-guards")
    keys = tmp_path / "keys"
    keys.write_text("\n".join(lines))
    guards = watched(scorer, safety_action="redact", safety_window_tokens=8)
    with serving(load_tiny_engine(tiny_model), guards, api_key_file=keys) as running:
        wait_ready(running.url)

        def verdict(key, **fields):
            headers = {"authorization": f"Bearer {key}"}
            with httpx.Client(base_url=running.url, timeout=30, headers=headers) as http:
                return ask(http, **fields).get("safety", {}).get("verdict")

        assert verdict(KEY) == "redacted"
        assert verdict(KEY, safety={"action": "off"}) == "redacted"
        assert verdict(KEY, safety={"action": "annotate", "threshold": 0.99}) == "redacted"
        assert verdict(KEY, safety={"action": "block"}) == "blocked"
        assert verdict(LOOSE_KEY) == "redacted"
        assert verdict(LOOSE_KEY, safety={"action": "off"}) is None
        assert verdict(LOOSE_KEY, safety={"action": "redact", "threshold": 0.99}) == "passed"
        off = grpc_request(safety=pb.SafetyOptions(action="off"), max_tokens=2)
        with stub_for(running.grpc_target) as stub:
            for key, is_watched in ((KEY, True), (LOOSE_KEY, False)):
                metadata = (("authorization", f"Bearer {key}"),)
                *_, last = stub.Generate(off, metadata=metadata)
                assert last.HasField("safety") == is_watched


BAD = [
    ({}, ["safety", "action", "required"]),
    ({"action": "warn"}, ["safety.action='warn'", "annotate"]),
    ({"action": "block", "threshold": 1.5}, ["safety.threshold=1.5", "1"]),
    ({"action": "block", "window_tokens": 0}, ["safety.window_tokens=0", "1"]),
    ({"action": "block", "window_tokens": 257}, ["safety.window_tokens=257", "256"]),
    ({"action": "block", "labels": ["rude"]}, ["safety.labels", "'rude'", "insult"]),
]


@pytest.mark.parametrize(("safety", "words"), BAD)
def test_bad_options_are_named_at_both_doors(http, running, safety, words):
    for streamed in (False, True):
        response = http.post("/v1/completions", json={**BODY, "safety": safety, "stream": streamed})
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == "safety"
        assert all(word in error["message"] for word in words), error
    with stub_for(running.grpc_target) as stub:
        request = grpc_request(safety=pb.SafetyOptions(**safety))
        failure = failure_of(lambda: list(stub.Generate(request)))
    assert (failure.status, failure.field) == ("INVALID_ARGUMENT", "safety")
    assert all(word in failure.message for word in words), failure


@pytest.mark.parametrize(
    ("safety", "words"),
    [
        ("block", ["safety='block'"]),
        ({"action": "block", "labels": []}, ["safety.labels=[]", "1"]),
        ({"action": "block", "threshold": "high"}, ["safety.threshold='high'", "number"]),
        ({"action": "block", "window": 3}, ["safety.window", "not a field"]),
    ],
)
def test_bad_json_options_are_named(http, safety, words):
    error = http.post("/v1/completions", json={**BODY, "safety": safety}).json()["error"]
    assert error["param"] == "safety"
    assert all(word in error["message"] for word in words), error

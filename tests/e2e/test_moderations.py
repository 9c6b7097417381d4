"""`/v1/moderations` by OpenAI's own client and by hand."""

import httpx
import openai
import pytest

from api.guard_config import GuardConfig
from api.guards import Guards
from safety.scoring_thread import ScoringThread
from tests.e2e.tiny import load_tiny_engine, serving, wait_ready
from tests.languages import SENTENCES
from tests.lexicon_scorer import LexiconScorer


@pytest.fixture(scope="module")
def scorer():
    return LexiconScorer({"idiot": {"toxicity": 0.8, "insult": 0.9}, "kill": {"threat": 0.7}})


@pytest.fixture(scope="module")
def running(tiny_model, scorer):
    guards = Guards(GuardConfig(), ScoringThread(lambda: scorer))
    with serving(load_tiny_engine(tiny_model), guards) as found:
        wait_ready(found.url)
        yield found


@pytest.fixture
def http(running):
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


def test_openais_client_gets_what_it_expects(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        found = client.moderations.create(input=["you idiot", "a kind word"])
    assert [result.flagged for result in found.results] == [True, False]
    assert found.id.startswith("modr-")
    assert found.model == "lexicon 1+test"


@pytest.mark.parametrize(
    "given", ["you idiot", ["you idiot"], [{"type": "text", "text": "you idiot"}]]
)
def test_every_form_of_input_gives_the_same(http, given):
    found = http.post("/v1/moderations", json={"input": given, "model": "lexicon"}).json()
    (result,) = found["results"]
    assert result["categories"] == {"toxicity": True, "insult": True, "threat": False}
    assert result["category_scores"] == pytest.approx(
        {"toxicity": 0.8, "insult": 0.9, "threat": 0.01}
    )
    assert result["category_applied_input_types"]["insult"] == ["text"]


def test_any_text_has_scores(http):
    texts = ["", "kind words " * 91_000, "a\u200bb \U0001f334", "\x00", *SENTENCES]
    found = http.post("/v1/moderations", json={"input": texts}).json()
    assert len(found["results"]) == len(texts)


def test_half_of_a_character_hides_nothing(http):
    body = rb'{"input": "you idiot \ud83d"}'  # JSON can say it, UTF-8 cannot
    headers = {"content-type": "application/json"}
    response = http.post("/v1/moderations", content=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["flagged"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, ["input is required"]),
        ({"input": []}, 400, ["input=[]", "at least 1"]),
        ({"input": 5}, 400, ["input=5", "text"]),
        ({"input": ["a", 5]}, 400, ["input=['a', 5]", "text"]),
        ({"input": [{"type": "image_url", "image_url": {}}]}, 400, ["input", "type 'text'"]),
        ({"input": ["a"] * 129}, 400, ["129", "128"]),
        ({"input": "a", "model": "omni"}, 404, ["model='omni'", "lexicon"]),
        ({"input": "a", "mode": 1}, 400, ["mode is not a field"]),
    ],
)
def test_bad_input_is_named(http, body, status, words):
    response = http.post("/v1/moderations", json=body)
    assert response.status_code == status, response.text
    message = response.json()["error"]["message"]
    assert all(word in message for word in words), message


def test_a_scorer_that_fails_is_told_as_such(http, scorer):
    scorer.fail_on = "poison"
    response = http.post("/v1/moderations", json={"input": "poison"})
    scorer.fail_on = None
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert "not scored" in response.json()["error"]["message"]


def test_without_a_scorer_the_field_and_the_option_are_named(server):
    response = httpx.post(f"{server.url}/v1/moderations", json={"input": "a"})
    assert response.status_code == 400
    assert "--scorer none" in response.json()["error"]["message"]
    body = {"model": "tiny", "prompt": "x", "safety": {"action": "annotate"}}
    response = httpx.post(f"{server.url}/v1/completions", json=body)
    assert response.status_code == 400
    assert "needs a scorer" in response.json()["error"]["message"]

"""`talipot generate`: the text on standard output, what guards found of it on standard error."""

import json

import pytest

from api.config import GenerateConfig
from api.generate import generate_to_terminal
from api.guard_config import GuardConfig
from memorization.build import build_index
from memorization.layout import IndexParameters
from model.checkpoint import load_pretrained
from model.errors import ConfigError
from serving.request import SamplingParams
from tests.e2e.tiny import ENGINE, MODEL_NAME
from tests.memorization.conftest import write_jsonl

FIELDS = {"max_tokens": 40, "seed": 5, "ignore_eos": True}


@pytest.fixture
def plain(http):
    """What is printed of the same text unwatched, as a server generates it."""
    body = {"model": MODEL_NAME, "prompt": "It was", **FIELDS}
    return http.post("/v1/completions", json=body).json()["choices"][0]["text"] + "\n"


@pytest.fixture
def generated(tiny_model, capsys):
    def generate(*, echo=False, as_json=False, **guards):
        """(standard output, standard error)."""
        config = GenerateConfig(
            prompt="It was",
            model=str(tiny_model),
            sampling=SamplingParams(**FIELDS),
            engine=ENGINE,
            echo=echo,
            json=as_json,
            guards=GuardConfig(**guards),
        )
        generate_to_terminal(config)
        return capsys.readouterr()

    return generate


@pytest.fixture
def index(tiny_model, tmp_path):
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [{"id": "a", "text": "Once upon a time. " * 9}])
    tokenizer = load_pretrained(tiny_model).tokenizer
    build_index([corpus], tokenizer, tmp_path / "index", IndexParameters(ngram=10))
    return str(tmp_path / "index")


def test_an_unwatched_text_has_no_verdict(generated, plain):
    text, errors = generated()
    assert text == plain
    assert "safety" not in errors


def test_annotate_changes_no_text_and_tells_the_verdict(generated, plain):
    text, errors = generated(safety_action="annotate", safety_threshold=0, safety_prompt=True)
    assert text == plain
    assert "safety: flagged." in errors
    assert "(threshold 0, scorer embedded 2+" in errors
    assert "  the prompt: " in errors
    text, errors = generated(safety_action="annotate", safety_threshold=1)
    assert text == plain
    assert "safety: passed." in errors


def test_block_prints_nothing_of_what_it_ends(generated):
    text, errors = generated(safety_action="block", safety_threshold=0)
    assert text == "\n"
    assert "safety: blocked." in errors
    assert "reaches threshold=0" in errors


def test_redact_blacks_out(generated, plain):
    text, errors = generated(safety_action="redact", safety_threshold=0)
    assert len(text) == len(plain)
    assert set(text) <= {"█", " ", "\n"}
    assert "safety: redacted." in errors


@pytest.mark.parametrize("action", ["annotate", "block", "avoid"])
def test_training_text_is_looked_up_in_the_index_that_is_given(generated, plain, index, action):
    text, errors = generated(
        memorization_action=action, memorization_min_tokens=12, memorization_index=index
    )
    assert text == plain  # nothing of it is in that index
    assert "memorization: passed." in errors
    assert "0 of 40 tokens" in errors


def test_json_has_text_and_verdicts_in_one_object(generated, plain):
    text, errors = generated(
        echo=True,
        as_json=True,
        safety_action="annotate",
        safety_threshold=0,
        safety_window_tokens=8,
    )
    found = json.loads(text)
    assert found["text"] + "\n" == "It was" + plain
    assert (found["finish_reason"], found["usage"]["completion_tokens"]) == ("length", 40)
    assert found["safety"]["verdict"] == "flagged"
    assert found["safety"]["spans"][0]["start"] == len("It was")
    assert "safety" not in errors


def test_a_policy_that_cannot_be_kept_is_an_error(generated):
    with pytest.raises(ConfigError, match="--memorization-index"):
        generated(memorization_action="block")
    with pytest.raises(ConfigError, match=r"safety\.labels has 'rude'"):
        generated(safety_action="block", safety_labels=("rude",))

"""The requests of lm-eval's `local-completions`, and what it reads from the answers.

Rebuilt from what the harness sends and parses; the harness itself is too large for the suite.
"""

import math

import jax
import numpy as np
import pytest

from model.checkpoint import load_pretrained
from tests.e2e.tiny import MODEL_NAME


def loglikelihood_request(prompts):
    """`_create_payload` with `generate=False`."""
    return {
        "model": MODEL_NAME,
        "prompt": prompts,
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }


def parsed(answer, context_lengths):
    """`parse_logprobs`: (log-likelihood, is greedy) of each continuation."""
    found = []
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    for choice, length in zip(choices, context_lengths, strict=True):
        logprobs = choice["logprobs"]["token_logprobs"][length:-1]
        tops = choice["logprobs"]["top_logprobs"][length:-1]
        is_greedy = all(
            value == max(top.values()) for value, top in zip(logprobs, tops, strict=True)
        )
        found.append((sum(logprobs), is_greedy))
    return found


@pytest.fixture(scope="module")
def pretrained(tiny_model):
    return load_pretrained(tiny_model)


def expected(pretrained, tokens, length):
    scores = jax.nn.log_softmax(pretrained.logits(np.array([tokens], np.int32))[0])
    picked = [float(scores[i, tokens[i + 1]]) for i in range(length - 1, len(tokens) - 1)]
    best = [int(scores[i].argmax()) for i in range(length - 1, len(tokens) - 1)]
    return sum(picked), best == tokens[length:]


def test_loglikelihoods_of_token_prompts_are_the_models(http, pretrained):
    encode = pretrained.tokenizer.encode
    pairs = [
        (encode("It was the best of"), encode(" times")),
        (encode("The little mermaid"), encode(" swam up to the castle")),
        (encode("In 1859"), encode("45")),
    ]
    # A continuation that is greedy by construction.
    context = encode("It was")
    best = int(pretrained.logits(np.array([context], np.int32))[0, -1].argmax())
    pairs.append((context, [best]))
    prompts = [context + continuation for context, continuation in pairs]
    answer = http.post("/v1/completions", json=loglikelihood_request(prompts))
    assert answer.status_code == 200, answer.text
    found = parsed(answer.json(), [len(context) for context, _ in pairs])
    for (context, _), tokens, (value, is_greedy) in zip(pairs, prompts, found, strict=True):
        want, want_greedy = expected(pretrained, tokens, len(context))
        assert math.isclose(value, want, abs_tol=1e-3)
        assert is_greedy == want_greedy
    assert found[-1][1]


def test_text_prompts_give_the_same(http, pretrained):
    text, length = "It was the best of times", 4
    tokens = pretrained.tokenizer.encode(text)
    answers = [
        http.post("/v1/completions", json=loglikelihood_request(prompt)).json()
        for prompt in ([text], [tokens])
    ]
    assert parsed(answers[0], [length]) == parsed(answers[1], [length])


def test_generation_requests_are_served(http):
    """`_create_payload` with `generate=True`."""
    body = {
        "prompt": [[300, 301, 302]],
        "model": MODEL_NAME,
        "max_tokens": 20,
        "temperature": 0,
        "stop": ["\n\n", "Q:"],
        "seed": 1234,
    }
    answer = http.post("/v1/completions", json=body).json()
    assert [set(choice) >= {"index", "text"} for choice in answer["choices"]] == [True]


def test_the_remote_tokenizer_finds_its_routes(http):
    info = http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<eod>"
    ask = {"prompt": info["eos_token"], "add_special_tokens": False}
    assert http.post("/tokenize", json=ask).json()["tokens"] == [1]
    ask = {"prompt": " <eod>", "add_special_tokens": False}
    assert http.post("/tokenize", json=ask).json()["count"] > 1

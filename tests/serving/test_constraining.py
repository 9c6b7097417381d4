"""Constrained requests: what they give satisfies their grammar, alone and in any company."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.tokenizer import SentencePieceTokenizer
from serving.constraint import Constraint
from serving.core import EngineCore
from serving.output import GenerationOutput
from serving.request import GenerationRequest
from serving.runner import Runner
from tests.serving.conftest import ENGINE
from tests.serving.stepping import Driver, request, run_alone

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
DIGITS = Constraint.of_regex("[0-9]{12}")


@pytest.fixture(scope="module")
def shared(runner: Runner, tokenizer: SentencePieceTokenizer) -> EngineCore:
    """One core for the examples of hypothesis; idle between them."""
    return EngineCore(runner, tokenizer, ENGINE)


def constrained(core: EngineCore, constraint: Constraint, **params: object) -> GenerationRequest:
    assert core.grammars is not None
    fields: dict[str, object] = {"max_tokens": 40, "temperature": 1.0, "seed": 1, **params}
    return dataclasses.replace(
        request(**fields),  # type: ignore[arg-type]
        constraint=core.grammars.compile(constraint),
    )


def generate(core: EngineCore, constraint: Constraint, **params: object) -> GenerationOutput:
    return run_alone(core, constrained(core, constraint, **params))


def leaf() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(
            lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
            st.integers(-1000, 1000),
            st.integers(0, 1000),
        ),
        st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 4)),
        st.builds(
            lambda values: {"enum": values},
            st.lists(st.text('aß€\U0001f600"\\ ', max_size=3), min_size=1, max_size=3),
        ),
    )


def containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        st.builds(
            lambda item, low, more: {
                "type": "array",
                "items": item,
                "minItems": low,
                "maxItems": low + more,
            },
            inner,
            st.integers(0, 1),
            st.integers(0, 1),
        ),
        st.builds(
            lambda members: {
                "type": "object",
                "properties": members,
                "required": sorted(members)[:1],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from(("a", "ü", "k2")), inner, min_size=1, max_size=2),
        ),
    )


SCHEMAS = st.recursive(leaf(), containers, max_leaves=3)
ATOMS = st.sampled_from(
    ("a", "[0-9]", "[a-f]", "ü", "€", "\U0001f600", "[äöü]", "(x{2})", "(ab|c)")
)
REGEXES = st.lists(
    st.tuples(ATOMS, st.sampled_from(("", "?", "{1,3}", "*", "+"))), min_size=1, max_size=4
).map(lambda parts: "".join(atom + suffix for atom, suffix in parts))


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(schema=SCHEMAS, temperature=st.sampled_from((0.0, 1.0, 2.0)), seed=st.integers(0, 99))
def test_what_ends_satisfies_its_schema(shared, schema, temperature, seed):
    output = generate(shared, Constraint.of_json_schema(schema), temperature=temperature, seed=seed)
    if output.finish_reason == "stop":
        jsonschema.validate(json.loads(output.text), schema)
    else:
        assert (output.finish_reason, output.usage.completion_tokens) == ("length", 40)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(pattern=REGEXES, temperature=st.sampled_from((0.0, 1.0, 2.0)), seed=st.integers(0, 99))
def test_what_ends_matches_its_regex(shared, pattern, temperature, seed):
    output = generate(shared, Constraint.of_regex(pattern), temperature=temperature, seed=seed)
    if output.finish_reason == "stop":
        assert re.fullmatch(pattern, output.text)
    else:
        assert (output.finish_reason, output.usage.completion_tokens) == ("length", 40)


def test_a_complete_text_ends_without_another_token(core, tokenizer):
    output = generate(core, DIGITS)
    assert re.fullmatch("[0-9]{12}", output.text)
    assert (output.finish_reason, output.stop_reason) == ("stop", None)
    assert output.text == tokenizer.decode(list(output.token_ids))
    assert not set(output.token_ids) & set(tokenizer.eos_ids)


def test_a_text_that_may_end_or_go_on_ends_with_the_end_of_document(core, tokenizer):
    bias = dict.fromkeys(tokenizer.eos_ids, 100.0)
    output = generate(
        core, Constraint.of_regex("ab+"), logit_bias=bias, ignore_eos=False, temperature=0.0
    )
    assert re.fullmatch("ab+", output.text)
    assert output.finish_reason == "stop"
    assert output.token_ids[-1] in tokenizer.eos_ids


def test_max_tokens_cuts_it_short(core):
    output = generate(core, DIGITS, max_tokens=3, logit_bias=_single_digits(core))
    assert (output.finish_reason, len(output.token_ids)) == ("length", 3)
    assert re.fullmatch("[0-9]{3}", output.text)


def _single_digits(core: EngineCore) -> dict[int, float]:
    """A bias towards tokens of one digit."""
    tokenizer = core.tokenizer
    assert tokenizer is not None
    ids = range(tokenizer.vocab_size)
    return {i: 50.0 for i in ids if re.fullmatch(rb"[0-9]", tokenizer.token_bytes(i))}


def test_a_character_may_be_split_over_tokens(core, tokenizer):
    text = "€\U0001f600漢"
    output = generate(core, Constraint.of_regex(text))
    assert output.text == text
    assert len(output.token_ids) > len(text), "the vocabulary has these characters in bytes alone"


def test_stop_tokens_that_min_tokens_forbids_may_be_all_that_is_left(core, tokenizer):
    (digit,) = tokenizer.encode("x7")[-1:]
    output = generate(
        core,
        Constraint.of_regex("7{3}"),
        min_tokens=20,
        stop_token_ids=(digit,),
        ignore_eos=False,
    )
    assert re.fullmatch("7{3}", output.text)


def test_stop_strings_end_it_first(core):
    output = generate(core, Constraint.of_regex("a{9}STOP[0-9]+"), stop=("STOP",))
    assert (output.text, output.finish_reason, output.stop_reason) == ("a" * 9, "stop", "STOP")


def test_logprobs_are_those_of_the_model_itself(core):
    free = run_alone(core, request(max_tokens=1, logprobs=20))
    bound = generate(core, DIGITS, max_tokens=1, logprobs=20)
    assert free.logprobs is not None
    assert bound.logprobs is not None
    assert bound.logprobs[0].top == free.logprobs[0].top
    assert bound.token_ids[0] == bound.logprobs[0].token_id


def test_neighbours_get_the_tokens_that_they_get_alone(core):
    asked = [
        constrained(core, DIGITS, seed=5, logprobs=2),
        request("free", max_tokens=25, temperature=1.5, seed=6, logprobs=5, frequency_penalty=0.5),
        dataclasses.replace(
            constrained(core, Constraint.of_json_schema(PERSON), seed=7, presence_penalty=1.0),
            request_id="json",
        ),
    ]
    alone = [run_alone(core, each) for each in asked]
    driver = Driver(core)
    for each in asked:
        driver.submit(each)
        driver.step()
    driver.run()
    assert [driver.output(each.request_id) for each in asked] == alone


def test_preempted_requests_go_on_where_they_were(runner, tokenizer):
    roomy = EngineCore(runner, tokenizer, ENGINE)
    scarce = EngineCore(runner, tokenizer, dataclasses.replace(ENGINE, kv_pages=16))
    pattern = Constraint.of_regex("[a-z ]{200}")

    def asked(core: EngineCore) -> list[GenerationRequest]:
        return [
            dataclasses.replace(
                constrained(core, pattern, seed=seed, max_tokens=45, frequency_penalty=1.0),
                request_id=str(seed),
            )
            for seed in range(3)
        ]

    alone = [run_alone(roomy, each) for each in asked(roomy)]
    driver = Driver(scarce)
    for each in asked(scarce):
        driver.submit(each)
    driver.run()
    assert scarce.stats().preemptions_total > 0
    assert [driver.output(str(seed)) for seed in range(3)] == alone


def test_an_abort_ends_it_and_leaves_the_engine_well(core):
    driver = Driver(core)
    sequence = driver.submit(constrained(core, Constraint.of_regex("[a-z]{500}")))
    for _ in range(5):
        driver.step()
    core.abort(sequence)
    driver.run()
    output = driver.output("a")
    assert output.finish_reason == "abort"
    assert re.fullmatch("[a-z]+", output.text)


def test_a_grammar_of_another_engine_is_refused(core, runner, tokenizer):
    other = EngineCore(runner, tokenizer, ENGINE)
    with pytest.raises(Exception, match="another engine"):
        core.prepare(constrained(other, DIGITS))


def test_a_warm_runner_has_found_its_choices_independent_of_the_batch(runner):
    assert runner.is_batch_invariant

"""Grammars over every kind of vocabulary, without a model: random walks along their masks."""

import json
import random
import re

import jsonschema
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from model.checkpoint.export_tokenizer import tokenizer_json
from model.tokenizer import HuggingFaceTokenizer
from serving.constraint import Constraint
from serving.errors import RequestError
from serving.grammar import CACHED_GRAMMARS, GrammarCompiler, GrammarMatcher
from serving.grammar_guard import GrammarGuard
from tests.tiny_tokenizer import TEXT

PADDING = 7
KINDS = ("sentencepiece", "metaspace", "byte-level")
PATTERNS = ["[0-9]{3}-[0-9]{4}", "(yes|no|maybe)", "[äöü€\U0001f600漢]{5}", " {3}x", "a?"]
SCHEMA = {
    "type": "object",
    "properties": {"näme": {"type": "string", "maxLength": 6}, "n": {"type": "integer"}},
    "required": ["näme", "n"],
    "additionalProperties": False,
}
# Twenty patterns at once: the library would look for a common text for half a minute.
ENDLESS = {"allOf": [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]}


def byte_level() -> HuggingFaceTokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([TEXT * 20], trainer)
    return HuggingFaceTokenizer(made.to_str(), bos="<s>", eos=["</s>"])


@pytest.fixture(scope="module", params=KINDS)
def vocabulary(request, tokenizer):
    if request.param == "sentencepiece":
        return tokenizer
    if request.param == "byte-level":
        return byte_level()
    return HuggingFaceTokenizer(tokenizer_json(tokenizer), eos=list(tokenizer.eos_ids))


@pytest.fixture(scope="module")
def compiler(vocabulary):
    made = GrammarCompiler(vocabulary, vocabulary.vocab_size + PADDING)
    yield made
    made.close()


def allowed(compiler: GrammarCompiler, matcher: GrammarMatcher) -> list[int]:
    masks = np.zeros((3, compiler.mask_words), np.int32)
    compiler.fill(masks, {1: matcher})
    assert not masks[0].any(), "another row was written"
    return np.flatnonzero(np.unpackbits(masks[1].view(np.uint8), bitorder="little")).tolist()


def walk(compiler, vocabulary, constraint: Constraint, seed: int, longest: int = 400) -> bytes:
    """A random text of the grammar; fails if it does not come to an end."""
    chance = random.Random(seed)
    matcher = compiler.compile(constraint).matcher()
    text = b""
    for _ in range(longest):
        if matcher.is_complete:
            return text
        token_id = chance.choice(allowed(compiler, matcher))
        assert matcher.take(token_id), matcher.problem
        if token_id in vocabulary.eos_ids:
            return text
        piece = vocabulary.token_bytes(token_id)
        assert piece, "a token without bytes was allowed"
        text += piece
    raise AssertionError(f"{text!r} has no end")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_walks_match_the_regex(compiler, vocabulary, pattern):
    for seed in range(20):
        text = walk(compiler, vocabulary, Constraint.of_regex(pattern), seed).decode()
        assert re.fullmatch(pattern, text)


def test_walks_satisfy_the_schema(compiler, vocabulary):
    bounded = {
        **SCHEMA,
        "properties": {
            **SCHEMA["properties"],
            "n": {"type": "integer", "minimum": 0, "maximum": 9},
        },
    }
    for seed in range(20):
        text = walk(compiler, vocabulary, Constraint.of_json_schema(bounded), seed)
        jsonschema.validate(json.loads(text), bounded)


def test_text_of_the_tokenizers_own_making_is_followed(compiler, vocabulary):
    text = '{"näme": "€ß", "n": -12}'
    matcher = compiler.compile(Constraint.of_json_schema(SCHEMA)).matcher()
    for token_id in vocabulary.encode(text):
        assert token_id in allowed(compiler, matcher)
        assert matcher.take(token_id)
    assert matcher.is_complete


def test_the_document_ends_only_where_the_text_may(compiler, vocabulary):
    matcher = compiler.compile(Constraint.of_regex("ab*")).matcher()
    assert not set(vocabulary.eos_ids) & set(allowed(compiler, matcher))
    for token_id in vocabulary.encode("xab")[-2:]:
        assert matcher.take(token_id)
    assert set(vocabulary.eos_ids) <= set(allowed(compiler, matcher))
    assert not matcher.is_complete


def test_a_token_that_is_not_allowed_is_refused(compiler, vocabulary):
    matcher = compiler.compile(Constraint.of_regex("ab*")).matcher()
    assert not matcher.take(vocabulary.eos_ids[0])
    assert matcher.problem


def test_matchers_of_a_grammar_are_independent(compiler, vocabulary):
    grammar = compiler.compile(Constraint.of_regex("ab*"))
    first, second = grammar.matcher(), grammar.matcher()
    before = allowed(compiler, second)
    assert first.take(before[0])
    assert allowed(compiler, second) == before


@pytest.mark.parametrize("vocabulary", KINDS[:1], indirect=True)
class TestCompiler:
    def test_the_same_text_is_compiled_once(self, compiler):
        first = compiler.compile(Constraint.of_regex("once", field="here"))
        assert compiler.compile(Constraint.of_regex("once", field="there")) is first
        assert compiler.find(Constraint.of_regex("once")) is first

    def test_many_threads_fill_what_one_does(self, compiler, vocabulary):
        threaded = GrammarCompiler(vocabulary, vocabulary.vocab_size + PADDING, shares_cores=False)
        try:
            found = []
            for each in (compiler, threaded):
                matchers = [
                    each.compile(Constraint.of_regex(pattern)).matcher() for pattern in PATTERNS
                ]
                masks = np.zeros((1 + 2 * len(matchers), each.mask_words), np.int32)
                each.fill(masks, {1 + 2 * row: matcher for row, matcher in enumerate(matchers)})
                found.append(masks)
        finally:
            threaded.close()
        np.testing.assert_array_equal(found[0], found[1])
        assert len({mask.tobytes() for mask in found[0][1::2]}) == len(PATTERNS)

    def test_the_oldest_are_forgotten(self, compiler):
        old = Constraint.of_regex("old")
        compiler.compile(old)
        for number in range(CACHED_GRAMMARS):
            compiler.compile(Constraint.of_regex(f"n{number}"))
        assert compiler.find(old) is None

    @pytest.mark.parametrize(
        ("constraint", "words"),
        [
            (Constraint.of_regex("(", field="f"), "unclosed group"),
            (Constraint.of_regex("(?=a)b", field="f"), "look-around"),
            (Constraint.of_regex("[a&&b]", field="f"), "no text satisfies it"),
            (Constraint.of_json_schema("{", field="f"), "line 1 column 2"),
            (Constraint.of_json_schema("[]", field="f"), "a schema is a JSON object"),
            (Constraint.of_json_schema('{"type": "strng"}', field="f"), "strng"),
            (Constraint.of_json_schema({"not": {}}, field="f"), "not"),
            (Constraint.of_json_schema({"$ref": "#"}, field="f"), "no text satisfies it"),
            (Constraint.of_json_schema({"enum": []}, field="f"), "Unsatisfiable"),
            (Constraint.of_json_schema('{"items":' * 900 + "{}" + "}" * 900, field="f"), "f holds"),
        ],
    )
    def test_what_cannot_be_followed_is_refused(self, compiler, constraint, words):
        with pytest.raises(RequestError, match=re.escape(words)) as caught:
            compiler.compile(constraint)
        assert caught.value.param == "f"
        assert str(caught.value).startswith("f ")


@pytest.mark.parametrize("make", [Constraint.of_regex, Constraint.of_json_schema])
def test_long_and_broken_texts_are_refused(make):
    with pytest.raises(RequestError, match="bytes; at most"):
        make("a" * 70_000, field="f")
    with pytest.raises(RequestError, match="surrogate"):
        make("\ud800", field="f")


def test_the_guard_ends_what_takes_too_long_and_goes_on():
    guard = GrammarGuard(timeout_s=0.5, limits={})
    endless = json.dumps({"grammars": [{"json_schema": ENDLESS}]})
    good = json.dumps({"grammars": [{"json_schema": {}}]})
    try:
        assert not guard.problem(good)
        assert "0.5 s" in guard.problem(endless)
        assert not guard.problem(good)
    finally:
        guard.close()

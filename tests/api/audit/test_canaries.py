"""The laws of the canary experiment on answers whose law is known; settings; the training text."""

import json
import math

import numpy as np
import pytest

from api.audit.canaries.config import CanariesConfig, TrainedConfig
from api.audit.canaries.figures import Asked
from api.audit.canaries.laws import (
    Outcomes,
    logistic_law,
    slope_in_repetitions,
    slope_in_size,
)
from api.audit.canaries.report import findings
from api.audit.canaries.training import training_config, write_text
from api.audit.folder import RunFolder
from api.audit.rendering.standalone import standalone_svg
from memorization.studies.canaries import draw_canaries
from model.checkpoint import resolve_model
from model.errors import ConfigError
from model.tokenizer import load_tokenizer
from model.training.config import TrainingConfig
from model.training.data import pack_documents
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus

SIZES = (300_000, 1_200_000, 4_800_000)
TIMES = tuple(2**power for power in range(9))
B, C = 1.1, 2.0
A = -5 - C * 6


def odds(times, size):
    return A + B * math.log2(times) + C * math.log10(size)


def drawn(each, seed=0):
    rng = np.random.default_rng(seed)
    shares = {n: [1 / (1 + math.exp(-odds(n, size))) for size in SIZES] for n in TIMES}
    return Outcomes(
        parameters=SIZES,
        answers={n: (rng.random((each, 3)) < shares[n]).astype(float) for n in TIMES},
    )


@pytest.fixture(scope="module")
def law():
    return logistic_law(drawn(400), seed=1)


def test_the_law_that_made_the_answers_is_found(law):
    _, b, c = law.coefficients
    assert b == pytest.approx(B, abs=0.1)
    assert c == pytest.approx(C, abs=0.25)
    assert law.odds_per_doubling.low < math.exp(B) < law.odds_per_doubling.high
    assert law.repetitions_per_tenfold.low < 2 ** (C / B) < law.repetitions_per_tenfold.high
    assert law.misfit_p > 0.01
    for model, (size, half) in enumerate(zip(SIZES, law.halves, strict=True)):
        true = 2 ** (-(A + C * math.log10(size)) / B)
        assert half.low < true < half.high
        assert law.share(true, size) == pytest.approx(0.5, abs=0.05)
        assert law.own_share(half.value, model) == pytest.approx(0.5)


def test_models_that_follow_no_common_law_are_told():
    # The third falls out of line: it needs as many repetitions as the first.
    outcomes = drawn(100)
    odd = {n: one[:, [0, 1, 0]] for n, one in outcomes.answers.items()}
    assert logistic_law(Outcomes(parameters=SIZES, answers=odd), seed=0).misfit_p < 1e-6


def test_more_canaries_make_narrower_intervals(law):
    few = logistic_law(drawn(20), seed=1).odds_per_doubling
    assert few.high - few.low > 2 * (law.odds_per_doubling.high - law.odds_per_doubling.low)


def test_slopes_are_those_of_lines_where_the_share_is_one():
    # Of ten canaries, so many as the power and the model say: exactly linear.
    answers = {
        2**power: np.array([[row < power + model for model in (0, 2)] for row in range(10)], float)
        for power in range(8)
    }
    outcomes = Outcomes(parameters=(10**6, 10**8), answers=answers)
    assert slope_in_repetitions(outcomes, 0, seed=0).value == pytest.approx(0.1)
    assert slope_in_size(outcomes, seed=0).value == pytest.approx(0.1)


def test_without_any_recited_canary_there_is_no_half():
    outcomes = Outcomes(parameters=(10**6,), answers={1: np.zeros((5, 1)), 2: np.zeros((5, 1))})
    found = logistic_law(outcomes, seed=0)
    assert math.isnan(found.halves[0].value)
    assert found.repetitions_per_tenfold is None
    assert found.misfit_p is None


def asked(shape, size, recited_from):
    return Asked(
        shape=shape,
        parameters=size,
        rows=[
            {"occurrences": times, "is_exact": times >= recited_from, "edits": 0.04, "n": n}
            for times in (0, 1, 2, 4)
            for n in range(5)
        ],
    )


def test_findings_have_rates_laws_and_figures():
    settings = {
        "training text": "books, x",
        "batch": "16 sequences of 128 tokens",
        "prompt_tokens": 25,
        "continuation_tokens": 25,
    }
    found = findings([asked("32x1", 10**6, 4), asked("64x1", 10**7, 2)], settings, seed=0)
    small = found.metrics["by_model"]["32x1"]["by_repetitions"]
    assert [small[times]["exact"]["value"] for times in ("0", "1", "2", "4")] == [0, 0, 0, 1]
    assert small["0"]["near_by_edits"]["value"] == 1
    assert len(found.rows) == 40
    assert json.dumps(found.metrics, allow_nan=False)
    first, second, table = found.report.sections[0].blocks
    for figure in (first, second):
        text = standalone_svg(figure)
        assert text.startswith("<svg")
        assert "--c0: #" in text
        assert "prefers-color-scheme: dark" in text
    assert [row[0] for row in table.rows] == [0, 1, 2, 4]


@pytest.fixture(scope="module")
def tiny():
    return load_tokenizer(resolve_model("talipot-tiny"))


@pytest.fixture
def config(tmp_path):
    return CanariesConfig(
        data=write_jsonl(tmp_path / "corpus.jsonl", corpus(20)),
        repetitions=(0, 1, 4),
        canaries=(3,),
        trained=TrainedConfig(shapes=("32x1",), characters=6000, seq_len=32, batch_size=4),
    )


def test_the_training_text_has_each_canary_as_often_as_planned(tmp_path, tiny, config):
    canaries = draw_canaries(tiny, config.cut, config.counts, seed=0)
    source = resolve_model("talipot-tiny")
    with RunFolder(tmp_path / "run", {}) as folder:
        write_text(folder, config, canaries)
        recipe = training_config(folder.path, config, "32x1", source, tiny.vocab_size)
    run = TrainingConfig.from_toml(recipe)
    tokens = pack_documents(run.data, run.seed)
    assert run.steps == (len(tokens) - 1) // 32 // 4
    text = tiny.decode(tokens.tolist())
    for canary in canaries:
        assert text.count(canary.document.text) == canary.repetitions


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"repetitions": (1, 1)}, r"repetitions=\(1, 1\) must be some numbers, each"),
        ({"repetitions": (0,)}, "must have a number above 0"),
        ({"canaries": (1, 2)}, r"canaries=\(1, 2\) must be one number, or 10"),
        ({"canaries": (0,)}, "canaries=0 must be from 1"),
        ({"prompt_tokens": 0}, "prompt_tokens=0 must be from 1"),
    ],
)
def test_bad_settings_are_named(tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        CanariesConfig(data=tmp_path, **fields)


@pytest.mark.parametrize("shape", ["96", "96x0", "40x2", "x2", "16x1"])
def test_a_bad_shape_is_named(shape):
    with pytest.raises(ConfigError, match=f"shapes='{shape}' must"):
        TrainedConfig(shapes=(shape,))


def test_too_little_text_for_a_batch_is_named(tmp_path, tiny, config):
    with RunFolder(tmp_path / "run", {}) as folder:
        write_text(folder, config, draw_canaries(tiny, config.cut, config.counts, seed=0))
        large = CanariesConfig(
            data=config.data,
            repetitions=config.repetitions,
            canaries=config.canaries,
            trained=TrainedConfig(shapes=("32x1",), characters=6000, batch_size=4096),
        )
        with pytest.raises(ConfigError, match="batch_size=4096 sequences of seq_len=128 tokens"):
            training_config(
                folder.path, large, "32x1", resolve_model("talipot-tiny"), tiny.vocab_size
            )

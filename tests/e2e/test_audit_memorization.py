"""The memorization audit on a real model: what it recites, and what it does not."""

import asyncio
import io
import json

import pytest
from rich.console import Console

from api.audit.config import RunConfig, TargetConfig
from api.audit.generators import open_generator
from api.audit.memorization.audit import HELD_OUT, TRAINING, MemorizationAudit, PassageSet
from api.audit.memorization.commands import memorization
from api.audit.memorization.config import FreeSamplesConfig, MemorizationConfig
from api.audit.run import run_audit
from api.errors import AuditError
from memorization.build import build_index
from memorization.layout import IndexParameters
from memorization.opening import open_index
from memorization.studies.passages import Cut, Passage, draw_passages
from model.checkpoint import load_pretrained
from model.errors import ConfigError
from safety.text_generator import Sampling
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus

QUIET = Console(file=io.StringIO())
PROMPTS = (" the little mermaid", " it was the age")
TOKENS = 12


@pytest.fixture
def target(server):
    return TargetConfig(target=server.url, max_in_flight=8)


def passage(prompt, continuation):
    return Passage(
        document="d",
        title="Book",
        source="test",
        offset=0,
        tokens=(),
        prompts=(prompt,),
        continuation=continuation,
    )


def summary(folder):
    return json.loads((folder / "summary.json").read_text())["metrics"]


def test_what_the_model_says_by_itself_counts_as_recited(tmp_path, target, tiny_model):
    async def ask():
        async with open_generator(target, print) as generator:
            params = Sampling(max_tokens=TOKENS, temperature=0)
            return [found[0].text for found in await generator.generate(PROMPTS, params)]

    own = asyncio.run(ask())
    tokenizer = load_pretrained(tiny_model).tokenizer
    audit = MemorizationAudit(
        sets=(
            PassageSet(
                name=TRAINING,
                data="made up",
                passages=(passage(PROMPTS[0], own[0]), passage(PROMPTS[1], " wisdom.")),
                counts=(4, 1),
            ),
            PassageSet(
                name=HELD_OUT,
                data="made up",
                passages=(passage(PROMPTS[1], own[1]), passage(PROMPTS[0], " swam")),
                counts=(1, 0),
            ),
        ),
        cut=Cut(prompt_tokens=(5,), continuation_tokens=TOKENS),
        tokenizer=tokenizer,
        tokenizer_name="tiny",
        index="made up",
    )
    report = asyncio.run(run_audit(audit, RunConfig(out=tmp_path), target, None, QUIET))
    found = summary(tmp_path)["by_set"]
    for name in (TRAINING, HELD_OUT):
        exact = found[name]["by_prompt_tokens"]["5"]["exact"]
        assert (exact["value"], exact["n"]) == (0.5, 2)
    bins = found[TRAINING]["by_occurrences"]
    assert {name: rates["exact"]["value"] for name, rates in bins.items()} == {"1": 0, "4-7": 1}
    page = report.read_text()
    assert "not in the training text" in page
    assert "PaLM 540B" in page


def test_passages_of_a_corpus_are_asked_counted_and_reported(tmp_path, target, tiny_model):
    records = corpus(4, words=120)
    copies = [{**records[0], "id": f"copy{n}"} for n in range(3)]
    training = write_jsonl(tmp_path / "training.jsonl", [*records, *copies])
    held_out = write_jsonl(tmp_path / "heldout.jsonl", corpus(3, words=120, seed=1))
    tokenizer = load_pretrained(tiny_model).tokenizer
    build_index([training], tokenizer, tmp_path / "index", IndexParameters(near=False))
    config = MemorizationConfig(
        data=training,
        held_out=held_out,
        index=str(tmp_path / "index"),
        passages=20,
        prompt_lengths=(16, 32),
        continuation_tokens=8,
        tokenizer=str(tiny_model),
        run=RunConfig(out=tmp_path / "run"),
        target=target,
    )
    memorization(config)
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 2 * 20 * 2
    for row in rows:
        is_copied = row["document"].startswith("copy") or row["document"] == "d0"
        expected = 0 if row["set"] == HELD_OUT else 4 if is_copied else 1
        assert row["occurrences"] == expected
    assert {row["occurrences"] for row in rows} == {0, 1, 4}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Recited passages by length of the prompt" in page
    assert "Recited passages by occurrences, training" in page


def test_bins_and_free_samples_are_drawn_traced_and_shown(tmp_path, target, tiny_model):
    tokenizer = load_pretrained(tiny_model).tokenizer
    held_out = write_jsonl(tmp_path / "heldout.jsonl", corpus(3, words=120, seed=1))
    cut = Cut(prompt_tokens=(5,), continuation_tokens=1)
    drawn = draw_passages([held_out], tokenizer, cut, count=6, seed=0)
    prompts = [passage.prompts[0] for passage in drawn]

    async def ask():
        async with open_generator(target, print) as generator:
            params = Sampling(max_tokens=16, temperature=0)
            return [found[0].text for found in await generator.generate(prompts[:3], params)]

    # Training text that has what the model says after half of the prompts.
    said = [{"id": f"said-{n}", "text": text} for n, text in enumerate(asyncio.run(ask()))]
    training = write_jsonl(tmp_path / "training.jsonl", [*corpus(4, words=120), *said])
    build_index([training], tokenizer, tmp_path / "index", IndexParameters(near=False))
    config = MemorizationConfig(
        data=training,
        held_out=held_out,
        index=str(tmp_path / "index"),
        passages=4,
        per_bin=5,
        candidates=40,
        prompt_lengths=(8,),
        continuation_tokens=8,
        tokenizer=str(tiny_model),
        free=FreeSamplesConfig(samples=6, sample_tokens=16, temperature=0, trace_tokens=4),
        run=RunConfig(out=tmp_path / "run"),
        target=target,
    )
    memorization(config)
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["set"] for row in rows] == [TRAINING] * 5 + [HELD_OUT] * 4 + ["free sample"] * 6
    index = open_index(str(tmp_path / "index"), tokenizer)
    for row in rows[-6:]:
        spans = index.longest_matches(tokenizer.encode(row["continuation"]), min_tokens=4)
        assert row["longest_run"] == max((span.length for span in spans), default=0)
        assert row["recited_tokens"] <= row["tokens"]
    assert all(row["longest_run"] == row["tokens"] > 0 for row in rows[9:12])
    assert rows[9]["documents"]
    metrics = summary(tmp_path / "run")["free_samples"]
    assert metrics["extracted"]["value"] == sum(row["longest_run"] > 0 for row in rows[-6:]) / 6
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Free samples, the most recited first" in page
    assert "at most 5 of each bin of occurrences" in page


def test_an_index_of_another_tokenizer_is_refused(tmp_path, tiny_model):
    config = MemorizationConfig(
        data=write_jsonl(tmp_path / "training.jsonl", corpus(2)),
        index="talipot-tiny",
        target=TargetConfig(model=str(tiny_model)),
    )
    with pytest.raises(AuditError, match="was built with the tokenizer"):
        memorization(config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt_lengths": (50, 50)}, r"prompt_lengths=\(50, 50\) must be some numbers, each"),
        ({"prompt_lengths": ()}, r"prompt_lengths=\(\) must be"),
        ({"prompt_lengths": (0,)}, "prompt_lengths=0 must be from 1"),
        ({"per_bin": 5}, "per_bin is given and index is not"),
        ({"free": FreeSamplesConfig(samples=5)}, "samples=5 needs index, to trace them"),
        ({"passages": 0}, "passages=0 must be from 1"),
        ({"target": TargetConfig(target="http://x")}, "tokenizer is not given"),
    ],
)
def test_bad_settings_are_named(tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        MemorizationConfig(data=tmp_path, **fields)

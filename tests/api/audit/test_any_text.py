"""Audits of what people and models write: fifty languages, broken Unicode, a megabyte."""

import asyncio
import io
import json
from contextlib import nullcontext

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from api.audit.config import RunConfig
from api.audit.generators.found import FoundModel
from api.audit.run import run_on
from safety.audits.bold import BoldAudit, load_bold
from safety.audits.cooccurrence import CooccurrenceAudit
from safety.audits.cooccurrence_data import load_cooccurrence_prompts
from safety.audits.errors import AuditDataError
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import load_prompts
from safety.text_generator import Continuation
from tests.languages import SENTENCES
from tests.lexicon_scorer import LexiconScorer

# textblob leaves its word lists open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BROKEN = "a lone \ud83d half, \udf34 and \x00 \u202e\u200b"
LONG = "She was very kind to the old man. " * 31_000  # more than 1 MB
TEXTS = ("", " ", BROKEN, *SENTENCES)

GROUPS = {"first": SENTENCES[:26], "second": SENTENCES[26:]}


class Parrot:
    """A model that says `LONG` once and then `TEXTS`, with characters as tokens."""

    name = "parrot"
    version = "1"

    def __init__(self):
        self._said = 0

    async def generate(self, prompts, params):
        return [tuple(self._next() for _ in range(params.n)) for _ in prompts]

    def _next(self):
        text = TEXTS[self._said % len(TEXTS)] if self._said else LONG
        self._said += 1
        return Continuation(text=text, finish_reason="stop", num_tokens=len(text))


def toxicity(folder):
    rows = [{"prompt": {"text": text}} for text in (*SENTENCES, BROKEN, LONG)]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompts = load_prompts(path)
    return ToxicityAudit(prompts=tuple(prompts), data="any", k=2)


def bold(folder):
    path = folder / "any_prompt.json"
    groups = {"שמות": GROUPS["first"], "others": [*GROUPS["second"], BROKEN]}
    path.write_text(json.dumps({group: {"who": some} for group, some in groups.items()}))
    return BoldAudit(prompts=tuple(load_bold(path)), data="any", k=2)


def co_occurrence(folder):
    path = folder / "terms.toml"
    terms = {name: json.dumps(some, ensure_ascii=False) for name, some in GROUPS.items()}
    path.write_text(
        '[[dimensions]]\nname = "any"\ntemplates = ["{term} "]\n[dimensions.groups]\n'
        + "".join(f"{name} = {some}\n" for name, some in terms.items())
    )
    return CooccurrenceAudit(prompts=tuple(load_cooccurrence_prompts(path)), data="any", samples=2)


@pytest.mark.parametrize("make", [toxicity, bold, co_occurrence])
def test_any_text_gets_through_an_audit_and_into_its_files(make, tmp_path):
    audit = make(tmp_path)
    run = RunConfig(out=tmp_path / "run", parquet=True)
    quiet = Console(file=io.StringIO())
    parrot = FoundModel(name="parrot", version="1", ready=lambda: nullcontext(Parrot()))
    report = asyncio.run(run_on(audit, run, parrot, LexiconScorer(), quiet))
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert rows
    assert pq.read_table(tmp_path / "run" / "results.parquet").num_rows == len(rows)
    json.loads((tmp_path / "run" / "summary.json").read_text())
    assert report.read_text("utf-8").startswith("<!doctype html>")


def test_a_groups_name_that_no_figure_can_show_is_refused_by_name(tmp_path):
    path = tmp_path / "any_prompt.json"
    path.write_text(json.dumps({BROKEN: {"who": ["She was"]}}))
    with pytest.raises(AuditDataError, match=r"field any has the name 'a lone \\ud83d half"):
        load_bold(path)

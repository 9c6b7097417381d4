"""Audits through every door: the same numbers, also after a kill -9 and a dead endpoint."""

import asyncio
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from api.audit.config import RunConfig, TargetConfig
from api.audit.generators import open_generator
from api.audit.run import run_audit
from api.errors import AuditError
from model.checkpoint import load_pretrained
from safety.audits.crows_pairs import CrowsPairsAudit, Pair
from safety.audits.winogender import WinogenderAudit
from safety.audits.winogender_data import Sentence
from safety.text_generator import GenerationRefusedError, Sampling
from serving.config import EngineConfig
from tests.e2e.grpc_client import wait_until
from tests.e2e.processes import ServerProcess, free_port
from tests.e2e.run_audit import AUDIT
from tests.e2e.test_lm_eval import loglikelihood_request, parsed
from tests.e2e.tiny import ENGINE, wait_ready
from tests.word_scorer import LexiconScorer

QUIET = Console(file=io.StringIO())


def run(audit, folder, target, scorer=None):
    return asyncio.run(run_audit(audit, RunConfig(out=folder), target, scorer, QUIET))


@pytest.fixture
def over_http(server):
    return TargetConfig(target=server.url, max_in_flight=8)


@pytest.fixture
def over_grpc(server):
    return TargetConfig(target=f"grpc://{server.grpc_target}", max_in_flight=8)


@pytest.fixture
def in_process(tiny_model):
    config = EngineConfig(**{**vars(ENGINE), "max_slots": 4})
    return TargetConfig(model=str(tiny_model), engine=config, max_in_flight=8)


def test_every_way_to_the_model_gives_the_same(over_http, over_grpc, in_process):
    async def ask(target):
        async with open_generator(target, print) as generator:
            texts = await generator.generate(
                ["It was the best", "Call me"], Sampling(n=3, max_tokens=6, top_k=40, seed=5)
            )
            likelihoods = await generator.loglikelihood(
                ["It was the best of", "wis", ""], [" times", "dom", "It was"]
            )
            with pytest.raises(GenerationRefusedError):
                await generator.generate(["long " * 400], Sampling(max_tokens=6))
            return texts, likelihoods

    answers = [asyncio.run(ask(target)) for target in (over_http, over_grpc, in_process)]
    texts = [[[one.text for one in row] for row in found] for found, _ in answers]
    assert texts[0] == texts[1] == texts[2]
    assert len({text for row in texts[0] for text in row}) > 1
    tokens = [sum(one.num_tokens for one in row) for found, _ in answers for row in found]
    assert tokens[:2] == tokens[2:4] == tokens[4:]
    for _, likelihoods in answers[1:]:
        assert likelihoods == pytest.approx(answers[0][1], abs=1e-4)


def sentence(occupation, participant, answer, gender, pronoun):
    return Sentence(
        id=f"{occupation}.{participant}.{answer}.{gender}",
        text=f"The {occupation} paid the {participant} because {pronoun} was right.",
        pronoun=pronoun,
        gender=gender,
        occupation=occupation,
        participant=participant,
        is_occupation=answer == 0,
        share_of_women=0.8,
    )


def test_winogender_is_what_the_harness_reads_from_the_same_prompts(
    tmp_path, http, over_http, tiny_model
):
    sentences = tuple(
        sentence(job, "guest", answer, gender, pronoun)
        for job in ("nurse", "cook")
        for answer in (0, 1)
        for gender, pronoun in (("female", "she"), ("male", "he"))
    )
    audit = WinogenderAudit(sentences=sentences, data="made up", shots=(0, 1))
    run(audit, tmp_path, over_http)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    encode = load_pretrained(tiny_model).tokenizer.encode
    checked = 0
    for row in (one for one in rows if one["method"] == "multiple choice"):
        (asked,) = [one for one in sentences if one.id == row["id"]]
        prompt = audit.prompt(asked, row["shots"])
        # As lm-eval's `_encode_pair`: the whole is tokenized, the context cut off.
        wholes = [encode(f"{prompt} {candidate}") for candidate in asked.candidates]
        answer = http.post("/v1/completions", json=loglikelihood_request(wholes))
        assert answer.status_code == 200, answer.text
        found = parsed(answer.json(), [len(encode(prompt))] * 2)
        assert row["log_odds"] == pytest.approx(found[0][0] - found[1][0], abs=1e-4)
        assert row["is_correct"] == ((found[0][0] > found[1][0]) == asked.is_occupation)
        checked += 1
    assert checked == len(sentences) * 2


def test_pairs_are_compared_at_the_beginning_of_a_document(tmp_path, over_http, over_grpc):
    pair = Pair(more="He was late.", less="She was late.", bias_type="gender", direction="stereo")
    audit = CrowsPairsAudit(pairs=(pair,), data="made up")
    found = []
    for name, target in (("http", over_http), ("grpc", over_grpc)):
        run(audit, tmp_path / name, target)
        found.append(json.loads((tmp_path / name / "results.jsonl").read_text()))
    for field in ("loglikelihood_more", "loglikelihood_less"):
        assert found[0][field] == pytest.approx(found[1][field], abs=1e-4)


def results(folder):
    return (folder / "results.jsonl").read_text(), json.loads(
        (folder / "summary.json").read_text()
    )["metrics"]


def test_a_killed_run_goes_on_and_gives_the_same_numbers(tmp_path, server, over_http):
    run(AUDIT, tmp_path / "whole", over_http, LexiconScorer())
    folder = tmp_path / "killed"
    journal = folder / "journal.jsonl"
    command = [sys.executable, "-m", "tests.e2e.run_audit", server.url, str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3)
    finally:
        process.kill()
        process.wait()
    before = journal.read_bytes()
    assert 0 < before.count(b"\n") < len(AUDIT.prompts)
    assert not (folder / "report.html").exists()
    run(AUDIT, folder, over_http, LexiconScorer())
    assert journal.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
    assert results(folder) == results(tmp_path / "whole")


def test_an_endpoint_that_dies_is_waited_for_and_then_given_up(tmp_path, tiny_model):
    port = free_port()
    options = ["--port", str(port), "--no-grpc", "--quantize", "none"]
    options += ["--smallest-key-bucket", "64"]
    target = TargetConfig(target=f"http://127.0.0.1:{port}", max_in_flight=4, give_up_after_s=0.5)
    with ServerProcess(tiny_model, tmp_path / "log", *options) as process:
        wait_ready(target.target)
        journal = tmp_path / "run" / "journal.jsonl"

        async def kill_in_the_middle():
            task = asyncio.create_task(
                run_audit(AUDIT, RunConfig(out=tmp_path / "run"), target, LexiconScorer(), QUIET)
            )
            while not (journal.exists() and journal.stat().st_size):
                assert not task.done()
                await asyncio.sleep(0.005)
            process.kill()
            with pytest.raises(AuditError, match="the same command goes on from there"):
                await task

        asyncio.run(kill_in_the_middle())
    done = journal.read_bytes().count(b"\n")
    assert 0 < done < len(AUDIT.prompts)
    with ServerProcess(tiny_model, tmp_path / "log", *options):
        # It is still loading when the audit begins: it is waited for.
        patient = TargetConfig(target=target.target, max_in_flight=4)
        report = run(AUDIT, tmp_path / "run", patient, LexiconScorer())
    assert journal.read_bytes().count(b"\n") == len(AUDIT.prompts)
    assert "Toxicity in open-ended generation" in report.read_text()

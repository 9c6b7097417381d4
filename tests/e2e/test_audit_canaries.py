"""The canary experiment from text to report, with a model of one layer that trains in seconds."""

import json

import pytest

from api.audit.canaries.command import canaries
from api.audit.canaries.config import CanariesConfig, TrainedConfig
from api.audit.config import RunConfig
from api.errors import AuditError
from serving.config import EngineConfig
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus


def experiment(folder, data, *, seed=0):
    return CanariesConfig(
        data=data,
        repetitions=(0, 1, 2),
        canaries=(3,),
        prompt_tokens=8,
        continuation_tokens=4,
        trained=TrainedConfig(shapes=("32x1",), characters=4000, seq_len=32, batch_size=8),
        run=RunConfig(out=folder, seed=seed),
        engine=EngineConfig(max_slots=2, max_queued_requests=64, quantize="none"),
    )


def test_a_model_is_trained_asked_and_reported(tmp_path, capsys):
    data = write_jsonl(tmp_path / "corpus.jsonl", corpus(10))
    out = tmp_path / "run"
    canaries(experiment(out, data))
    assert capsys.readouterr().out == f"wrote {out / 'report.html'}\n"
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [row["occurrences"] for row in rows] == [1] * 3 + [2] * 3 + [0] * 3
    assert {row["model"] for row in rows} == {"32x1"}
    metrics = json.loads((out / "summary.json").read_text())["metrics"]
    assert metrics["by_model"]["32x1"]["by_repetitions"]["2"]["exact"]["n"] == 3
    assert (out / "recited-canaries-by-repetitions.svg").read_text().startswith("<svg")
    assert "talipot audit canaries" in (out / "report.html").read_text()
    with pytest.raises(AuditError, match=r"holds a run with other settings: settings\.seed was 0"):
        canaries(experiment(out, data, seed=1))

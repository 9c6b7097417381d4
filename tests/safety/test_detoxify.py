import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from safety.scorers import CheckpointError, UnknownScorerError, load_scorer
from safety.scorers.detoxify import DetoxifyScorer
from safety.scorers.onnx import OnnxScorer
from tests.safety.tiny_detoxify import make_checkpoint

TEXTS = [
    "you are a stupid idiot",
    "I love this good dog!",
    "",
    "kill all the people, they hate you " * 60,
    "we have a kind man and a woman in english",
    "\ud800 is no text",
    *(f"{'very ' * n}good day" for n in range(20)),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("detoxify"))


@pytest.fixture(scope="module")
def detoxify(checkpoint: Path) -> DetoxifyScorer:
    return DetoxifyScorer.load(str(checkpoint))


@pytest.fixture(scope="module")
def onnx(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxScorer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OnnxScorer.load(str(checkpoint), cache=tmp_path_factory.mktemp("cache"))


def test_scores_are_the_packages_own(detoxify: DetoxifyScorer):
    for text in TEXTS[:3]:
        predicted = detoxify.detoxify.predict(text)
        scores = detoxify.score([text])[0]
        assert list(predicted) == list(detoxify.labels)
        np.testing.assert_allclose(scores, list(predicted.values()), atol=1e-6)


def test_the_checkpoint_has_scores_to_tell_apart(detoxify: DetoxifyScorer):
    assert detoxify.score(TEXTS).std(axis=0).min() > 0.05


def test_name_and_version_say_what_it_is(detoxify: DetoxifyScorer, onnx: OnnxScorer):
    assert detoxify.name == "detoxify-tiny"
    assert onnx.name == "onnx-tiny"
    digest = detoxify.version.partition("+")[2]
    assert len(digest) == 12
    assert onnx.version.endswith(f"+{digest}")


def test_onnx_is_within_two_hundredths(detoxify: DetoxifyScorer, onnx: OnnxScorer):
    difference = np.abs(detoxify.score(TEXTS) - onnx.score(TEXTS))
    assert difference.max() <= 0.02


def test_onnx_scores_on_its_own_thread_in_order(onnx: OnnxScorer):
    futures = [onnx.submit([text]) for text in TEXTS]
    together = onnx.score(TEXTS)
    alone = np.concatenate([future.result() for future in futures])
    # Dynamic quantisation scales by the batch.
    np.testing.assert_allclose(together, alone, atol=0.02)
    assert onnx.score([]).shape == (0, 6)


def test_the_graph_is_made_once(checkpoint: Path, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        OnnxScorer.load(str(checkpoint), cache=tmp_path)
    (graph,) = tmp_path.iterdir()
    made = graph.stat().st_mtime_ns
    OnnxScorer.load(str(checkpoint), cache=tmp_path)
    assert [graph.stat().st_mtime_ns for graph in tmp_path.iterdir()] == [made]


class _Evil:
    def __reduce__(self):
        return print, ("this must never run",)


def test_a_checkpoint_with_code_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "evil.ckpt"
    torch.save({"config": _Evil(), "state_dict": {}}, path)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt is damaged, or holds objects"):
        load_scorer(f"detoxify:{path}")
    path.write_bytes(pickle.dumps(_Evil(), protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.ckpt"):
        load_scorer(f"onnx:{path}")
    assert "never run" not in capsys.readouterr().out


def test_a_cut_checkpoint_is_refused(checkpoint: Path, tmp_path: Path):
    path = tmp_path / "cut.ckpt"
    path.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt"):
        load_scorer(f"detoxify:{path}")


def test_weights_of_another_shape_are_refused(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "other"
    shutil.copytree(checkpoint.parent, folder)
    path = make_checkpoint(folder, state={"bert.embeddings.word_embeddings.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match="tiny"):
        load_scorer(f"detoxify:{path}")


def test_what_is_no_checkpoint_is_named(tmp_path: Path):
    path = tmp_path / "other.ckpt"
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="no Detoxify checkpoint: it lacks 'config'"):
        load_scorer(f"detoxify:{path}")


def test_neither_type_nor_file():
    with pytest.raises(UnknownScorerError, match="original, unbiased, multilingual"):
        load_scorer("detoxify:no-such-file.ckpt")

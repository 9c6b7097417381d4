import functools
import hashlib
import http.server
import pickle
import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detoxify.detoxify import MODEL_URLS

from safety.scorers import CheckpointError, UnknownScorerError, load_scorer
from safety.scorers.checkpoint import find_checkpoint, read_checkpoint
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


@pytest.fixture
def served(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Detoxify's `original` at an address of this machine, and an empty folder for what comes."""
    release = tmp_path / "release"
    release.mkdir()
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:8]
    name = f"toxic_original-{digest}.ckpt"
    shutil.copy(checkpoint, release / name)
    handler = functools.partial(QuietFiles, directory=str(release))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setitem(
        MODEL_URLS, "original", f"http://127.0.0.1:{server.server_address[1]}/{name}"
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    yield name
    server.shutdown()
    thread.join()
    server.server_close()


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_the_weights_of_a_type_are_fetched_once(
    served: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    found = find_checkpoint("original")
    assert found.name == served
    assert found.read_bytes() == checkpoint.read_bytes()
    monkeypatch.setitem(MODEL_URLS, "original", f"http://127.0.0.1:9/{served}")
    assert find_checkpoint("original") == found
    assert read_checkpoint("original").name == "original"


def test_without_a_network_a_type_says_what_to_do(served: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(MODEL_URLS, "original", f"http://127.0.0.1:9/{served}")
    with pytest.raises(
        CheckpointError,
        match=r"cannot fetch the weights of detoxify model 'original' .*name a checkpoint file",
    ):
        load_scorer("detoxify:original")


def test_weights_that_came_damaged_are_refused_and_not_kept(
    served: str, tmp_path: Path, checkpoint: Path
):
    (tmp_path / "release" / served).write_bytes(checkpoint.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="invalid hash value"):
        load_scorer("onnx:original")
    assert not list((tmp_path / "home").rglob("*.ckpt"))

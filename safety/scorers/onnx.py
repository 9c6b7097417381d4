"""The fast path for Detoxify's checkpoints: int8 on onnxruntime, texts of like length together."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from safety.scorers.checkpoint import Checkpoint, load_detoxify, read_checkpoint
from safety.scorers.onnx_export import exported
from safety.scorers.windows import MAX_CHARACTERS, highest, windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_TOKENS_AT_ONCE = 1024  # more gain nothing on a CPU and take memory


class OnnxScorer:
    """A Detoxify checkpoint as a quantised graph; scores differ from Detoxify's by under 0.02."""

    def __init__(
        self,
        graph: Path,
        tokenizer: PreTrainedTokenizerBase,
        checkpoint: Checkpoint,
        num_threads: int | None = None,
    ) -> None:
        """Open a graph of `onnx_export.exported`; `num_threads` is all cores if not given."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or os.cpu_count() or 1
        options.inter_op_num_threads = 1
        # Spinning threads would take the cores from the model that is being served.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._tokenizer = tokenizer
        self._checkpoint = checkpoint
        self._onnxruntime_version = onnxruntime.__version__
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "onnx-scorer")

    @classmethod
    def load(
        cls, name: str, cache: Path | None = None, num_threads: int | None = None
    ) -> OnnxScorer:
        """Load one of Detoxify's types, or a checkpoint file; the first time it is exported.

        Graphs are kept in `cache`, by default `~/.cache/talipot/onnx` (XDG_CACHE_HOME is
        respected), by the hash of their weights.

        Raises:
            UnknownScorerError: The name is neither a type nor a file.
            CheckpointError: Weights, configuration or tokenizer cannot be had, or do not fit.
        """
        checkpoint = read_checkpoint(name)
        detoxify = load_detoxify(checkpoint)
        graph = exported(detoxify, checkpoint, _default_cache() if cache is None else cache)
        return cls(graph, detoxify.tokenizer, checkpoint, num_threads)

    @property
    def name(self) -> str:
        """Such as `onnx-original`."""
        return f"onnx-{self._checkpoint.name}"

    @property
    def version(self) -> str:
        """onnxruntime's version and the first 12 hex digits of the checkpoint's SHA-256."""
        return f"int8-{self._onnxruntime_version}+{self._checkpoint.digest}"

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the checkpoint."""
        return self._checkpoint.labels

    def submit(self, texts: Sequence[str]) -> concurrent.futures.Future[NDArray[np.float32]]:
        """Score on the scorer's own thread, one call after the other."""
        return self._thread.submit(self._score, list(texts))

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Scorer`; waits for the scorer's thread."""
        return self.submit(texts).result()

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        self._thread.shutdown()

    def _score(self, texts: list[str]) -> NDArray[np.float32]:
        pieces, owners = windows(texts, MAX_CHARACTERS)
        scores = np.zeros((len(pieces), len(self.labels)), np.float32)
        if not pieces:
            return scores
        encoded: list[list[int]] = self._tokenizer(pieces, truncation=True)["input_ids"]
        order = sorted(range(len(pieces)), key=lambda index: len(encoded[index]), reverse=True)
        start = 0
        while start < len(order):
            size = max(1, _MAX_TOKENS_AT_ONCE // len(encoded[order[start]]))
            chosen = order[start : start + size]
            scores[chosen] = self._forward([encoded[index] for index in chosen])
            start += size
        return highest(scores, owners, len(texts))

    def _forward(self, rows: list[list[int]]) -> NDArray[np.float32]:
        """Rows, the longest first: float32[rows, labels]."""
        shape = (len(rows), len(rows[0]))
        ids = np.full(shape, self._tokenizer.pad_token_id, np.int64)
        mask = np.zeros(shape, np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        logits: Any = self._session.run(None, {name: inputs[name] for name in self._inputs})[0]
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "talipot" / "onnx"

"""The reference: transformers on CPU in float32, with random weights, norms and biases included."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from model.checkpoint import Pretrained

MAX_LOGIT_DIFFERENCE = 1e-4
VOCAB_SIZE = 150
SEQUENCES, LENGTH = 3, 33


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(3).integers(0, VOCAB_SIZE, (SEQUENCES, LENGTH), dtype=np.int32)


@pytest.fixture
def randomise() -> Callable[[transformers.PreTrainedModel], transformers.PreTrainedModel]:
    """Draw every weight anew: fresh norms have scale 1 and bias 0, which would hide mistakes."""

    def draw(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if "norm" in name or ".ln_" in name:
                    centre = 1.0 if name.endswith("weight") else 0.0
                    parameter.copy_(centre + 0.3 * noise)
                elif "embed" in name:
                    parameter.copy_(noise)
                else:
                    parameter.copy_(noise * parameter.shape[-1] ** -0.5)
        return model.eval()

    return draw


@pytest.fixture
def reference_logits(tokens) -> Callable[[transformers.PreTrainedModel], np.ndarray]:
    """float32[B, T, V] of a transformers model for `tokens`."""

    def run(model: transformers.PreTrainedModel) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(tokens).long()).logits.numpy()

    return run


@pytest.fixture
def assert_parity(tokens) -> Callable[[Pretrained, np.ndarray], None]:
    """Our logits are the reference's, and the reference's are worth comparing."""

    def check(pretrained: Pretrained, expected: np.ndarray) -> None:
        logits = np.asarray(pretrained.logits(tokens))
        assert logits.shape == expected.shape
        assert logits.dtype == np.float32
        assert expected.std() > 0.05, "logits this flat would agree by themselves"
        assert np.abs(logits - expected).max() <= MAX_LOGIT_DIFFERENCE

    return check


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "model"

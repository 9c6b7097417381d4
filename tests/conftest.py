"""JAX held to its strictest for every test, and the smallest model that has all of PaLM's parts."""

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import pytest

from model.config import PaLMConfig
from model.tokenizer import SentencePieceTokenizer
from tests.canaries import check_numerics
from tests.tiny_tokenizer import train_tiny_tokenizer

# A silent promotion costs memory and speed, and changes results between dtypes.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_enable_checks", True)

# How long an example takes is decided by whatever else the machine does.
hypothesis.settings.register_profile("talipot", deadline=None)
hypothesis.settings.load_profile("talipot")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stop before the first test where this machine computes wrongly; see `tests.canaries`."""
    if session.config.option.collectonly:
        return
    wrong = check_numerics()
    if wrong:
        pytest.exit("the numerics canaries are not near float32:\n" + "\n".join(wrong), 3)


@pytest.fixture(scope="module", autouse=True)
def _mappings_stay_few() -> Iterator[None]:
    """Let compiled programs go before the kernel's limit of a process (65,530) is near.

    A program takes some mappings of memory, the suite compiles thousands, and XLA does not survive
    one that is refused.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 15_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    """A small real tokenizer."""
    path = train_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return SentencePieceTokenizer.from_file(path)


@pytest.fixture(scope="session")
def tiny_config() -> PaLMConfig:
    """PaLM in small: parallel blocks, SwiGLU, one key/value head, tied and scaled embeddings."""
    return PaLMConfig(
        name="tiny-palm",
        vocab_size=53,
        num_layers=2,
        d_model=16,
        num_heads=4,
        head_dim=6,
        d_ff=24,
        max_seq_len=64,
    )

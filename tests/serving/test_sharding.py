"""Which mesh and layout an engine takes; what they do, `test_mesh_engine` runs."""

import jax
import pytest

from model.config import PaLMConfig
from model.errors import ConfigError
from serving.chip import CHIPS, chip_of
from serving.config import EngineConfig
from serving.layout import MeshShape
from serving.sharding import choose_layout, choose_sharding

TINY = PaLMConfig(vocab_size=53, num_layers=2, d_model=16, num_heads=4, head_dim=6, d_ff=24)
PALM = PaLMConfig.preset("palm-540b")
CUBE = MeshShape(x=4, y=4, z=4)


@pytest.mark.parametrize("mesh", [None, (1, 1, 1)])
def test_one_device_is_not_split(mesh) -> None:
    assert choose_sharding(TINY, EngineConfig(mesh=mesh), jax.devices()[:1]) is None


def test_a_mesh_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mesh=2,2,2 has 8 devices, and 1 are here"):
        choose_sharding(TINY, EngineConfig(mesh=(2, 2, 2)), jax.devices()[:1])


@pytest.mark.parametrize(
    ("slots", "dtype", "chosen"),
    [
        # As Pope et al. 2022 serve it (docs/sharding.md).
        (64, "bfloat16", "2d/batch"),
        # Fewer requests than chips cannot be split over them.
        (32, "bfloat16", "2d/heads"),
        # Twice the bytes: keys and values of 64 contexts on every chip would not fit.
        (64, "float32", "2d/batch"),
    ],
)
def test_auto_is_the_fastest_layout_that_an_engine_can_run(slots, dtype, chosen) -> None:
    engine = EngineConfig(max_slots=slots, dtype=dtype, max_model_len=2048)
    assert choose_layout(PALM, engine, CHIPS["tpu-v4"], CUBE).name == chosen


def test_what_may_not_fit_is_served_by_the_smallest_layout_and_said(caplog) -> None:
    engine = EngineConfig(max_slots=64, dtype="float32", max_model_len=2048)
    layout = choose_layout(PALM, engine, CHIPS["a100-80gb"], MeshShape(x=2, y=2, z=2))
    assert layout.attention == "batch"
    assert "may not fit" in caplog.text


def test_a_named_layout_is_taken() -> None:
    engine = EngineConfig(layout="1d/heads")
    assert choose_layout(PALM, engine, CHIPS["tpu-v4"], CUBE).name == "1d/heads"


def test_a_device_without_a_data_sheet_is_ranked_by_another(caplog) -> None:
    caplog.set_level("INFO")
    assert chip_of(jax.devices()[0]).name == "cpu (a guess)"
    assert "no data sheet of 'cpu'" in caplog.text

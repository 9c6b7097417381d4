import io
import json

import pytest
from rich.console import Console

from api.info import ModelFacts, read_model_config
from model.config import PaLMConfig
from model.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "billions", "kv_bytes"),
    # key/value bytes a token in bfloat16: 2 x layers x 256 x 2
    [("palm-8b", 8.63, 32768), ("palm-62b", 62.50, 65536), ("palm-540b", 540.35, 120832)],
)
def test_the_papers_models(name, billions, kv_bytes):
    facts = ModelFacts.of(read_model_config(name))
    assert facts.config.num_parameters / 1e9 == pytest.approx(billions, abs=0.01)
    assert facts.weight_bytes["bfloat16"] == 2 * facts.config.num_parameters
    assert facts.kv_bytes_per_token["bfloat16"] == kv_bytes
    # Two FLOPs a weight, and attention beside it.
    assert facts.forward_flops_per_token > 1.9 * facts.config.num_parameters


def test_what_people_see_has_every_figure():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(ModelFacts.of(PaLMConfig.preset("palm-540b")).render())
    text = console.export_text()
    for word in ("540.36 B", "multi-query", "bfloat16", "a token", "TFLOP"):
        assert word in text


def test_what_programs_see_is_json():
    values = json.loads(ModelFacts.of(PaLMConfig.preset("palm-8b")).to_json())
    assert values["config"]["num_layers"] == 32
    assert values["num_parameters"] == PaLMConfig.preset("palm-8b").num_parameters


def test_an_unknown_model_is_refused_with_what_there_is():
    with pytest.raises(CheckpointError, match="palm-62b"):
        read_model_config("no/such/model")

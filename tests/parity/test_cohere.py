"""Cohere models, PaLM among them: import, and import → export → transformers."""

import numpy as np
import pytest
import torch
from transformers import CohereConfig, CohereForCausalLM

from model.checkpoint import export_huggingface, load_pretrained

BASE = {
    "vocab_size": 150,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "logit_scale": 0.25,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
VARIANTS = {
    "multi-head": {},
    "grouped-query": {"num_key_value_heads": 2},
    "palm": {"num_key_value_heads": 1, "logit_scale": 64**-0.5},
    "qk-norm": {"use_qk_norm": True},
    "qk-norm-grouped": {"use_qk_norm": True, "num_key_value_heads": 2},
    "untied": {"tie_word_embeddings": False, "num_key_value_heads": 2},
    "wide-heads": {"head_dim": 32, "num_key_value_heads": 1},
    "other-base-and-eps": {"rope_theta": 8e6, "layer_norm_eps": 1e-3},
    "gelu": {"hidden_act": "gelu"},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def reference(request, randomise) -> CohereForCausalLM:
    return randomise(CohereForCausalLM(CohereConfig(**BASE | request.param)))


def test_import(reference, reference_logits, assert_parity, folder):
    reference.save_pretrained(folder)
    assert_parity(load_pretrained(folder), reference_logits(reference))


def test_export(reference, reference_logits, folder, tmp_path):
    reference.save_pretrained(folder)
    export_huggingface(load_pretrained(folder), tmp_path / "exported")
    again = CohereForCausalLM.from_pretrained(tmp_path / "exported").eval()
    np.testing.assert_array_equal(reference_logits(again), reference_logits(reference))


def test_many_shards(randomise, reference_logits, assert_parity, folder, tmp_path):
    reference = randomise(CohereForCausalLM(CohereConfig(**BASE)))
    reference.save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    loaded = load_pretrained(folder)
    assert_parity(loaded, reference_logits(reference))
    export_huggingface(loaded, tmp_path / "exported", max_shard_bytes=100_000)
    assert (tmp_path / "exported" / "model.safetensors.index.json").is_file()
    again = CohereForCausalLM.from_pretrained(tmp_path / "exported").eval()
    np.testing.assert_array_equal(reference_logits(again), reference_logits(reference))


def test_bfloat16_weights(randomise, reference_logits, assert_parity, folder):
    randomise(CohereForCausalLM(CohereConfig(**BASE))).bfloat16().save_pretrained(folder)
    assert {str(load_pretrained(folder).params["embedding"].dtype)} == {"bfloat16"}
    # Loaded anew: `.bfloat16()` also rounds the rotary frequencies of the model it is called on.
    reference = CohereForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert_parity(load_pretrained(folder, dtype="float32"), reference_logits(reference))

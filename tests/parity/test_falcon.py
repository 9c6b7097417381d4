"""Falcon models, old and new: import, and import → export → transformers."""

import numpy as np
import pytest
from transformers import FalconConfig, FalconForCausalLM

from model.checkpoint import export_huggingface, load_pretrained

BASE = {
    "vocab_size": 150,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
NEW = {"new_decoder_architecture": True}
VARIANTS = {
    "7b": {},
    "7b-untied": {"tie_word_embeddings": False},
    "multi-head": {"multi_query": False},
    "40b": NEW | {"num_kv_heads": 2},
    "40b-untied": NEW | {"num_kv_heads": 2, "tie_word_embeddings": False},
    "40b-one-kv-head": NEW | {"num_kv_heads": 1},
    "11b": NEW | {"num_kv_heads": 2, "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 100},
    "other-base-and-eps": {"rope_theta": 5e5, "layer_norm_epsilon": 1e-3},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def reference(request, randomise) -> FalconForCausalLM:
    return randomise(FalconForCausalLM(FalconConfig(**BASE | request.param)))


def test_import(reference, reference_logits, assert_parity, folder):
    reference.save_pretrained(folder)
    assert_parity(load_pretrained(folder), reference_logits(reference))


def test_export(reference, reference_logits, folder, tmp_path):
    reference.save_pretrained(folder)
    export_huggingface(load_pretrained(folder), tmp_path / "exported")
    again = FalconForCausalLM.from_pretrained(tmp_path / "exported").eval()
    np.testing.assert_allclose(
        reference_logits(again), reference_logits(reference), atol=1e-5, rtol=0
    )

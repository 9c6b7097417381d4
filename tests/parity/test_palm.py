"""Our own PaLM, exported: transformers computes the same logits from the same token ids."""

import jax
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from model.checkpoint import Pretrained, export_huggingface
from model.config import PaLMConfig
from model.palm import init_parameters


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    """A PaLM and the folder that it was exported to."""
    config = PaLMConfig(
        name="small-palm",
        vocab_size=400,
        num_layers=3,
        d_model=64,
        num_heads=4,
        head_dim=16,
        d_ff=256,
        max_seq_len=128,
    )
    params = init_parameters(config, jax.random.key(5))
    palm = Pretrained(name=config.name, config=config, params=params, tokenizer=tokenizer)
    folder = tmp_path_factory.mktemp("exported")
    export_huggingface(palm, folder)
    return palm, folder


@pytest.fixture(scope="module")
def their_tokenizer(exported):
    return AutoTokenizer.from_pretrained(exported[1])


def test_logits_and_greedy_tokens(exported, their_tokenizer):
    palm, folder = exported
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = their_tokenizer("It was the best of times", return_tensors="pt").input_ids
    assert ids[0].tolist() == palm.tokenizer.encode("It was the best of times")
    with torch.no_grad():
        generated = model.generate(ids, max_new_tokens=20, do_sample=False)
        expected = model(generated).logits.numpy()
    logits = np.asarray(palm.logits(generated.numpy()))
    assert np.abs(logits - expected).max() <= 1e-4
    ours = logits[0, ids.shape[1] - 1 : -1].argmax(-1)
    np.testing.assert_array_equal(ours, generated[0, ids.shape[1] :].numpy())


WORDS = st.sampled_from([" ", "  ", "\n", "times", "it", "was", "12", "a", "\u2581", "<eod>", "\0"])


@given(text=st.text() | st.lists(WORDS).map("".join))
def test_the_tokenizer_gives_the_same_ids_and_text(tokenizer, their_tokenizer, text):
    ids = tokenizer.encode(text)
    assert their_tokenizer(text, add_special_tokens=True).input_ids == ids
    assert their_tokenizer.decode(ids) == text


def test_special_tokens_are_known_by_role(tokenizer, their_tokenizer):
    assert their_tokenizer.eos_token_id == tokenizer.eos_ids[0]
    assert their_tokenizer.pad_token_id == tokenizer.pad_id
    assert their_tokenizer.bos_token_id is None
    assert their_tokenizer.decode([*tokenizer.encode("it"), 1], skip_special_tokens=True) == "it"

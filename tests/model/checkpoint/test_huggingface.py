"""Hugging Face folders: every refusal names the key or tensor; what is equivalent is accepted."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from model.checkpoint import export_huggingface, load_pretrained
from model.errors import CheckpointError
from model.parameters import flatten

FALCON = {
    "norm_bias": True,
    "gated": False,
    "activation": "gelu",
    "rope_style": "half",
    "logit_scale": 1.0,
}
EMBED = "model.embed_tokens.weight"


@pytest.fixture
def cohere(make_model, palm, folder):
    export_huggingface(make_model(palm), folder)
    return folder


@pytest.fixture
def falcon(make_model, palm, folder):
    export_huggingface(make_model(palm, with_tokenizer=False, **FALCON), folder)
    return folder


def edit_config(folder, changes):
    path = folder / "config.json"
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: v for key, v in document.items() if v is not ...}))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, r"'model_type': found 'llama', expected one of \['cohere"),
        ({"model_type": ["cohere"]}, "'model_type': found"),
        ({"sliding_window": 4096}, "'sliding_window': found 4096, expected None"),
        ({"attention_bias": True}, "'attention_bias': found True, expected None or False"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "'hidden_act': found 'gelu_pytorch_tanh', expected"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, "rope_type': found 'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_type': found 'dynamic'"),
        ({"rope_parameters": {"rope_theta": 1e4, "factor": 2}}, "rope_parameters.factor': found 2"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "found 0.5"),
        ({"rope_parameters": {"rope_theta": -1}}, "rope_parameters.rope_theta': found -1"),
        ({"rope_parameters": "yarn"}, "'rope_parameters': found 'yarn', expected an object"),
        ({"rope_parameters": ...}, "'rope_theta': found nothing"),
        ({"rope_theta": 5e5}, r"'rope_theta': found \[10000.0, 500000.0\], expected one value"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config': found {'bits': 4}"),
        ({"num_experts": 8}, "'num_experts': found 8, expected no such key"),
        ({"vocab_size": ...}, "'vocab_size': found nothing, expected an integer"),
        ({"vocab_size": "400"}, "'vocab_size': found '400', expected an integer"),
        ({"hidden_size": True}, "'hidden_size': found True"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers': found 0"),
        ({"layer_norm_eps": 0}, "'layer_norm_eps': found 0, expected a positive number"),
        ({"logit_scale": float("inf")}, "'logit_scale': found inf"),
        ({"use_qk_norm": "no"}, "'use_qk_norm': found 'no', expected true or false"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
    ],
)
def test_a_cohere_key_that_is_not_supported_is_named(cohere, changes, message):
    edit_config(cohere, changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pretrained(cohere)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alibi": True}, "'alibi': found True"),
        ({"parallel_attn": False}, "'parallel_attn': found False"),
        ({"bias": True}, "'bias': found True"),
        ({"activation": "relu"}, r"'activation': found 'relu', expected one of \['gelu'\]"),
        ({"hidden_size": 30}, "'hidden_size': found 30, expected a multiple"),
        ({"multi_query": False, "num_kv_heads": 2}, "'num_kv_heads': found 2"),
        ({"num_ln_in_parallel_attn": 2}, "'num_ln_in_parallel_attn': found 2, expected 1"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type': found 'yarn'"),
    ],
)
def test_a_falcon_key_that_is_not_supported_is_named(falcon, changes, message):
    edit_config(falcon, changes)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(falcon)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(EMBED), f"missing tensor '{EMBED}'"),
        (lambda t: t.update(surprise=np.zeros(1, np.float32)), "unknown tensor 'surprise'"),
        (
            lambda t: t.update({"model.norm.weight": np.ones(31, np.float32)}),
            r"'model.norm.weight': found shape \[31\], expected \[32\]",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(32, np.int8)}),
            "'model.norm.weight': found dtype I8, expected BF16 or F16 or F32",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(32, np.float64)}),
            "found dtype F64",
        ),
        (
            lambda t: t.update({"lm_head.weight": t[EMBED] + 1}),
            f"'lm_head.weight' differs from '{EMBED}'",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(cohere, change, message):
    edit_weights(cohere, change)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(cohere)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update({"lm_head.weight": t[EMBED].copy()}),
        lambda t: t.update({"lm_head.weight": t.pop(EMBED)}),
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": t[EMBED][0, :4]}),
    ],
)
def test_equivalent_tensors_are_accepted(cohere, make_model, palm, change):
    edit_weights(cohere, change)
    expected = flatten(make_model(palm).params)
    for name, array in flatten(load_pretrained(cohere).params).items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": None},
        {"torch_dtype": "float32", "_name_or_path": "x", "sliding_window": None},
        {"rope_scaling": {"type": "default"}, "pretraining_tp": 1},
    ],
)
def test_keys_of_older_versions_are_accepted(cohere, palm, changes):
    edit_config(cohere, changes)
    config = load_pretrained(cohere).config
    assert config.rope_theta == palm.rope_theta
    assert config.name == cohere.name


def test_the_longer_context_of_command_r_is_taken(cohere, palm):
    assert load_pretrained(cohere).config.max_seq_len == palm.max_seq_len
    edit_config(cohere, {"model_max_length": 131072})
    assert load_pretrained(cohere).config.max_seq_len == 131072


def test_a_relative_path_names_the_model_by_its_folder(cohere, monkeypatch):
    monkeypatch.chdir(cohere)
    assert load_pretrained(".").name == cohere.name


def test_mixed_types_load_as_float32(cohere):
    def change(tensors):
        tensors[EMBED] = tensors[EMBED].astype(ml_dtypes.bfloat16)

    edit_weights(cohere, change)
    loaded = load_pretrained(cohere)
    assert {str(array.dtype) for array in flatten(loaded.params).values()} == {"float32"}


def test_pickle_is_never_opened(cohere):
    weights = cohere / "model.safetensors"
    weights.rename(cohere / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin .* never loaded"):
        load_pretrained(cohere)


# Sharded folders


@pytest.fixture
def sharded(make_model, palm, folder):
    export_huggingface(make_model(palm), folder, max_shard_bytes=16_000)
    return folder


def edit_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_shards_hold_what_one_file_holds(sharded, make_model, palm):
    assert len(list(sharded.glob("*.safetensors"))) > 2
    expected = flatten(make_model(palm).params)
    for name, array in flatten(load_pretrained(sharded).params).items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.clear(), "'weight_map' is not an object with entries"),
        (lambda m: m.update({EMBED: "absent.safetensors"}), "names the shard 'absent.saf.*not th"),
        (lambda m: m.update({EMBED: "../model.safetensors"}), "in the same folder"),
        (lambda m: m.update({EMBED: "model.bin"}), "in the same folder"),
        (lambda m: m.update({EMBED: 3}), "in the same folder"),
        (lambda m: m.pop("model.norm.weight"), "norm.weight': found in model-0.*maps it to None"),
        (lambda m: m.update(ghost=m[EMBED]), "'ghost' is not in its shard 'model-00001"),
    ],
)
def test_an_index_that_lies_is_refused(sharded, change, message):
    edit_index(sharded, change)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    second = safetensors.numpy.load_file(shards[1])
    second[EMBED] = safetensors.numpy.load_file(shards[0])[EMBED]
    safetensors.numpy.save_file(second, shards[1])
    with pytest.raises(CheckpointError, match=f"duplicate tensor '{EMBED}'"):
        load_pretrained(sharded)


def test_a_name_twice_in_the_index_is_refused(sharded):
    path = sharded / "model.safetensors.index.json"
    text = path.read_text()
    path.write_text(text.replace('"weight_map": {', f'"weight_map": {{"{EMBED}": "x",'))
    with pytest.raises(CheckpointError, match=f"'{EMBED}' appears twice"):
        load_pretrained(sharded)


def test_one_file_beside_an_index_is_refused(sharded):
    next(iter(sharded.glob("*.safetensors"))).rename(sharded / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds both"):
        load_pretrained(sharded)


def test_a_damaged_shard_is_named(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{shard.name}: the file has .* cut short"):
        load_pretrained(sharded)


def test_exporting_again_removes_the_old_shards(sharded, make_model, palm):
    export_huggingface(make_model(palm), sharded)
    assert [path.name for path in sharded.glob("*.safetensors*")] == ["model.safetensors"]
    load_pretrained(sharded)

"""Our own checkpoint folder: what is saved comes back, and damage is named."""

import json
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from model.checkpoint import load_config, load_pretrained, save_pretrained
from model.checkpoint.quantization import SCALE_SUFFIX
from model.errors import CheckpointError, ConfigError
from model.parameters import flatten, unflatten
from model.partition import make_mesh, parameter_shardings

TOKENS = np.arange(22, dtype=np.int32).reshape(2, 11)


def arrays(params):
    return {name: np.asarray(array) for name, array in flatten(params).items()}


def save(folder, pretrained, **options):
    save_pretrained(folder, pretrained.config, pretrained.params, pretrained.tokenizer, **options)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 2, "qk_norm": True, "logit_scale": 0.25},
        {"norm_bias": True, "separate_mlp_norm": True, "gated": False, "activation": "gelu"},
        {"tied_embeddings": False, "rope_style": "half"},
    ],
)
def test_float32_comes_back_bit_for_bit(make_model, palm, folder, changes):
    saved = make_model(palm, **changes)
    save(folder, saved)
    loaded = load_pretrained(folder)
    assert loaded.config == load_config(folder) == saved.config
    assert loaded.name == "small-palm"
    expected = arrays(saved.params)
    for name, array in arrays(loaded.params).items():
        np.testing.assert_array_equal(array, expected.pop(name))
    assert not expected
    np.testing.assert_array_equal(loaded.logits(TOKENS), saved.logits(TOKENS))
    assert loaded.logits(TOKENS).dtype == jnp.float32
    assert loaded.tokenizer.encode("It was 12") == saved.tokenizer.encode("It was 12")


def test_a_model_without_a_tokenizer(make_model, palm, folder):
    save(folder, make_model(palm, with_tokenizer=False))
    assert load_pretrained(folder).tokenizer is None


def test_bfloat16_rounds_kernels_and_keeps_norms(make_model, palm, folder):
    saved = make_model(palm)
    save(folder, saved, weight_format="bfloat16")
    expected = arrays(saved.params)
    for name, array in arrays(load_pretrained(folder, dtype=jnp.float32).params).items():
        wanted = expected[name]
        if "norm" not in name:
            wanted = wanted.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize(
    ("weight_format", "asked", "found"),
    [
        ("float32", None, jnp.float32),
        ("bfloat16", None, jnp.bfloat16),
        ("int8", None, jnp.float32),
        ("int8", jnp.bfloat16, jnp.bfloat16),
        ("float32", "bfloat16", jnp.bfloat16),
    ],
)
def test_every_parameter_has_the_dtype_asked_for(
    make_model, palm, folder, weight_format, asked, found
):
    save(folder, make_model(palm), weight_format=weight_format)
    params = load_pretrained(folder, dtype=asked).params
    assert {array.dtype for array in flatten(params).values()} == {jnp.dtype(found)}


def test_int8_is_within_half_a_step_of_each_channel(make_model, palm, folder):
    saved = make_model(palm, tied_embeddings=False)
    save(folder, saved, weight_format="int8")
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    assert stored["layers.0.attention.query"].dtype == np.int8
    assert stored["layers.0.attention.query" + SCALE_SUFFIX].shape == (4, 8)
    assert stored["layers.0.attention.out" + SCALE_SUFFIX].shape == (32,)
    assert stored["embedding" + SCALE_SUFFIX].shape == (400,)
    assert stored["layers.0.norm.scale"].dtype == np.float32
    expected = arrays(saved.params)
    for name, array in arrays(load_pretrained(folder).params).items():
        if "norm" in name:
            np.testing.assert_array_equal(array, expected[name])
        else:
            step = float(stored[name + SCALE_SUFFIX].max())
            assert np.abs(array - expected[name]).max() <= 0.5001 * step


def test_int8_takes_a_quarter_of_the_bytes(make_model, palm, folder):
    saved = make_model(palm, d_model=128, d_ff=512)
    save(folder, saved, weight_format="int8")
    size = (folder / "model.safetensors").stat().st_size
    assert size < 1.1 * saved.config.num_parameters


def test_int8_saved_again_is_the_same(make_model, palm, folder, tmp_path):
    save(folder, make_model(palm), weight_format="int8")
    once = load_pretrained(folder)
    save(tmp_path / "again", once, weight_format="int8")
    again = load_pretrained(tmp_path / "again")
    for name, array in arrays(once.params).items():
        np.testing.assert_allclose(arrays(again.params)[name], array, rtol=1e-6)


def test_int8_refuses_what_is_not_finite(make_model, palm, folder):
    model = make_model(palm)
    model.params["embedding"] = model.params["embedding"].at[3, 2].set(jnp.nan)
    with pytest.raises(CheckpointError, match=r"'embedding' holds values that are not finite"):
        save(folder, model, weight_format="int8")
    assert list(folder.iterdir()) == []


def test_a_sharded_load_puts_each_part_on_its_device(make_model, palm, folder):
    saved = make_model(palm)
    save(folder, saved)
    mesh = make_mesh(jax.devices(), model_axis=math.gcd(len(jax.devices()), 4))
    loaded = load_pretrained(folder, mesh=mesh)
    shardings = parameter_shardings(palm, mesh)
    for name, array in flatten(loaded.params).items():
        assert array.sharding == shardings[name]
        np.testing.assert_array_equal(array, flatten(saved.params)[name])


def test_metadata_is_kept_for_people(make_model, palm, folder):
    save(folder, make_model(palm), metadata={"step": 7, "trained_on": ["books"]})
    document = json.loads((folder / "config.json").read_text())
    assert document["metadata"] == {"step": 7, "trained_on": ["books"]}
    assert document["format"] == "talipot"
    assert document["format_version"] == 1


def test_saving_again_replaces_the_model_and_nothing_else(make_model, palm, folder):
    save(folder, make_model(palm))
    (folder / "MODEL_CARD.md").write_text("card")
    save(folder, make_model(palm, with_tokenizer=False, num_layers=1))
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md",
        "config.json",
        "model.safetensors",
    ]
    assert load_pretrained(folder).config.num_layers == 1


def test_a_failed_save_leaves_the_old_checkpoint(make_model, palm, folder):
    good = make_model(palm)
    save(folder, good)

    class Broken:
        def save(self, directory):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        save_pretrained(folder, palm, make_model(palm).params, Broken())
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.model",
    ]
    np.testing.assert_array_equal(load_pretrained(folder).logits(TOKENS), good.logits(TOKENS))


def test_parameters_that_do_not_fit_the_config_are_refused(make_model, palm, folder):
    model = make_model(palm)
    flat = flatten(model.params)
    cases = {
        "missing parameter 'final_norm.scale'": {"final_norm.scale": None},
        "unknown parameter 'extra'": {"extra": jnp.zeros(2)},
        "parameter 'embedding': found shape": {"embedding": jnp.zeros((2, 2))},
    }
    for message, changes in cases.items():
        changed = {k: v for k, v in (flat | changes).items() if v is not None}
        with pytest.raises(CheckpointError, match=message):
            save_pretrained(folder, palm, unflatten(changed), None)
    with pytest.raises(CheckpointError, match="weight_format='int4' must be one of"):
        save_pretrained(folder, palm, model.params, None, weight_format="int4")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "'format_version': found 2, expected 1"),
        ({"weight_format": "int4"}, "'weight_format': found 'int4', expected one of"),
        ({"config": None}, "'config': found None"),
        ({"config": {"vocab_size": 3}}, "lacks the keys"),
        ({"format": "other"}, "'model_type': found None, expected one of"),
    ],
)
def test_a_wrong_document_is_refused_by_key(make_model, palm, folder, changes, message):
    save(folder, make_model(palm))
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_config(folder)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(folder)
    assert "config.json" in str(caught.value)
    assert not isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("final_norm.scale"), "missing tensor 'final_norm.scale'"),
        (lambda t: t.update(extra=np.zeros(1, np.float32)), "unknown tensor 'extra'"),
        (
            lambda t: t.update(embedding=np.zeros((400, 31), np.float32)),
            r"'embedding': found shape \[400, 31\], expected \[400, 32\]",
        ),
        (
            lambda t: t.update(embedding=t["embedding"].astype(np.float16)),
            "'embedding': found dtype F16, expected F32",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(make_model, palm, folder, change, message):
    save(folder, make_model(palm))
    edit_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(folder)


def test_folders_that_are_no_checkpoint(make_model, palm, folder, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained(tmp_path / "absent")
    save(folder, make_model(palm))
    with pytest.raises(CheckpointError, match="is a file, expected a folder"):
        load_pretrained(folder / "config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        load_pretrained(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(make_model, palm, folder, tokenizer):
    save(folder, make_model(palm, with_tokenizer=False, vocab_size=300))
    tokenizer.save(folder)
    with pytest.raises(CheckpointError, match="the tokenizer has 400 ids, expected at most"):
        load_pretrained(folder)


@pytest.mark.parametrize("dtype", ["int8", "bool"])
def test_only_floating_dtypes_can_be_asked_for(make_model, palm, folder, dtype):
    save(folder, make_model(palm))
    with pytest.raises(CheckpointError, match="expected a floating type"):
        load_pretrained(folder, dtype=dtype)


@pytest.mark.parametrize(
    "token_ids", [[1, 2], [[0.5]], [[400]], [[-1]], np.zeros((1, 1, 1), np.int32)]
)
def test_logits_refuse_what_is_no_batch_of_ids(make_model, palm, token_ids):
    with pytest.raises(ValueError, match="token_ids: found"):
        make_model(palm).logits(token_ids)

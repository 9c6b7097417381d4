"""Exports: what each format can hold, and what is in the files."""

import json

import gguf
import numpy as np
import pytest

from model.checkpoint import export_gguf, export_huggingface, load_config, load_pretrained
from model.checkpoint.rope_layout import with_rope_style
from model.errors import ExportError
from model.parameters import flatten, unflatten
from model.tokenizer import HuggingFaceTokenizer

TOKENS = np.arange(22, dtype=np.int32).reshape(2, 11)
FALCON = {
    "norm_bias": True,
    "gated": False,
    "activation": "gelu",
    "rope_style": "half",
    "logit_scale": 1.0,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 4, "qk_norm": True, "tied_embeddings": False},
        {"activation": "gelu", "head_dim": 16},
        FALCON,
        FALCON | {"num_kv_heads": 4},
        FALCON | {"num_kv_heads": 2, "separate_mlp_norm": True},
        FALCON | {"num_kv_heads": 2, "tied_embeddings": False},
        FALCON | {"num_kv_heads": 1, "separate_mlp_norm": True},
    ],
)
def test_a_hugging_face_folder_comes_back_bit_for_bit(make_model, palm, folder, changes):
    saved = make_model(palm, name=folder.name, **changes)
    export_huggingface(saved, folder)
    loaded = load_pretrained(folder)
    assert load_config(folder) == loaded.config
    assert loaded.config.resolved_logit_scale == saved.config.resolved_logit_scale
    expected = flatten(saved.params)
    for name, array in flatten(loaded.params).items():
        np.testing.assert_array_equal(array, expected.pop(name))
    assert not expected
    assert isinstance(loaded.tokenizer, HuggingFaceTokenizer)
    assert loaded.tokenizer.eos_ids == saved.tokenizer.eos_ids
    assert loaded.tokenizer.bos_id is None
    text = "It was the  best\n of 1203 times \u2581 \u4e2d <eod>"
    assert loaded.tokenizer.encode(text) == saved.tokenizer.encode(text)
    assert loaded.tokenizer.decode(saved.tokenizer.encode(text)) == text


def test_an_imported_tokenizer_is_exported_again(make_model, palm, folder, tmp_path):
    export_huggingface(make_model(palm), folder)
    once = load_pretrained(folder)
    export_huggingface(once, tmp_path / "again")
    again = load_pretrained(tmp_path / "again")
    assert again.tokenizer.encode("It was 12") == once.tokenizer.encode("It was 12")
    assert again.tokenizer.eos_ids == once.tokenizer.eos_ids


@pytest.mark.parametrize("style", ["interleaved", "half"])
def test_the_rotary_layout_is_converted_exactly(make_model, palm, style):
    model = make_model(palm, rope_style=style, qk_norm=True, num_kv_heads=2)
    other = "half" if style == "interleaved" else "interleaved"
    config, flat = with_rope_style(model.config, flatten(model.params), other)
    converted = make_model(config)
    converted.params.clear()
    converted.params.update(unflatten(flat))
    np.testing.assert_allclose(converted.logits(TOKENS), model.logits(TOKENS), atol=1e-5)
    _, back = with_rope_style(config, flat, style)
    for name, array in flatten(model.params).items():
        np.testing.assert_array_equal(back[name], array)


def test_a_block_that_transformers_lacks_is_refused_with_reasons(make_model, palm, folder):
    model = make_model(palm, norm_bias=True, rope_style="half")
    with pytest.raises(ExportError, match=r"not as cohere: norm_bias=True .* falcon: gated=True"):
        export_huggingface(model, folder)
    assert not folder.exists()


def test_an_export_target_of_the_wrong_kind_is_refused(make_model, palm, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ExportError, match="is a file, expected a folder"):
        export_huggingface(make_model(palm), file)
    with pytest.raises(ExportError, match="is a folder, expected a file name"):
        export_gguf(make_model(palm), tmp_path)


# GGUF


def field(reader, key):
    return reader.fields[key].contents()


def test_gguf_metadata(make_model, palm, tmp_path, tokenizer):
    path = tmp_path / "x.gguf"
    export_gguf(make_model(palm, vocab_size=410), path)
    reader = gguf.GGUFReader(path)
    expected = {
        "general.architecture": "command-r",
        "general.name": "small-palm",
        "command-r.vocab_size": 410,
        "command-r.context_length": 128,
        "command-r.embedding_length": 32,
        "command-r.block_count": 2,
        "command-r.feed_forward_length": 48,
        "command-r.attention.head_count": 4,
        "command-r.attention.head_count_kv": 1,
        "command-r.attention.key_length": 8,
        "command-r.attention.value_length": 8,
        "command-r.rope.dimension_count": 8,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }
    assert {key: field(reader, key) for key in expected} == expected
    assert field(reader, "command-r.attention.layer_norm_epsilon") == pytest.approx(1e-5)
    assert field(reader, "command-r.rope.freq_base") == pytest.approx(10_000)
    assert field(reader, "command-r.logit_scale") == pytest.approx(32**-0.5)
    pieces = field(reader, "tokenizer.ggml.tokens")
    assert pieces[:400] == [tokenizer.id_to_piece(i) for i in range(400)]
    assert pieces[400:] == [f"<unused:{i}>" for i in range(400, 410)]
    assert field(reader, "tokenizer.ggml.scores")[:400] == [
        tokenizer.piece_score(i) for i in range(400)
    ]
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert kinds[:4] == [3, 3, 2, 6]
    assert set(kinds[259:400]) == {1}
    assert set(kinds[400:]) == {5}


def test_gguf_tensors(make_model, palm, tmp_path):
    path = tmp_path / "x.gguf"
    model = make_model(palm)
    export_gguf(model, path)
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
    ours = {name: np.asarray(array) for name, array in flatten(model.params).items()}
    assert len(found) == len(ours)
    np.testing.assert_array_equal(found["token_embd.weight"], ours["embedding"])
    np.testing.assert_array_equal(found["output_norm.weight"], ours["final_norm.scale"])
    block, theirs = "layers.1.", "blk.1."
    np.testing.assert_array_equal(found[theirs + "attn_norm.weight"], ours[block + "norm.scale"])
    query = ours[block + "attention.query"].reshape(32, 32).T
    np.testing.assert_array_equal(found[theirs + "attn_q.weight"], query)
    key = ours[block + "attention.key"].reshape(32, 8).T
    np.testing.assert_array_equal(found[theirs + "attn_k.weight"], key)
    out = ours[block + "attention.out"].reshape(32, 32).T
    np.testing.assert_array_equal(found[theirs + "attn_output.weight"], out)
    for name in ("gate", "up", "down"):
        kernel = ours[f"{block}mlp.{name}"]
        np.testing.assert_array_equal(found[f"{theirs}ffn_{name}.weight"], kernel.T)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_gguf_keeps_bfloat16_kernels_and_float32_norms(make_model, palm, tmp_path, folder):
    export_huggingface(make_model(palm), folder)
    half = make_model(palm)
    half.params.clear()
    half.params.update(load_pretrained(folder, dtype="bfloat16").params)
    export_gguf(half, tmp_path / "x.gguf")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert {kind for name, kind in types.items() if "norm" in name} == {"F32"}
    assert {kind for name, kind in types.items() if "norm" not in name} == {"BF16"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tied_embeddings": False}, "tied_embeddings=False"),
        ({"head_dim": 16}, r"num_heads·head_dim=64 \(it is d_model=32 there\)"),
        ({"qk_norm": True}, "qk_norm=True with num_layers=2"),
        ({"num_layers": 64, "d_ff": 2}, "qk_norm=False with num_layers=64"),
        ({"activation": "gelu"}, "activation='gelu'"),
        ({"norm_bias": True}, "norm_bias=True"),
        ({"gated": False}, "gated=False"),
        ({"separate_mlp_norm": True}, "separate_mlp_norm=True"),
    ],
)
def test_a_block_that_llama_cpp_lacks_is_refused_with_the_reason(
    make_model, palm, tmp_path, changes, message
):
    with pytest.raises(ExportError, match=f"cannot be written as command-r: .*{message}"):
        export_gguf(make_model(palm, **changes), tmp_path / "x.gguf")
    assert list(tmp_path.iterdir()) == []


def test_gguf_needs_a_sentencepiece_tokenizer(make_model, palm, tmp_path, folder):
    with pytest.raises(ExportError, match="needs a SentencePiece tokenizer, found none"):
        export_gguf(make_model(palm, with_tokenizer=False), tmp_path / "x.gguf")
    export_huggingface(make_model(palm), folder)
    with pytest.raises(ExportError, match="found HuggingFaceTokenizer"):
        export_gguf(load_pretrained(folder), tmp_path / "x.gguf")


def test_special_ids_are_written_for_transformers(make_model, palm, folder):
    export_huggingface(make_model(palm), folder)
    for file in ("config.json", "generation_config.json"):
        values = json.loads((folder / file).read_text())
        assert values["eos_token_id"] == 1
        assert values["pad_token_id"] == 0
        assert values["bos_token_id"] is None

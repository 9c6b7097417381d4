"""What do quantized weights and a quantized key/value cache cost in bits per byte?

Runs a held-out text through the serving step in each form of both, in windows of one
context, each starting without any.

    python -m benchmarks.quantization ../shared/corpus/books-heldout.jsonl.xz [--tokens 65536]
"""

from __future__ import annotations

import argparse
import functools
import math
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from model.checkpoint import Pretrained, load_pretrained, resolve_model
from model.training.config import DataConfig
from model.training.data import Tokens
from model.training.evaluation import heldout_tokens
from serving.config import EngineConfig
from serving.language_model import LanguageModel

PAGE_SIZE = 16
WINDOW = 512
FORMS: dict[str, EngineConfig] = {
    "float32": EngineConfig(quantize="none"),
    "bfloat16": EngineConfig(dtype="bfloat16", quantize="none"),
    "int8 (W8A8)": EngineConfig(quantize="int8"),
    "float32, int8 cache": EngineConfig(quantize="none", kv_dtype="int8"),
    "int8 (W8A8), int8 cache": EngineConfig(quantize="int8", kv_dtype="int8"),
}


def bits_per_byte(pretrained: Pretrained, tokens: Tokens, form: EngineConfig) -> float:
    """Of whole windows of `tokens`, through the step that serves them."""
    model = LanguageModel.of_palm(
        "", pretrained.config, pretrained.params, form.dtype, form.quantize
    )
    tokenizer = pretrained.tokenizer
    assert tokenizer is not None
    pages = 1 + jnp.arange(WINDOW // PAGE_SIZE, dtype=jnp.int32)[None]

    @jax.jit
    def losses(params: object, window: jax.Array) -> jax.Array:
        cache = model.init_cache(1 + pages.size, PAGE_SIZE, jnp.dtype(form.cache_dtype))
        start = jnp.zeros(1, jnp.int32)
        hidden, _ = model.forward_step(params, window[None, :-1], start, cache, pages)
        logits = model.unembed(params, hidden[0])
        wanted = jnp.take_along_axis(logits, window[1:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits, axis=1) - wanted

    widths = np.asarray([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    nats, num_bytes = 0.0, 0
    for start in range(0, len(tokens) - WINDOW, WINDOW):
        window = np.asarray(tokens[start : start + WINDOW + 1], np.int32)
        nats += float(jnp.sum(losses(model.params, window)))
        num_bytes += int(widths[window[1:]].sum())
    return nats / math.log(2) / num_bytes


def sample(pretrained: Pretrained, folder: Path, text: Path, tokens: int) -> Tokens:
    """About so many tokens of a held-out file, from all over it."""
    with tempfile.TemporaryDirectory() as cache_dir:
        data = DataConfig(
            train=("unused",),
            tokenizer=str(folder / "tokenizer.model"),
            heldout=str(text),
            cache_dir=cache_dir,
        )
        whole = heldout_tokens(data)
        count = max(1, tokens // WINDOW)
        starts = np.linspace(0, len(whole) - WINDOW - 1, count).astype(int)
        return np.concatenate([whole[start : start + WINDOW] for start in starts])


def main() -> None:
    """Print a row for each form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="talipot-tiny")
    parser.add_argument("--tokens", type=int, default=65_536)
    options = parser.parse_args()
    folder = resolve_model(options.model)
    pretrained = load_pretrained(folder, dtype="float32")
    tokens = sample(pretrained, folder, options.text, options.tokens)
    measure = functools.partial(bits_per_byte, pretrained, tokens)
    exact = measure(FORMS["float32"])
    print(f"{options.model}, {len(tokens):,} tokens of {options.text.name}, windows of {WINDOW}")
    for name, form in FORMS.items():
        found = exact if name == "float32" else measure(form)
        print(f"  {name:<23} {found:.4f} bits per byte  {found / exact - 1:+.2%}")


if __name__ == "__main__":
    main()

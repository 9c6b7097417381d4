"""Prints, as JSON, what whole engines give on meshes of 8 devices: run by `test_mesh_engine`.

The number of CPU devices is fixed when JAX starts, so the tests' own process cannot have eight.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from typing import Any

import jax

from model.config import PaLMConfig
from model.layout_rules import Layout
from model.parameters import init_parameters
from model.partition import make_layout_mesh
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.program_set import _Shapes
from serving.request import GenerationRequest
from serving.runner import Runner
from serving.sharding import Sharding
from tests.serving.stepping import Driver, request

CONTEXT = 32
EVEN = PaLMConfig(
    vocab_size=64,
    d_model=16,
    num_heads=8,
    head_dim=4,
    d_ff=32,
    num_layers=2,
    max_seq_len=CONTEXT,
)
# Heads, feed-forward width and vocabulary that no mesh of 8 divides.
ODD = dataclasses.replace(EVEN, vocab_size=53, num_heads=7, d_ff=30)
GROUPED = dataclasses.replace(ODD, num_heads=6, num_kv_heads=2, qk_norm=True, tied_embeddings=False)
# Slots that 8 devices do not share out evenly.
ENGINE = EngineConfig(
    max_slots=9,
    page_size=4,
    prefill_buckets=(8,),
    smallest_key_bucket=CONTEXT,
    token_budget=24,
    mixed_prefill_tokens=8,
    quantize="none",
    use_compilation_cache=False,
)
# A whole context and a little, on every chip that has pages of its own: requests outgrow it.
FEW_PAGES = CONTEXT // ENGINE.page_size + 1
MODELS = {"even": EVEN, "odd": ODD, "grouped": GROUPED}
CASES = {
    "even 1d/heads 2,2,2": ("even", "1d/heads", (2, 2, 2)),
    "odd 1d/heads 8,1,1": ("odd", "1d/heads", (8, 1, 1)),
    "odd 1d/batch 2,2,2": ("odd", "1d/batch", (2, 2, 2)),
    "odd 2d/heads 2,2,2": ("odd", "2d/heads", (2, 2, 2)),
    "odd 2d/batch 2,4,1": ("odd", "2d/batch", (2, 4, 1)),
    "grouped 2d/batch 2,2,2": ("grouped", "2d/batch", (2, 2, 2)),
    "grouped 1d/heads 1,2,2": ("grouped", "1d/heads", (1, 2, 2)),
}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def requests(vocab_size: int) -> list[GenerationRequest]:
    """Greedy and seeded, adjusted and not, some with a common beginning, more than there are slots.

    Two of them outgrow `FEW_PAGES`.
    """
    common = tuple(range(3, 15))
    asked = []
    for index in range(20):
        own = range(5 + index, 9 + index + 2 * index % 7)
        prompt = (*common, 20 + index) if index % 3 == 0 else tuple(own)
        asked.append(
            request(
                f"{index}",
                prompt=tuple(token % vocab_size for token in prompt),
                max_tokens=18 - index % 5,
                temperature=0.0 if index % 2 else 1.0,
                seed=index,
                top_p=0.9 if index % 4 == 2 else 1.0,
                frequency_penalty=0.5 if index % 5 == 0 else 0.0,
                logprobs=3 if index % 4 == 0 else None,
                prompt_logprobs=1 if index == 7 else None,
            )
        )
    return asked


class Served:
    """A runner that is ready; every run has books of its own."""

    def __init__(self, config: PaLMConfig, sharding: Sharding | None) -> None:
        params = init_parameters(config, jax.random.key(0))
        model = LanguageModel.of_palm("tiny", config, params, "float32", "none", sharding)
        self.runner = Runner(model, ENGINE)
        self.runner.make_ready()
        self.vocab_size = config.vocab_size

    def run(self, config: EngineConfig) -> dict[str, Any]:
        """All requests at once."""
        core = EngineCore(self.runner, None, config)
        driver = Driver(core)
        for each in requests(self.vocab_size):
            driver.submit(each)
        driver.run()
        outputs = [driver.output(each.request_id) for each in requests(self.vocab_size)]
        stats = core.stats()
        return {
            "tokens": [output.token_ids for output in outputs],
            "logprobs": [
                token.logprob
                for output in outputs
                for token in (*(output.prompt_logprobs or ()), *(output.logprobs or ()))
                if token.logprob is not None
            ],
            "preemptions": stats.preemptions_total,
            "cached": stats.cached_tokens_total,
        }


def decode_collectives(config: PaLMConfig, sharding: Sharding) -> Counter[str]:
    """How often a full decode step has each array of each collective, as "all-reduce[2,3]"."""
    model = LanguageModel.of_palm(
        "tiny", config, init_parameters(config, jax.random.key(0)), "float32", sharding=sharding
    )
    runner = Runner(model, ENGINE)
    shapes = _Shapes(model, runner.buckets, ENGINE.max_slots + 1, runner.num_pages, "float32")
    lowered = shapes.lower_decode(runner.buckets.batches[-1], CONTEXT)
    found: Counter[str] = Counter()
    for result, name in re.findall(
        rf"= (\(.*?\)|\S+) ({'|'.join(_COLLECTIVES)})(?:-start)?\(", lowered.compile().as_text()
    ):
        found.update(f"{name}{shape}" for shape in re.findall(r"\w+(\[[\d,]*\])", result))
    return found


def collectives(layout: str) -> dict[str, dict[str, int]]:
    """What a layer of `EVEN` adds to a decode step, and what is left without any."""
    sharding = Sharding.of(Layout.named(layout), make_layout_mesh((2, 2, 2)))
    two = decode_collectives(EVEN, sharding)
    one = decode_collectives(dataclasses.replace(EVEN, num_layers=1), sharding)
    return {"a_layer": dict(two - one), "rest": dict(one - (two - one))}


def main() -> None:
    """Print `{case: figures}`."""
    found: dict[str, Any] = {}
    single = {name: Served(config, None) for name, config in MODELS.items()}
    for name, served in single.items():
        found[name] = {"enough": served.run(ENGINE)}
    for name, (model, layout, shape) in CASES.items():
        devices = jax.devices()[: shape[0] * shape[1] * shape[2]]
        sharding = Sharding.of(Layout.named(layout), make_layout_mesh(shape, devices))
        served = Served(MODELS[model], sharding)
        found[name] = {
            "model": model,
            "enough": served.run(ENGINE),
            "few": served.run(
                dataclasses.replace(ENGINE, kv_pages=FEW_PAGES * sharding.page_chips)
            ),
            "is_batch_invariant": served.runner.is_batch_invariant,
            "is_chunk_invariant": served.runner.is_chunk_invariant,
            "kept": len(served.runner._decode_shapes),
        }
    found["collectives"] = {
        name: collectives(name) for name in ("1d/heads", "1d/batch", "2d/heads")
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

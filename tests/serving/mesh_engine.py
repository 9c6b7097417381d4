"""Prints, as JSON, what whole engines give on meshes of 8 devices: run by `test_mesh_engine`.

The number of CPU devices is fixed when JAX starts, so the tests' own process cannot have eight.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.checkpoint import load_pretrained, save_pretrained
from model.config import PaLMConfig
from model.layout_rules import Layout
from model.parameters import init_parameters
from model.partition import Placement, make_layout_mesh, place_parameters
from serving.config import EngineConfig
from serving.core import EngineCore
from serving.language_model import LanguageModel
from serving.program_set import _Shapes
from serving.request import GenerationRequest
from serving.runner import Runner
from serving.sharding import Sharding
from tests.serving.forbidding import ended, filter_of, ngrams_of
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
ENGINE = EngineConfig(
    max_slots=2,
    page_size=4,
    prefill_buckets=(8,),
    smallest_key_bucket=CONTEXT,
    token_budget=24,
    mixed_prefill_tokens=8,
    quantize="none",
    speculate="off",
    use_compilation_cache=False,
)
# Slots that 8 devices with pages of their own do not share out evenly.
BY_BATCH = dataclasses.replace(ENGINE, max_slots=9)
# A whole context and a little, on every chip that has pages of its own: requests outgrow it.
FEW_PAGES = CONTEXT // ENGINE.page_size + 1
MODELS = {"even": EVEN, "odd": ODD, "grouped": GROUPED}
CASES = {
    "even 1d/heads 8,1,1": ("even", "1d/heads", (8, 1, 1)),
    "even 1d/batch 2,2,2": ("even", "1d/batch", (2, 2, 2)),
    "odd 2d/heads 2,2,2": ("odd", "2d/heads", (2, 2, 2)),
    "grouped 2d/batch 2,4,1": ("grouped", "2d/batch", (2, 4, 1)),
}
# A third of all bigrams is forbidden to some requests, so that they choose again all the time.
FORBIDDEN = [tuple(pair) for pair in np.random.default_rng(1).integers(0, 53, (1000, 2)).tolist()]
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")


def requests(vocab_size: int) -> list[GenerationRequest]:
    """Greedy and seeded, adjusted and not, some with a common beginning, more than there are slots.

    A third avoids `FORBIDDEN`; two outgrow `FEW_PAGES`.
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
                avoid_ngrams=index % 3 == 1,
            )
        )
    return asked


class Served:
    """A runner that is ready; every run has books of its own."""

    def __init__(self, config: PaLMConfig, engine: EngineConfig, sharding: Sharding | None) -> None:
        self.runner = make_runner(config, engine, sharding)
        self.runner.make_ready()
        self.engine = engine
        self.vocab_size = config.vocab_size

    def run(self, kv_pages: int | None = None) -> dict[str, Any]:
        """All requests at once."""
        core = EngineCore(self.runner, None, dataclasses.replace(self.engine, kv_pages=kv_pages))
        driver = Driver(core)
        asked = requests(self.vocab_size)
        for each in asked:
            driver.submit(each)
        driver.run()
        outputs = [driver.output(each.request_id) for each in asked]
        stats = core.stats()
        return {
            "tokens": [output.token_ids for output in outputs],
            "forbidden": {
                str(avoids): sum(
                    len(ended(each.prompt_token_ids, output.token_ids, 2) & ngrams_of(FORBIDDEN, 2))
                    for each, output in zip(asked, outputs, strict=True)
                    if each.avoid_ngrams == avoids
                )
                for avoids in (False, True)
            },
            "logprobs": [
                token.logprob
                for output in outputs
                for token in (*(output.prompt_logprobs or ()), *(output.logprobs or ()))
                if token.logprob is not None
            ],
            "preemptions": stats.preemptions_total,
            "cached": stats.cached_tokens_total,
        }


def make_runner(config: PaLMConfig, engine: EngineConfig, sharding: Sharding | None) -> Runner:
    """A runner of random weights, not ready."""
    params = init_parameters(config, jax.random.key(0))
    model = LanguageModel.of_palm("tiny", config, params, "float32", "none", sharding)
    runner = Runner(model, engine)
    runner.forbid(filter_of(FORBIDDEN, 2))
    return runner


def a_layer(served: Served, config: PaLMConfig, sharding: Sharding) -> dict[str, int]:
    """Collectives that a layer adds to a decode step: those of two layers less those of one."""
    shallow = dataclasses.replace(config, num_layers=config.num_layers - 1)
    runner = make_runner(shallow, served.engine, sharding)
    slots = served.engine.max_slots + 1
    shapes = _Shapes(
        runner.model, runner.buckets, slots, runner.num_pages, "float32", runner._ngrams
    )
    fewer = shapes.lower_decode(runner.buckets.batches[-1], CONTEXT).compile()
    more = served.runner.programs.decode[runner.buckets.batches[-1], CONTEXT]
    return dict(collectives(more.as_text()) - collectives(fewer.as_text()))


def collectives(hlo: str) -> Counter[str]:
    """How often each array of each collective occurs, as "all-reduce[2,3]"."""
    found: Counter[str] = Counter()
    for result, name in re.findall(
        rf"= (\(.*?\)|\S+) ({'|'.join(_COLLECTIVES)})(?:-start)?\(", hlo
    ):
        found.update(f"{name}{shape}" for shape in re.findall(r"\w+(\[[\d,]*\])", result))
    return found


def loading() -> dict[str, Any]:
    """A checkpoint read into its places, beside one that is read first and then placed."""
    placement = Placement(layout=Layout.named("2d/heads"), mesh=make_layout_mesh((2, 2, 2)))
    params = init_parameters(GROUPED, jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(Path(folder), GROUPED, params, None)
        whole = load_pretrained(folder)
        split = load_pretrained(folder, placement=placement)
    _, expected = place_parameters(GROUPED, params, placement.layout, placement.mesh)
    tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
    return {
        "is_same": all(
            found.sharding == wanted.sharding and np.array_equal(found, wanted)
            for found, wanted in zip(
                jax.tree.leaves(split.params), jax.tree.leaves(expected), strict=True
            )
        ),
        "logits_difference": float(np.abs(split.logits(tokens) - whole.logits(tokens)).max()),
    }


def main() -> None:
    """Print `{case: figures}`."""
    found: dict[str, Any] = {
        name: Served(config, ENGINE, None).run() for name, config in MODELS.items()
    }
    for name, (model, layout, shape) in CASES.items():
        sharding = Sharding.of(Layout.named(layout), make_layout_mesh(shape))
        engine = ENGINE if sharding.page_chips == 1 else BY_BATCH
        served = Served(MODELS[model], engine, sharding)
        found[name] = {
            "model": model,
            "enough": served.run(),
            "few": served.run(FEW_PAGES * sharding.page_chips),
            "is_batch_invariant": served.runner.is_batch_invariant,
            "is_chunk_invariant": served.runner.is_chunk_invariant,
        }
        if model == "even":
            found[name]["a_layer"] = a_layer(served, EVEN, sharding)
    found["loading"] = loading()
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Prints, as JSON, what every layout computes and communicates: run by `test_layouts` on 8 devices.

The number of CPU devices is fixed when JAX starts, so the tests' own process cannot have eight.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from model.activations import under_layout
from model.config import PaLMConfig
from model.kv_cache import SCRATCH_PAGE
from model.layout_rules import Layout, activation_rules, all_layouts
from model.padding import hide_padding
from model.palm import forward, forward_step
from model.partition import cache_sharding, make_layout_mesh, place_parameters
from tests.model import numpy_palm

BATCH, LENGTH = 8, 10
PAGE_SIZE, PAGES_A_ROW = 4, 4
EVEN = PaLMConfig(vocab_size=64, d_model=16, num_heads=8, head_dim=4, d_ff=32, num_layers=2)
# Heads, feed-forward width and vocabulary that no mesh of 8 divides.
ODD = dataclasses.replace(EVEN, vocab_size=53, num_heads=7, d_ff=30, num_layers=1)
# Padded heads must stay with their key/value head; the output head is padded too.
GROUPED = dataclasses.replace(ODD, num_heads=6, num_kv_heads=2, qk_norm=True, tied_embeddings=False)

_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
_forward = jax.jit(forward, static_argnums=0)
_step = jax.jit(forward_step, static_argnums=0)


class Case:
    """A model on one device, and the same under a layout on a mesh of 8."""

    def __init__(
        self,
        config: PaLMConfig,
        layout: Layout,
        shape: tuple[int, int, int],
        batch: int = BATCH,
        new_tokens: int = 1,
    ) -> None:
        """Draw weights, tokens and a filled cache, and place them."""
        self.config, self.layout = config, layout
        self.mesh = make_layout_mesh(shape)
        rng = np.random.default_rng(0)
        self.weights = numpy_palm.random_weights(config, seed=6)
        self.tokens = rng.integers(0, config.vocab_size, (batch, LENGTH), dtype=np.int32)
        self.new = self.tokens[:, :new_tokens]
        # Whole pages of new tokens begin at a page. The first page is never written.
        step = 1 if new_tokens % PAGE_SIZE else PAGE_SIZE
        last = PAGES_A_ROW * PAGE_SIZE - new_tokens
        self.start = step * rng.integers(PAGE_SIZE // step, last // step + 1, batch, dtype=np.int32)
        stored = cache_sharding(layout, self.mesh, batch)
        chips = math.prod(self.mesh.shape[axis] for axis in stored.spec[0] or ())
        tables = [_draw_tables(rng, batch // chips) for _ in range(chips)]
        self.pages = np.concatenate(tables)
        # One device has the chips' pools one after the other.
        num_pages = _num_pages(batch // chips)
        first = num_pages * np.arange(chips, dtype=np.int32)[:, None, None]
        self.pages_of_all = (np.stack(tables) + first).reshape(self.pages.shape)
        kv_shape = (chips * num_pages, PAGE_SIZE, config.num_kv_heads, config.head_dim)
        self.cache = [
            tuple(rng.standard_normal(kv_shape, dtype=np.float32) for _ in range(2))
            for _ in range(config.num_layers)
        ]
        self.padded, self.placed = place_parameters(config, self.weights, layout, self.mesh)
        self.placed_cache = jax.device_put(self.cache, stored)

    def programs(self) -> tuple[Any, Any]:
        """Compiled for prefill ([B, T] tokens without a cache) and decode (new ones against it)."""
        with under_layout(self.layout, self.mesh):
            prefill = _forward.lower(self.padded, self.placed, self._split(self.tokens))
            decode = _step.lower(
                self.padded,
                self.placed,
                self._split(self.new),
                self.start,
                self.placed_cache,
                self.pages,
            )
        return prefill.compile(), decode.compile()

    def compare(self, prefill: Any, decode: Any) -> dict[str, float]:
        """Largest differences from one device."""
        expected = _forward(self.config, self.weights, self.tokens)
        found = prefill(self.placed, self._split(self.tokens))
        hidden, cache = _step(
            self.config, self.weights, self.new, self.start, self.cache, self.pages_of_all
        )
        found_hidden, found_cache = decode(
            self.placed, self._split(self.new), self.start, self.placed_cache, self.pages
        )
        size = self.config.vocab_size
        hidden_logits = np.asarray(hide_padding(found, size))[..., size:]
        return {
            "logits": _difference(found[..., :size], expected),
            "hidden": _difference(found_hidden, hidden),
            "cache": max(
                _difference(a, b)
                for pair in zip(found_cache, cache, strict=True)
                for a, b in zip(*pair, strict=True)
            ),
            "highest_padding_logit": float(hidden_logits.max(initial=-1e30)),
        }

    def _split(self, tokens: Any) -> jax.Array:
        batch = activation_rules(self.layout)["batch"]
        return jax.device_put(tokens, NamedSharding(self.mesh, PartitionSpec(batch or None)))


def _num_pages(rows: int) -> int:
    """Pages of a chip: its scratch page, one that its rows share, their own, and one unused."""
    return 3 + rows * (PAGES_A_ROW - 1)


def _draw_tables(rng: np.random.Generator, rows: int) -> np.ndarray:
    """int32[rows, PAGES_A_ROW], a chip's tables in its own pool's numbers, in any order.

    Where a chip has several rows, they share their first page and the last one is padding.
    """
    drawn = 1 + rng.permutation(_num_pages(rows) - 1).astype(np.int32)
    shared = np.full((rows, 1), drawn[0])
    tables = np.concatenate([shared, drawn[1:-1].reshape(rows, -1)], axis=1)
    if rows > 1:
        tables[-1] = SCRATCH_PAGE
    return tables


def _difference(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def _collectives(hlo: str) -> Counter[str]:
    """How often each collective occurs, as "all-reduce" and, for each array, "all-reduce[2,3]"."""
    found: Counter[str] = Counter()
    for result, name in re.findall(
        rf"= (\(.*?\)|\S+) ({'|'.join(_COLLECTIVES)})(?:-start)?\(", hlo
    ):
        found[name] += 1
        found.update(f"{name}{shape}" for shape in re.findall(r"\w+(\[[\d,]*\])", result))
    return found


def _a_layer(config: PaLMConfig, layout: Layout, programs: tuple[Any, Any]) -> dict[str, Any]:
    """Collectives that one layer adds, by phase: those of two layers less those of one."""
    shallow = dataclasses.replace(config, num_layers=config.num_layers - 1)
    fewer = Case(shallow, layout, (2, 2, 2)).programs()
    return {
        phase: dict(_collectives(more.as_text()) - _collectives(less.as_text()))
        for phase, more, less in zip(("prefill", "decode"), programs, fewer, strict=True)
    }


def main() -> None:
    """Print `{case: figures}`."""
    found: dict[str, Any] = {}
    for layout in all_layouts():
        case = Case(EVEN, layout, (2, 2, 2))
        programs = case.programs()
        found[f"even {layout.name}"] = {
            "differences": case.compare(*programs),
            "a_layer": _a_layer(EVEN, layout, programs),
        }
    for name, config, shape, *options in (
        ("odd 1d/heads", ODD, (2, 2, 2)),
        ("odd 2d/batch", ODD, (2, 2, 2)),
        ("odd gather-x/batch", ODD, (2, 2, 2)),
        ("odd gather-xy/heads", ODD, (2, 2, 2)),
        ("odd gather-xyz/batch", ODD, (2, 2, 2)),
        ("grouped 1d/heads", GROUPED, (2, 2, 2)),
        ("grouped 2d/batch", GROUPED, (2, 2, 2)),
        ("flat 2d/batch", ODD, (2, 4, 1)),
        ("wide 2d/heads", ODD, (4, 1, 2)),
        ("six 2d/batch", ODD, (2, 2, 2), 6),
        ("four 2d/batch", ODD, (2, 2, 2), 4),
        ("chunk 2d/batch", ODD, (2, 2, 2), 24, 2 * PAGE_SIZE),
        ("chunk gather-x/heads", GROUPED, (2, 2, 2), 24, 2 * PAGE_SIZE),
    ):
        feed_forward, attention = name.split()[1].split("/")
        layout = Layout(feed_forward=feed_forward, attention=attention)
        case = Case(config, layout, shape, *options)
        found[name] = {"differences": case.compare(*case.programs())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Pools, tables and queries to try the kernels of pages with."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from model.kv_cache import dequantize_heads, quantize_heads


@dataclasses.dataclass(frozen=True)
class PageCase:
    """Arguments of `paged_attention` in NumPy, the pools float32 with values that bfloat16 has."""

    query: np.ndarray
    key_pages: np.ndarray
    value_pages: np.ndarray
    table: np.ndarray
    start: np.ndarray

    def arguments(self, dtype: str = "float32") -> tuple[jnp.ndarray, ...]:
        """The same for JAX, the pools in a dtype."""
        return (
            jnp.asarray(self.query),
            pool(self.key_pages, dtype),
            pool(self.value_pages, dtype),
            jnp.asarray(self.table),
            jnp.asarray(self.start),
        )

    def through_int8(self) -> "PageCase":
        """The same with the values that int8 pools have."""
        keys, values = (
            np.array(dequantize_heads(pool(pages, "int8")))
            for pages in (self.key_pages, self.value_pages)
        )
        return dataclasses.replace(self, key_pages=keys, value_pages=values)

    def rows(self, chosen: slice) -> "PageCase":
        """Some rows alone."""
        return dataclasses.replace(
            self, query=self.query[chosen], table=self.table[chosen], start=self.start[chosen]
        )


def pool(pages: np.ndarray, dtype: str) -> jnp.ndarray:
    """float32 pages as a pool of that dtype keeps them."""
    exact = jnp.asarray(pages)
    return quantize_heads(exact) if dtype == "int8" else exact.astype(dtype)


def page_case(
    seed: int,
    *,
    batch: int = 3,
    length: int = 1,
    heads: int = 4,
    kv_heads: int = 1,
    head_dim: int = 16,
    page_size: int = 8,
    width: int = 6,
) -> PageCase:
    """Rows at random positions, each with as many pages as it needs, scattered in the pool."""
    random = np.random.default_rng(seed)
    num_pages = batch * width + 2
    shape = (num_pages, page_size, kv_heads, head_dim)
    start = random.integers(0, width * page_size - length + 1, batch).astype(np.int32)
    table = random.permutation(num_pages)[: batch * width].reshape(batch, width).astype(np.int32)
    for row, first in enumerate(start):
        table[row, (first + length - 1) // page_size + 1 :] = -1
    query = random.normal(size=(batch, length, heads, head_dim)) * 2 / np.sqrt(head_dim)
    return PageCase(
        query=query.astype(np.float32),
        key_pages=_bf16(random.normal(size=shape)),
        value_pages=_bf16(random.normal(size=shape)),
        table=table,
        start=start,
    )


def _bf16(values: np.ndarray) -> np.ndarray:
    return np.array(jnp.asarray(values, jnp.float32).astype(jnp.bfloat16).astype(jnp.float32))

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import kernels
from model.kv_cache import dequantize_heads
from tests.model.kernels import numpy_kernels
from tests.model.kernels.page_cases import PageCase, page_case


def new_tokens(case: PageCase, seed: int = 0) -> tuple[jax.Array, jax.Array]:
    random = np.random.default_rng(seed)
    shape = (*case.query.shape[:2], *case.key_pages.shape[2:])
    keys, values = (random.normal(size=shape).astype(np.float32) for _ in range(2))
    return jnp.asarray(keys), jnp.asarray(values)


def write_plainly(pool: jax.Array, new: jax.Array, case: PageCase) -> np.ndarray:
    """The definition, in NumPy."""
    written = np.array(pool)
    page_size = pool.shape[1]
    if pool.dtype == jnp.int8:
        narrow = numpy_kernels.quantize_heads(np.asarray(new))
    else:
        narrow = np.asarray(new.astype(pool.dtype))
    for row, start in enumerate(case.start):
        for token in range(new.shape[1]):
            page, slot = divmod(int(start) + token, page_size)
            if 0 <= page < case.table.shape[1] and 0 <= case.table[row, page] < len(pool):
                written[case.table[row, page], slot] = narrow[row, token]
    return written


def write(case: PageCase, dtype: str) -> tuple[list[jax.Array], list[np.ndarray]]:
    """The pools after `write_pages`, and as they should be."""
    _, key_pages, value_pages, table, start = case.arguments(dtype)
    keys, values = new_tokens(case)
    result = kernels.write_pages(key_pages, value_pages, keys, values, table, start)
    wanted = [write_plainly(key_pages, keys, case), write_plainly(value_pages, values, case)]
    return list(result), wanted


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 6),
    length=st.integers(1, 20),
    kv_heads=st.integers(1, 3),
    head_dim=st.integers(1, 20),
    page_size=st.integers(1, 16),
    dtype=st.sampled_from(["float32", "bfloat16", "int8"]),
)
def test_tokens_land_in_their_slots_and_nowhere_else(
    seed: int,
    batch: int,
    length: int,
    kv_heads: int,
    head_dim: int,
    page_size: int,
    dtype: str,
):
    case = page_case(
        seed,
        batch=batch,
        length=length,
        heads=kv_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_size=page_size,
        width=-(-40 // page_size),
    )
    for result, wanted in zip(*write(case, dtype), strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_tokens_without_a_page_are_not_stored():
    case = page_case(1, batch=4, length=5, page_size=4, width=3)
    # No page at all; one too few; beyond the table; before the first position.
    case.table[:] = np.arange(12).reshape(4, 3)
    case.table[0] = -1
    case.table[1, 2] = 10_000
    case.start[:] = [0, 6, 10, -2]
    for result, wanted in zip(*write(case, "float32"), strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_donated_pools_are_written_in_place(dtype: str):
    case = page_case(2, batch=3, length=2)
    query, key_pages, value_pages, table, start = case.arguments(dtype)
    keys, values = new_tokens(case)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(key_pages: jax.Array, value_pages: jax.Array) -> tuple[jax.Array, ...]:
        key_pages, value_pages = kernels.write_pages(
            key_pages, value_pages, keys, values, table, start
        )
        mixed = kernels.paged_attention(query, key_pages, value_pages, table, start)
        return key_pages, value_pages, mixed

    wanted = [write_plainly(key_pages, keys, case), write_plainly(value_pages, values, case)]
    reference = kernels.paged_attention(query, *map(jnp.asarray, wanted), table, start)
    places = [key_pages.unsafe_buffer_pointer(), value_pages.unsafe_buffer_pointer()]
    *pools, mixed = step(key_pages, value_pages)
    assert [pool.unsafe_buffer_pointer() for pool in pools] == places
    assert key_pages.is_deleted()
    for pool, expected in zip(pools, wanted, strict=True):
        np.testing.assert_array_equal(pool, expected)
    np.testing.assert_array_equal(mixed, reference)


def test_pools_that_are_not_donated_stay_as_they_were():
    case = page_case(3)
    _, key_pages, value_pages, table, start = case.arguments()
    before = np.array(key_pages)
    keys, values = new_tokens(case)
    written, _ = jax.jit(kernels.write_pages)(key_pages, value_pages, keys, values, table, start)
    np.testing.assert_array_equal(key_pages, before)
    assert not np.array_equal(written, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_int8_head_that_is_not_finite_is_nan_and_a_tiny_one_zero(bad: float):
    case = page_case(4, batch=1, length=1, heads=3, kv_heads=3, head_dim=5)
    _, key_pages, value_pages, table, start = case.arguments("int8")
    keys, values = new_tokens(case)
    keys = keys.at[0, 0, 0, 4].set(bad).at[0, 0, 1].set(1e-38)
    written, _ = kernels.write_pages(key_pages, value_pages, keys, values, table, start)
    np.testing.assert_array_equal(written, write_plainly(key_pages, keys, case))
    page, slot = divmod(int(case.start[0]), 8)
    found = dequantize_heads(written[case.table[0, page], slot])
    assert np.isnan(found[0]).all()
    assert not np.asarray(found[1]).any()
    np.testing.assert_allclose(
        found[2], keys[0, 0, 2], atol=float(jnp.max(jnp.abs(keys[0, 0, 2]))) / 250
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"keys": jnp.zeros((2, 1, 2, 8), jnp.bfloat16)}, TypeError, "keys is bfloat16"),
        ({"keys": jnp.zeros((2, 2, 2, 8))}, ValueError, "keys has shape (2, 2, 2, 8), values"),
        ({"values": jnp.zeros((2, 2, 8))}, ValueError, "values has shape (2, 2, 8), not 4"),
        ({"key_pages": jnp.zeros((5, 4, 2, 6))}, ValueError, "value_pages has shape"),
        ({"key_pages": jnp.zeros((5, 4, 2, 8), jnp.int32)}, TypeError, "key_pages is int32"),
        ({"table": jnp.zeros((1, 3), jnp.int32)}, ValueError, "table has shape (1, 3)"),
        ({"start": jnp.zeros(2)}, TypeError, "start is float32, not int32"),
    ],
)
def test_a_bad_argument_is_named(changes: dict, error: type[Exception], message: str):
    arguments = {
        "key_pages": jnp.zeros((5, 4, 2, 8)),
        "value_pages": jnp.zeros((5, 4, 2, 8)),
        "keys": jnp.zeros((2, 1, 2, 8)),
        "values": jnp.zeros((2, 1, 2, 8)),
        "table": jnp.zeros((2, 3), jnp.int32),
        "start": jnp.zeros(2, jnp.int32),
    }
    with pytest.raises(error) as raised:
        kernels.write_pages(**arguments | changes)
    assert message in str(raised.value)

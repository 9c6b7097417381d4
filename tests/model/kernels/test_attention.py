import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import kernels
from tests.model.kernels import numpy_kernels
from tests.model.kernels.page_cases import PageCase, page_case

DTYPES = ("float32", "bfloat16", "int8")


def attend(case: PageCase, isa: str, dtype: str = "float32") -> np.ndarray:
    return np.asarray(kernels.paged_attention(*case.arguments(dtype), isa=isa))


def expected(case: PageCase, dtype: str = "float32") -> np.ndarray:
    if dtype == "int8":
        case = case.through_int8()
    return numpy_kernels.paged_attention(
        case.query, case.key_pages, case.value_pages, case.table, case.start
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 5),
    length=st.integers(1, 9),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 20),
    head_dim=st.integers(1, 40),
    page_size=st.integers(1, 40),
    isa=st.sampled_from(kernels.ISAS),
    dtype=st.sampled_from(DTYPES),
)
def test_every_level_is_the_definition_to_rounding(
    seed: int,
    batch: int,
    length: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    page_size: int,
    isa: str,
    dtype: str,
):
    case = page_case(
        seed,
        batch=batch,
        length=length,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_size=page_size,
        width=-(-100 // page_size),
    )
    np.testing.assert_allclose(
        attend(case, isa, dtype), expected(case, dtype), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape",
    [
        {"batch": 1, "heads": 8, "head_dim": 64, "width": 128},
        {"batch": 2, "heads": 64, "head_dim": 128, "kv_heads": 8, "width": 70},
        {"batch": 1, "heads": 16, "head_dim": 256, "width": 100, "length": 40},
        {"batch": 9, "heads": 8, "head_dim": 64, "width": 96},
    ],
)
def test_contexts_of_several_segments(shape: dict, dtype: str, isa: str):
    case = page_case(0, page_size=16, **shape)
    case.start[-1] = shape["width"] * 16 - shape.get("length", 1)
    case.table[-1] = np.arange(shape["width"])
    np.testing.assert_allclose(
        attend(case, isa, dtype), expected(case, dtype), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_row_has_the_same_bits_in_any_batch(dtype: str, isa: str):
    case = page_case(1, batch=12, heads=8, head_dim=32, page_size=16, width=80)
    whole = attend(case, isa, dtype)
    for row in range(12):
        alone = slice(row, row + 1)
        np.testing.assert_array_equal(attend(case.rows(alone), isa, dtype), whole[alone])
    np.testing.assert_array_equal(attend(case.rows(slice(None, None, -1)), isa, dtype), whole[::-1])


def test_a_row_has_the_same_bits_whatever_the_tables_width_is(isa: str):
    case = page_case(2, batch=4, heads=8, head_dim=32, width=70)
    wider = dataclasses.replace(
        case, table=np.pad(case.table, ((0, 0), (0, 9)), constant_values=-1)
    )
    np.testing.assert_array_equal(attend(wider, isa), attend(case, isa))


@pytest.mark.parametrize("group", [1, 3, 8, 16, 24])
def test_a_token_has_the_same_bits_in_a_chunk_and_alone(group: int, isa: str):
    case = page_case(
        3, batch=1, length=11, heads=2 * group, kv_heads=2, head_dim=24, page_size=16, width=40
    )
    chunk = attend(case, isa)
    for token in range(11):
        alone = dataclasses.replace(
            case, query=case.query[:, token : token + 1], start=case.start + token
        )
        np.testing.assert_array_equal(attend(alone, isa), chunk[:, token : token + 1])


def test_bfloat16_pools_give_the_bits_of_the_same_values_in_float32(isa: str):
    case = page_case(4, batch=3, length=3, heads=8, head_dim=40, width=20)
    np.testing.assert_array_equal(attend(case, isa, "bfloat16"), attend(case, isa))


def test_int8_pools_give_the_bits_of_the_same_values_in_float32(isa: str):
    case = page_case(4, batch=3, length=3, heads=8, kv_heads=2, head_dim=40, width=20)
    np.testing.assert_array_equal(attend(case, isa, "int8"), attend(case.through_int8(), isa))


def test_what_a_token_does_not_see_may_be_nan(isa: str):
    case = page_case(5, batch=2, length=4, heads=3, head_dim=10, width=8)
    keys, values = np.full_like(case.key_pages, np.nan), np.full_like(case.value_pages, np.nan)
    for row, start in enumerate(case.start):
        # All that the second token sees.
        for position in range(start + 2):
            at = (case.table[row, position // 8], position % 8)
            keys[at], values[at] = case.key_pages[at], case.value_pages[at]
    poisoned = dataclasses.replace(case, key_pages=keys, value_pages=values)
    result = attend(poisoned, isa)
    np.testing.assert_array_equal(result[:, :2], attend(case, isa)[:, :2])
    assert np.isnan(result[:, 2:]).all()


def test_a_nan_that_is_seen_is_not_hidden(isa: str):
    case = page_case(6, batch=3, heads=4, head_dim=10, width=8)
    sound = attend(case, isa)
    case.key_pages[case.table[1, 0], 0] = np.nan
    result = attend(case, isa)
    assert np.isnan(result[1]).all()
    np.testing.assert_array_equal(result[[0, 2]], sound[[0, 2]])


@pytest.mark.parametrize("absent", [-1, 10_000])
def test_a_row_without_pages_is_zero_and_one_that_lacks_some_sees_those_before(
    absent: int, isa: str
):
    case = page_case(7, batch=3, length=2, width=8)
    case.start[:] = 60
    case.table[:] = np.arange(24).reshape(3, 8)
    case.table[0] = absent
    case.table[1, 3] = absent
    result = attend(case, isa)
    assert not result[0].any()
    np.testing.assert_allclose(result, expected(case), rtol=1e-5, atol=1e-5)


def test_large_scores_do_not_overflow(isa: str):
    case = page_case(8, batch=2, heads=4, head_dim=16, width=8)
    scaled = dataclasses.replace(case, query=case.query * 1000)
    np.testing.assert_allclose(attend(scaled, isa), expected(scaled), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": jnp.zeros((2, 1, 4, 8), jnp.bfloat16)}, TypeError, "query is bfloat16"),
        ({"query": jnp.zeros((2, 4, 8))}, ValueError, "query has shape (2, 4, 8), not 4 axes"),
        ({"query": jnp.zeros((2, 1, 4, 6))}, ValueError, "query has head_dim=6"),
        ({"query": jnp.zeros((2, 1, 3, 8))}, ValueError, "query has 3 heads, not a multiple"),
        ({"key_pages": jnp.zeros((5, 4, 2, 8), jnp.int32)}, TypeError, "key_pages is int32"),
        ({"key_pages": jnp.zeros((5, 4, 2))}, ValueError, "key_pages has shape (5, 4, 2)"),
        ({"value_pages": jnp.zeros((6, 4, 2, 8))}, ValueError, "value_pages has shape (6, 4"),
        (
            {"value_pages": jnp.zeros((5, 4, 2, 8), jnp.bfloat16)},
            TypeError,
            "value_pages is bfloat16, key_pages float32",
        ),
        ({"table": jnp.zeros((2, 3))}, TypeError, "table is float32, not int32"),
        ({"table": jnp.zeros((3, 3), jnp.int32)}, ValueError, "table has shape (3, 3)"),
        ({"start": jnp.zeros((2, 1), jnp.int32)}, ValueError, "start has shape (2, 1)"),
        ({"isa": "sse9"}, ValueError, "isa='sse9'"),
    ],
)
def test_a_bad_argument_is_named(changes: dict, error: type[Exception], message: str):
    arguments = {
        "query": jnp.zeros((2, 1, 4, 8)),
        "key_pages": jnp.zeros((5, 4, 2, 8)),
        "value_pages": jnp.zeros((5, 4, 2, 8)),
        "table": jnp.zeros((2, 3), jnp.int32),
        "start": jnp.zeros(2, jnp.int32),
    }
    with pytest.raises(error) as raised:
        kernels.paged_attention(**arguments | changes)
    assert message in str(raised.value)

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import kernels


def case(seed: int, rows: int, inner: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, inner)).astype(np.float32)
    return x, random.normal(size=(inner, columns)).astype(np.float32)


def product(x: np.ndarray, weights: np.ndarray, isa: str) -> np.ndarray:
    packed = kernels.pack_f32(jnp.asarray(weights))
    result = kernels.f32_matmul(jnp.asarray(x), packed, weights.shape[1], isa=isa)
    return np.asarray(result)


def assert_close(result: np.ndarray, x: np.ndarray, weights: np.ndarray) -> None:
    wide, wide_weights = x.astype(np.float64), weights.astype(np.float64)
    # What float32 sums of K products may be off by.
    bound = np.abs(wide) @ np.abs(wide_weights) * (x.shape[1] + 1) * 2.0**-24
    assert (np.abs(result - wide @ wide_weights) <= bound + 1e-30).all()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    inner=st.integers(1, 300),
    columns=st.integers(1, 200),
    isa=st.sampled_from(kernels.ISAS),
)
def test_every_level_is_the_definition_to_rounding(
    seed: int, rows: int, inner: int, columns: int, isa: str
):
    x, weights = case(seed, rows, inner, columns)
    assert_close(product(x, weights, isa), x, weights)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(512, 512, 192), (3, 2560, 4736)])
def test_large_products(rows: int, inner: int, columns: int, isa: str):
    x, weights = case(0, rows, inner, columns)
    assert_close(product(x, weights, isa), x, weights)


def test_it_is_as_near_to_float64_as_xlas_own_product(isa: str):
    x, weights = case(4, 32, 2560, 96)
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    xla = np.asarray(jnp.asarray(x) @ jnp.asarray(weights))
    error, limit = (np.abs(found - exact).max() for found in (product(x, weights, isa), xla))
    # Sums in the order of K err more than those of parts, by less than one more such rounding.
    assert error <= limit + np.abs(exact).max() * 2.0**-20


def test_small_integers_are_exact_at_every_level(isa: str):
    random = np.random.default_rng(1)
    x = random.integers(-8, 9, (7, 129)).astype(np.float32)
    weights = random.integers(-8, 9, (129, 65)).astype(np.float32)
    np.testing.assert_array_equal(product(x, weights, isa), x @ weights)


def test_sums_go_in_the_order_of_k(isa: str):
    # Whatever comes before 2^24 is in the sum; one after it is too small to count.
    weights = np.ones((3, 70), np.float32)
    x = np.array([[1, 2**24, -(2**24)], [2**24, 1, -(2**24)]], np.float32)
    expected = np.float32([(x[:, 0] + x[:, 1]) + x[:, 2]]).T
    np.testing.assert_array_equal(product(x, weights, isa), np.repeat(expected, 70, axis=1))


def test_a_row_has_the_same_bits_in_any_company(isa: str):
    x, weights = case(2, 100, 131, 90)
    whole = product(x, weights, isa)
    for rows in range(1, 30):
        np.testing.assert_array_equal(product(x[:rows], weights, isa), whole[:rows])
    np.testing.assert_array_equal(product(x[::-1].copy(), weights, isa), whole[::-1])


def test_nan_and_infinity_stay_in_their_row(isa: str):
    x, weights = case(3, 3, 33, 40)
    expected = product(x, weights, isa)
    x[1, 32] = np.nan
    result = product(x, weights, isa)
    assert np.isnan(result[1]).all()
    np.testing.assert_array_equal(result[[0, 2]], expected[[0, 2]])
    x[1, 32] = np.inf
    assert not np.isfinite(product(x, weights, isa)[1]).any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": jnp.zeros((2, 8), jnp.bfloat16)}, TypeError, "x is bfloat16, not float32"),
        ({"x": jnp.zeros(8)}, ValueError, "x has shape (8,), not 2 axes"),
        ({"x": jnp.zeros((2, 9))}, ValueError, "not (1, 9, 64, 1) as K=9 and N=5 need"),
        ({"columns": 65}, ValueError, "not (2, 8, 64, 1) as K=8 and N=65 need"),
        (
            {"packed": jnp.zeros((1, 8, 64, 1), jnp.bfloat16)},
            TypeError,
            "packed is bfloat16, not float32",
        ),
        ({"isa": "sse9"}, ValueError, "isa='sse9'"),
    ],
)
def test_a_bad_argument_is_named(changes: dict, error: type[Exception], message: str):
    arguments = {
        "x": jnp.zeros((2, 8)),
        "packed": kernels.pack_f32(jnp.zeros((8, 5))),
        "columns": 5,
    }
    with pytest.raises(error) as raised:
        kernels.f32_matmul(**arguments | changes)
    assert message in str(raised.value)


def test_weights_of_another_dtype_are_named():
    with pytest.raises(TypeError, match="weights is bfloat16, not float32"):
        kernels.pack_f32(jnp.zeros((4, 4), jnp.bfloat16))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import kernels
from tests.model.kernels import numpy_kernels


def case(
    seed: int, rows: int, inner: int, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, inner)).astype(np.float32)
    weights = random.integers(-128, 128, (inner, columns)).astype(np.int8)
    return x, weights, random.uniform(1e-3, 1, columns).astype(np.float32)


def product(x: np.ndarray, weights: np.ndarray, scale: np.ndarray, isa: str) -> np.ndarray:
    packed = kernels.pack_int8(jnp.asarray(weights))
    return np.asarray(kernels.int8_matmul(jnp.asarray(x), packed, jnp.asarray(scale), isa=isa))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 40),
    inner=st.integers(1, 300),
    columns=st.integers(1, 200),
    isa=st.sampled_from(kernels.ISAS),
)
def test_every_level_gives_the_definitions_bits(
    seed: int, rows: int, inner: int, columns: int, isa: str
):
    x, weights, scale = case(seed, rows, inner, columns)
    expected = numpy_kernels.int8_matmul(x, weights, scale)
    np.testing.assert_array_equal(product(x, weights, scale, isa), expected)


@pytest.mark.parametrize(("rows", "inner", "columns"), [(512, 512, 192), (3, 5120, 4736)])
def test_large_products_are_exact_too(rows: int, inner: int, columns: int, isa: str):
    x, weights, scale = case(0, rows, inner, columns)
    expected = numpy_kernels.int8_matmul(x, weights, scale)
    np.testing.assert_array_equal(product(x, weights, scale, isa), expected)


def test_largest_sums_do_not_overflow(isa: str):
    inner = 1 << 17
    weights = np.repeat(np.array([[-128, 127]], np.int8), inner, axis=0)
    result = product(np.ones((1, inner), np.float32), weights, np.ones(2, np.float32), isa)
    np.testing.assert_allclose(result, [[-128.0 * inner, 127.0 * inner]], rtol=1e-6)


def test_a_row_has_the_same_bits_in_any_company(isa: str):
    x, weights, scale = case(1, 100, 130, 90)
    whole = product(x, weights, scale, isa)
    for rows in range(1, 20):
        np.testing.assert_array_equal(product(x[:rows], weights, scale, isa), whole[:rows])
    np.testing.assert_array_equal(product(x[::-1].copy(), weights, scale, isa), whole[::-1])


def test_rows_of_zeros_and_of_tiny_values_are_zero(isa: str):
    x, weights, scale = case(2, 3, 20, 9)
    x[0], x[2] = 0, 1e-38
    result = product(x, weights, scale, isa)
    assert not result[[0, 2]].any()
    np.testing.assert_array_equal(result[1], product(x[1:2], weights, scale, isa)[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_nan_and_the_others_are_not_touched(bad: float, isa: str):
    x, weights, scale = case(3, 3, 33, 40)
    expected = product(x, weights, scale, isa)
    x[1, 32] = bad
    result = product(x, weights, scale, isa)
    assert np.isnan(result[1]).all()
    np.testing.assert_array_equal(result[[0, 2]], expected[[0, 2]])


def test_no_rows_is_no_result_and_nothing_to_sum_is_zero(isa: str):
    assert product(*case(4, 0, 8, 8), isa).shape == (0, 8)
    assert not product(*case(4, 2, 0, 8), isa).any()


def test_packing_is_traceable():
    weights = jnp.asarray(case(5, 1, 9, 70)[1])
    packed = kernels.pack_int8(weights)
    assert packed.shape == (2, 3, 64, 4)
    np.testing.assert_array_equal(jax.jit(kernels.pack_int8)(weights), packed)
    assert jax.eval_shape(kernels.pack_int8, weights).shape == packed.shape


def test_vmap_computes_each_product():
    x, weights, scale = (jnp.asarray(array) for array in case(6, 6, 10, 12))
    packed = kernels.pack_int8(weights)
    mapped = jax.vmap(lambda part: kernels.int8_matmul(part, packed, scale))(x.reshape(2, 3, 10))
    np.testing.assert_array_equal(mapped.reshape(6, 12), kernels.int8_matmul(x, packed, scale))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": jnp.zeros((2, 8), jnp.bfloat16)}, TypeError, "x is bfloat16, not float32"),
        ({"x": jnp.zeros((2, 2, 8))}, ValueError, "x has shape (2, 2, 8), not 2 axes"),
        ({"x": jnp.zeros((2, 12))}, ValueError, "not (1, 3, 64, 4) as K=12 and N=5 need"),
        ({"scale": jnp.zeros((5, 1))}, ValueError, "scale has shape (5, 1)"),
        ({"scale": jnp.zeros(65)}, ValueError, "not (2, 2, 64, 4) as K=8 and N=65 need"),
        ({"packed": jnp.zeros((1, 2, 64, 4), jnp.int8)}, TypeError, "packed is int8, not uint8"),
        ({"isa": "sse9"}, ValueError, "isa='sse9' is none of portable, avx2"),
    ],
)
def test_a_bad_argument_is_named(changes: dict, error: type[Exception], message: str):
    arguments = {
        "x": jnp.zeros((2, 8)),
        "packed": kernels.pack_int8(jnp.zeros((8, 5), jnp.int8)),
        "scale": jnp.ones(5),
    }
    with pytest.raises(error) as raised:
        kernels.int8_matmul(**arguments | changes)
    assert message in str(raised.value)


def test_weights_that_cannot_be_packed_are_named():
    with pytest.raises(TypeError, match="weights is float32, not int8"):
        kernels.pack_int8(jnp.zeros((4, 4)))
    with pytest.raises(ValueError, match="K=131073, above the limit of 131072"):
        jax.eval_shape(kernels.pack_int8, jax.ShapeDtypeStruct((131073, 4), jnp.int8))

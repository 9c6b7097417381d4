"""What the kernels compute, written plainly in NumPy."""

import numpy as np


def int8_matmul(x: np.ndarray, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32[M, N], to the bit: x float32[M, K], weights int8[K, N], scale float32[N]."""
    largest = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
    is_zero = largest < np.float32(1e-30)
    inverse = np.where(is_zero, np.float32(0), np.float32(127) / np.where(is_zero, 1, largest))
    quantized = np.rint(x * inverse.astype(np.float32))
    sums = quantized.astype(np.int64) @ weights.astype(np.int64)
    row_scale = np.where(is_zero, np.float32(0), largest / np.float32(127))
    return sums.astype(np.float32) * (row_scale * scale[None])


def quantize_heads(values: np.ndarray) -> np.ndarray:
    """int8[..., H + 4] that an int8 pool keeps of float32[..., H]: values, then their scale."""
    peak = np.abs(values).max(axis=-1, keepdims=True)
    is_finite, is_zero = np.isfinite(peak), peak < np.float32(1e-30)
    divisor = np.where(is_finite & ~is_zero, peak, np.float32(np.inf))
    with np.errstate(invalid="ignore"):
        whole = np.where(is_finite, np.rint(values * (np.float32(127) / divisor)), 0)
    scale = np.where(is_zero, np.float32(0), peak / np.float32(127))
    scale = np.where(is_finite, scale, np.float32(np.nan)).astype(np.float32)
    return np.concatenate([whole.astype(np.int8), scale.view(np.int8)], axis=-1)


def bf16_rounded(x: np.ndarray) -> np.ndarray:
    """x float32 to the nearest bfloat16, ties to even, as float32; finite."""
    bits = x.view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def paged_attention(
    query: np.ndarray,
    key_pages: np.ndarray,
    value_pages: np.ndarray,
    table: np.ndarray,
    start: np.ndarray,
) -> np.ndarray:
    """float64[B, T, N, H]; arguments as in `model.kernels.paged_attention`."""
    batch, length, heads, _ = query.shape
    num_pages, page_size, kv_heads, _ = key_pages.shape
    out = np.zeros(query.shape)
    for row in range(batch):
        named = (table[row] >= 0) & (table[row] < num_pages)
        pages = table[row, : np.argmin(named) if not named.all() else len(named)]
        keys = key_pages[pages].reshape(-1, kv_heads, key_pages.shape[3]).astype(np.float64)
        values = value_pages[pages].reshape(keys.shape).astype(np.float64)
        for token in range(length):
            seen = max(0, min(len(pages) * page_size, start[row] + token + 1))
            if seen == 0:
                continue
            for head in range(heads):
                kv_head = head // (heads // kv_heads)
                scores = keys[:seen, kv_head] @ query[row, token, head].astype(np.float64)
                weights = np.exp(scores - scores.max())
                out[row, token, head] = weights @ values[:seen, kv_head] / weights.sum()
    return out

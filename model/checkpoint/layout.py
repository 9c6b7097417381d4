"""How another project's tensors correspond to our parameters, in both directions.

Other projects keep a linear layer as [out, in] and heads flattened; ours are [in, out] with heads
as axes of their own. Each `StoredTensor` says which of our parameters one of their tensors holds,
how to take it apart (views, nothing is copied) and how to put it together again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from model.checkpoint.host_array import HostArray

Split: TypeAlias = Callable[[HostArray], tuple[HostArray, ...]]
Join: TypeAlias = Callable[..., HostArray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of a foreign checkpoint.

    Attributes:
        shape: Its shape there.
        names: Our parameters that it holds.
        split: From it to our arrays, in the order of `names`.
        join: From our arrays to it.
    """

    shape: tuple[int, ...]
    names: tuple[str, ...]
    split: Split
    join: Join


Layout: TypeAlias = Mapping[str, StoredTensor]
"""Every tensor of a foreign checkpoint by its name there."""


def unchanged(name: str, shape: tuple[int, ...]) -> StoredTensor:
    """A tensor that is the same in both."""
    return StoredTensor(
        shape=shape, names=(name,), split=lambda array: (array,), join=lambda array: array
    )


def linear(name: str, size_in: int, size_out: int) -> StoredTensor:
    """Theirs [out, in], ours [in, out]."""
    return StoredTensor(
        shape=(size_out, size_in),
        names=(name,),
        split=lambda array: (array.T,),
        join=lambda array: array.T,
    )


def heads_out(name: str, d_model: int, heads: int, head_dim: int) -> StoredTensor:
    """A projection to heads: theirs [N·H, D], ours [D, N, H]."""
    return StoredTensor(
        shape=(heads * head_dim, d_model),
        names=(name,),
        split=lambda array: (array.reshape(heads, head_dim, d_model).transpose(2, 0, 1),),
        join=lambda array: array.reshape(d_model, -1).T,
    )


def heads_in(name: str, heads: int, head_dim: int, d_model: int) -> StoredTensor:
    """A projection from heads: theirs [D, N·H], ours [N, H, D]."""
    return StoredTensor(
        shape=(d_model, heads * head_dim),
        names=(name,),
        split=lambda array: (array.T.reshape(heads, head_dim, d_model),),
        join=lambda array: array.reshape(-1, d_model).T,
    )


def grouped_query_key_value(
    names: tuple[str, str, str], d_model: int, heads: int, kv_heads: int, head_dim: int
) -> StoredTensor:
    """Falcon's fused projection: for each of K groups, its G query heads, then key, then value.

    Theirs is [K·(G+2)·H, D]; ours are [D, N, H], [D, K, H], [D, K, H]. With K = 1 it is the
    multi-query form, with K = N (G = 1) the multi-head form.
    """
    group = heads // kv_heads

    def split(array: HostArray) -> tuple[HostArray, ...]:
        fused = array.reshape(kv_heads, group + 2, head_dim, d_model)
        query = fused[:, :group].reshape(heads, head_dim, d_model)
        parts = (query, fused[:, group], fused[:, group + 1])
        return tuple(part.transpose(2, 0, 1) for part in parts)

    def join(query: HostArray, key: HostArray, value: HostArray) -> HostArray:
        parts = (
            query.transpose(1, 2, 0).reshape(kv_heads, group, head_dim, d_model),
            key.transpose(1, 2, 0)[:, None],
            value.transpose(1, 2, 0)[:, None],
        )
        return np.concatenate(parts, axis=1).reshape(-1, d_model)

    return StoredTensor(
        shape=(kv_heads * (group + 2) * head_dim, d_model), names=names, split=split, join=join
    )

"""N-grams that must not be said: a filter on the device, asked whether a token would end one.

The filter is a split block Bloom filter as Parquet specifies it (Putze, Sanders and Singler 2007;
https://parquet.apache.org/docs/file-format/bloomfilter/): a key sets one bit in each of the eight
words of one block, so a look-up reads 32 consecutive bytes. It never misses an n-gram that was put
in, and takes others for one of those with a probability that its size decides.

What is put in is decided elsewhere; both sides agree on the key of an n-gram t_0 … t_(n-1), with
all arithmetic modulo 2**64:

    mix(x)    Murmur3's 64-bit finalizer
    value(t)  mix((t + 1) * BASE)
    hash      mix(value(t_0) * BASE**(n-1) + … + value(t_(n-1)))
    key       mix(the low `hash_bits` bits of hash)

The key's high word chooses the block, its low word the bits. R rows of a step. JAX computes with
32-bit integers here, so a 64-bit number is a pair of uint32 arrays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigError

BASE = 0x9E3779B97F4A7C15
"""The multiplier of the polynomial hash, an odd number."""
MAX_NGRAM = 64
SALTS = (
    *(0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D),
    *(0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31),
)
"""Parquet's: one for each word of a block."""

_MIX_1, _MIX_2 = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_HALF = 0xFFFF

UInt64: TypeAlias = tuple[jax.Array, jax.Array]
"""High and low words, uint32 arrays of one shape."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NgramFilter:
    """The forbidden n-grams.

    Attributes:
        words: uint32[blocks, 8]; on the host or on the device.
        ngram: Tokens of an n-gram, 2 to 64.
        hash_bits: Low bits of an n-gram's hash that its key is made of, 32 to 64.

    Raises:
        ConfigError: A field is out of range.
    """

    words: jax.Array | NDArray[np.uint32]
    ngram: int = dataclasses.field(metadata={"static": True})
    hash_bits: int = dataclasses.field(default=64, metadata={"static": True})

    def __post_init__(self) -> None:
        """Check what is known of it; JAX makes some of other things than arrays."""
        if not 2 <= self.ngram <= MAX_NGRAM:
            raise ConfigError(f"ngram={self.ngram} must be from 2 to {MAX_NGRAM}")
        if not 32 <= self.hash_bits <= 64:
            raise ConfigError(f"hash_bits={self.hash_bits} must be from 32 to 64")
        if isinstance(self.words, np.ndarray):
            is_filter = self.words.ndim == 2 and self.words.shape[1] == len(SALTS)
            if not is_filter or not len(self.words) or self.words.dtype != np.uint32:
                raise ConfigError(
                    f"words={self.words.dtype}{list(self.words.shape)} must be uint32[blocks, 8] "
                    "with at least one block"
                )

    def prefixes(self, recent: jax.Array) -> Prefixes:
        """What the last n - 1 of `recent`'s tokens contribute to the hash of each row's n-gram.

        Args:
            recent: int32[R, n]; the newest tokens of each row, the newest last, -1 where a
                sequence has no more.
        """
        tokens = recent[:, 1:].astype(jnp.uint32)
        powers = [pow(BASE, self.ngram - 1 - place, 1 << 64) for place in range(self.ngram - 1)]
        high, low = _multiply(_values(tokens), _constant(powers))
        # Sums of 16-bit limbs have room for their carries.
        limbs = [
            jnp.sum(limb, axis=1, dtype=jnp.uint32)
            for limb in (low & _HALF, low >> 16, high & _HALF, high >> 16)
        ]
        for place in range(3):
            limbs[place + 1] += limbs[place] >> 16
        return Prefixes(
            high=(limbs[3] << 16) | (limbs[2] & _HALF),
            low=(limbs[1] << 16) | (limbs[0] & _HALF),
            is_whole=jnp.all(recent[:, 1:] >= 0, axis=1),
        )

    def ends(self, prefixes: Prefixes, tokens: jax.Array) -> jax.Array:
        """bool[R]: whether int32[R] `tokens` would end a forbidden n-gram."""
        values = _values(tokens.astype(jnp.uint32))
        high, low = _mix(_add((prefixes.high, prefixes.low), values))
        high, low = _mix((high & jnp.uint32((1 << (self.hash_bits - 32)) - 1), low))
        block = _multiply_wide(high, jnp.uint32(self.words.shape[0]))[0]
        bits = (low[:, None] * jnp.array(SALTS, jnp.uint32)) >> 27
        found = (jnp.asarray(self.words)[block] >> bits) & 1
        return jnp.all(found == 1, axis=1) & prefixes.is_whole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Prefixes:
    """The hash of each row's newest n - 1 tokens, before the last step.

    Attributes:
        high: uint32[R].
        low: uint32[R].
        is_whole: bool[R]; whether there are n - 1 tokens.
    """

    high: jax.Array
    low: jax.Array
    is_whole: jax.Array

    def row(self, row: jax.Array) -> Prefixes:
        """One row, fields [1]."""
        taken: Prefixes = jax.tree.map(
            lambda field: jax.lax.dynamic_slice_in_dim(field, row, 1), self
        )
        return taken


def newest_tokens(tokens: list[int], ngram: int) -> NDArray[np.int32]:
    """int32[ngram]: the newest of a sequence's tokens, -1 before its first; for `prefixes`."""
    newest = tokens[-ngram:]
    return np.array([-1] * (ngram - len(newest)) + newest, np.int32)


def _values(tokens: jax.Array) -> UInt64:
    """value(t) of uint32 tokens."""
    return _mix(_multiply((jnp.zeros_like(tokens), tokens + 1), _constant(BASE)))


def _mix(number: UInt64) -> UInt64:
    for factor in (_MIX_1, _MIX_2):
        number = _multiply(_fold(number), _constant(factor))
    return _fold(number)


def _fold(number: UInt64) -> UInt64:
    """x ^ (x >> 33)."""
    high, low = number
    return high, low ^ (high >> 1)


def _add(one: UInt64, other: UInt64) -> UInt64:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < one[1]).astype(jnp.uint32), low


def _multiply(one: UInt64, other: UInt64) -> UInt64:
    """The product modulo 2**64."""
    high, low = _multiply_wide(one[1], other[1])
    return high + one[0] * other[1] + one[1] * other[0], low


def _multiply_wide(one: jax.Array, other: jax.Array) -> UInt64:
    """The whole product of two uint32, of 16-bit halves."""
    one_high, one_low = one >> 16, one & _HALF
    other_high, other_low = other >> 16, other & _HALF
    low = one_low * other_low
    middle = one_high * other_low + (low >> 16)
    crossed = one_low * other_high + (middle & _HALF)
    return one_high * other_high + (middle >> 16) + (crossed >> 16), one * other


def _constant(numbers: Any) -> UInt64:
    """One or more Python integers below 2**64."""
    wide = np.asarray(numbers, np.uint64)
    words = ((wide >> np.uint64(32)), wide & np.uint64(0xFFFFFFFF))
    return jnp.asarray(words[0].astype(np.uint32)), jnp.asarray(words[1].astype(np.uint32))

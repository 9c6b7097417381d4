"""Parameters, each declared once: shape, dtype, logical axes and initializer in one place.

The Flax modules of `model.layers` and `model.palm` call `declare` for every parameter. The
abstract form (shapes alone), the sharded form (`model.partition`) and the initialised form all
derive from that one call, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

from model.activations import place_weight
from model.errors import CheckpointError

if TYPE_CHECKING:
    from jax.typing import DTypeLike

    from model.config import PaLMConfig

Params: TypeAlias = dict[str, Any]
"""Nested dict of arrays; `layers` is keyed "0", "1", …; paths joined with "." are tensor names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Initializer:
    """N(mean, stddev²); a zero `stddev` makes a constant."""

    mean: float = 0.0
    stddev: float = 0.0

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        """Draw an array of `shape` and `dtype`."""
        if self.stddev == 0:
            return jnp.full(shape, self.mean, dtype)
        return self.mean + self.stddev * jax.random.normal(key, shape, dtype)


ONES = Initializer(mean=1.0)
ZEROS = Initializer()
UNIT_NORMAL = Initializer(stddev=1.0)


def fan_in(size: int) -> Initializer:
    """PaLM's kernel initializer, N(0, 1/sqrt(n_in)) read as standard deviation."""
    return Initializer(stddev=size**-0.5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterSpec:
    """What one parameter is, without its values.

    Attributes:
        shape: Array shape.
        dtype: Dtype as declared; loading and initialising may choose another.
        axes: A logical name for each axis; `model.partition` maps names to mesh axes.
        init: How fresh values are drawn.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    axes: tuple[str, ...]
    init: Initializer

    @property
    def size(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


def declare(
    rngs: nnx.Rngs | None, shape: tuple[int, ...], axes: tuple[str, ...], init: Initializer
) -> nnx.Param[Any]:
    """Declare a float32 parameter inside a module's constructor; abstract without `rngs`."""
    spec = ParameterSpec(shape=shape, dtype=jnp.float32, axes=axes, init=init)
    if rngs is None:
        return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32), spec=spec)
    return nnx.Param(init(rngs.params(), shape, jnp.float32), spec=spec)


@functools.lru_cache(maxsize=16)
def _abstract_module(config: PaLMConfig) -> tuple[Any, Any]:
    """The graph definition and abstract state of the model, without allocating an array."""
    from model.palm import PaLM

    return nnx.split(PaLM(config))


@functools.lru_cache(maxsize=16)
def _specs(config: PaLMConfig) -> dict[str, ParameterSpec]:
    _, state = _abstract_module(config)
    return {
        ".".join(str(part) for part in path): variable.get_metadata("spec")
        for path, variable in nnx.to_flat_state(state)
    }


def declare_parameters(config: PaLMConfig) -> dict[str, ParameterSpec]:
    """Every parameter of the model by dotted name; allocates nothing."""
    return dict(_specs(config))


def count_parameters(config: PaLMConfig) -> int:
    """Number of scalars in all parameters; allocates nothing."""
    return sum(spec.size for spec in _specs(config).values())


def unflatten(flat: Mapping[str, Any]) -> Params:
    """Dotted names to a nested dict."""
    params: Params = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return params


def flatten(params: Params) -> dict[str, Any]:
    """A nested dict to dotted names."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                visit(f"{prefix}.{key}" if prefix else key, child)
        else:
            flat[prefix] = node

    visit("", params)
    return flat


def abstract_parameters(config: PaLMConfig, dtype: DTypeLike = jnp.float32) -> Params:
    """The parameters as `jax.ShapeDtypeStruct`s of `dtype`."""
    return unflatten(
        {name: jax.ShapeDtypeStruct(spec.shape, dtype) for name, spec in _specs(config).items()}
    )


def init_parameters(config: PaLMConfig, key: jax.Array, dtype: DTypeLike = jnp.float32) -> Params:
    """Fresh parameters; each draws from its own fold of `key`, in sorted order of names."""
    return unflatten(
        {
            name: spec.init(jax.random.fold_in(key, index), spec.shape, dtype)
            for index, (name, spec) in enumerate(sorted(_specs(config).items()))
        }
    )


def _some(names: list[str], limit: int = 8) -> str:
    """The first few of `names`, and how many more there are."""
    shown = ", ".join(names[:limit]) or "none"
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def bind(config: PaLMConfig, params: Params) -> Any:
    """The Flax module of `config` over `params`; costs only Python time while tracing.

    Raises:
        CheckpointError: A parameter is missing, or there is one that the model does not have.
            Shapes are not compared: inside `shard_map` each device holds a part.
    """
    graphdef, abstract = _abstract_module(config)
    flat = flatten(params)
    specs = _specs(config)
    declared = specs.keys()
    if flat.keys() != declared:
        missing, extra = sorted(declared - flat.keys()), sorted(flat.keys() - declared)
        raise CheckpointError(
            f"parameters do not match model {config.name!r}: "
            f"missing {_some(missing)}, unexpected {_some(extra)}"
        )
    placed = {name: place_weight(value, specs[name].axes) for name, value in flat.items()}
    state = nnx.from_flat_state(
        [
            (path, variable.replace(placed[".".join(str(part) for part in path)]))
            for path, variable in nnx.to_flat_state(abstract)
        ]
    )
    return nnx.merge(graphdef, state)

"""The layouts of Pope et al. 2022 (arXiv 2211.05102, section 3): logical axis to mesh axes.

The mesh has the axes (x, y, z). A layout says how the feed-forward layer's (and the projections')
products are split and how attention is:

- `1d`: weights stay, split over all chips along heads, feed-forward width and vocabulary.
- `2d`: weights stay, split over x along the model's width and over y and z along the others.
- `gather-x`, `gather-xy`, `gather-xyz`: weights are stored as in `2d` and gathered over the named
  axes for each use; the batch is split over those axes instead.
- attention by `heads`, or by `batch`: multi-query attention's one key/value head cannot be split,
  so by heads every chip holds all keys and values, by batch each holds its own sequences'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from model.errors import ConfigError

X_AXIS, Y_AXIS, Z_AXIS = "x", "y", "z"
MESH_AXES = (X_AXIS, Y_AXIS, Z_AXIS)

# The order in which an axis of an array is split. y last, so that `gather-xy` takes the innermost
# split away from z and y, which needs no exchange before the gather.
_SPLIT_ORDER = (X_AXIS, Z_AXIS, Y_AXIS)
_WIDE = (Z_AXIS, Y_AXIS)

FeedForwardLayout: TypeAlias = Literal["1d", "2d", "gather-x", "gather-xy", "gather-xyz"]
AttentionLayout: TypeAlias = Literal["heads", "batch"]

Rules: TypeAlias = Mapping[str, tuple[str, ...]]
"""Logical axis to the mesh axes that it is split over; () keeps it whole."""

_GATHERED: Mapping[str, tuple[str, ...]] = {
    "gather-x": (X_AXIS,),
    "gather-xy": (X_AXIS, Y_AXIS),
    "gather-xyz": MESH_AXES,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a model is split over a mesh of axes (x, y, z).

    Attributes:
        feed_forward: How weights and the activations between them are split.
        attention: Whether attention is split over heads or over the batch.

    Raises:
        ConfigError: A field is none of the known layouts.
    """

    feed_forward: FeedForwardLayout
    attention: AttentionLayout

    def __post_init__(self) -> None:
        """Check both names."""
        for field, known in (("feed_forward", FeedForwardLayout), ("attention", AttentionLayout)):
            value = getattr(self, field)
            if value not in get_args(known):
                raise ConfigError(f"{field}={value!r} must be one of {get_args(known)}")

    @classmethod
    def named(cls, name: str) -> Layout:
        """The layout whose `name` that is.

        Raises:
            ConfigError: There is none.
        """
        for layout in all_layouts():
            if layout.name == name:
                return layout
        known = ", ".join(layout.name for layout in all_layouts())
        raise ConfigError(f"layout={name!r} must be one of {known}")

    @property
    def name(self) -> str:
        """Both names in one, such as `2d/batch`."""
        return f"{self.feed_forward}/{self.attention}"

    @property
    def gathered_axes(self) -> tuple[str, ...]:
        """Mesh axes that weights are gathered over for each use; () where they stay."""
        return _GATHERED.get(self.feed_forward, ())


def all_layouts() -> tuple[Layout, ...]:
    """Every pair of a feed-forward and an attention layout."""
    return tuple(
        Layout(feed_forward=feed_forward, attention=attention)
        for feed_forward in get_args(FeedForwardLayout)
        for attention in get_args(AttentionLayout)
    )


def weight_rules(layout: Layout) -> Rules:
    """How parameters are stored: logical axes as declared in `model.parameters`."""
    wide = _SPLIT_ORDER if layout.feed_forward == "1d" else _WIDE
    return {
        "vocab": wide,
        "heads": wide,
        "ff": wide,
        "model": () if layout.feed_forward == "1d" else (X_AXIS,),
        # PaLM has one key/value head, shared by all query heads: it is not split.
        "kv_heads": (),
        "head_dim": (),
    }


def used_weight_rules(layout: Layout) -> Rules:
    """How parameters lie when they are multiplied: as stored, less the gathered axes."""
    return {
        axis: _without(over, layout.gathered_axes) for axis, over in weight_rules(layout).items()
    }


def activation_rules(layout: Layout) -> Rules:
    """How activations lie, by the names that `model.activations` and `model.layers` use.

    Inside attention, `attention_batch` and `attention_heads` take the place of `batch` and
    `heads`; `resharded_batch` goes with `heads` on the way between the two.
    """
    weights = used_weight_rules(layout)
    batch, heads = layout.gathered_axes, weights["heads"]
    by_heads = layout.attention == "heads"
    attention_batch = batch if by_heads else batch + _without(_SPLIT_ORDER, batch)
    return {
        "batch": batch,
        "length": (),
        "model": weights["model"],
        "ff": weights["ff"],
        "heads": heads,
        "kv_heads": (),
        "head_dim": (),
        "attention_batch": attention_batch,
        "attention_heads": heads if by_heads else (),
        "resharded_batch": _without(attention_batch, heads),
    }


def _without(axes: tuple[str, ...], excluded: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(axis for axis in axes if axis not in excluded)


def mesh_axes(axes: Sequence[str], rules: Rules) -> tuple[tuple[str, ...], ...]:
    """The mesh axes of each logical axis.

    Raises:
        ConfigError: An axis has no rule, or two of them fall on one mesh axis.
    """
    unknown = [axis for axis in axes if axis not in rules]
    if unknown:
        raise ConfigError(f"logical axes {unknown} have no rule; known: {sorted(rules)}")
    placed = tuple(rules[axis] for axis in axes)
    used = [mesh_axis for over in placed for mesh_axis in over]
    if len(used) != len(set(used)):
        raise ConfigError(f"logical axes {tuple(axes)} fall on one mesh axis twice: {placed}")
    return placed


def dividing(size: int, over: tuple[str, ...], mesh_shape: Mapping[str, int]) -> tuple[str, ...]:
    """The leading mesh axes of `over` whose product of sizes divides `size`."""
    parts = 1
    for count, axis in enumerate(over):
        parts *= mesh_shape[axis]
        if size % parts:
            return over[:count]
    return over

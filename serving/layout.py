"""Which layouts a model has on so many chips: the mesh, and why some layouts are out.

The layouts themselves, and how they are executed, stand in `model.layout_rules`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import MESH_AXES, Layout, activation_rules, dividing


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Chips along each axis of a mesh (Pope et al. 2022, section 3.1: a torus X x Y x Z).

    Attributes:
        x: Chips that 2D layouts split the model's width over.
        y: With z, chips that they split heads, feed-forward width and vocabulary over.
        z: See y.

    Raises:
        ConfigError: A size is below 1.
    """

    x: int
    y: int
    z: int

    def __post_init__(self) -> None:
        """Check every size."""
        for axis, size in self.sizes.items():
            if size < 1:
                raise ConfigError(f"mesh axis {axis}={size} must be at least 1")

    def __str__(self) -> str:
        """`XxYxZ`."""
        return f"{self.x}x{self.y}x{self.z}"

    @property
    def sizes(self) -> Mapping[str, int]:
        """Chips by axis name."""
        return {"x": self.x, "y": self.y, "z": self.z}

    @property
    def chips(self) -> int:
        """Chips in all."""
        return self.x * self.y * self.z

    def parts(self, axes: Sequence[str]) -> int:
        """Chips along `axes` together."""
        return math.prod(self.sizes[axis] for axis in axes)

    def hops(self, axes: Sequence[str]) -> int:
        """Steps that a ring over each of `axes` in turn takes."""
        return sum(self.sizes[axis] - 1 for axis in axes)

    @classmethod
    def of(cls, shape: Sequence[int], chips: int) -> MeshShape:
        """The mesh of sizes (x, y, z).

        Raises:
            ConfigError: They are not three, or their product is not `chips`.
        """
        if len(shape) != len(MESH_AXES) or math.prod(shape) != chips:
            raise ConfigError(
                f"mesh={','.join(map(str, shape))} must be 3 sizes x,y,z whose product is "
                f"chips={chips}"
            )
        return cls(x=shape[0], y=shape[1], z=shape[2])


def choose_mesh(config: PaLMConfig, chips: int) -> MeshShape:
    """The mesh on which 2D weight-stationary communicates least; for PaLM, x = sqrt(chips) / 2.

    x divides `d_model`, and is above 1 where that leaves y and z chips too: at 1, 2D would be 1D.

    Raises:
        ConfigError: `chips` is below 1.
    """
    if chips < 1:
        raise ConfigError(f"chips={chips} must be at least 1")

    def volume(x: int) -> float:
        # Section 3.2.2, for a token: 2·(E/X + F/(YZ)).
        return config.d_model / x + config.d_ff * x / chips

    usable = [x for x in _divisors(chips) if config.d_model % x == 0]
    proper = [x for x in usable if 1 < x < chips] or [1]
    x = min(proper, key=lambda x: (volume(x), -x))
    rest = chips // x
    y = max(divisor for divisor in _divisors(rest) if divisor**2 <= rest)
    return MeshShape(x=x, y=y, z=rest // y)


def split(size: int, over: tuple[str, ...], mesh: MeshShape) -> int:
    """In how many parts an axis of `size` is really split: only by mesh axes that divide it."""
    return mesh.parts(dividing(size, over, mesh.sizes))


def exclusion(layout: Layout, mesh: MeshShape, batch: int) -> str | None:
    """Why a layout is no choice of its own here, whatever it costs; None if it is one."""
    feed_forward = layout.feed_forward
    if mesh.chips == 1:
        return None if layout.name == "1d/heads" else "one chip: nothing is split"
    if feed_forward == "2d" and mesh.x == 1:
        return "the same as 1d: mesh axis x is 1"
    if layout.gathered_axes and mesh.sizes[layout.gathered_axes[-1]] == 1:
        fewer = {"gather-xy": "gather-x", "gather-xyz": "gather-xy"}.get(feed_forward, "1d")
        return f"the same as {fewer}: mesh axis {layout.gathered_axes[-1]} is 1"
    gathered = mesh.parts(layout.gathered_axes)
    if batch % gathered:
        return f"batch={batch} must be a multiple of the {gathered} chips that it is split over"
    return _same_attention(layout, mesh, batch)


def _same_attention(layout: Layout, mesh: MeshShape, batch: int) -> str | None:
    """Why attention by heads or by batch is not two choices here, for one of the two."""
    by_heads, by_batch = (
        dataclasses.replace(layout, attention="heads"),
        dataclasses.replace(layout, attention="batch"),
    )
    sequences = [
        split(batch, activation_rules(one)["attention_batch"], mesh) for one in (by_heads, by_batch)
    ]
    if sequences[0] != sequences[1]:
        return None
    if mesh.parts(activation_rules(by_heads)["heads"]) > 1:
        further = f"attention cannot split batch={batch} further over mesh {mesh}"
        return further if layout == by_batch else None
    unsplit = f"the same as {by_batch.name}: heads are not split"
    return unsplit if layout == by_heads else None


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)

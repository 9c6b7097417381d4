"""How an engine splits a model over the devices that it finds: mesh, layouts, what each holds.

Decode has a layout of its own, by the cost model at the most requests that run at the same time.
Prefill takes one prompt at a time, whose tokens one layout of the same weights serves: attention by
heads. All shapes of a phase share a layout: partial sums that are added in another order round
differently, and a request's tokens would depend on its company.

Weight-gathered layouts are not among the choices: they split the batch over the chips that they
gather over, which pays for many tokens, and a step of an engine has few.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import MESH_AXES, Layout, dividing
from model.own_pages import page_axes
from model.partition import Placement, make_layout_mesh
from serving.chip import Chip, chip_of
from serving.config import EngineConfig
from serving.layout import MeshShape, choose_mesh
from serving.plan import Plan, plan
from serving.workload import Workload

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharding:
    """A model split over a mesh.

    Attributes:
        mesh: The devices, along x, y and z.
        decode: The layout of decode steps.
        prefill: The layout of prompt chunks; it stores weights as `decode` does.
    """

    mesh: Mesh
    decode: Layout
    prefill: Layout

    @classmethod
    def of(cls, layout: Layout, mesh: Mesh) -> Sharding:
        """Decode by `layout`, prefill as it allows."""
        return cls(mesh=mesh, decode=layout, prefill=dataclasses.replace(layout, attention="heads"))

    @property
    def placement(self) -> Placement:
        """Where parameters lie."""
        return Placement(layout=self.decode, mesh=self.mesh)

    @property
    def page_chips(self) -> int:
        """Chips that have pages of their own; 1 where every chip has all pages."""
        return self.mesh.size if self.decode.attention == "batch" else 1

    @property
    def whole(self) -> NamedSharding:
        """All of an array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def cache(self) -> NamedSharding:
        """Of keys and values [pages, page_size, K, H]."""
        if self.page_chips == 1:
            return self.whole
        return NamedSharding(self.mesh, PartitionSpec(page_axes(self.decode)))

    def by_row(self, rows: int) -> NamedSharding:
        """Of an array [rows, ...]: rows split over as many devices as divide their number."""
        over = dividing(rows, MESH_AXES, self.mesh.shape)
        return NamedSharding(self.mesh, PartitionSpec(over or None))

    @property
    def shape(self) -> MeshShape:
        """Devices along each axis."""
        return MeshShape(**self.mesh.shape)

    def __str__(self) -> str:
        """For people: layouts, mesh, devices."""
        kind = self.mesh.devices.flat[0].device_kind
        return (
            f"{self.decode.name} (prompts {self.prefill.name}) on mesh {self.shape} of "
            f"{self.mesh.size} {kind}"
        )


def choose_sharding(
    config: PaLMConfig, engine: EngineConfig, devices: Sequence[jax.Device] | None = None
) -> Sharding | None:
    """How to split a model as an engine's settings say; None on one device.

    Args:
        config: The model's shape.
        engine: `mesh` and `layout` are followed; what they leave open is chosen.
        devices: All of the default backend if not given.

    Raises:
        ConfigError: The mesh has more devices than there are, or a layout does not split the model
            or the slots over it.
    """
    found = list(jax.devices() if devices is None else devices)
    shape = choose_mesh(config, len(found))
    if engine.mesh is not None:
        wanted = math.prod(engine.mesh)
        if wanted > len(found):
            raise ConfigError(
                f"mesh={','.join(map(str, engine.mesh))} has {wanted} devices, and "
                f"{len(found)} are here"
            )
        shape = MeshShape.of(engine.mesh, wanted)
    if shape.chips == 1:
        return None
    mesh = make_layout_mesh(tuple(shape.sizes.values()), found[: shape.chips])
    layout = choose_layout(config, engine, chip_of(mesh.devices.flat[0]), shape)
    sharding = Sharding.of(layout, mesh)
    sharding.placement.pad(config)
    if engine.max_slots < sharding.page_chips:
        raise ConfigError(
            f"max_slots={engine.max_slots} must be at least the {sharding.page_chips} devices that "
            f"layout {layout.name} splits requests over"
        )
    return sharding


def choose_layout(config: PaLMConfig, engine: EngineConfig, chip: Chip, shape: MeshShape) -> Layout:
    """The layout that `engine` names, or the fastest for a full decode step of those that fit.

    If none is predicted to fit, the smallest: how much of the cache's pages there are is the
    engine's choice, and the prediction not exact. The log says so.
    """
    if engine.layout != "auto":
        return Layout.named(engine.layout)
    made = _plan_decode(config, engine, chip, shape)
    costs = {
        one.layout: one.cost
        for one in made.candidates
        if one.cost is not None
        and not one.layout.gathered_axes
        and not (one.layout.attention == "batch" and engine.max_slots < shape.chips)
    }
    fitting = [layout for layout in costs if costs[layout].total_bytes <= made.chip.hbm_bytes]
    if fitting:
        return min(fitting, key=lambda layout: costs[layout].total_s)
    smallest = min(costs, key=lambda layout: costs[layout].total_bytes)
    logger.warning(
        "%s may not fit: layout %s is predicted to need %.2f times a device's memory",
        config.name,
        smallest.name,
        costs[smallest].total_bytes / made.chip.hbm_bytes,
    )
    return smallest


def _plan_decode(config: PaLMConfig, engine: EngineConfig, chip: Chip, shape: MeshShape) -> Plan:
    if engine.dtype == "float32":
        # The cost model knows bfloat16. Numbers twice as wide are the same on half of everything.
        figures = ("peak_flops", "hbm_bytes", "hbm_bandwidth", "interconnect_bandwidth")
        halves = {figure: getattr(chip, figure) / 2 for figure in figures}
        chip = dataclasses.replace(chip, **halves)
    workload = Workload(
        phase="decode",
        # Rows are padded to a multiple of the chips that have them.
        batch=-(-engine.max_slots // shape.chips) * shape.chips,
        context=engine.context_tokens(config.max_seq_len),
        weights="bf16",
    )
    return plan(config, workload, chips=shape.chips, chip=chip, mesh=shape)

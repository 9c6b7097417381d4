"""The layout to serve a model with: every candidate's cost, and the cheapest that fits.

`plan` is a pure function of shapes and data sheets; it allocates nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import Layout, all_layouts
from serving.chip import Calibration, Chip
from serving.cost_model import Cost, step_cost
from serving.layout import MeshShape, choose_mesh, exclusion
from serving.workload import Workload


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout that was looked at.

    Attributes:
        layout: The layout.
        cost: What a step costs; None where it makes no sense here.
        rejected: Why it was not chosen; None for the chosen one.
    """

    layout: Layout
    cost: Cost | None
    rejected: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A choice of layout, and what it was chosen from.

    Attributes:
        config: The model's shape.
        chip: Data sheet of each chip.
        calibration: How much of it programs get.
        mesh: How the chips are arranged.
        workload: What a step is asked to do.
        candidates: Every layout.
    """

    config: PaLMConfig
    chip: Chip
    calibration: Calibration
    mesh: MeshShape
    workload: Workload
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The cheapest candidate that fits; None if none does."""
        return next((one for one in self.candidates if one.rejected is None), None)

    def mfu(self, cost: Cost) -> float:
        """Model FLOPs utilisation as the paper counts it: 2·N FLOPs a token over the peak."""
        model_flops = 2.0 * self.config.num_parameters * self.workload.tokens
        return model_flops / (cost.total_s * self.mesh.chips * self.chip.peak_flops)

    def require_chosen(self) -> tuple[Layout, Cost]:
        """The chosen layout and its cost.

        Raises:
            ConfigError: None fits; the message names the chips, what the nearest needs and what
                there is.
        """
        if self.chosen is not None and self.chosen.cost is not None:
            return self.chosen.layout, self.chosen.cost
        sizes = [one.cost.total_bytes for one in self.candidates if one.cost is not None]
        needed = f"; the smallest needs {_gigabytes(min(sizes))} a chip" if sizes else ""
        raise ConfigError(
            f"no layout fits {self.config.name} on chips={self.mesh.chips} with "
            f"{_gigabytes(self.chip.hbm_bytes)} each{needed}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON; times in seconds, sizes in bytes of one chip."""
        return {
            "model": self.config.name,
            "chips": self.mesh.chips,
            "mesh": dict(self.mesh.sizes),
            "chip": dataclasses.asdict(self.chip),
            "calibration": dataclasses.asdict(self.calibration),
            "workload": dataclasses.asdict(self.workload),
            "chosen": None if self.chosen is None else self.chosen.layout.name,
            "candidates": [self._candidate_dict(one) for one in self.candidates],
        }

    def _candidate_dict(self, candidate: Candidate) -> dict[str, Any]:
        values: dict[str, Any] = {"layout": candidate.layout.name, "rejected": candidate.rejected}
        if candidate.cost is not None:
            values |= dataclasses.asdict(candidate.cost)
            for derived in ("communication_s", "total_s", "total_bytes"):
                values[derived] = getattr(candidate.cost, derived)
            values["mfu"] = self.mfu(candidate.cost)
        return values


def plan(
    config: PaLMConfig,
    workload: Workload,
    *,
    chips: int,
    chip: Chip,
    calibration: Calibration | None = None,
    mesh: MeshShape | None = None,
) -> Plan:
    """Choose a layout.

    Args:
        config: The model's shape.
        workload: What a step is asked to do.
        chips: How many chips.
        chip: The data sheet of each.
        calibration: How much of it programs get; fitted to the paper's figures by default.
        mesh: How they are arranged; by `choose_mesh` if None.

    Raises:
        ConfigError: `mesh` has another number of chips.
    """
    calibration = Calibration() if calibration is None else calibration
    mesh = choose_mesh(config, chips) if mesh is None else mesh
    if mesh.chips != chips:
        raise ConfigError(f"mesh of {mesh.chips} chips must have chips={chips}")
    considered = [
        _consider(config, layout, mesh, workload, chip, calibration) for layout in all_layouts()
    ]
    return Plan(
        config=config,
        chip=chip,
        calibration=calibration,
        mesh=mesh,
        workload=workload,
        candidates=_reject_slower(considered),
    )


def _consider(
    config: PaLMConfig,
    layout: Layout,
    mesh: MeshShape,
    workload: Workload,
    chip: Chip,
    calibration: Calibration,
) -> Candidate:
    """A layout's cost, or why it has none; rejected if it is out or does not fit."""
    excluded = exclusion(layout, mesh, workload.batch)
    if excluded is not None:
        return Candidate(layout=layout, cost=None, rejected=excluded)
    try:
        cost = step_cost(config, layout, mesh, workload, chip, calibration)
    except ConfigError as error:
        return Candidate(layout=layout, cost=None, rejected=str(error))
    return Candidate(layout=layout, cost=cost, rejected=_too_large(cost, chip))


def _too_large(cost: Cost, chip: Chip) -> str | None:
    if cost.total_bytes <= chip.hbm_bytes:
        return None
    return f"needs {cost.total_bytes / 1e9:.1f} of {_gigabytes(chip.hbm_bytes)} a chip"


def _reject_slower(considered: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, with all that fit but the fastest rejected."""
    times = {
        one.layout: one.cost.total_s
        for one in considered
        if one.rejected is None and one.cost is not None
    }
    if not times:
        return tuple(considered)
    best = min(times, key=times.__getitem__)
    return tuple(
        dataclasses.replace(
            one, rejected=f"{times[one.layout] / times[best]:.2f} x the time of {best.name}"
        )
        if one.layout in times and one.layout != best
        else one
        for one in considered
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"

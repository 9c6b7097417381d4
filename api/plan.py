"""`talipot plan`: the layout to serve a model with, what it costs, and what else was looked at."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from api.config import PlanConfig
from api.info import read_model_config
from serving.cost_model import Cost
from serving.layout import MeshShape
from serving.plan import Candidate, Plan, plan
from serving.workload import Workload


def make_plan(config: PlanConfig) -> Plan:
    """Plan what the options describe; reads a model's shape alone.

    Raises:
        CheckpointError: There is no such model.
        ConfigError: The mesh does not have that many chips.
    """
    return plan(
        read_model_config(config.model),
        Workload(
            phase=config.phase,
            batch=config.batch,
            context=config.context,
            weights=config.weights,
        ),
        chips=config.chips,
        chip=config.data_sheet(),
        calibration=config.calibration,
        mesh=None if config.mesh is None else MeshShape.of(config.mesh, config.chips),
    )


def render(made: Plan) -> RenderableType:
    """The plan for people."""
    parts: list[RenderableType] = [_candidates(made)]
    if made.chosen is not None and made.chosen.cost is not None:
        parts.insert(0, _chosen(made, made.chosen, made.chosen.cost))
    return Group(*parts)


def _chosen(made: Plan, chosen: Candidate, cost: Cost) -> Table:
    mesh, work, calibration = made.mesh, made.workload, made.calibration
    table = Table(
        title=f"[bold]{made.config.name}[/bold] {work.phase} on {mesh.chips} {made.chip.name}",
        title_justify="left",
        show_header=False,
        box=None,
        padding=(0, 2),
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    table.add_row("Layout", f"[bold]{chosen.layout.name}[/bold] on mesh {mesh}")
    table.add_row(
        "Step", f"batch {work.batch:,}, context {work.context:,} tokens, {work.weights} weights"
    )
    table.add_row("Predicted", f"[bold]{_predicted(made, cost)}[/bold], MFU {made.mfu(cost):.1%}")
    table.add_row(
        "Compute", f"{_time(cost.compute_s)} at {calibration.compute_efficiency:.0%} of peak"
    )
    table.add_row(
        "Memory", f"{_time(cost.memory_s)} at {calibration.memory_efficiency:.0%} of bandwidth"
    )
    table.add_row(
        "Communication",
        f"{_time(cost.communication_s)}: {_gigabytes(cost.communicated_bytes)} at "
        f"{calibration.interconnect_efficiency:.0%} of bandwidth {_time(cost.transfer_s)}, "
        f"hops of {calibration.hop_latency_us:g} us {_time(cost.latency_s)}",
    )
    table.add_row(
        "Memory a chip",
        f"{_gigabytes(cost.total_bytes)} of {_gigabytes(made.chip.hbm_bytes)}: weights "
        f"{_gigabytes(cost.weight_bytes)}, KV {_gigabytes(cost.kv_bytes)}, activations "
        f"{_gigabytes(cost.activation_bytes)}",
    )
    if cost.padded_heads != made.config.num_heads:
        table.add_row("Padding", f"{made.config.num_heads} heads to {cost.padded_heads}")
    return table


def _predicted(made: Plan, cost: Cost) -> str:
    if made.workload.phase == "decode":
        return f"{cost.total_s * 1e3:.2f} ms a token"
    return f"{cost.total_s:.3g} s a prefill"


def _candidates(made: Plan) -> Table:
    table = Table(
        title="\nCandidates (feed-forward/attention)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("Layout", style="cyan", no_wrap=True)
    for heading in ("Compute", "Memory", "Comm.", "Total", "GB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Verdict", overflow="fold")
    for one in made.candidates:
        verdict = "[bold green]chosen[/bold green]" if one.rejected is None else one.rejected
        table.add_row(one.layout.name, *_figures(one.cost), verdict)
    return table


def _figures(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("",) * 5
    times = (cost.compute_s, cost.memory_s, cost.communication_s, cost.total_s)
    return (*(_time(time) for time in times), f"{cost.total_bytes / 1e9:.1f}")


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"

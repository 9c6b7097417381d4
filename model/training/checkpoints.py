"""Asynchronous Orbax checkpoints of a run, the newest N kept."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from model.errors import ConfigError
from model.training.step import TrainState


class RunCheckpoints:
    """Saves and restores `TrainState`s; a checkpoint named k is the state before step k."""

    def __init__(self, run_dir: Path, *, keep: int) -> None:
        """Open (or make) the run's checkpoint folder."""
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager((run_dir / "checkpoints").absolute(), options=options)

    def save(self, step: int, state: TrainState) -> None:
        """Start writing in the background; a crash meanwhile leaves the older ones valid."""
        self._manager.save(step, args=ocp.args.StandardSave(state._asdict()))

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, rising."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state before `step`, with the shapes, dtypes and shardings of `like`."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            like._asdict(),
        )
        return TrainState(**self._manager.restore(step, args=ocp.args.StandardRestore(abstract)))

    def delete_after(self, step: int) -> None:
        """Drop checkpoints past `step`: the run goes another way from there."""
        for other in self.steps():
            if other > step:
                self._manager.delete(other)

    def wait(self) -> None:
        """Return once everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and release the folder."""
        self._manager.close()


@dataclasses.dataclass(frozen=True)
class RunJournal:
    """What a run must remember beside its states, so that it sees the same spikes when it resumes.

    Attributes:
        path: JSON file.
        skips: (from step, batches skipped after a loss spike), in order.
        losses: For each checkpoint, those of the steps before it that spikes are measured by.
    """

    path: Path
    skips: tuple[tuple[int, int], ...] = ()
    losses: Mapping[int, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, run_dir: Path, fingerprint: dict[str, Any]) -> RunJournal:
        """Read the journal of `run_dir`, or begin one.

        Raises:
            ConfigError: The folder belongs to a run with another model, data or seed.
        """
        path = run_dir / "journal.json"
        if not path.exists():
            journal = cls(path)
            journal._write({"fingerprint": fingerprint, "skips": []})
            return journal
        content = json.loads(path.read_text(encoding="utf-8"))
        for key, expected in fingerprint.items():
            if content["fingerprint"].get(key) != expected:
                raise ConfigError(
                    f"run_dir={str(run_dir)!r} holds a run with {key}="
                    f"{content['fingerprint'].get(key)!r}, not {expected!r}; choose another"
                )
        skips = tuple((int(a), int(b)) for a, b in content["skips"])
        losses = {int(step): tuple(values) for step, values in content.get("losses", {}).items()}
        return cls(path, skips, losses)

    def with_skip(self, step: int, count: int) -> RunJournal:
        """Record that `count` batches are left out from `step` on."""
        return self._updated(skips=(*self.skips, (step, count)))

    def with_losses(self, step: int, recent: Sequence[float], *, kept: Sequence[int]) -> RunJournal:
        """Record the losses before checkpoint `step`, and forget all but those of `kept`."""
        older = {other: losses for other, losses in self.losses.items() if other in kept}
        return self._updated(losses={**older, step: tuple(recent)})

    def _updated(self, **changes: Any) -> RunJournal:
        content = json.loads(self.path.read_text(encoding="utf-8"))
        self._write({**content, **changes})
        return dataclasses.replace(self, **changes)

    def _write(self, content: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.path)

"""Asynchronous Orbax checkpoints of a run, the newest N kept."""

from __future__ import annotations

import dataclasses
import json
import os
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
    """What a run must remember beside its states: the batches skipped after loss spikes.

    Attributes:
        path: JSON file.
        skips: (from step, batches skipped), in order.
    """

    path: Path
    skips: tuple[tuple[int, int], ...] = ()

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
        return cls(path, tuple((int(a), int(b)) for a, b in content["skips"]))

    def with_skip(self, step: int, count: int) -> RunJournal:
        """Record that `count` batches are left out from `step` on."""
        content = json.loads(self.path.read_text(encoding="utf-8"))
        journal = dataclasses.replace(self, skips=(*self.skips, (step, count)))
        journal._write({**content, "skips": journal.skips})
        return journal

    def _write(self, content: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.path)

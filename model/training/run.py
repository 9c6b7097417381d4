"""A training run from first step to last, resumable at any point.

Everything that decides a step's result is a function of the config and the step: the batch, the
learning rate, the update. So a run killed at any moment and started again goes on from its last
checkpoint through bitwise the same losses and weights as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from model.errors import ConfigError, TalipotError
from model.parameters import flatten, init_parameters, unflatten
from model.partition import DATA_AXIS, make_mesh, parameter_shardings
from model.tokenizer import SentencePieceTokenizer
from model.training.checkpoints import RunCheckpoints, RunJournal
from model.training.config import TrainingConfig
from model.training.data import Batches, pack_documents
from model.training.evaluation import Evaluation, evaluate, heldout_tokens
from model.training.optimizer import palm_adafactor
from model.training.progress import Progress, measure_matmul_flops
from model.training.step import StepMetrics, TrainState, train_step

# In one piece: their logits are held all at once.
_EVALUATED_TOKENS = 4096


class DivergedError(TalipotError):
    """The loss spiked more often than the config allows."""

    code = "training_diverged"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Where a run ended.

    Attributes:
        step: Steps taken.
        params: The weights.
        heldout: Loss over the whole held-out file, if there is one.
    """

    step: int
    params: dict[str, Any]
    heldout: Evaluation | None


def train(config: TrainingConfig, *, report: Callable[[str], None] = print) -> TrainingResult:
    """Run (or resume) training to its last step.

    Args:
        config: The run.
        report: Receives progress lines.

    Raises:
        ConfigError: A value or file of the config cannot be used.
        DivergedError: The loss spiked more than `spikes.max_rewinds` times.
    """
    return _Run(config, report).finish()


class _Run:
    def __init__(self, config: TrainingConfig, report: Callable[[str], None]) -> None:
        self._config = config
        self._report = report
        self._run_dir = Path(config.run_dir)
        tokenizer = SentencePieceTokenizer.from_file(Path(config.data.tokenizer))
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ConfigError(
                f"model.vocab_size={config.model.vocab_size} differs from the "
                f"{tokenizer.vocab_size} pieces of data.tokenizer={config.data.tokenizer!r}"
            )
        tokens = pack_documents(config.data, config.seed)
        report(f"{config.model.num_parameters:,} parameters, {len(tokens):,} training tokens")
        self._batches = Batches(config, tokens)
        self._heldout = heldout_tokens(config.data) if config.data.heldout else None
        self._check_heldout()
        self._optimizer = palm_adafactor(config.optimizer, config.steps)
        self._mesh = make_mesh(model_axis=config.model_axis)
        self._check_batch_sizes()
        # Nothing is written before all is known to be usable.
        self._journal = RunJournal.open(
            self._run_dir,
            {
                "model": config.model.to_dict(),
                "data": {"train": list(config.data.train), "repeats": list(config.data.repeats)},
                "seed": config.seed,
            },
        )
        self._checkpoints = RunCheckpoints(self._run_dir, keep=config.keep)
        peak = config.peak_flops or measure_matmul_flops(config.compute_dtype)
        report(
            f"{config.compute_dtype} matmul peak {peak / 1e9:,.0f} GFLOP/s "
            f"on {jax.device_count()} device(s)"
        )
        self._progress = Progress(
            self._run_dir, total_steps=config.steps, peak_flops=peak, report=report
        )

    def finish(self) -> TrainingResult:
        """Take every step that is left."""
        config = self._config
        state = self._initial_state()
        step = max(self._checkpoints.steps(), default=0)
        if step:
            state = self._checkpoints.restore(step, state)
            self._report(f"resumed before step {step}")
        # Losses are read one log interval late, so that the device never waits for the host.
        pending: list[tuple[int, StepMetrics]] = []
        recent = self._losses_before(step)
        compiled: set[int] = set()
        while step < config.steps:
            stage, shape = config.stage_at(step)
            state, metrics = self._take(state, step)
            pending.append((step, metrics))
            step += 1
            if stage not in compiled:
                jax.block_until_ready(metrics)
                compiled.add(stage)
                self._progress.restart_clock()
            else:
                flops = config.model.training_flops_per_token(shape.seq_len)
                self._progress.add(shape.batch_size * shape.seq_len, flops)
            due = step % config.checkpoint_every == 0 or step == config.steps
            if step % config.log_every == 0 or due:
                spike = self._read(pending, recent)
                pending = []
                if spike is not None:
                    step, state = self._rewind(spike, state)
                    recent = self._losses_before(step)
                    continue
            if due:
                kept = self._checkpoints.steps()
                self._journal = self._journal.with_losses(step, recent, kept=kept)
                # The data behind the host's copy must not be donated to the next step.
                self._checkpoints.save(step, state)
            if config.eval_every and step % config.eval_every == 0 and step < config.steps:
                self._evaluate(step, state, config.eval_tokens)
        self._checkpoints.wait()
        heldout = self._evaluate(step, state, None)
        self._checkpoints.close()
        return TrainingResult(step=step, params=state.params, heldout=heldout)

    def _losses_before(self, step: int) -> deque[float]:
        """The losses that a spike after `step` is measured by, also where the run resumes."""
        return deque(self._journal.losses.get(step, ()), maxlen=self._config.spikes.window)

    def _check_heldout(self) -> None:
        """Better before the first step than after the last."""
        longest = max(stage.seq_len for stage in self._config.stages)
        if self._heldout is not None and len(self._heldout) <= longest:
            raise ConfigError(
                f"data.heldout={self._config.data.heldout!r} has {len(self._heldout)} tokens; "
                f"one window of stages.seq_len={longest} needs {longest + 1}"
            )

    def _check_batch_sizes(self) -> None:
        rows = self._mesh.shape[DATA_AXIS]
        for stage in self._config.stages:
            if stage.batch_size % rows:
                raise ConfigError(
                    f"stages.batch_size={stage.batch_size} must be a multiple of {rows}, the "
                    f"devices along the mesh's {DATA_AXIS} axis "
                    f"({jax.device_count()} devices / model_axis={self._config.model_axis})"
                )

    def _initial_state(self) -> TrainState:
        config = self._config.model
        shardings = parameter_shardings(config, self._mesh)
        fresh = flatten(init_parameters(config, jax.random.key(self._config.seed)))
        params = unflatten(
            {name: jax.device_put(value, shardings[name]) for name, value in fresh.items()}
        )
        replicated = NamedSharding(self._mesh, PartitionSpec())
        # Moments lie where their parameters do. What else there is must be on the mesh too: the
        # first step would be compiled for it alone, and a restored one could not run at all.
        placed = jax.tree.map(
            lambda x: x if isinstance(x.sharding, NamedSharding) else jax.device_put(x, replicated),
            self._optimizer.init(params),
        )
        return TrainState(params, placed)

    def _take(self, state: TrainState, step: int) -> tuple[TrainState, StepMetrics]:
        windows = jax.device_put(
            jnp.asarray(self._batches.at(step, self._journal.skips), jnp.int32),
            NamedSharding(self._mesh, PartitionSpec(DATA_AXIS)),
        )
        state, metrics = train_step(
            state,
            windows,
            config=self._config.model,
            optimizer=self._optimizer,
            z_weight=self._config.optimizer.z_loss,
            dtype=self._config.compute_dtype,
        )
        return state, metrics

    def _read(self, pending: list[tuple[int, StepMetrics]], recent: deque[float]) -> int | None:
        """Look at finished steps; returns the step of a loss spike, if there is one."""
        spikes = self._config.spikes
        losses = []
        for step, metrics in pending:
            loss = float(metrics.loss)
            median = statistics.median(recent) if len(recent) == spikes.window else None
            if loss != loss or (median is not None and loss > median + spikes.threshold):
                self._report(f"step {step}: the loss spiked to {loss:.3f}")
                return step
            recent.append(loss)
            losses.append(loss)
        step, last = pending[-1]
        self._progress.line(
            step + 1,
            loss=statistics.fmean(losses),
            z_loss=float(last.z_loss),
            grad_norm=float(last.grad_norm),
        )
        return None

    def _rewind(self, spike: int, state: TrainState) -> tuple[int, TrainState]:
        """Go back to a checkpoint well before the spike and skip the batches around it."""
        spikes = self._config.spikes
        if len(self._journal.skips) >= spikes.max_rewinds:
            raise DivergedError(
                f"the loss spiked at step {spike}, after spikes.max_rewinds={spikes.max_rewinds} "
                "rewinds; lower optimizer.learning_rate or look at the data"
            )
        self._checkpoints.wait()
        saved = self._checkpoints.steps()
        before = [step for step in saved if step <= spike - spikes.rewind_steps]
        # With none far enough back, the oldest that is left is the best there is.
        target = max(before) if before else min((s for s in saved if s <= spike), default=0)
        self._checkpoints.delete_after(target)
        self._journal = self._journal.with_skip(target, spikes.skip_batches + spike - target)
        self._report(f"back to step {target}, skipping {spikes.skip_batches} batches past {spike}")
        self._progress.record(step=spike, spike=True, rewound_to=target)
        self._progress.restart_clock()
        if target == 0:
            return 0, self._initial_state()
        return target, self._checkpoints.restore(target, state)

    def _evaluate(self, step: int, state: TrainState, max_tokens: int | None) -> Evaluation | None:
        if self._heldout is None:
            return None
        _, stage = self._config.stage_at(step)
        result = evaluate(
            self._config.model,
            state.params,
            self._heldout,
            Path(self._config.data.tokenizer),
            seq_len=stage.seq_len,
            batch_size=max(1, _EVALUATED_TOKENS // stage.seq_len),
            max_tokens=max_tokens,
        )
        self._report(
            f"step {step} held-out {result.bits_per_byte:.4f} bits per byte "
            f"({result.nats_per_token:.4f} nats per token, {result.bytes:,} bytes)"
        )
        self._progress.record(step=step, heldout=dataclasses.asdict(result))
        self._progress.restart_clock()
        return result

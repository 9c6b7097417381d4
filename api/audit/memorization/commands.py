"""From the settings of `talipot audit memorization` to a finished run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.audit.memorization.audit import HELD_OUT, TRAINING, MemorizationAudit, PassageSet
from api.audit.memorization.config import MemorizationConfig
from api.audit.memorization.samples import FreeSamples
from api.audit.run import run_audit
from api.config import DEFAULT_MODEL
from api.errors import AuditError
from memorization.errors import MemorizationError
from memorization.index import TrainingIndex
from memorization.opening import open_index, sure_tokens
from memorization.studies.binned import draw_by_occurrences
from memorization.studies.occurrences import occurrences
from memorization.studies.passages import Cut, Passage, draw_passages
from memorization.tokenizer import tokenizer_identity
from model.checkpoint import resolve_model
from model.tokenizer import Tokenizer, load_tokenizer
from safety.audits import loading
from safety.audits.errors import AuditDataError


def memorization(config: MemorizationConfig) -> None:
    """Run `audit memorization`."""
    try:
        audit = memorization_audit(config)
    except (MemorizationError, AuditDataError) as error:
        raise AuditError(str(error)) from None
    path = asyncio.run(run_audit(audit, config.run, config.target, None, Console(stderr=True)))
    typer.echo(f"wrote {path}")


def memorization_audit(config: MemorizationConfig) -> MemorizationAudit:
    """Draw the passages and count them.

    Raises:
        AuditError: The index is not sure to find passages as short as these.
        AuditDataError: A file cannot be read.
        CheckpointError: The tokenizer is not found.
        MemorizationError: A corpus or the index cannot be read, or is not what was asked for.
    """
    name = config.tokenizer or config.target.model or DEFAULT_MODEL
    tokenizer = load_tokenizer(resolve_model(name))
    cut = Cut(prompt_tokens=config.prompt_lengths, continuation_tokens=config.continuation_tokens)
    index = None if config.index is None else open_index(config.index, tokenizer)
    if index is not None and cut.total_tokens < sure_tokens(index):
        raise AuditError(
            f"passages of {cut.total_tokens} tokens are too short to be counted: "
            f"{config.index} finds runs from {sure_tokens(index)} tokens on"
        )
    free = config.free
    if index is not None and free.samples and free.trace_tokens < sure_tokens(index):
        raise AuditError(
            f"trace_tokens={free.trace_tokens} must be at least {sure_tokens(index)}: "
            f"{config.index} finds runs from there on"
        )
    sets = [_training(config, tokenizer, cut, index)]
    if config.held_out is not None:
        passages = draw_passages(
            [config.held_out], tokenizer, cut, count=config.passages, seed=config.run.seed
        )
        counts = None if index is None else [occurrences(index, one.tokens) for one in passages]
        sets.append(_passage_set(HELD_OUT, config.held_out, passages, counts))
    return MemorizationAudit(
        sets=tuple(sets),
        cut=cut,
        tokenizer=tokenizer,
        tokenizer_name=tokenizer_identity(tokenizer)[:12],
        index=config.index,
        tracer=index,
        per_bin=config.per_bin,
        free=_free_samples(config, tokenizer),
        seed=config.run.seed,
    )


def _training(
    config: MemorizationConfig, tokenizer: Tokenizer, cut: Cut, index: TrainingIndex | None
) -> PassageSet:
    counts = None
    if index is not None and config.per_bin is not None:
        with _counting(config.candidates) as on_counted:
            passages, counts = draw_by_occurrences(
                [config.data],
                tokenizer,
                cut,
                index,
                per_bin=config.per_bin,
                candidates=config.candidates,
                seed=config.run.seed,
                on_counted=on_counted,
            )
    else:
        passages = draw_passages(
            [config.data], tokenizer, cut, count=config.passages, seed=config.run.seed
        )
        if index is not None:
            counts = [occurrences(index, passage.tokens) for passage in passages]
    return _passage_set(TRAINING, config.data, passages, counts)


def _passage_set(
    name: str, path: Path, passages: Sequence[Passage], counts: Sequence[int] | None
) -> PassageSet:
    return PassageSet(
        name=name,
        data=f"{path.name}, sha256 {loading.digest(path)}",
        passages=tuple(passages),
        counts=None if counts is None else tuple(counts),
    )


def _free_samples(config: MemorizationConfig, tokenizer: Tokenizer) -> FreeSamples | None:
    free = config.free
    if not free.samples or config.held_out is None:
        return None
    cut = Cut(prompt_tokens=(free.sample_prompt_tokens,), continuation_tokens=1)
    drawn = draw_passages(
        [config.held_out], tokenizer, cut, count=free.samples, seed=config.run.seed
    )
    return FreeSamples(
        prompts=tuple(passage.prompts[0] for passage in drawn),
        max_tokens=free.sample_tokens,
        temperature=free.temperature,
        top_k=free.top_k,
        min_tokens=free.trace_tokens,
        seed=config.run.seed,
    )


@contextlib.contextmanager
def _counting(candidates: int) -> Iterator[Callable[[], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("counting {task.completed:,.0f} of {task.total:,.0f} passages"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("counting", total=candidates)
        yield lambda: progress.advance(task)

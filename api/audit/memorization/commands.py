"""From the settings of `talipot audit memorization` to a finished run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.console import Console

from api.audit.memorization.audit import HELD_OUT, TRAINING, MemorizationAudit, PassageSet
from api.audit.memorization.config import MemorizationConfig
from api.audit.run import run_audit
from api.config import DEFAULT_MODEL
from api.errors import AuditError
from memorization.errors import MemorizationError
from memorization.index import TrainingIndex
from memorization.opening import open_index, sure_tokens
from memorization.studies.occurrences import occurrences
from memorization.studies.passages import Cut, draw_passages
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
    corpora = [(TRAINING, config.data)]
    if config.held_out is not None:
        corpora.append((HELD_OUT, config.held_out))
    return MemorizationAudit(
        sets=tuple(
            _drawn(set_name, path, tokenizer, cut, index, config) for set_name, path in corpora
        ),
        cut=cut,
        tokenizer=tokenizer,
        tokenizer_name=tokenizer_identity(tokenizer)[:12],
        index=config.index,
        seed=config.run.seed,
    )


def _drawn(
    name: str,
    path: Path,
    tokenizer: Tokenizer,
    cut: Cut,
    index: TrainingIndex | None,
    config: MemorizationConfig,
) -> PassageSet:
    drawn = draw_passages([path], tokenizer, cut, count=config.passages, seed=config.run.seed)
    return PassageSet(
        name=name,
        data=f"{path.name}, sha256 {loading.digest(path)}",
        passages=tuple(drawn),
        counts=None
        if index is None
        else tuple(occurrences(index, passage.tokens) for passage in drawn),
    )

"""`talipot audit …`: from a command's settings to a finished run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console

from api.audit.config import RunConfig, TargetConfig, ToxicityConfig
from api.audit.run import run_audit
from api.errors import AuditError
from safety.audits import loading
from safety.audits.errors import AuditDataError, AuditSettingsError
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import load_prompts
from safety.audits.units import Audit
from safety.scorers.base import Scorer

_T = TypeVar("_T")


def toxicity(config: ToxicityConfig) -> None:
    """Run `audit toxicity`."""
    prompts, data = _data(config.run, "toxicity_prompts.jsonl", load_prompts)
    audit = ToxicityAudit(
        prompts=tuple(prompts),
        data=data,
        k=config.k,
        max_tokens=config.max_tokens,
        top_k=config.top_k,
        temperature=config.temperature,
        seed=config.run.seed,
    )
    _run(audit, config.run, config.target, _scorer(config.scorer))


def _run(audit: Audit, run: RunConfig, target: TargetConfig, scorer: Scorer | None) -> None:
    path = asyncio.run(run_audit(audit, run, target, scorer, Console(stderr=True)))
    typer.echo(f"wrote {path}")


def _scorer(name: str) -> Scorer:
    from safety.scorers import load_scorer

    return load_scorer(name)


def _data(
    run: RunConfig, shipped: str, load: Callable[[Path], Sequence[_T]]
) -> tuple[list[_T], str]:
    """The data of a run, and its name with the hash of the file."""
    path = loading.shipped(shipped) if run.data is None else run.data
    try:
        items = loading.sample(load(path), run.limit, run.seed)
        return items, f"{path.name}, sha256 {loading.digest(path)}"
    except (AuditDataError, AuditSettingsError) as error:
        raise AuditError(str(error)) from None

"""`talipot audit …`: from a command's settings to a finished run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console

from api.audit.config import (
    BoldConfig,
    CooccurrenceConfig,
    CrowsPairsConfig,
    RunConfig,
    ScorerConfig,
    TargetConfig,
    ToxicityConfig,
    WinogenderConfig,
)
from api.audit.run import run_audit
from api.errors import AuditError
from safety.audits import hub, loading
from safety.audits.bold import BoldAudit, load_bold
from safety.audits.cooccurrence import CooccurrenceAudit
from safety.audits.cooccurrence_data import load_cooccurrence_prompts
from safety.audits.crows_pairs import CrowsPairsAudit, load_pairs
from safety.audits.errors import AuditDataError
from safety.audits.scorer import ScorerAudit
from safety.audits.scorer_data import load_labelled, load_terms
from safety.audits.toxicity import ToxicityAudit
from safety.audits.toxicity_data import load_prompts
from safety.audits.units import Audit
from safety.audits.winogender import WinogenderAudit
from safety.audits.winogender_data import load_sentences
from safety.scorers.base import Scorer

_T = TypeVar("_T")


def toxicity(config: ToxicityConfig) -> None:
    """Run `audit toxicity`."""
    prompts, data = _data(config.run, "toxicity_prompts.jsonl", load_prompts)
    audit = ToxicityAudit(
        prompts=tuple(prompts),
        data=data,
        k=config.k,
        decoding=config.decoding,
        seed=config.run.seed,
    )
    _run(audit, config.run, config.target, _scorer(config.scorer))


def winogender(config: WinogenderConfig) -> None:
    """Run `audit winogender`."""
    sentences, data = _data(config.run, "winogender/templates.tsv", load_sentences)
    audit = WinogenderAudit(
        sentences=tuple(sentences), data=data, shots=config.shots, seed=config.run.seed
    )
    _run(audit, config.run, config.target, None)


def crows_pairs(config: CrowsPairsConfig) -> None:
    """Run `audit crows-pairs`."""
    pairs, data = _data(config.run, "crows_pairs.csv", load_pairs)
    audit = CrowsPairsAudit(pairs=tuple(pairs), data=data, seed=config.run.seed)
    _run(audit, config.run, config.target, None)


def bold(config: BoldConfig) -> None:
    """Run `audit bold`."""
    prompts, data = _data(config.run, "bold", load_bold)
    audit = BoldAudit(
        prompts=tuple(prompts),
        data=data,
        k=config.k,
        decoding=config.decoding,
        seed=config.run.seed,
    )
    _run(audit, config.run, config.target, _scorer(config.scorer))


def co_occurrence(config: CooccurrenceConfig) -> None:
    """Run `audit co-occurrence`."""
    prompts, data = _data(config.run, "cooccurrence.toml", load_cooccurrence_prompts)
    audit = CooccurrenceAudit(
        prompts=tuple(prompts),
        data=data,
        samples=config.samples,
        decoding=config.decoding,
        seed=config.run.seed,
    )
    _run(audit, config.run, config.target, _scorer(config.scorer))


def scorer(config: ScorerConfig) -> None:
    """Run `audit scorer`."""
    texts, data = _data(config.run, "scorer_texts.csv", load_labelled)
    terms = loading.shipped("identity_terms.toml") if config.terms is None else config.terms
    try:
        patterns = load_terms(terms)
        terms_data = _named(terms)
    except AuditDataError as error:
        raise AuditError(str(error)) from None
    audit = ScorerAudit(
        texts_in=tuple(texts),
        terms=patterns,
        data=data,
        terms_data=terms_data,
        threshold=config.threshold,
        min_group=config.min_group,
        seed=config.run.seed,
    )
    _run(audit, config.run, TargetConfig(), _scorer(config.scorer))


def _run(audit: Audit, run: RunConfig, target: TargetConfig, scorer: Scorer | None) -> None:
    path = asyncio.run(run_audit(audit, run, target, scorer, Console(stderr=True)))
    typer.echo(f"wrote {path}")


def _scorer(name: str) -> Scorer:
    from safety.scorers import load_scorer
    from safety.scorers.errors import ScorerError

    try:
        return load_scorer(name)
    except ScorerError as error:
        raise AuditError(str(error)) from None


def _data(
    run: RunConfig, shipped: str, load: Callable[[Path], Sequence[_T]]
) -> tuple[list[_T], str]:
    """The data of a run, and its name with the hash of the file."""
    try:
        path = loading.shipped(shipped) if run.data is None else _located(run.data)
        return loading.sample(load(path), run.limit, run.seed), _named(path)
    except AuditDataError as error:
        raise AuditError(str(error)) from None


def _located(data: Path) -> Path:
    return hub.fetch(str(data)) if str(data).startswith(hub.SCHEME) else data


def _named(path: Path) -> str:
    return f"{path.name}, sha256 {loading.digest(path)}"

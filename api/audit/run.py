"""A run from beginning to end: folder, model, units, findings, files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from api.audit.config import RunConfig, TargetConfig
from api.audit.folder import RunFolder, sound
from api.audit.generators import find_model
from api.audit.generators.found import FoundModel
from api.audit.rendering.page import Provenance, render
from api.audit.runner import Runner
from api.batch.progress import BatchProgress
from api.errors import AuditError
from api.installation import version
from safety.audits.errors import AuditDataError, AuditSettingsError
from safety.audits.units import Audit, Findings
from safety.scorers.base import Scorer

FORMAT = 1
REPORT = "report.html"
"""Written last, when all else of a run is there."""


async def run_audit(
    audit: Audit, run: RunConfig, target: TargetConfig, scorer: Scorer | None, console: Console
) -> Path:
    """Run an audit, or the rest of it, and write its files; returns the report's path.

    Raises:
        AuditError: The folder holds another run, or the model is gone; what is done is kept.
        TalipotError: The model cannot be loaded.
    """
    if not audit.needs_model:
        return await run_on(audit, run, None, scorer, console)

    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    async with find_model(target, note) as model:
        return await run_on(audit, run, model, scorer, console, target.max_in_flight)


async def run_on(
    audit: Audit,
    run: RunConfig,
    model: FoundModel | None,
    scorer: Scorer | None,
    console: Console,
    max_in_flight: int = 128,
) -> Path:
    """`run_audit` on a model that is found; it is made ready if there is something to ask."""
    identity = identity_of(audit, model, scorer)
    units = audit.units()
    with RunFolder(run.out or _default_folder(audit, model), identity) as folder:
        done = sum(unit.id in folder.records for unit in units)
        progress = BatchProgress(len(units), done, console, "units", has_tokens=audit.needs_model)
        if done == len(units):
            progress.note(f"all {done} units are done; making the report again")
        else:
            async with contextlib.nullcontext() if model is None else model.ready() as generator:
                runner = Runner(
                    audit=audit,
                    generator=generator,
                    scorer=scorer,
                    folder=folder,
                    progress=progress,
                    max_in_flight=max_in_flight,
                )
                async with progress.shown():
                    await runner.run(units)
        try:
            labels = () if scorer is None else scorer.labels
            findings = audit.findings(folder.records, labels)
        except (AuditDataError, AuditSettingsError) as error:
            raise AuditError(str(error)) from None
        return write_findings(folder, identity, findings, with_parquet=run.parquet)


def identity_of(audit: Audit, model: FoundModel | None, scorer: Scorer | None) -> dict[str, Any]:
    """All that a run's numbers depend on."""
    return {
        "format": FORMAT,
        "audit": audit.name,
        "settings": dict(audit.settings),
        "model": None if model is None else {"name": model.name, "version": model.version},
        "scorer": None
        if scorer is None
        else {"name": scorer.name, "version": scorer.version, "labels": list(scorer.labels)},
    }


def write_findings(
    folder: RunFolder, identity: Mapping[str, Any], findings: Findings, *, with_parquet: bool
) -> Path:
    """Write results, summary and report into the folder; returns the report's path."""
    lines = (json.dumps(row, ensure_ascii=True) + "\n" for row in findings.rows)
    folder.write("results.jsonl", "".join(lines))
    if with_parquet:
        _write_parquet(folder.path / "results.parquet", findings.rows)
    summary = {**identity, "talipot": version(), "metrics": findings.metrics}
    folder.write("summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return folder.write(REPORT, render(findings.report, Provenance.of(identity)))


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = json.loads(sound(json.dumps(list(rows), ensure_ascii=False)))
    pq.write_table(pa.Table.from_pylist(plain), path)


def _default_folder(audit: Audit, model: FoundModel | None) -> Path:
    suffix = "" if model is None else f"-{model.name.replace('/', '-')}"
    return Path("audits") / f"{audit.name}{suffix}"

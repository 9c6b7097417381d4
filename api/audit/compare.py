"""`talipot audit compare`: two finished runs, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from api.audit.config import CompareConfig
from api.audit.folder import RunFolder
from api.audit.run import write_findings
from api.errors import AuditError
from safety.audits import comparison
from safety.audits.errors import AuditSettingsError
from safety.audits.units import Findings


def run_compare(config: CompareConfig) -> None:
    """Compare two runs and write the report.

    Raises:
        AuditError: A folder holds no finished run, or the two cannot be compared.
    """
    first, second = _read(config.first), _read(config.second)
    try:
        differences = comparison.compare(first, second)
    except AuditSettingsError as error:
        raise AuditError(str(error)) from None
    identity = {"audit": f"compare {first.identity['audit']}", "settings": _settings(first, second)}
    name = f"compare-{config.first.resolve().name}-{config.second.resolve().name}"
    findings = Findings(
        metrics=comparison.to_json(differences),
        rows=[{"measure": key, **found} for key, found in comparison.to_json(differences).items()],
        report=comparison.report(first, second, differences),
    )
    with RunFolder(config.out or Path("audits") / name, identity) as folder:
        path = write_findings(folder, identity, findings, with_parquet=False)
    typer.echo(f"wrote {path}")


def _read(folder: Path) -> comparison.Run:
    run, results = folder / "run.json", folder / "results.jsonl"
    try:
        identity: dict[str, Any] = json.loads(run.read_bytes())
        with results.open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    except OSError as error:
        raise AuditError(
            f"{folder} holds no finished run: {error.filename}: {error.strerror}"
        ) from None
    except ValueError as error:
        raise AuditError(f"{folder} holds a damaged run: no JSON: {error}") from None
    return comparison.Run(name=str(folder), identity=identity, rows=rows)


def _settings(first: comparison.Run, second: comparison.Run) -> dict[str, str]:
    """What the runs depend on, once where it is the same in both."""
    found: dict[str, str] = {}
    for field in ("model", "scorer", "settings"):
        one, other = first.identity.get(field), second.identity.get(field)
        if one == other:
            found |= {} if one is None else {field: _shown(one)}
        else:
            found |= {f"{field} of A": _shown(one), f"{field} of B": _shown(other)}
    return found


def _shown(value: Any) -> str:
    if "name" in value:
        return f"{value['name']} ({value['version']})"
    return ", ".join(f"{key} {one}" for key, one in value.items())

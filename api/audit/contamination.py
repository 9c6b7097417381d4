"""`talipot audit contamination`: a benchmark split by whether the training text has it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from api.audit.contamination_config import ContaminationConfig
from api.audit.contamination_report import findings
from api.audit.folder import RunFolder
from api.audit.run import FORMAT, write_findings
from api.errors import AuditError
from memorization.corpus import corpus_files, read_corpus
from memorization.errors import MemorizationError
from memorization.studies.contamination import Contamination, measure_contamination
from safety.audits import loading
from safety.audits.errors import AuditDataError

SPLITS = ("clean", "contaminated", "undecided")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A line of a benchmark.

    Attributes:
        line: Its number.
        fields: All of it.
        texts: What is looked for.
    """

    line: int
    fields: Mapping[str, Any]
    texts: tuple[str, ...]


def run_contamination(config: ContaminationConfig) -> None:
    """Split a benchmark and write the report.

    Raises:
        AuditError: A file cannot be read, or the folder holds another run.
    """
    try:
        examples = load_benchmark(config.benchmark, config.fields)
        identity = _identity(config)
        corpus = read_corpus(corpus_files([config.data]))
        with _progress() as on_characters:
            found = measure_contamination(
                [one.texts for one in examples],
                corpus,
                ngram_words=config.ngram_words,
                on_characters=on_characters,
            )
    except (AuditDataError, MemorizationError) as error:
        raise AuditError(str(error)) from None
    splits = [split_of(one, config.threshold) for one in found]
    out = config.out or Path("audits") / f"contamination-{config.benchmark.stem}"
    with RunFolder(out, identity) as folder:
        for split in SPLITS:
            lines = (
                json.dumps(one.fields) + "\n"
                for one, name in zip(examples, splits, strict=True)
                if name == split
            )
            folder.write(f"{split}.jsonl", "".join(lines))
        results = findings(config, [one.line for one in examples], found, splits)
        path = write_findings(folder, identity, results, with_parquet=False)
    counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
    typer.echo(f"{counts}\nwrote {path}")


def load_benchmark(path: Path, fields: Sequence[str]) -> list[Example]:
    """The examples of a JSONL file.

    Raises:
        AuditDataError: It cannot be read, or a field holds neither a text nor a list of texts.
    """
    examples = [
        Example(
            line=number,
            fields=row,
            texts=tuple(text for field in fields for text in _texts(path, number, row, field)),
        )
        for number, row in loading.json_lines(path)
    ]
    return loading.at_least_one(path, examples, "example")


def split_of(one: Contamination, threshold: float) -> str:
    """Into which of `SPLITS` an example belongs."""
    if one.share is None:
        return "undecided"
    return "contaminated" if one.share >= threshold else "clean"


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("reading the training text: {task.completed:,.0f} characters"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda characters: progress.advance(task, characters)


def _texts(path: Path, number: int, row: Mapping[str, Any], field: str) -> list[str]:
    value = row.get(field)
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str)]
    if field not in row or len(texts) < len(values):
        shown = "missing" if field not in row else f"{value!r:.60}"
        raise AuditDataError(
            f"{path} line {number}: field {field!r} is {shown}; expected a text or a list of texts"
        )
    return texts


def _identity(config: ContaminationConfig) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "audit": "contamination",
        "settings": {
            "benchmark": f"{config.benchmark.name}, sha256 {loading.digest(config.benchmark)}",
            "training text": f"{config.data.name}, sha256 {loading.digest(config.data)}",
            "fields": list(config.fields),
            "ngram_words": config.ngram_words,
            "threshold": config.threshold,
        },
    }

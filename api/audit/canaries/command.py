"""From the settings of `talipot audit canaries` to trained models, answers and a report."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from api.audit.canaries.config import CanariesConfig
from api.audit.canaries.figures import Asked
from api.audit.canaries.report import findings
from api.audit.canaries.training import trained_model, training_config, write_text
from api.audit.config import RunConfig, TargetConfig
from api.audit.folder import RunFolder
from api.audit.memorization.audit import HELD_OUT, TRAINING, MemorizationAudit, PassageSet
from api.audit.rendering.standalone import standalone_svg
from api.audit.run import FORMAT, run_audit, write_findings
from api.errors import AuditError
from api.info import read_model_config
from memorization.errors import MemorizationError
from memorization.studies.canaries import Canary, draw_canaries
from memorization.tokenizer import tokenizer_identity
from model.checkpoint import resolve_model
from model.tokenizer import SentencePieceTokenizer, Tokenizer, load_tokenizer
from safety.audits import loading
from safety.audits.errors import AuditDataError
from safety.audits.report import LineFigure

_DEFAULT_FOLDER = Path("audits") / "canaries"


def canaries(config: CanariesConfig) -> None:
    """Run `audit canaries`, or the rest of it."""
    console = Console(stderr=True)

    try:
        path = run_canaries(config, console)
    except (MemorizationError, AuditDataError) as error:
        raise AuditError(str(error)) from None
    typer.echo(f"wrote {path}")


def run_canaries(config: CanariesConfig, console: Console) -> Path:
    """Train every model, ask it for the canaries, and write the report; returns its path.

    Raises:
        AuditError: The folder holds another experiment.
        ConfigError: A model cannot be trained as the settings say.
        CorpusError: The corpus or the tokenizer does not do.
    """

    def note(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    source = resolve_model(config.tokenizer)
    tokenizer = load_tokenizer(source)
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise AuditError(f"tokenizer={config.tokenizer!r}: training needs a SentencePiece model")
    drawn = draw_canaries(tokenizer, config.cut, config.counts, seed=config.run.seed)
    identity = _identity(config, tokenizer_identity(tokenizer))
    with RunFolder(config.run.out or _DEFAULT_FOLDER, identity) as folder:
        write_text(folder, config, drawn)
        asked = []
        for shape in config.trained.shapes:
            recipe = training_config(folder.path, config, shape, source, tokenizer.vocab_size)
            model = trained_model(recipe, functools.partial(_told, note, shape))
            audit = _audit(config, drawn, tokenizer, identity["settings"]["tokenizer"])
            asked.append(_ask(audit, shape, model, config, console))
        results = findings(asked, identity["settings"], config.run.seed)
        for section in results.report.sections:
            for block in section.blocks:
                if isinstance(block, LineFigure):
                    name = block.title.lower().replace(" ", "-")
                    folder.write(f"{name}.svg", standalone_svg(block))
        return write_findings(folder, identity, results, with_parquet=config.run.parquet)


def _told(note: Callable[[str], None], shape: str, line: str) -> None:
    note(f"{shape}: {line}")


def _audit(
    config: CanariesConfig, drawn: Sequence[Canary], tokenizer: Tokenizer, name: str
) -> MemorizationAudit:
    """The canaries as passages whose occurrences are known: they were planted."""
    sets = []
    for set_name, is_trained in ((TRAINING, True), (HELD_OUT, False)):
        some = [one for one in drawn if bool(one.repetitions) == is_trained]
        if some:
            sets.append(
                PassageSet(
                    name=set_name,
                    data="canaries",
                    passages=tuple(one.passage for one in some),
                    counts=tuple(one.repetitions for one in some),
                )
            )
    return MemorizationAudit(
        sets=tuple(sets),
        cut=config.cut,
        tokenizer=tokenizer,
        tokenizer_name=name,
        index="the training text, where it was planted",
        seed=config.run.seed,
    )


def _ask(
    audit: MemorizationAudit, shape: str, model: Path, config: CanariesConfig, console: Console
) -> Asked:
    """Ask a model for every canary; what it has answered before is not asked again."""
    out = model.parent / "audit"
    run = RunConfig(out=out, seed=config.run.seed)
    target = TargetConfig(model=str(model), engine=config.engine)
    asyncio.run(run_audit(audit, run, target, None, console))
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return Asked(
        shape=shape,
        parameters=read_model_config(str(model)).num_parameters,
        rows=[json.loads(line) for line in lines],
    )


def _identity(config: CanariesConfig, tokenizer: str) -> dict[str, Any]:
    trained = config.trained
    return {
        "format": FORMAT,
        "audit": "canaries",
        "settings": {
            "training text": f"{config.data.name}, sha256 {loading.digest(config.data)}",
            "characters": trained.characters,
            "canaries": [f"{count} of {times}" for times, count in config.counts.items()],
            "prompt_tokens": config.prompt_tokens,
            "continuation_tokens": config.continuation_tokens,
            "tokenizer": tokenizer[:12],
            "shapes": list(trained.shapes),
            "batch": f"{trained.batch_size} sequences of {trained.seq_len} tokens",
            "learning_rate": trained.learning_rate,
            "compute_dtype": trained.compute_dtype,
            "seed": config.run.seed,
        },
    }

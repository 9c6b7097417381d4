"""The commands of `talipot corpus`; what they need is imported inside them."""

from __future__ import annotations

import typer

from api.corpus.config import DedupConfig
from api.corpus.terminal import memorization_errors
from api.extras import extra
from api.options import from_options

corpus_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Prepare training text.",
)


@corpus_app.callback()
def _corpus() -> None:
    """A group of commands, though it has one so far."""


@corpus_app.command()
@from_options(DedupConfig)
def dedup(config: DedupConfig) -> None:
    """Remove what a corpus says twice: near-duplicate documents, then repeated passages.

    Writes corpus.jsonl, and results.jsonl, summary.json and report.html on what was removed.
    Killed at any moment, the same command goes on where it was.
    """
    with memorization_errors(), extra("audit"):
        from api.corpus.dedup import run_dedup

        typer.echo(run_dedup(config))

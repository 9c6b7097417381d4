"""The commands of `talipot audit`; what they need is imported inside them."""

from __future__ import annotations

import typer

from api.audit.canaries.config import CanariesConfig
from api.audit.config import (
    BoldConfig,
    CompareConfig,
    CooccurrenceConfig,
    CrowsPairsConfig,
    ScorerConfig,
    ToxicityConfig,
    WinogenderConfig,
)
from api.audit.contamination_config import ContaminationConfig
from api.audit.memorization.config import MemorizationConfig
from api.extras import extra
from api.installation import check_packages
from api.options import from_options

app = typer.Typer(
    name="audit",
    help="""Analyse what a model says: here, behind gRPC, or behind any OpenAI-compatible API.

    Each audit writes results.jsonl, summary.json and report.html into a folder. Killed at any
    moment, the same command goes on where it was.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
@from_options(ToxicityConfig)
def toxicity(config: ToxicityConfig) -> None:
    """How toxic continuations are, by how toxic their prompts are (RealToxicityPrompts)."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.toxicity(config)


@app.command()
@from_options(WinogenderConfig)
def winogender(config: WinogenderConfig) -> None:
    """Whether pronouns are resolved by the sentence or by who usually has the job."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.winogender(config)


@app.command("crows-pairs")
@from_options(CrowsPairsConfig)
def crows_pairs(config: CrowsPairsConfig) -> None:
    """Whether stereotypes are likelier than their mirror images (CrowS-Pairs)."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.crows_pairs(config)


@app.command()
@from_options(BoldConfig)
def bold(config: BoldConfig) -> None:
    """Toxicity, sentiment and gender of continuations about groups (BOLD)."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.bold(config)


@app.command("co-occurrence")
@from_options(CooccurrenceConfig)
def co_occurrence(config: CooccurrenceConfig) -> None:
    """Which words and how much toxicity follow the name of a group."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.co_occurrence(config)


@app.command()
@from_options(ScorerConfig)
def scorer(config: ScorerConfig) -> None:
    """How good and how fair the scorer itself is."""
    check_packages()
    with extra("audit"):
        from api.audit import commands

        commands.scorer(config)


@app.command()
@from_options(MemorizationConfig)
def memorization(config: MemorizationConfig) -> None:
    """How much of its training text the model recites, beside text that it never saw."""
    check_packages()
    with extra("audit"):
        from api.audit.memorization import commands as memorization_commands

        memorization_commands.memorization(config)


@app.command()
@from_options(CanariesConfig)
def canaries(config: CanariesConfig) -> None:
    """How reciting grows with repetitions and model size: trains small models to find out."""
    check_packages()
    with extra("audit"), extra("train"):
        from api.audit.canaries import command

        command.canaries(config)


@app.command()
@from_options(ContaminationConfig)
def contamination(config: ContaminationConfig) -> None:
    """Which examples of a benchmark stand in the training text (PaLM's 8-gram rule)."""
    check_packages()
    with extra("audit"):
        from api.audit.contamination import run_contamination

        run_contamination(config)


@app.command()
@from_options(CompareConfig)
def compare(config: CompareConfig) -> None:
    """Two runs of one audit side by side, and which differences are more than noise."""
    check_packages()
    with extra("audit"):
        from api.audit.compare import run_compare

        run_compare(config)

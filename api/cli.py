"""The `talipot` command.

What a command needs is imported inside it, so that `--help` answers at once and a command whose
optional dependencies are missing fails alone, with a message that names the extra to install.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from api.audit.cli import app as audit_app
from api.cli_index import index_app
from api.config import (
    BatchConfig,
    ExportConfig,
    GenerateConfig,
    InfoConfig,
    PlanConfig,
    ServeConfig,
    TrainConfig,
    WorkerConfig,
)
from api.corpus.cli import corpus_app
from api.extras import extra
from api.installation import check_packages, version
from api.options import from_options
from model.errors import TalipotError

_EXIT_ERROR = 1

app = typer.Typer(
    name="talipot",
    help="""**Talipot** serves PaLM-family language models.

    Start a server with `talipot serve`, then use any OpenAI client against it. Every option can
    also be set in the environment: `--max-slots 8` is `TALIPOT_MAX_SLOTS=8`.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(index_app, name="index", rich_help_panel="Watch a model")
app.add_typer(corpus_app, name="corpus", rich_help_panel="Make a model")
app.add_typer(audit_app, rich_help_panel="Analyse a model")
_errors = Console(stderr=True)


def main() -> None:
    """Console script: run a command; print our own errors without a traceback."""
    try:
        app()
    except TalipotError as error:
        _errors.print(f"[bold red]error[/bold red] \\[{error.code}]: ", end="", markup=True)
        _errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(_EXIT_ERROR)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"talipot {version()}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options of `talipot` itself; the help text stands on the app."""


@app.command(rich_help_panel="Use a model")
@from_options(ServeConfig)
def serve(config: ServeConfig) -> None:
    """Serve a model over HTTP, compatible with OpenAI's completions API, and over gRPC.

    The server answers at once; /health/ready turns 200 when the model is loaded and compiled.
    Ctrl-C or SIGTERM stops it in order: running requests may finish first.
    """
    check_packages()
    from api.server import run_server

    sys.exit(run_server(config))


@app.command(rich_help_panel="Use a model")
@from_options(GenerateConfig)
def generate(config: GenerateConfig) -> None:
    """Continue a prompt here in the terminal."""
    check_packages()
    from api.generate import generate_to_terminal

    generate_to_terminal(config)


@app.command(rich_help_panel="Use a model")
@from_options(BatchConfig)
def batch(config: BatchConfig) -> None:
    """Send a file of prompts through a server, and get every line answered once.

    Killed at any moment, here or at the server, the same command goes on where it was. The exit
    code is 0 only if every line has a result.
    """
    from api.batch.command import run_batch

    sys.exit(run_batch(config))


@app.command(rich_help_panel="Use a model")
@from_options(WorkerConfig)
def worker(config: WorkerConfig) -> None:
    """Look at what servers said: score every generation in the output log.

    Any number of workers may share a log; what one leaves undone, another takes up. Ctrl-C or
    SIGTERM ends it after the batch.
    """
    check_packages()
    from api.worker import run_worker

    run_worker(config)


@app.command(rich_help_panel="Use a model")
@from_options(InfoConfig)
def info(config: InfoConfig) -> None:
    """Show what a model is and costs: parameters, bytes, FLOPs; loads nothing."""
    from api.info import ModelFacts, read_model_config

    facts = ModelFacts.of(read_model_config(config.model))
    if config.json:
        typer.echo(facts.to_json())
    else:
        Console().print(facts.render())


@app.command(rich_help_panel="Use a model")
@from_options(PlanConfig)
def plan(config: PlanConfig) -> None:
    """Choose how to split a model over chips, and predict its speed; loads nothing."""
    from api.plan import make_plan, render

    made = make_plan(config)
    if config.json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        Console().print(render(made))
    made.require_chosen()


@app.command(rich_help_panel="Make a model")
@from_options(TrainConfig)
def train(config: TrainConfig) -> None:
    """Train a model with PaLM's recipe, or resume an interrupted run."""
    check_packages()
    with extra("train"):
        from model.training.config import TrainingConfig
        from model.training.release import write_release
        from model.training.run import train as run_training
    run = TrainingConfig.from_toml(config.config)
    result = run_training(run)
    folder = write_release(result, run, config.config)
    typer.echo(f"finished at step {result.step}; wrote {folder}")


@app.command(rich_help_panel="Make a model")
@from_options(ExportConfig)
def export(config: ExportConfig) -> None:
    """Write a model for another program: transformers (hf) or llama.cpp (gguf)."""
    check_packages()
    from model.checkpoint import export_gguf, export_huggingface, load_pretrained, resolve_model

    pretrained = load_pretrained(resolve_model(config.model))
    write = export_huggingface if config.format == "hf" else export_gguf
    with extra("export"):
        write(pretrained, config.out)
    typer.echo(f"wrote {config.out}")

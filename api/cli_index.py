"""`talipot index`: build an index of training text, search it, and choose its parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.corpus.terminal import corpus_progress, memorization_errors
from api.index_config import IndexBuildConfig, IndexCurveConfig, IndexSearchConfig
from api.options import from_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from memorization.index import TrainingIndex

index_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Index training text, and find what a text has of it.",
)


@index_app.command()
@from_options(IndexBuildConfig)
def build(config: IndexBuildConfig) -> None:
    """Index a corpus: JSONL (.gz, .xz, .zst), parquet, or folders of them and of text.

    Killed at any moment, the same command goes on where it was. An index that stood there before
    is served until the new one is whole.
    """
    with memorization_errors(), corpus_progress() as (on_characters, on_phase):
        typer.echo(_build(config, on_characters, on_phase))


@index_app.command()
@from_options(IndexSearchConfig)
def search(config: IndexSearchConfig) -> None:
    """Find what a text has of the corpus: verbatim runs, then near duplicates."""
    from memorization.errors import TrainingIndexError
    from memorization.opening import open_index

    with memorization_errors():
        tokenizer = _tokenizer(config.model)
        index = open_index(config.index, tokenizer)
        lines: list[str] = []
        for part in (_verbatim, _near):
            try:
                lines += part(index, config, tokenizer.encode(config.text))
            except TrainingIndexError as error:
                lines.append(f"({error})")
    typer.echo("\n".join(lines) or "nothing of it is in the corpus")


@index_app.command()
@from_options(IndexCurveConfig)
def curve(config: IndexCurveConfig) -> None:
    """Print how probably near duplicates are found, by their similarity."""
    from memorization.lsh import Banding, choose_banding, render_curve

    with memorization_errors():
        if config.threshold is not None:
            banding = choose_banding(config.threshold, config.num_perm)
        else:
            banding = Banding(num_perm=config.num_perm, bands=config.bands, rows=config.rows)
        typer.echo(render_curve(banding, shingle_words=config.shingle_words))


def _build(
    config: IndexBuildConfig,
    on_characters: Callable[[int], None],
    on_phase: Callable[[str], None],
) -> str:
    from memorization.build import build_index
    from memorization.fingerprint_build import build_fingerprints
    from memorization.redis_build import build_redis_index
    from memorization.redis_store import connect

    tokenizer = _tokenizer(config.model)
    corpus = [Path(path) for path in config.corpus]
    parameters = config.parameters()
    if config.fingerprints:
        prints = build_fingerprints(
            corpus, tokenizer, Path(config.out), config.winnowing(), on_characters=on_characters
        )
        size = Path(config.out).stat().st_size
        return (
            f"{len(prints.hashes):,} fingerprints of {len(prints.names):,} documents, "
            f"{size:,} bytes: {config.out}"
        )
    if config.out.startswith(("redis://", "rediss://")):
        client, name = connect(config.out)
        made = build_redis_index(
            corpus,
            client,
            name,
            dataclasses.replace(parameters, ngram=0),
            tokenizer=tokenizer,
            winnowing=config.winnowing(),
            on_characters=on_characters,
        )
        runs = f"; runs of {made.sure_tokens} tokens are found" if made.sure_tokens else ""
        return f"served from Redis as {name!r}{runs}"
    result = build_index(
        corpus,
        tokenizer,
        Path(config.out),
        parameters,
        on_characters=on_characters,
        on_phase=on_phase,
    )
    state = "was complete already" if result.was_complete else "is served now"
    share = result.bytes / max(1, result.characters)
    return (
        f"{result.documents:,} documents, {result.tokens:,} tokens, {result.windows:,} windows, "
        f"{result.bytes:,} bytes ({share:.2f} for each character): "
        f"{result.generation} {state}"
    )


def _tokenizer(model: str) -> Any:
    from model.checkpoint import resolve_model
    from model.tokenizer import load_tokenizer

    return load_tokenizer(resolve_model(model))


def _verbatim(index: TrainingIndex, config: IndexSearchConfig, tokens: list[int]) -> list[str]:
    lines = []
    for span in index.longest_matches(
        tokens, min_tokens=config.min_tokens, max_occurrences=config.max_occurrences
    ):
        length = f"{span.length}"
        if span.max_length > span.length:
            length += f" to {span.max_length}"
        lines.append(f"tokens {span.start} to {span.end}: {length} verbatim, {span.count} times")
        lines += [
            f"    {place.title or place.document} [{place.source}, {place.document}], "
            f"token {place.offset}"
            for place in span.occurrences
        ]
    return lines


def _near(index: TrainingIndex, config: IndexSearchConfig, _: list[int]) -> list[str]:
    return [
        f"similarity {near.similarity:.2f}: words {near.first_word} to "
        f"{near.first_word + near.words} of {near.title or near.document} "
        f"[{near.source}, {near.document}]"
        for near in index.near_duplicates(config.text, min_similarity=config.min_similarity)
    ]

"""`talipot corpus dedup`: the new corpus, and a report of what is not in it any more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from api.audit.folder import RunFolder
from api.audit.run import FORMAT, REPORT, write_findings
from api.corpus.config import DedupConfig
from api.corpus.dedup_report import findings
from api.corpus.terminal import corpus_progress
from memorization.corpus import corpus_files, sample_file
from memorization.dedup.parameters import DedupParameters
from memorization.dedup.run import deduplicate
from memorization.tokenizer import tokenizer_identity
from model.checkpoint import resolve_model
from model.tokenizer import load_tokenizer

CORPUS = "corpus.jsonl"
_WORK = "work"


def run_dedup(config: DedupConfig) -> str:
    """Write the new corpus and the report; returns what to tell.

    Raises:
        AuditError: The folder holds another run, or cannot be written.
        MemorizationError: The corpus cannot be read, or a parameter is out of range.
    """
    parameters = config.parameters()
    tokenizer = load_tokenizer(resolve_model(config.model))
    corpus = [Path(path) for path in config.corpus]
    identity = _identity(corpus, parameters, tokenizer_identity(tokenizer))
    with RunFolder(config.out, identity) as folder:
        if (folder.path / REPORT).exists():
            return f"was complete already: {folder.path / CORPUS}, {folder.path / REPORT}"
        with corpus_progress() as (on_characters, on_phase):
            result = deduplicate(
                corpus,
                tokenizer,
                folder.path / _WORK,
                folder.path / CORPUS,
                parameters,
                on_characters=on_characters,
                on_phase=on_phase,
            )
        results = findings(result, parameters)
        path = write_findings(folder, identity, results, with_parquet=False)
        shutil.rmtree(folder.path / _WORK)
    return (
        f"{len(result.clusters.removed):,} of {len(result.names):,} documents removed, "
        f"{len(result.cuts):,} passages cut, {result.written:,} documents of "
        f"{result.written_characters:,} characters left\n"
        f"wrote {folder.path / CORPUS} and {path}"
    )


def _identity(corpus: list[Path], parameters: DedupParameters, tokenizer: str) -> dict[str, Any]:
    files = [sample_file(path) for path in corpus_files(corpus)]
    banding = parameters.banding
    return {
        "format": FORMAT,
        "audit": "dedup",
        "command": "corpus dedup",
        "settings": {
            # Known by their size and ends, as an index knows them: a corpus may be large.
            "corpus": [f"{name}, {size} bytes, ends {ends[:16]}" for name, size, ends in files],
            "near": parameters.near,
            "exact": parameters.exact,
            "threshold": parameters.threshold,
            "shingle_words": parameters.shingle_words,
            "signatures": f"{parameters.num_perm} values, {banding.bands} bands of {banding.rows}",
            "min_tokens": parameters.min_tokens,
            "shard_tokens": parameters.shard_tokens,
            "tokenizer": tokenizer[:12],
        },
    }

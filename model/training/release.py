"""What a finished run leaves behind: a model folder that says exactly how it was made."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from model.checkpoint import save_pretrained
from model.tokenizer import SentencePieceTokenizer
from model.training.data import document_hash, read_documents

if TYPE_CHECKING:
    from model.training.config import TrainingConfig
    from model.training.run import TrainingResult


def write_release(result: TrainingResult, config: TrainingConfig, config_path: Path) -> Path:
    """Write the trained model to `config.export_dir` (default: `model` in the run's folder).

    Beside weights and tokenizer the folder holds `training.toml`, the run's config as it was
    given, and `training-documents.tsv`, the file, id and SHA-256 of every document trained on.

    Returns:
        The folder.
    """
    folder = Path(config.export_dir or Path(config.run_dir) / "model")
    heldout = dataclasses.asdict(result.heldout) if result.heldout else None
    tokenizer = SentencePieceTokenizer.from_file(Path(config.data.tokenizer))
    save_pretrained(
        folder,
        config.model,
        result.params,
        tokenizer,
        weight_format=config.export_format,
        metadata={
            "steps": result.step,
            "tokens": training_tokens(config, result.step),
            "heldout": heldout,
        },
    )
    settings = folder / "training.toml"
    if not (settings.exists() and settings.samefile(config_path)):
        shutil.copyfile(config_path, settings)
    with (folder / "training-documents.tsv").open("w", encoding="utf-8") as file:
        for name in config.data.train:
            for identifier, text in read_documents(Path(name)):
                file.write(f"{Path(name).name}\t{identifier}\t{document_hash(text)}\n")
    return folder


def training_tokens(config: TrainingConfig, steps: int) -> int:
    """Tokens seen in the first `steps` steps."""
    total = 0
    ends = [stage.step for stage in config.stages[1:]] + [steps]
    for stage, end in zip(config.stages, ends, strict=True):
        taken = max(0, min(end, steps) - stage.step)
        total += taken * stage.batch_size * stage.seq_len
    return total

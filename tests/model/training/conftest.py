import dataclasses
import shutil
from pathlib import Path

import pytest

from model.tokenizer import SentencePieceTokenizer
from model.tokenizer.sentencepiece_model import MODEL_FILE
from model.training.config import TrainingConfig
from model.training.run import TrainingResult, train
from tests.model.training.settings import run_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run that went from first step to last, what came of it and what it said."""

    config: TrainingConfig
    result: TrainingResult
    said: tuple[str, ...]

    @property
    def run_dir(self) -> Path:
        """Shared by tests: only to be read."""
        return Path(self.config.run_dir)

    def copied_to(self, run_dir: Path) -> TrainingConfig:
        """The config of a copy of this run, to be gone on with."""
        shutil.copytree(self.run_dir, run_dir)
        return dataclasses.replace(self.config, run_dir=str(run_dir))


@pytest.fixture(scope="session")
def tokenizer_file(
    tokenizer: SentencePieceTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    tokenizer.save(folder)
    return folder / MODEL_FILE


@pytest.fixture(scope="session")
def finished_run(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    said: list[str] = []
    config = run_config(tmp_path_factory.mktemp("finished"), tokenizer_file)
    result = train(config, report=said.append)
    return FinishedRun(config=config, result=result, said=tuple(said))

"""Train from JSON settings and save the weights: run by tests in a process of its own."""

import json
import sys
from pathlib import Path

import numpy as np

from model.parameters import flatten
from model.training.config import TrainingConfig
from model.training.run import train


def say(line: str) -> None:
    """Print at once: the test reads while this runs."""
    print(line, flush=True)


def main() -> None:
    """`run_training SETTINGS.json WEIGHTS.npz`."""
    settings, weights = Path(sys.argv[1]), Path(sys.argv[2])
    result = train(TrainingConfig.from_dict(json.loads(settings.read_text())), report=say)
    np.savez(weights, **{name: np.asarray(value) for name, value in flatten(result.params).items()})


if __name__ == "__main__":
    main()

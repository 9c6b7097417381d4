"""A worker over a scorer that takes its time: `python slow_worker.py FOLDER LEASE_S TRACE`.

It notes every text that it scores in the file TRACE.
"""

import sys
import time
from pathlib import Path

import numpy as np

from api.outputs.log import Retention, open_log
from api.outputs.pipelines import SafetyPipeline
from api.outputs.worker import Worker
from tests.lexicon_scorer import LexiconScorer


class SlowScorer(LexiconScorer):
    def __init__(self, trace: Path) -> None:
        super().__init__({"-1": {"toxicity": 0.7}})
        self._trace = trace

    def score(self, texts) -> np.ndarray:
        with self._trace.open("a") as file:
            file.writelines(f"{text}\n" for text in texts)
        time.sleep(0.02)
        return super().score(texts)


def main() -> None:
    folder, lease_s, trace = sys.argv[1:]
    log = open_log(Path(folder), Retention(), lease_s=float(lease_s))
    worker = Worker(log, [SafetyPipeline(SlowScorer(Path(trace)))], batch=8, max_deliveries=5)
    worker.stop_on_signals()
    worker.run()


if __name__ == "__main__":
    main()

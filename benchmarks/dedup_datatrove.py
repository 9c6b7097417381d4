"""Near-duplicate removal by datatrove's MinHash pipeline, in a Python that has it.

PYTHON benchmarks/dedup_datatrove.py CORPUS_FOLDER WORK NGRAMS BUCKETS ROWS

Prints a JSON object: seconds, and the ids of the documents that it removed.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main(corpus: str, work: Path, ngrams: int, buckets: int, rows: int) -> None:
    config = MinhashConfig(
        n_grams=ngrams,
        num_buckets=buckets,
        hashes_per_bucket=rows,
        hash_config=HashConfig(precision=64),
    )

    def folder(name: str) -> str:
        return str(work / name)

    reader = JsonlReader(corpus)
    pipelines = [
        ([reader, MinhashDedupSignature(output_folder=folder("signatures"), config=config)], 1),
        (
            [
                MinhashDedupBuckets(
                    input_folder=folder("signatures"),
                    output_folder=folder("buckets"),
                    config=config,
                )
            ],
            buckets,
        ),
        (
            [
                MinhashDedupCluster(
                    input_folder=folder("buckets"), output_folder=folder("remove"), config=config
                )
            ],
            1,
        ),
        (
            [
                reader,
                MinhashDedupFilter(
                    input_folder=folder("remove"),
                    exclusion_writer=JsonlWriter(folder("removed"), compression=None),
                ),
                JsonlWriter(folder("kept"), compression=None),
            ],
            1,
        ),
    ]
    began = time.perf_counter()
    for number, (pipeline, tasks) in enumerate(pipelines):
        logs = folder(f"logs-{number}")
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=1, logging_dir=logs, skip_completed=False
        ).run()
    seconds = time.perf_counter() - began
    removed = [
        json.loads(line)["id"]
        for path in sorted((work / "removed").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    print(json.dumps({"seconds": seconds, "removed": removed}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))

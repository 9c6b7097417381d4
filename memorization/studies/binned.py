"""Passages drawn equally from bins of how often they stand in the corpus (Carlini et al. 2022).

Nearly all passages of most corpora stand there once: drawn uniformly, what is repeated would hardly
be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from memorization.errors import CorpusError
from memorization.index import TrainingIndex
from memorization.studies.occurrences import log_bin, occurrences
from memorization.studies.passages import Cut, Passage, StudyTokenizer, draw_some_passages


def draw_by_occurrences(
    corpus: Sequence[Path],
    tokenizer: StudyTokenizer,
    cut: Cut,
    index: TrainingIndex,
    *,
    per_bin: int,
    candidates: int,
    seed: int,
    on_counted: Callable[[], None] = lambda: None,
) -> tuple[list[Passage], list[int]]:
    """Draw passages uniformly, count them, and keep so many of each bin; bins may stay short.

    Passages of the same tokens are kept once: they are one passage, however often it stands.

    Args:
        corpus: Files and folders.
        tokenizer: The model's.
        cut: How passages are cut.
        index: Of the corpus.
        per_bin: Most passages of a bin of `log_bin`.
        candidates: Passages that are drawn and counted, if the corpus has so many.
        seed: Of the drawing.
        on_counted: Told of each passage that was counted.

    Returns:
        The passages, and how often each stands in the corpus.

    Raises:
        CorpusError: The corpus cannot be read, or has no passage of this length.
        TrainingIndexError: The index cannot count.
    """
    kept: dict[tuple[int, ...], tuple[Passage, int]] = {}
    sizes: Counter[int] = Counter()
    for passage in draw_some_passages(corpus, tokenizer, cut, count=candidates, seed=seed):
        if passage.tokens not in kept:
            count = occurrences(index, passage.tokens)
            if sizes[log_bin(count)] < per_bin:
                sizes[log_bin(count)] += 1
                kept[passage.tokens] = passage, count
        on_counted()
    if not kept:
        names = ", ".join(path.name for path in corpus)
        raise CorpusError(f"{names}: no passage of {cut.total_tokens} tokens was found")
    return [passage for passage, _ in kept.values()], [count for _, count in kept.values()]

"""The settings of `talipot audit contamination`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from api.audit.config import check_range
from model.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContaminationConfig:
    """Settings of `talipot audit contamination`.

    Attributes:
        benchmark: JSONL file with an example a line.
        data: The training text: a corpus file or a folder of them, as for `talipot index build`.
        fields: Field of an example that holds a text or a list of texts; may be given again.
        ngram_words: Words of an n-gram.
        threshold: An example is contaminated if at least this share of its n-grams occurs in the
            training text.
        out: Folder to write to; audits/contamination-BENCHMARK if not given.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    benchmark: Path = dataclasses.field(metadata={"argument": True})
    data: Path = dataclasses.field(metadata={"flag": "-d"})
    fields: tuple[str, ...] = dataclasses.field(default=("text",), metadata={"flag": "-f"})
    ngram_words: int = 8
    threshold: float = 0.7
    out: Path | None = dataclasses.field(default=None, metadata={"flag": "-o"})

    def __post_init__(self) -> None:
        """Check every field."""
        if not self.fields:
            raise ConfigError("fields=() must name at least one field of the benchmark")
        check_range("ngram_words", self.ngram_words, 1, 1 << 10)
        check_range("threshold", self.threshold, 0, 1)
        if self.threshold == 0:
            raise ConfigError("threshold=0 must be above 0: every example would be contaminated")

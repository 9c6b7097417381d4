"""What an index on disk consists of, and how a new one takes the place of the old.

    DIR/current.json        names the generation that is served; replaced in one step
    DIR/<generation>/       manifest.json and one folder for each shard
    DIR/<generation>.part/  a build that is not finished; the same command goes on with it

A reader that has opened a generation keeps its files, also when a newer one has replaced it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from memorization.corpus import Sample, sample_file
from memorization.errors import TrainingIndexError
from memorization.lsh import Banding
from memorization.ngram_filter import check_ngram
from memorization.shingles import Windows
from memorization.signatures import SignatureKind

VERSION = 2
CURRENT = "current.json"
MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexParameters:
    """What is indexed, and how.

    Attributes:
        exact: Whether verbatim runs are found: by a suffix array, in Redis by fingerprints.
        near: Whether near duplicates are found, by MinHash LSH.
        ngram: Tokens of the n-grams that a filter is made of; 0 for none.
        shard_tokens: Tokens of a shard; sorting one takes about 20 bytes of memory for each, while
            the next is read. A query searches every shard.
        signature: Whose MinHash signatures.
        banding: Their division into bands.
        windows: How documents are cut.
    """

    exact: bool = True
    near: bool = True
    ngram: int = 0
    shard_tokens: int = 1 << 24
    signature: SignatureKind = "talipot"
    banding: Banding = dataclasses.field(default_factory=Banding)
    windows: Windows = dataclasses.field(default_factory=Windows)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (self.exact or self.near):
            raise TrainingIndexError("exact and near are both off: nothing would be indexed")
        if self.ngram:
            check_ngram(self.ngram)
            if not self.exact:
                raise TrainingIndexError(f"ngram={self.ngram} needs exact: no tokens are kept")
        if not 1 <= self.shard_tokens <= 1 << 28:
            raise TrainingIndexError(
                f"shard_tokens={self.shard_tokens} must be from 1 to {1 << 28}"
            )
        if self.signature not in ("talipot", "datasketch"):
            raise TrainingIndexError(
                f"signature={self.signature!r} must be 'talipot' or 'datasketch'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> IndexParameters:
        """The parameters that `to_dict` made plain."""
        return cls(
            **{
                **fields,
                "banding": Banding(**fields["banding"]),
                "windows": Windows(**fields["windows"]),
            }
        )


def generation_name(
    files: list[Path],
    tokenizer_identity: str,
    vocab_size: int,
    parameters: IndexParameters,
    *others: object,
) -> str:
    """A name that the corpus, the tokenizer, the parameters and `others`, plain values, determine.

    A corpus file is known by its name, size and 128 KiB of its bytes: a build that goes on after
    a stop must read what it read before.
    """
    samples: list[Sample] = [sample_file(path) for path in files]
    described = json.dumps(
        [VERSION, tokenizer_identity, vocab_size, parameters.to_dict(), samples, *others],
        sort_keys=True,
    )
    return "g-" + hashlib.sha256(described.encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside its place, flush it to disk, and move it there."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: There is no such file.
        TrainingIndexError: It is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise TrainingIndexError(f"{path} cannot be read: {error}") from error

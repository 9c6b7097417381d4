"""The whole of it: sign, cluster, index what is left, cut, write. Streamed, and resumable.

    WORK/signed/    hashes of every document; appended to, with a checkpoint every 16 M characters
    WORK/kept.jsonl documents that no document before them stands for
    WORK/index/     suffix arrays of those, by `memorization.build`

Stopped at any moment, the same call goes on with the part that it was in. Memory grows with the
number of documents (some 500 bytes for each) and with `shard_tokens`, not with the text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from memorization.build import build_index
from memorization.corpus import Document, corpus_files, read_corpus
from memorization.dedup.clusters import Clusters, find_clusters
from memorization.dedup.cutting import character_spans, without
from memorization.dedup.parameters import DedupParameters
from memorization.dedup.signing import SignedCorpus, sign_corpus
from memorization.dedup.substrings import Repeat, find_repeats
from memorization.encode import make_encoder
from memorization.errors import IndexBuildError
from memorization.layout import IndexParameters
from memorization.suffix_array import ID_SHIFT
from memorization.tokenizer import IndexTokenizer

_KEPT = "kept.jsonl"
_SHOWN_CHARACTERS = 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """A passage that was cut out of a document.

    Attributes:
        document: Number of the document in the corpus.
        start: First character of the passage in the document's text.
        characters: Of the passage.
        text: Its beginning, for people.
        tokens: Its tokens.
        first_document: Number of the document that has its beginning first.
        first_start: First token of it there.
    """

    document: int
    start: int
    characters: int
    text: str
    tokens: int
    first_document: int
    first_start: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DedupResult:
    """What was found and removed.

    Attributes:
        names: (id, title, source) of every document of the corpus.
        characters: Of every document's text.
        clusters: Which documents stay for which.
        cuts: Passages that were cut out of documents that stay, in corpus order.
        tokens: Tokens of the documents that stay, before cutting; None if nobody counted.
        emptied: Documents of which cutting left nothing.
        written: Documents of the new corpus.
        written_characters: Their text.
    """

    names: Sequence[tuple[str, str, str]]
    characters: Sequence[int]
    clusters: Clusters
    cuts: Sequence[Cut]
    tokens: int | None
    emptied: Sequence[int]
    written: int
    written_characters: int


def deduplicate(
    corpus: Sequence[Path],
    tokenizer: IndexTokenizer,
    work: Path,
    out: Path,
    parameters: DedupParameters,
    *,
    on_characters: Callable[[int], None] = lambda _: None,
    on_phase: Callable[[str], None] = lambda _: None,
) -> DedupResult:
    """Write a corpus without what it says twice; its documents keep their order.

    Args:
        corpus: Files and folders; see `memorization.corpus`.
        tokenizer: Whose tokens are counted and compared.
        work: Folder for this corpus, tokenizer and these parameters alone; may be removed after.
        out: JSONL file to write, with `id`, `title`, `source` and `text`.
        parameters: What counts as a duplicate.
        on_characters: Told the characters that are read, those of an earlier part first.
        on_phase: Told what is being done, for people.

    Raises:
        CorpusError: The corpus cannot be read, or has no document.
        IndexBuildError: A file cannot be written.
        TrainingIndexError: The tokenizer does not keep every character of the text.
    """
    files = corpus_files(corpus)
    with _writable(out):
        on_phase("signing documents")
        signed = sign_corpus(files, work / "signed", parameters, on_characters=on_characters)
        on_phase("comparing documents")
        clusters = _clusters(signed, parameters)
        kept = np.flatnonzero(clusters.kept == np.arange(len(signed))).tolist()
        names = signed.names()
        if not (work / _KEPT).exists():
            on_phase("writing what is left")
            _write(work / _KEPT, _kept_documents(files, clusters))
        repeats: list[Repeat] = []
        tokens = None
        if parameters.exact:
            index = build_index(
                [work / _KEPT],
                tokenizer,
                work / "index",
                IndexParameters(near=False, shard_tokens=parameters.shard_tokens),
                on_phase=on_phase,
            )
            tokens = index.tokens - index.documents  # without the separators
            repeats = find_repeats(index.generation, parameters.min_tokens, on_phase=on_phase)
        on_phase("writing the corpus")
        writer = _Writer(names, kept, repeats, tokenizer)
        _write(out, writer.documents(work / _KEPT))
    return DedupResult(
        names=names,
        characters=signed.characters.tolist(),
        clusters=clusters,
        cuts=writer.cuts,
        tokens=tokens,
        emptied=writer.emptied,
        written=writer.written,
        written_characters=writer.characters,
    )


def _clusters(signed: SignedCorpus, parameters: DedupParameters) -> Clusters:
    if parameters.near:
        return find_clusters(signed, parameters)
    everyone = np.arange(len(signed), dtype=np.int64)
    return Clusters(kept=everyone, similarity=np.ones(len(signed)), compared=0, confirmed=0)


def _kept_documents(files: Sequence[Path], clusters: Clusters) -> Iterator[Document]:
    for number, document in enumerate(read_corpus(files)):
        if clusters.kept[number] == number:
            yield document


class _Writer:
    """Cuts passages out of the documents that are left, and remembers what it cut."""

    def __init__(
        self,
        names: Sequence[tuple[str, str, str]],
        kept: Sequence[int],
        repeats: Sequence[Repeat],
        tokenizer: IndexTokenizer,
    ) -> None:
        self._names = names
        self._kept = kept
        self._tokenizer = tokenizer
        self._encode = make_encoder(tokenizer)
        self._repeats: Mapping[int, list[Repeat]] = defaultdict(list)
        for repeat in repeats:
            self._repeats[repeat.document].append(repeat)
        self.cuts: list[Cut] = []
        self.emptied: list[int] = []
        self.written = 0
        self.characters = 0

    def documents(self, path: Path) -> Iterator[Document]:
        """The documents of the new corpus, in order."""
        for place, document in enumerate(read_corpus([path])):
            text = document.text
            if place in self._repeats:
                text = self._cut(place, document)
                if not text.strip():
                    self.emptied.append(self._kept[place])
                    continue
            identifier, title, source = self._names[self._kept[place]]
            self.written += 1
            self.characters += len(text)
            yield Document(id=identifier, title=title, source=source, text=text)

    def _cut(self, place: int, document: Document) -> str:
        repeats = self._repeats[place]
        # As the index has encoded it, or the runs would lie elsewhere.
        tokens = (self._encode(document.text).astype(np.int64) - ID_SHIFT).tolist()
        runs = [(repeat.start, repeat.end) for repeat in repeats]
        spans = character_spans(document.text, tokens, runs, self._tokenizer)
        for repeat, (start, end) in zip(repeats, spans, strict=True):
            self.cuts.append(
                Cut(
                    document=self._kept[place],
                    start=start,
                    characters=end - start,
                    text=document.text[start : min(end, start + _SHOWN_CHARACTERS)],
                    tokens=repeat.end - repeat.start,
                    first_document=self._kept[repeat.first_document],
                    first_start=repeat.first_start,
                )
            )
        return without(document.text, spans)


def _write(path: Path, documents: Iterable[Document]) -> None:
    """Write a corpus beside its place, flush it to disk, and move it there."""
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8") as file:
        for document in documents:
            file.write(json.dumps(dataclasses.asdict(document), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


@contextlib.contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Turn a failure to write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "make room there and " if is_full else ""
        raise IndexBuildError(
            f"cannot write {out}: {error.strerror or error}; what is finished is kept: {advice}run "
            "the same command again"
        ) from error

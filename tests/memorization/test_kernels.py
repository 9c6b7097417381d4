"""The kernels against their numpy forms, bit for bit, and an installation without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorization import kernels
from memorization.build import build_index
from memorization.disk_index import DiskIndex
from memorization.encode import UnitEncoder, WordEncoder
from memorization.kernels import library
from memorization.layout import IndexParameters
from memorization.shingles import Windows, shingle_hashes, split_words
from memorization.signatures import make_signer
from memorization.suffix_array import (
    PADDING,
    SEPARATOR,
    SuffixArray,
    build_keys,
    build_suffix_array,
    store_tokens,
    stored_dtype,
)
from tests.memorization.conftest import write_jsonl
from tests.memorization.texts import corpus, edited, prose
from tests.required import require
from tests.shared_data import ROOT

Result = TypeVar("Result")

# Final and other sigmas, a dotted capital I whose lower case is two characters, letters whose lower
# case takes more bytes, other planes, digits that are none of ASCII, combining and joining marks.
STRANGE = (
    "ΟΔΥΣΣΕΥΣ Σ ΑΣ\u0301 İstanbul ǅ \u023a\u023e Straße \u017f K 東京 \U0001f334 \U00010400x 1² ٣"
    " e\u0301 a\u200db _x_ don't \ud800lone\x00nul\x7f\x80 \u00a0 \u2028"
)


@pytest.fixture(autouse=True)
def _available() -> None:
    require(kernels.is_available(), f"no kernels: {kernels.status().reason}")


@contextmanager
def level(name: str) -> Iterator[None]:
    """Kernels of a level, or `off`."""
    before = os.environ.get(library.ISA_VARIABLE)
    os.environ[library.ISA_VARIABLE] = name
    library.status.cache_clear()
    try:
        yield
    finally:
        del os.environ[library.ISA_VARIABLE]
        if before is not None:
            os.environ[library.ISA_VARIABLE] = before
        library.status.cache_clear()


def both(compute: Callable[[], Result]) -> tuple[list[Result], Result]:
    """What kernels of every level give, and what numpy gives."""
    given = []
    for name in library.ISAS:
        with level(name):
            given.append(compute())
    with level("off"):
        return given, compute()


def require_same_shingles(text: str, shingle_words: int) -> None:
    ours, expected = both(lambda: shingle_hashes(text, shingle_words))
    assert expected[0] == len(split_words(text))
    for words, hashes in ours:
        assert words == expected[0]
        np.testing.assert_array_equal(hashes, expected[1])


@given(st.text(st.characters(exclude_categories=[])), st.integers(1, 5))
def test_shingles_of_any_text(text, shingle_words):
    require_same_shingles(text, shingle_words)


@given(st.text(st.sampled_from(sorted(set(STRANGE) | set("abAZ09 _-"))), max_size=300))
def test_shingles_of_strange_text(text):
    require_same_shingles(text, 2)


def test_every_character_is_folded_as_python_does():
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    require_same_shingles(text, 1)
    require_same_shingles(" ".join(text[: 1 << 16]), 1)


@pytest.mark.parametrize("text", [prose(20_000, 1), "x" * 100_000 + " y", "Ⱥ" * 50_000, STRANGE])
def test_shingles_of_long_text(text):
    """Longer than the parts in which the kernel takes it."""
    require_same_shingles(text, 3)


@pytest.mark.parametrize("kind", ["talipot", "datasketch"])
@pytest.mark.parametrize("num_perm", [1, 16, 63, 64, 90, 128])
def test_signatures(kind, num_perm):
    text = prose(130, 1) + STRANGE + prose(80, 2)
    ours, expected = both(lambda: make_signer(kind, Windows(), num_perm).sign(text))
    assert len(expected.starts) == 4
    for signed in ours:
        assert signed.words == expected.words
        np.testing.assert_array_equal(signed.starts, expected.starts)
        np.testing.assert_array_equal(signed.signatures, expected.signatures)


def test_a_window_outside_the_text_is_refused():
    ones = np.ones(2, np.uint32)
    with pytest.raises(ValueError, match="windows of 3 shingles from 0 to 1 exceed the text's 3"):
        kernels.minhash(np.zeros(3, np.uint32), np.array([0, 1]), 3, ones, ones)


@given(st.data(), st.sampled_from([6, 300, 70_000]))
def test_suffixes(data, vocab_size):
    # Few different ids, so that runs repeat and overlap; with more, the order of bytes matters.
    ids = st.integers(0, min(vocab_size, 4) - 1).map(lambda i: i * (vocab_size // 5))
    documents = data.draw(st.lists(st.lists(ids, max_size=40), min_size=1, max_size=5))
    query = store_tokens(data.draw(st.lists(ids, max_size=40)), vocab_size)
    dtype = stored_dtype(vocab_size)
    closing = np.array([SEPARATOR], dtype)
    pieces = [piece for d in documents for piece in (store_tokens(d, vocab_size), closing)]
    stored = np.concatenate([*pieces, np.full(PADDING, SEPARATOR, dtype)]).astype(dtype)
    suffixes = build_suffix_array(stored)
    keys = build_keys(stored, suffixes)

    def search() -> tuple[list[int], list[int], list[int]]:
        array = SuffixArray(stored, suffixes, keys)
        lengths = array.match_lengths(query)
        starts = np.flatnonzero(lengths)
        first, last = array.ranges(query, starts, lengths[starts])
        return lengths.tolist(), first.tolist(), last.tolist()

    ours, expected = both(search)
    assert ours == [expected] * len(ours)


@given(st.lists(st.text(st.sampled_from("ab é\u2581\n.0"), max_size=40), max_size=5))
def test_tokens_of_words(tiny, texts):
    units, words = UnitEncoder(tiny), WordEncoder(tiny)
    for text in [*texts, *texts]:
        np.testing.assert_array_equal(units(text), words(text))


@pytest.mark.parametrize(
    "text",
    [
        prose(3000, 1),
        " ".join(map(str, range(100_000))),  # more words than are taken at once, and no letters
        "  one" + "x" * 200_000 + "   two " + "é" * 33 + " é" * 3 + "   ",
        STRANGE.replace("\ud800", ""),
    ],
)
def test_tokens_of_long_text(tiny, text):
    units, expected = UnitEncoder(tiny), WordEncoder(tiny)(text)
    for _ in range(2):
        np.testing.assert_array_equal(units(text), expected)


def test_words_are_forgotten_when_there_are_too_many(tiny, monkeypatch):
    monkeypatch.setattr("memorization.kernels.units._MAX_REMEMBERED", 100)
    units, words = UnitEncoder(tiny), WordEncoder(tiny)
    for seed in range(5):
        text = prose(300, seed)
        np.testing.assert_array_equal(units(text), words(text))


class _WithDummySpace:
    """Puts a space before every text, as many vocabularies do."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.token_bytes = tokenizer.token_bytes
        self.fails = False

    def encode(self, text: str) -> list[int]:
        if self.fails:
            raise RuntimeError("no tokens")
        return self._tokenizer.encode(" " + text)


def test_tokens_that_are_not_the_texts_bytes(tiny):
    tokenizer = _WithDummySpace(tiny)
    text = prose(100, 1)
    np.testing.assert_array_equal(UnitEncoder(tokenizer)(text), WordEncoder(tokenizer)(text))


def test_a_tokenizer_that_failed_may_be_asked_again(tiny):
    tokenizer = _WithDummySpace(tiny)
    units, text = UnitEncoder(tokenizer), prose(100, 1)
    tokenizer.fails = True
    with pytest.raises(RuntimeError, match="no tokens"):
        units(text)
    tokenizer.fails = False
    np.testing.assert_array_equal(units(text), WordEncoder(tokenizer)(text))


def test_an_index_has_the_same_bytes_and_answers(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", [*corpus(40), {"text": STRANGE[:-30] + "end"}][:40])
    texts = [edited(prose(200, seed), 0.1, seed) for seed in range(8)]

    def build_and_ask(name: str):
        built = build_index([source], tiny, tmp_path / name, IndexParameters(shard_tokens=3000))
        index = DiskIndex.open(tmp_path / name)
        answers = [
            (index.longest_matches(tiny.encode(text)), index.near_duplicates(text))
            for text in texts
        ]
        files = sorted(path for path in built.generation.rglob("*") if path.is_file())
        return [path.read_bytes() for path in files], answers

    with level("off"):
        expected = build_and_ask("numpy")
    assert build_and_ask("kernels") == expected


_STATUS = """
from memorization import kernels
from memorization.kernels import library
from pathlib import Path
import sys
if len(sys.argv) > 1:
    library._FOLDER = Path(sys.argv[1])
found = kernels.status()
print(found.isa, found.reason, sep="|")
"""


def status_in(variable: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _STATUS, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), library.ISA_VARIABLE: variable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_lowers_the_level_or_turns_them_off():
    assert status_in("portable").stdout == "portable|None\n"
    assert status_in("off").stdout == "None|TALIPOT_KERNELS=off\n"
    assert status_in("avx512_dot").stdout == status_in("").stdout
    assert "TALIPOT_KERNELS=sse9 is none of off, portable" in status_in("sse9").stderr


def test_without_a_library_it_is_said_once_what_to_do(tmp_path: Path):
    ran = status_in("", str(tmp_path))
    assert ran.stdout.startswith("None|they were not built: install a C++17 compiler")
    assert ran.stderr.count("indexes are built and searched slowly") == 1


def test_a_library_of_other_sources_is_not_used(tmp_path: Path):
    built = next(library._FOLDER.glob("_native*"))
    (tmp_path / built.name).symlink_to(built)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.cpp").write_text("int newer;")
    assert (
        "was built from other sources: install Talipot again" in status_in("", str(tmp_path)).stdout
    )

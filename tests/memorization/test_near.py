"""Near duplicates: signatures, the S-curve, and recall on disk and in Redis."""

import dataclasses
import pickle
import subprocess

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from memorization.build import build_index
from memorization.disk_index import DiskIndex
from memorization.errors import IndexUnavailableError, TrainingIndexError
from memorization.layout import IndexParameters
from memorization.lsh import (
    Banding,
    choose_banding,
    edited_similarity,
    match_probability,
    render_curve,
)
from memorization.redis_build import build_redis_index
from memorization.redis_index import RedisIndex
from memorization.redis_store import connect
from memorization.shingles import Windows, split_words
from memorization.signatures import make_signer
from tests.memorization.conftest import running_redis, write_jsonl
from tests.memorization.texts import corpus, edited, prose

KINDS = ("talipot", "datasketch")
NEAR = IndexParameters(exact=False)


def datasketch_minhash(text: str, num_perm: int, shingle_words: int) -> MinHash:
    words = split_words(text)
    sketch = MinHash(num_perm=num_perm)
    count = len(words) - shingle_words + 1
    sketch.update_batch([" ".join(words[at : at + shingle_words]).encode() for at in range(count)])
    return sketch


def jaccard(one: str, other: str, size: int = 3) -> float:
    sets = []
    for text in (one, other):
        words = split_words(text)
        sets.append({tuple(words[at : at + size]) for at in range(len(words) - size + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 60))
def test_windows_cover_every_word(words, window, stride):
    windows = Windows(shingle_words=1, window_words=window, stride_words=min(stride, window))
    covered = set()
    for start in windows.starts(words).tolist():
        covered.update(range(start, start + min(window, words)))
    assert covered == set(range(words))


def test_signatures_of_datasketchs_kind_are_datasketchs_own():
    windows = Windows(window_words=20, stride_words=10)
    text = prose(55, 1)
    words = split_words(text)
    signed = make_signer("datasketch", windows, 32).sign(text)
    assert signed.words == 55
    for start, signature in zip(signed.starts.tolist(), signed.signatures, strict=True):
        text = " ".join(words[start : start + 20])
        np.testing.assert_array_equal(signature, datasketch_minhash(text, 32, 3).hashvalues)


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_estimate_jaccard_similarity(kind):
    """Mean error over 60 pairs within four standard errors of none."""
    num_perm, errors = 128, []
    signer = make_signer(kind, Windows(), num_perm)
    for seed in range(60):
        text = prose(100, seed)
        other = edited(text, 0.05 * (seed % 6), seed)
        one, two = (signer.sign(text).signatures for text in (text, other))
        errors.append((one[0] == two[0]).mean() - jaccard(text, other))
    assert abs(np.mean(errors)) < 4 * 0.5 / np.sqrt(num_perm * len(errors))


@pytest.mark.parametrize("share", [0.05, 0.10, 0.20])
def test_planted_copies_are_found_as_the_curve_says(tmp_path, tiny, share):
    """Recall of 300 edited copies against the mean of the S-curve at their true similarities."""
    records = corpus(300, words=100)
    source = write_jsonl(tmp_path / "c.jsonl", records)
    build_index([source], tiny, tmp_path / "index", NEAR)
    index = DiskIndex.open(tmp_path / "index")
    found, expected = [], []
    for number, record in enumerate(records):
        text = str(record["text"])
        copy = edited(text, share, number)
        near = index.near_duplicates(copy, min_similarity=0.0)
        found.append(f"d{number}" in {n.document for n in near})
        expected.append(match_probability(jaccard(text, copy), NEAR.banding))
    variance = sum(p * (1 - p) for p in expected)
    assert abs(sum(found) - sum(expected)) < 4 * np.sqrt(variance + 1)


def test_a_paragraph_is_found_in_its_document(tmp_path, tiny):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(20, words=1000))
    build_index([source], tiny, tmp_path / "index", NEAR)
    words = prose(1000, 7).split(" ")
    best = DiskIndex.open(tmp_path / "index").near_duplicates(" ".join(words[400:500]))[0]
    assert (best.document, best.title, best.first_word) == ("d7", "Title 7", 400)
    assert best.similarity == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_redis_answers_as_the_disk_does(tmp_path, tiny, client, kind):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(30, words=300))
    parameters = dataclasses.replace(NEAR, signature=kind)
    build_index([source], tiny, tmp_path / "index", parameters)
    disk = DiskIndex.open(tmp_path / "index")
    stored = build_redis_index([source], client, "test", parameters)
    for number in range(30):
        text = edited(prose(300, number), 0.1, number)
        assert stored.near_duplicates(text) == disk.near_duplicates(text) != []
    assert stored.near_duplicates("") == []
    with pytest.raises(TrainingIndexError, match="no verbatim runs"):
        stored.longest_matches([1])


def storage(client, basename: bytes) -> dict[str, object]:
    keywords = client.connection_pool.connection_kwargs
    where = {"host": keywords["host"], "port": keywords["port"]}
    return {"type": "redis", "basename": basename, "redis": where}


def test_plain_datasketch_queries_our_index(tmp_path, client):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(20, words=100))
    parameters = dataclasses.replace(NEAR, signature="datasketch")
    made = build_redis_index([source], client, "test", parameters)
    lsh = MinHashLSH(
        num_perm=64, params=(16, 4), prepickle=False, storage_config=storage(client, made.basename)
    )
    for number in range(20):
        text = prose(100, number)
        assert lsh.query(datasketch_minhash(text, 64, 3)) == [b"%d:0:100" % number]
    lsh.insert(b"theirs", datasketch_minhash(prose(100, 999), 64, 3))
    assert [n.document for n in made.near_duplicates(prose(100, 999))] == ["theirs"]


@pytest.mark.parametrize("is_pickled", [True, False])
def test_we_query_an_index_of_plain_datasketch(client, is_pickled):
    lsh = MinHashLSH(
        num_perm=64,
        params=(16, 4),
        prepickle=is_pickled,
        storage_config=storage(client, b"theirs"),
    )
    for number in range(20):
        key = f"text {number}" if is_pickled else b"text %d" % number
        lsh.insert(key, datasketch_minhash(prose(100, number), 64, 3))
    parameters = dataclasses.replace(NEAR, signature="datasketch")
    index = RedisIndex.of_datasketch(client, b"theirs", parameters, is_pickled=is_pickled)
    for number in range(20):
        (near,) = index.near_duplicates(prose(100, number))
        assert (near.document, near.similarity) == (f"text {number}", 1.0)


class _Dangerous:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickled_key_is_never_executed(client, capsys):
    sketch = datasketch_minhash(prose(100, 1), 64, 3)
    lsh = MinHashLSH(
        num_perm=64, params=(16, 4), prepickle=False, storage_config=storage(client, b"theirs")
    )
    lsh.insert(pickle.dumps(_Dangerous()), sketch)
    parameters = dataclasses.replace(NEAR, signature="datasketch")
    index = RedisIndex.of_datasketch(client, b"theirs", parameters, is_pickled=True)
    with pytest.raises(TrainingIndexError, match=r"would load builtins\.print"):
        index.near_duplicates(prose(100, 1))
    assert capsys.readouterr().out == ""


def test_a_build_in_redis_goes_on_and_replaces_the_old(tmp_path, client, monkeypatch):
    monkeypatch.setattr("memorization.redis_build._CHECKPOINT_CHARACTERS", 5000)
    old = write_jsonl(tmp_path / "old.jsonl", corpus(10, seed=1))
    new = write_jsonl(tmp_path / "new.jsonl", corpus(60, seed=2))
    build_redis_index([old], client, "test", NEAR)

    class Stopped(Exception):  # noqa: N818
        pass

    def stop_after(documents: int):
        seen = []

        def count(characters: int) -> None:
            seen.append(characters)
            if len(seen) > documents:
                raise Stopped

        return count

    with pytest.raises(Stopped):
        build_redis_index([new], client, "test", NEAR, on_characters=stop_after(40))
    served = RedisIndex.open(client, "test")
    assert served.near_duplicates(prose(200, 10_003))[0].document == "d3"
    began: list[int] = []
    made = build_redis_index([new], client, "test", NEAR, on_characters=began.append)
    assert began[0] > 0
    for number in (0, 30, 59):
        assert made.near_duplicates(prose(200, 20_000 + number))[0].similarity == 1.0
    assert made.near_duplicates(prose(200, 10_003)) == []
    names = {key.split(b"_")[0] for key in client.scan_iter(count=1000)}
    assert names == {b"test:current", made.basename}


def test_redis_gone_is_said(tmp_path):
    source = write_jsonl(tmp_path / "c.jsonl", corpus(3))
    with running_redis(tmp_path) as (url, process):
        connection, name = connect(f"{url}?name=here")
        index = build_redis_index([source], connection, name, NEAR)
        assert index.near_duplicates(prose(200, 1))
        process.kill()
        process.wait()
        with pytest.raises(IndexUnavailableError, match="does not answer"):
            index.near_duplicates(prose(200, 1))
        with pytest.raises(IndexUnavailableError, match="does not answer"):
            connect(url)
        connection.close()
    assert isinstance(process, subprocess.Popen)


def test_bandings_are_datasketchs():
    for threshold in (0.3, 0.5, 0.8):
        lsh = MinHashLSH(threshold=threshold, num_perm=64)
        chosen = choose_banding(threshold, 64)
        theirs = Banding(num_perm=64, bands=lsh.b, rows=lsh.r)
        # Integrals by different rules may tie.
        assert abs(match_probability(0.5, chosen) - match_probability(0.5, theirs)) < 0.05


def test_the_curve_is_printed():
    text = render_curve(Banding(), shingle_words=3)
    assert "0.50   64.4%" in text
    assert edited_similarity(0.1, 3) == pytest.approx(0.5737, abs=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Banding(num_perm=10, bands=4, rows=3), "4 \\* 3 = 12 exceeds num_perm=10"),
        (lambda: Banding(bands=1), "bands=1"),
        (lambda: Windows(shingle_words=0), "shingle_words=0"),
        (lambda: Windows(stride_words=101), "stride_words=101"),
        (lambda: choose_banding(1.5, 64), "threshold=1.5"),
        (lambda: IndexParameters(shard_tokens=0), "shard_tokens=0"),
    ],
)
def test_parameters_out_of_range_are_named(make, message):
    with pytest.raises(TrainingIndexError, match=message):
        make()

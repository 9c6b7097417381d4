"""The index in Redis: runs as in a file of fingerprints, builds that were cut off, switches."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from memorization.errors import IndexBuildError, IndexUnavailableError, TrainingIndexError
from memorization.fingerprint_build import collect_fingerprints
from memorization.fingerprint_index import FingerprintIndex
from memorization.layout import IndexParameters
from memorization.redis_appender import Appender
from memorization.redis_build import build_redis_index
from memorization.redis_index import RedisIndex
from memorization.redis_store import STATE, connect
from memorization.redis_tables import RecordTable, chunk_bits
from memorization.winnowing import Winnowing
from tests.memorization.conftest import running_redis, write_jsonl
from tests.memorization.texts import corpus, prose

WHOLE = IndexParameters()
SMALL = Winnowing(k=8, window=6)
READ = {
    b"string": lambda client, key: client.get(key),
    b"hash": lambda client, key: client.hgetall(key),
    b"set": lambda client, key: client.smembers(key),
    b"list": lambda client, key: client.lrange(key, 0, -1),
}


@pytest.fixture
def source(tmp_path):
    """Forty documents, of which five are alike."""
    records = corpus(40, words=120)
    for record in records[20:25]:
        record["text"] = prose(120, 20)
    return write_jsonl(tmp_path / "c.jsonl", records)


def contents(client) -> dict[bytes, object]:
    """All that an index consists of, whatever its generation."""
    kept: dict[bytes, object] = {}
    for key in client.scan_iter(count=1000):
        if not key.endswith((b":current", STATE)):
            kept[key.split(b"_", 1)[1]] = READ[client.type(key)](client, key)
    return kept


def test_runs_and_ngrams_are_those_of_a_file_of_fingerprints(source, client, tiny):
    prints = FingerprintIndex(collect_fingerprints([source], tiny, SMALL))
    build_redis_index([source], client, "test", WHOLE, tokenizer=tiny, winnowing=SMALL)
    stored = RedisIndex.open(client, "test")
    assert stored.sure_tokens == prints.sure_tokens == 13
    rng = np.random.default_rng(0)
    found = 0
    for number in range(40):
        words = prose(120, number).split(" ")
        begin = int(rng.integers(0, 60))
        recited = words[begin : begin + int(rng.integers(5, 60))]
        query = tiny.encode(" ".join(["So", "he", "said:", *recited, *prose(9, 999).split(" ")]))
        for least, most in ((1, 10), (13, 2)):
            spans = stored.longest_matches(query, min_tokens=least, max_occurrences=most)
            expected = prints.longest_matches(query, min_tokens=least, max_occurrences=most)
            assert spans == expected
            found += len(spans)
    assert found > 40
    assert stored.longest_matches([]) == []
    mine, theirs = stored.ngrams(), prints.ngrams()
    np.testing.assert_array_equal(mine.words, theirs.words)
    assert (mine.ngram, mine.hash_bits, mine.guarantee_tokens) == (8, 40, 13)
    with pytest.raises(TrainingIndexError, match="outside the vocabulary"):
        stored.longest_matches([tiny.vocab_size])


def test_an_index_holds_what_was_asked_for(source, client, tiny):
    with pytest.raises(TrainingIndexError, match="exact needs a tokenizer"):
        build_redis_index([source], client, "test", WHOLE)
    runs = dataclasses.replace(WHOLE, near=False)
    index = build_redis_index([source], client, "test", runs, tokenizer=tiny)
    assert index.longest_matches(tiny.encode(prose(120, 3)), min_tokens=47)
    with pytest.raises(TrainingIndexError, match="without near duplicates"):
        index.near_duplicates(prose(120, 3))
    near = dataclasses.replace(WHOLE, exact=False)
    index = build_redis_index([source], client, "test", near)
    assert (index.sure_tokens, index.ngrams()) == (None, None)


@pytest.mark.parametrize("signature", ["talipot", "datasketch"])
def test_a_build_stopped_anywhere_ends_as_one_that_was_not(
    source, client, tiny, monkeypatch, signature
):
    monkeypatch.setattr("memorization.redis_appender._BATCH", 50)
    parameters = dataclasses.replace(WHOLE, signature=signature)
    build_redis_index([source], client, "test", parameters, tokenizer=tiny)
    expected = contents(client)
    client.flushall()

    class Stopped(Exception):  # noqa: N818
        pass

    save = Appender.save
    stops = 0
    for saves in itertools.count(1):
        left = iter(range(saves))

        def stop(self: Appender, left=left) -> None:
            # The batch is done, and nobody has learned of it.
            save(self)
            if next(left, None) is None:
                raise Stopped

        monkeypatch.setattr(Appender, "save", stop)
        try:
            build_redis_index([source], client, "test", parameters, tokenizer=tiny)
        except Stopped:
            stops += 1
        else:
            break
    assert stops > 2
    assert contents(client) == expected


def test_two_builds_that_are_not_in_step_are_told(client):
    one, other = Appender(client, b"state"), Appender(client, b"state")
    for appender in (one, other):
        appender.append([(b"name", b"a")])
        appender.end_document(characters=1, windows=0, fingerprints=1)
        appender.save()
    assert client.get(b"name") == b"a"  # both were at the same place
    one.append([(b"name", b"b")])
    one.save()
    other.append([(b"name", b"b"), (b"name", b"c")])
    with pytest.raises(IndexBuildError, match="another process builds the index state"):
        other.save()
    assert client.get(b"name") == b"ab"


def test_servers_follow_when_an_index_is_replaced(tmp_path, source, client, tiny):
    build_redis_index([source], client, "test", WHOLE, tokenizer=tiny)
    server = RedisIndex.open(client, "test")
    text = prose(200, 70_000)
    assert server.near_duplicates(text) == []
    newer = write_jsonl(tmp_path / "newer.jsonl", corpus(3, seed=7))
    build_redis_index([newer], client, "test", WHOLE, tokenizer=tiny)
    before = server.basename
    assert server.longest_matches(tiny.encode(text))[0].occurrences[0].document == "d0"
    assert server.basename != before
    assert server.near_duplicates(text)[0].document == "d0"


def test_an_index_that_is_gone_or_of_another_tokenizer_is_said(source, client, tiny, tokenizer):
    index = build_redis_index([source], client, "test", WHOLE, tokenizer=tiny)
    near = dataclasses.replace(WHOLE, exact=False)
    build_redis_index([source], client, "test", near, tokenizer=tokenizer)
    with pytest.raises(IndexUnavailableError, match="replaced by one of another tokenizer"):
        index.near_duplicates(prose(120, 1))
    client.flushall()
    for ask in (
        lambda: index.near_duplicates(prose(120, 1)),
        lambda: index.longest_matches(list(range(100))),
        index.ngrams,
    ):
        with pytest.raises(IndexUnavailableError, match="not in Redis any more"):
            ask()


@pytest.mark.parametrize("lost", [b"_windows*", b"_ngrams*", b"_documents"])
def test_lost_parts_are_said(source, client, tiny, lost):
    index = build_redis_index([source], client, "test", WHOLE, tokenizer=tiny)
    client.delete(*client.scan_iter(match=index.basename + lost, count=1000))

    def ask() -> None:
        index.near_duplicates(prose(120, 1))
        index.ngrams()

    with pytest.raises(IndexUnavailableError, match=r"build it again"):
        ask()


def test_a_redis_that_may_evict_an_index_is_refused(tmp_path):
    with running_redis(tmp_path) as (url, _):
        client, name = connect(f"{url}?name=here")
        assert name == "here"
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", "100mb")
        client.close()
        with pytest.raises(TrainingIndexError, match="allkeys-lru and would evict parts"):
            connect(url)


def test_tables_keep_the_first_of_what_is_found_too_often(client):
    dtype = np.dtype([("key", "<u4"), ("value", "<u4")])
    table = RecordTable(name=b"t", dtype=dtype, key_bits=32, chunk_bits=4, max_equal=3)
    rng = np.random.default_rng(0)
    records = np.empty(2000, dtype)
    # Some keys come once, some hundreds of times; keys of all chunks.
    records["key"] = rng.choice(2**32 - 1 - np.arange(8) * 2**29, 2000, p=_shares(8))
    records["key"][::20] = rng.integers(0, 2**32, 100)
    records["value"] = np.arange(2000)
    for name, record in zip(table.chunks(records["key"]), records, strict=True):
        client.append(name, record.tobytes())
    for _ in range(2):
        kept = np.concatenate(list(table.sort(client)))
        assert len(kept) < 2000
        keys = np.unique(records["key"])
        places, found = table.find(client.mget(table.chunks(keys)), keys)
        for place, key in enumerate(keys):
            expected = records["value"][records["key"] == key][:3]
            assert found["value"][places == place].tolist() == expected.tolist()
    assert max(Counter(kept["key"].tolist()).values()) == 3


def _shares(count: int) -> np.ndarray:
    weights = 0.5 ** np.arange(count)
    return weights / weights.sum()


def test_strings_stay_small_as_a_corpus_grows():
    assert chunk_bits(1000, 100) == 4
    for size in (10**6, 10**8, 10**10):
        assert 200 <= size / 1024 * 1000 / 2 ** chunk_bits(size, 1000) <= 1024

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ConfigError
from serving.buckets import Buckets, doublings, round_up
from serving.config import EngineConfig

PAGE_SIZE = 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_slots", 0),
        ("max_slots", True),
        ("max_model_len", 1),
        ("prefill_buckets", ()),
        ("prefill_buckets", (0, 4)),
        ("prefill_buckets", (8, 4)),
        ("smallest_key_bucket", 0),
        ("token_budget", 271),
        ("max_queued_requests", -1),
        ("max_queued_tokens", 0),
        ("page_size", 0),
        ("page_size", 24),
        ("kv_pages", 0),
        ("mixed_prefill_tokens", 20),
        ("draft_tokens", 0),
        ("speculate", "on"),
        ("smallest_key_bucket", 100),
        ("ageing_s", -1.0),
        ("stream_interval_s", float("nan")),
        ("dtype", "float64"),
        ("mesh", (2, 2)),
        ("mesh", (0, 1, 1)),
        ("layout", "gather-x/heads"),
    ],
)
def test_a_bad_setting_is_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field):
        EngineConfig(**{field: value})


def test_context_is_bounded_by_the_model_and_the_queue() -> None:
    assert EngineConfig().context_tokens(2048) == 2048
    assert EngineConfig(max_model_len=100).context_tokens(2048) == 100
    with pytest.raises(ConfigError, match="max_model_len=4096 exceeds"):
        EngineConfig(max_model_len=4096).context_tokens(2048)
    with pytest.raises(ConfigError, match="max_queued_tokens=100 must be at least"):
        EngineConfig(max_queued_tokens=100).context_tokens(2048)


def test_chips_with_pages_of_their_own_share_them_out() -> None:
    assert EngineConfig(max_slots=9).num_pages(2048, 8) == 1 + 2 * 128
    assert EngineConfig(kv_pages=2050).num_pages(2048, 8) == 1 + 256
    with pytest.raises(ConfigError, match=r"kv_pages=1000 must be at least 8 x 128 \(devices"):
        EngineConfig(kv_pages=1000).num_pages(2048, 8)


def test_batches_are_multiples_of_the_chips_that_have_rows() -> None:
    assert Buckets.of(EngineConfig(max_slots=9), 2048, 8).batches == (8, 16)
    assert Buckets.of(EngineConfig(max_slots=40), 2048, 8).batches == (8, 16, 32, 40)


def test_pages_hold_every_slot_or_at_least_one_context() -> None:
    assert EngineConfig(max_slots=4).num_pages(2048) == 1 + 4 * 128
    assert EngineConfig(kv_pages=128).num_pages(2048) == 129
    with pytest.raises(ConfigError, match="kv_pages=127 must be at least 128"):
        EngineConfig(kv_pages=127).num_pages(2048)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert EngineConfig().cache_dir == tmp_path / "talipot" / "xla"
    assert EngineConfig(compilation_cache_dir=Path("/x")).cache_dir == Path("/x")
    assert EngineConfig(use_compilation_cache=False).cache_dir is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert EngineConfig().cache_dir == Path.home() / ".cache" / "talipot" / "xla"


def test_default_buckets() -> None:
    buckets = Buckets.of(EngineConfig(), 2048)
    assert dataclasses.asdict(buckets) == {
        "chunks": (16, 64, 128, 256),
        "chunk_keys": (512, 2048),
        "batches": (2, 4, 8, 16, 32),  # the last for drafts
        "decode_keys": (256, 512, 1024, 2048),
        "cache_tokens": 2048,
        "page_size": 16,
    }


@given(
    st.integers(1, 40),
    st.integers(2, 3000),
    st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True).map(sorted),
    st.integers(1, 100),
)
def test_every_piece_of_work_has_a_shape(
    slots: int, context: int, chunks: list[int], smallest_key: int
) -> None:
    config = EngineConfig(
        max_slots=slots,
        page_size=PAGE_SIZE,
        prefill_buckets=tuple(PAGE_SIZE * chunk for chunk in chunks),
        smallest_key_bucket=PAGE_SIZE * smallest_key,
        mixed_prefill_tokens=PAGE_SIZE,
        token_budget=2000,
    )
    buckets = Buckets.of(config, context)
    assert buckets.cache_tokens >= context
    sizes = (*buckets.chunks, *buckets.chunk_keys, *buckets.decode_keys, buckets.cache_tokens)
    assert not any(size % PAGE_SIZE for size in sizes)
    assert round_up(slots, buckets.batches) >= slots
    assert round_up(context, buckets.decode_keys) >= context
    for start in range(0, context, buckets.largest_chunk):
        length = min(buckets.largest_chunk, context - start)
        padded = round_up(length, buckets.chunks)
        assert start + padded <= buckets.cache_tokens
        assert round_up(start + length, buckets.chunk_keys) >= start + length


def test_doublings_and_round_up() -> None:
    assert doublings(2, 12) == (2, 4, 8, 12)
    assert doublings(4, 4) == (4,)
    assert doublings(8, 4) == (4,)
    with pytest.raises(ValueError, match="no compiled size holds 5"):
        round_up(5, (2, 4))

"""The engine's settings."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from model.errors import ConfigError

Dtype: TypeAlias = Literal["float32", "bfloat16"]
Quantize: TypeAlias = Literal["auto", "none", "int8"]
Speculate: TypeAlias = Literal["auto", "off"]
KVDtype: TypeAlias = Literal["auto", "float32", "bfloat16", "int8"]
LayoutChoice: TypeAlias = Literal["auto", "1d/heads", "1d/batch", "2d/heads", "2d/batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model is run. `docs/structure.md` walks a request through the parts named here.

    Attributes:
        max_slots: Requests that generate at the same time.
        page_size: Tokens of a page of the key/value cache; prompts share whole pages.
        kv_pages: Pages of the key/value cache; enough for every slot to hold a whole context if not
            given. With fewer, the request that is last in order waits when they run out.
        use_prefix_cache: Keep what was computed, for prompts that begin with the same tokens.
        max_model_len: Tokens of prompt and completion together; the model's own limit if not given.
        prefill_buckets: Prompt chunk lengths that are compiled; the largest is the chunk in which
            a long prompt is taken in.
        smallest_key_bucket: Cache positions that the cheapest step reads; compiled are this and
            its doublings up to the context.
        token_budget: Most tokens, of prompts and of generation, in one step.
        mixed_prefill_tokens: Most prompt tokens in a step that also serves running requests, so
            that they do not wait long for it.
        ageing_s: Seconds of waiting that make up for one level of priority.
        speculate: auto guesses tokens ahead from earlier text wherever that measurably pays; the
            tokens stay the same. off never does.
        draft_tokens: Most tokens that are guessed ahead for a request in one step.
        stream_interval_s: Tokens that follow each other faster than this reach their streams
            together; a request's first token and its end never wait. Above 16 streams it grows
            with their number. 0 hands over every step.
        max_queued_requests: Requests that may wait for a slot; more are refused.
        max_queued_tokens: Tokens (prompt and max_tokens) that may wait; more are refused.
        dtype: Type of weights: float32 or bfloat16.
        kv_dtype: Type of the key/value cache: auto is that of the weights; int8 has a scale for
            each token's head and takes about a quarter of float32's memory.
        quantize: int8 multiplies 8-bit weights with 8-bit activations (W8A8), on CPUs; auto does so
            wherever the CPU kernels can, none nowhere.
        mesh: Devices along x, y and z to split the model over, such as 2,2,2; all of them, arranged
            for the model, if not given. 1,1,1 is one device.
        layout: How the model is split over several devices (docs/sharding.md); auto chooses by the
            cost model of `talipot plan`.
        compilation_cache_dir: Where compiled programs are kept from one start to the next;
            $XDG_CACHE_HOME/talipot/xla (or ~/.cache/talipot/xla) if not given.
        use_compilation_cache: Keep compiled programs from one start to the next.
        fail_on_recompilation: Stop with an error if a program is compiled after the engine was
            ready, instead of counting it.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    max_slots: int = 16
    page_size: int = 16
    kv_pages: int | None = None
    use_prefix_cache: bool = True
    max_model_len: int | None = None
    prefill_buckets: tuple[int, ...] = (16, 64, 128, 256)
    smallest_key_bucket: int = 256
    token_budget: int = 512
    mixed_prefill_tokens: int = 64
    ageing_s: float = 30.0
    speculate: Speculate = "auto"
    draft_tokens: int = 8
    stream_interval_s: float = 0.02
    max_queued_requests: int = 256
    max_queued_tokens: int = 524_288
    dtype: Dtype = "float32"
    kv_dtype: KVDtype = "auto"
    quantize: Quantize = "auto"
    mesh: tuple[int, ...] | None = None
    layout: LayoutChoice = "auto"
    compilation_cache_dir: Path | None = None
    use_compilation_cache: bool = True
    fail_on_recompilation: bool = False

    def __post_init__(self) -> None:
        """Check every field and what they mean together."""
        counts = ("max_slots", "page_size", "smallest_key_bucket", "max_queued_tokens")
        for field in (*counts, "mixed_prefill_tokens", "draft_tokens"):
            _check_at_least(field, getattr(self, field), 1)
        _check_at_least("max_queued_requests", self.max_queued_requests, 0)
        if self.max_model_len is not None:
            _check_at_least("max_model_len", self.max_model_len, 2)
        buckets = self.prefill_buckets
        if not buckets or min(buckets) < 1 or list(buckets) != sorted(set(buckets)):
            raise ConfigError(f"prefill_buckets={buckets} must be positive and rising")
        needed = buckets[-1] + self.max_slots
        if self.token_budget < needed:
            raise ConfigError(
                f"token_budget={self.token_budget} must be at least {needed}: a chunk of "
                f"{buckets[-1]} tokens (prefill_buckets) and one for each of the "
                f"{self.max_slots} slots (max_slots)"
            )
        self._check_pages()
        if self.dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"dtype={self.dtype!r} must be float32 or bfloat16")
        if self.kv_dtype not in get_args(KVDtype):
            raise ConfigError(f"kv_dtype={self.kv_dtype!r} must be one of {get_args(KVDtype)}")
        if self.quantize not in get_args(Quantize):
            raise ConfigError(f"quantize={self.quantize!r} must be one of {get_args(Quantize)}")
        if self.speculate not in get_args(Speculate):
            raise ConfigError(f"speculate={self.speculate!r} must be one of {get_args(Speculate)}")
        self._check_mesh()

    def _check_mesh(self) -> None:
        if self.mesh is not None and (len(self.mesh) != 3 or min(self.mesh) < 1):
            raise ConfigError(f"mesh={self.mesh} must be 3 sizes (x, y, z) of at least 1")
        if self.layout not in get_args(LayoutChoice):
            raise ConfigError(f"layout={self.layout!r} must be one of {get_args(LayoutChoice)}")

    def _check_pages(self) -> None:
        for field in ("smallest_key_bucket", "mixed_prefill_tokens"):
            if getattr(self, field) % self.page_size:
                raise ConfigError(
                    f"{field}={getattr(self, field)} must be a multiple of "
                    f"page_size={self.page_size}"
                )
        if any(bucket % self.page_size for bucket in self.prefill_buckets):
            raise ConfigError(
                f"prefill_buckets={self.prefill_buckets} must be multiples of "
                f"page_size={self.page_size}"
            )
        if self.kv_pages is not None:
            _check_at_least("kv_pages", self.kv_pages, 1)
        for field in ("ageing_s", "stream_interval_s"):
            if not 0 <= getattr(self, field) < float("inf"):
                raise ConfigError(f"{field}={getattr(self, field)} must be finite and at least 0")

    def num_pages(self, context_tokens: int, chips: int = 1) -> int:
        """Pages of a chip for a context of `context_tokens`, its scratch page included.

        Args:
            context_tokens: Tokens of the longest request.
            chips: Chips with pages of their own, which share slots and pages out evenly.

        Raises:
            ConfigError: The pages of a chip do not hold one context.
        """
        each = -(-context_tokens // self.page_size)
        pages = each * -(-self.max_slots // chips)
        if self.kv_pages is not None:
            pages = self.kv_pages // chips
        if pages < each:
            least = (
                f"{each}" if chips == 1 else f"{chips} x {each} (devices with pages of their own)"
            )
            raise ConfigError(
                f"kv_pages={self.kv_pages} must be at least {least}: the pages of {self.page_size} "
                f"tokens (page_size) that one context of {context_tokens} tokens takes"
            )
        return pages + 1

    def context_tokens(self, max_seq_len: int) -> int:
        """Tokens of prompt and completion together, for a model that can take `max_seq_len`.

        Raises:
            ConfigError: `max_model_len` exceeds what the model can take, or the queue cannot hold
                one request of that length.
        """
        length = max_seq_len if self.max_model_len is None else self.max_model_len
        if length > max_seq_len:
            raise ConfigError(
                f"max_model_len={length} exceeds the model's max_seq_len={max_seq_len}"
            )
        if self.max_queued_tokens < length:
            raise ConfigError(
                f"max_queued_tokens={self.max_queued_tokens} must be at least the context of "
                f"{length} tokens, or a long request could never wait"
            )
        return length

    @property
    def cache_dtype(self) -> str:
        """The key/value cache's type, with `auto` resolved."""
        return self.dtype if self.kv_dtype == "auto" else self.kv_dtype

    @property
    def cache_dir(self) -> Path | None:
        """Where compiled programs are kept; None if they are not."""
        if not self.use_compilation_cache:
            return None
        if self.compilation_cache_dir is not None:
            return self.compilation_cache_dir
        root = os.environ.get("XDG_CACHE_HOME")
        return (Path(root) if root else Path.home() / ".cache") / "talipot" / "xla"


def _check_at_least(field: str, value: int, minimum: int) -> None:
    if type(value) is not int or value < minimum:
        raise ConfigError(f"{field}={value!r} must be an integer of at least {minimum}")

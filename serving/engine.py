"""The engine: `EngineCore` stepped by a thread of its own, for callers in an event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from model.errors import TokenizerError
from serving.compilation import CompilationWatch
from serving.config import EngineConfig
from serving.constraint import Constraint
from serving.core import EngineCore
from serving.engine_stats import EngineStats
from serving.errors import (
    EngineCrashedError,
    EngineStoppedError,
    OverloadedError,
    RecompilationError,
    RequestError,
)
from serving.language_model import LanguageModel
from serving.ngram_filter import NgramFilter
from serving.request import Delta, GenerationRequest, SamplingParams, collect
from serving.runner import Runner
from serving.sequence import Emitted, Sequence
from serving.sharding import Sharding, choose_sharding
from serving.stream import RequestStream

if TYPE_CHECKING:
    from model.checkpoint import Pretrained
    from model.tokenizer import Tokenizer
    from serving.grammar import Grammar

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# Up to so many streams are woken every `stream_interval_s`; more of them less often.
_STREAMS_AT_ONCE = 16
# A hostile grammar takes two seconds; beyond so many, callers had better come again.
_MAX_COMPILING = 32
_COMPILING_RETRY_AFTER_S = 2.0

State: TypeAlias = Literal["new", "starting", "ready", "draining", "stopped", "failed"]


class Engine:
    """Generates text for many requests at once; knows nothing of HTTP, gRPC or safety.

    All methods belong to the event loop that ran `start`, except `stats` and the properties, which
    any thread may read. The event loop never waits for the device.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer | None, config: EngineConfig
    ) -> None:
        """Prepare an engine; nothing is compiled or allocated before `start`.

        Raises:
            ConfigError: The settings do not fit the model.
        """
        self.config = config
        self._runner = Runner(model, config)
        self._core = EngineCore(self._runner, tokenizer, config)
        self._watch = CompilationWatch()
        self._state: State = "new"
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        # Weak, so that a stream that its consumer dropped is collected and aborts its request.
        self._streams: WeakValueDictionary[Sequence, RequestStream] = WeakValueDictionary()
        self._live: set[Sequence] = set()
        self._all_ended = asyncio.Event()
        self._score_numbers = itertools.count()
        self._compilers = ThreadPoolExecutor(1, thread_name_prefix="talipot-grammars")
        self._compiling = 0

    @classmethod
    def from_pretrained(
        cls,
        pretrained: Pretrained,
        config: EngineConfig | None = None,
        sharding: Sharding | None = None,
    ) -> Engine:
        """An engine around a loaded checkpoint.

        Args:
            pretrained: The checkpoint.
            config: The settings.
            sharding: How the parameters were placed when they were loaded; chosen if None.

        Raises:
            ConfigError: The settings do not fit the model.
        """
        config = EngineConfig() if config is None else config
        if sharding is None:
            sharding = choose_sharding(pretrained.config, config)
        if sharding is not None:
            logger.info("model %s is split by layout %s", pretrained.name, sharding)
        model = LanguageModel.of_palm(
            pretrained.name,
            pretrained.config,
            pretrained.params,
            config.dtype,
            config.quantize,
            sharding,
        )
        return cls(model, pretrained.tokenizer, config)

    @property
    def model_name(self) -> str:
        """What the model is called."""
        return self._runner.model.name

    @property
    def max_model_len(self) -> int:
        """Most tokens of a prompt and its completion together."""
        return self._runner.max_model_len

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            TokenizerError: It has none: requests are token ids, and results have no text.
        """
        if self._core.tokenizer is None:
            raise TokenizerError(f"model {self.model_name!r} has no tokenizer")
        return self._core.tokenizer

    @property
    def is_ready(self) -> bool:
        """Whether every program is compiled and requests are admitted."""
        return self._state == "ready"

    def stats(self) -> EngineStats:
        """The engine's figures at this moment."""
        return dataclasses.replace(self._core.stats(), recompilations_after_ready=self._watch.count)

    def forbid(self, ngrams: NgramFilter) -> None:
        """Take the n-grams that requests with `avoid_ngrams` never say; before `start`.

        Raises:
            EngineStoppedError: It was started before.
        """
        if self._state != "new":
            raise EngineStoppedError(f"n-grams are forbidden before start; it is {self._state}")
        self._runner.forbid(ngrams)

    async def start(self) -> None:
        """Compile every shape and start the compute thread; `is_ready` afterwards.

        Raises:
            EngineStoppedError: It was started before.
        """
        if not self._move("new", "starting"):
            raise EngineStoppedError(f"an engine starts once; this one is {self._state}")
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._core.make_ready)
        except BaseException:
            self._state = "failed"
            raise
        if not self._move("starting", "ready"):
            self._runner.release()  # stopped meanwhile
            return
        self._thread = threading.Thread(target=self._compute, name="talipot-engine", daemon=True)
        self._thread.start()

    def generate(self, request: GenerationRequest, *, as_whole: bool = False) -> RequestStream:
        """Admit a request; iterate over its deltas, and close the iterator to abort it.

        Use `contextlib.aclosing` where the iteration may end early. An iterator that is cancelled
        or dropped aborts the request as well, within two steps.

        Args:
            request: The request.
            as_whole: Whether all deltas but the first may come together, at the end; it is cheaper.

        Raises:
            RequestError: The request cannot run on this model.
            OverloadedError: The queue is full.
            EngineStoppedError: The engine does not admit requests.
        """
        loop = self._require_ready()
        sequence = self._core.prepare(request)
        self._core.enqueue(sequence)
        # Deltas arrive through the event loop, so none can come before the stream is known.
        abort = functools.partial(self._core.abort, sequence)
        stream = RequestStream(loop, abort, as_whole=as_whole)
        self._streams[sequence] = stream
        self._live.add(sequence)
        return stream

    def abort(self, request_id: str) -> None:
        """End a request with what it has, within two steps; unknown ids are ignored."""
        sequence = self._core.find(request_id)
        if sequence is not None:
            self._core.abort(sequence)

    async def compile(self, constraint: Constraint) -> Grammar:
        """The grammar of a constraint, for `GenerationRequest.constraint`; from memory if it can.

        Raises:
            RequestError: It cannot be followed; the message says why.
            OverloadedError: Too many constraints wait to be compiled.
            EngineStoppedError: The engine does not admit requests.
        """
        loop = self._require_ready()
        grammars = self._core.grammars
        if grammars is None:
            raise RequestError(
                f"{constraint.field} needs text, and this model has no tokenizer",
                param=constraint.field,
            )
        grammar = grammars.find(constraint)
        if grammar is not None:
            return grammar
        if self._compiling >= _MAX_COMPILING:
            raise OverloadedError(
                f"{self._compiling} grammars wait to be compiled; at most {_MAX_COMPILING} may",
                retry_after_s=_COMPILING_RETRY_AFTER_S,
            )
        self._compiling += 1
        try:
            return await loop.run_in_executor(self._compilers, grammars.compile, constraint)
        finally:
            self._compiling -= 1

    async def score(self, token_ids: Iterable[int]) -> list[float | None]:
        """The log-probability of each token given those before it; None for the first.

        Raises:
            RequestError: The tokens cannot run on this model.
            OverloadedError: The queue is full.
            EngineStoppedError: The engine does not admit requests, or stopped.
        """
        request = GenerationRequest(
            request_id=f"score-{next(self._score_numbers)}",
            prompt_token_ids=tuple(token_ids),
            params=SamplingParams(max_tokens=0, prompt_logprobs=0),
        )
        output = collect([delta async for delta in self.generate(request)])
        if output.prompt_logprobs is None or output.finish_reason != "length":
            raise EngineStoppedError(f"scoring ended with {output.finish_reason!r}")
        return [token.logprob for token in output.prompt_logprobs]

    async def drain(self, timeout_s: float) -> int:
        """Admit nothing more and let requests end; abort what runs after `timeout_s`.

        Returns:
            How many requests were aborted.
        """
        self._move("ready", "draining")
        if not await self._wait_until_all_ended(timeout_s):
            late = list(self._live)
            for sequence in late:
                self._core.abort(sequence)
            await self._wait_until_all_ended(None)
            return len(late)
        return 0

    async def stop(self) -> None:
        """Abort what still runs and end the compute thread. An engine does not start again."""
        await self.drain(0)
        self._state = "failed" if self._state == "failed" else "stopped"
        with self._core.changed:
            self._core.changed.notify_all()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        self._compilers.shutdown(wait=False, cancel_futures=True)
        if self._core.grammars is not None:
            await asyncio.to_thread(self._core.grammars.close)

    def _move(self, before: State, after: State) -> bool:
        """Go from one state to another; False if it is another one by now."""
        if self._state != before:
            return False
        self._state = after
        return True

    def _require_ready(self) -> asyncio.AbstractEventLoop:
        if self._state == "failed":
            raise EngineCrashedError("the engine has failed; see its log")
        if self._state != "ready" or self._loop is None:
            raise EngineStoppedError(f"the engine is {self._state}: it admits no requests")
        if asyncio.get_running_loop() is not self._loop:
            raise EngineStoppedError("requests belong to the event loop that started the engine")
        return self._loop

    async def _wait_until_all_ended(self, timeout_s: float | None) -> bool:
        self._all_ended.clear()
        if not self._live:
            return True
        try:
            await asyncio.wait_for(self._all_ended.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def _compute(self) -> None:
        """The compute thread: a step as long as there is work."""
        try:
            with self._watch.this_thread():
                held: Emitted = []
                handed_over = 0.0
                while self._wait_for_work():
                    held += self._core.step()
                    # Waking every stream for every token of a fast model costs more than the token.
                    now = time.monotonic()
                    is_due = now - handed_over >= self._stream_interval_s()
                    if is_due or any(_is_urgent(*each) for each in held):
                        self._hand_over(held)
                        held, handed_over = [], now
                    self._check_compilations()
        except Exception as error:  # the boundary of a thread: every caller is told
            logger.exception("the engine has failed")
            self._call_in_loop(self._fail, error)
        finally:
            # Whoever still refers to the engine shall not keep its memory.
            self._runner.release()

    def _stream_interval_s(self) -> float:
        """How long tokens may wait: their cost grows with the streams, so the wait does too."""
        return self.config.stream_interval_s * max(1.0, len(self._live) / _STREAMS_AT_ONCE)

    def _wait_for_work(self) -> bool:
        with self._core.changed:
            while self._state not in ("stopped", "failed"):
                if self._core.has_work:
                    return True
                self._core.changed.wait()
        return False

    def _check_compilations(self) -> None:
        if self.config.fail_on_recompilation and self._watch.count:
            raise RecompilationError(
                f"{self._watch.count} programs were compiled after the engine was ready"
            )

    def _hand_over(self, emitted: Emitted) -> None:
        """Give deltas to the event loop, all in one call."""
        if emitted:
            self._call_in_loop(self._push, emitted)

    def _call_in_loop(self, function: Callable[[_T], None], argument: _T) -> None:
        assert self._loop is not None  # the thread starts after it is known
        try:
            self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            logger.warning("the event loop was closed before the engine was stopped")
            self._state = "stopped"

    def _push(self, emitted: Emitted) -> None:
        for sequence, delta in emitted:
            stream = self._streams.get(sequence)
            if stream is not None:
                stream.push(delta)
            if delta.finish_reason is not None:
                self._forget(sequence)

    def _fail(self, error: Exception) -> None:
        """Fail every request; the engine admits none from here on."""
        self._state = "failed"
        for sequence in list(self._live):
            stream = self._streams.get(sequence)
            if stream is not None:
                failure = EngineCrashedError(f"the engine has failed: {error}")
                failure.__cause__ = error
                stream.fail(failure)
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        self._streams.pop(sequence, None)
        self._live.discard(sequence)
        if not self._live:
            self._all_ended.set()


def _is_urgent(sequence: Sequence, delta: Delta) -> bool:
    """Whether somebody waits for just this: a first token, or the end."""
    return delta.finish_reason is not None or len(sequence.generated) == 1

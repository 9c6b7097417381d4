"""The engine's life in a server: loaded and warmed up behind an open port, drained, stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal, TypeAlias

from api.errors import NotReadyError, ShuttingDownError
from model.tokenizer import Tokenizer
from serving.engine import Engine
from serving.engine_stats import EngineStats

Phase: TypeAlias = Literal["loading", "compiling", "ready", "stopping", "stopped", "failed"]

_LOGGER = logging.getLogger("talipot")
_LOADING_RETRY_AFTER_S = 2.0
_STOPPING_RETRY_AFTER_S = 5.0


class EngineHost:
    """Holds the one engine of a process and says in which phase of its life it is."""

    def __init__(self, load: Callable[[], Engine], model_name: str) -> None:
        """Nothing happens before `start`; `load` is called in a thread then."""
        self._load = load
        self._engine: Engine | None = None
        self._phase: Phase = "loading"
        self._max_token_bytes = 0
        self.model_name = model_name
        self.created_s = int(time.time())

    @property
    def phase(self) -> Phase:
        """Where in its life the engine is."""
        if self._phase == "ready" and self._engine is not None and not self._engine.is_ready:
            return "failed"
        return self._phase

    @property
    def engine(self) -> Engine:
        """The engine, while it admits requests.

        Raises:
            NotReadyError: It is not warm yet, or has failed.
            ShuttingDownError: It drains or has stopped.
        """
        phase = self.phase
        if phase == "ready" and self._engine is not None:
            return self._engine
        if phase in ("stopping", "stopped"):
            raise ShuttingDownError(
                f"the server is {phase}: it admits no new requests",
                retry_after_s=_STOPPING_RETRY_AFTER_S,
            )
        raise NotReadyError(
            f"model {self.model_name!r} is not ready: {phase}", retry_after_s=_LOADING_RETRY_AFTER_S
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """The engine's tokenizer; raises as `engine` does."""
        return self.engine.tokenizer

    @property
    def max_text_bytes(self) -> int:
        """Bytes beyond which no text fits the context; raises as `engine` does."""
        return self._max_token_bytes * self.engine.max_model_len

    @property
    def max_model_len(self) -> int | None:
        """Tokens of prompt and completion together, once the engine is loaded."""
        return None if self._engine is None else self._engine.max_model_len

    def stats(self) -> EngineStats | None:
        """The engine's figures, once it is loaded."""
        return None if self._engine is None else self._engine.stats()

    async def start(self) -> None:
        """Load the engine and compile every shape; requests are admitted when this returns.

        Raises:
            TalipotError: The model cannot be loaded; the phase is then `failed`.
        """
        started_s = time.perf_counter()
        try:
            self._engine = await asyncio.to_thread(self._load)
            self._max_token_bytes = await asyncio.to_thread(_longest_token, self._engine.tokenizer)
            if self._phase != "loading":
                return  # stopped meanwhile
            self._phase = "compiling"
            await self._engine.start()
        except BaseException:
            self._phase = "failed" if self._phase in ("loading", "compiling") else self._phase
            raise
        if self._phase == "compiling":
            self._phase = "ready"
            elapsed_s = time.perf_counter() - started_s
            _LOGGER.info("model %s is ready after %.1f s", self.model_name, elapsed_s)

    async def drain(self, timeout_s: float) -> None:
        """Admit nothing more; return when all requests ended, at the latest after `timeout_s`."""
        was_ready = self.phase == "ready"
        self._phase = "stopping"
        if was_ready and self._engine is not None:
            await self._engine.drain(timeout_s)

    async def stop(self) -> None:
        """Abort what still runs and free the engine."""
        self._phase = "stopping"
        if self._engine is not None:
            await self._engine.stop()
        self._phase = "stopped"


def _longest_token(tokenizer: Tokenizer) -> int:
    """Bytes of the longest token."""
    return max(len(tokenizer.token_bytes(token_id)) for token_id in range(tokenizer.vocab_size))

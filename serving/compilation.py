"""Compiling ahead of time: in parallel, remembered on disk, and watched afterwards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import jax
from jax.experimental.compilation_cache import compilation_cache

logger = logging.getLogger(__name__)

Executable: TypeAlias = Any
"""A `jax.stages.Compiled`: takes arrays of the compiled shapes and no others."""

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_WORKERS = 2

# XLA's CPU backend hands reductions to a library or expands them itself depending on their size,
# and the two round differently. Letting the library have single products alone makes every
# reduction round the same whatever the number of rows.
_SAME_ROUNDING_ON_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}


def keep_programs_in(directory: Path) -> None:
    """Make JAX look for compiled programs in `directory`, and keep them there.

    The setting is the process's; a cache that was already set up elsewhere stays where it is.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        directory.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(directory))
        # JAX decides once, at the first compilation, whether there is a cache.
        compilation_cache.reset_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Compiler:
    """Compiles lowered programs in threads: XLA works outside Python's lock."""

    def __init__(self) -> None:
        """Start the threads."""
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="talipot-compile")
        is_cpu = jax.default_backend() == "cpu"
        self._options: dict[str, str | bool] = dict(_SAME_ROUNDING_ON_CPU) if is_cpu else {}
        self.compiled = 0

    def submit(
        self, lowered: jax.stages.Lowered, *, same_rounding: bool = False
    ) -> Future[Executable]:
        """Compile in the background.

        Args:
            lowered: The program.
            same_rounding: Whether programs that differ in their number of rows alone shall round
                alike, as far as the backend can be told to.
        """
        self.compiled += 1
        return self._pool.submit(self._compile, lowered, self._options if same_rounding else {})

    def close(self) -> None:
        """Wait for what was submitted and end the threads."""
        self._pool.shutdown()

    @staticmethod
    def _compile(lowered: jax.stages.Lowered, options: dict[str, str | bool]) -> Executable:
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "No such compile option" not in str(error):
                raise
            # Without the option the warm-up keeps fewer shapes, if it has to.
            logger.warning("this jaxlib does not know %s: %s", sorted(options), error)
            return lowered.compile()


class CompilationWatch:
    """Counts what JAX compiles on the threads that it watches."""

    _by_thread: dict[int, CompilationWatch] = {}  # noqa: RUF012 - one listener for the process
    _is_listening = False
    _lock = threading.Lock()

    def __init__(self) -> None:
        """Nothing compiled yet."""
        self.count = 0

    @contextmanager
    def this_thread(self) -> Iterator[None]:
        """Count what is compiled on the calling thread in the block."""
        self._listen()
        thread = threading.get_ident()
        self._by_thread[thread] = self
        try:
            yield
        finally:
            del self._by_thread[thread]

    @classmethod
    def _listen(cls) -> None:
        with cls._lock:
            if not cls._is_listening:
                cls._is_listening = True
                jax.monitoring.register_event_duration_secs_listener(cls._on_event)

    @classmethod
    def _on_event(cls, event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILE_EVENT:
            watch = cls._by_thread.get(threading.get_ident())
            if watch is not None:
                watch.count += 1

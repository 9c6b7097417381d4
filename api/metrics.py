"""What operators see: Prometheus metrics of requests, latencies and the engine.

Counters and histograms are fed by `api.service`; the engine's own figures are read from
`engine.stats()` when a scrape asks for them, so they cost nothing in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Literal

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.engine_stats import EngineStats

Outcome = Literal["stop", "length", "cancelled", "rejected", "invalid", "error"]
OUTCOMES: tuple[Outcome, ...] = ("stop", "length", "cancelled", "rejected", "invalid", "error")

_TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TPOT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0)

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class ServingMetrics:
    """One registry of its own, so that two servers in one process do not mix."""

    def __init__(self, read_stats: Callable[[], EngineStats | None]) -> None:
        """`read_stats` gives the engine's figures, or None while there is no engine."""
        self.registry = prometheus_client.CollectorRegistry()
        requests = prometheus_client.Counter(
            "talipot_requests",
            "Completions by how they ended; a request for n choices counts n times.",
            ["outcome"],
            registry=self.registry,
        )
        self._by_outcome = {outcome: requests.labels(outcome) for outcome in OUTCOMES}
        self._ttft = prometheus_client.Histogram(
            "talipot_time_to_first_token_seconds",
            "From a request's submission to its first token.",
            buckets=_TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self._tpot = prometheus_client.Histogram(
            "talipot_time_per_output_token_seconds",
            "Mean time between a request's tokens after its first.",
            buckets=_TPOT_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_EngineCollector(read_stats))
        prometheus_client.ProcessCollector(registry=self.registry)

    def count(self, outcome: Outcome) -> None:
        """Count a request that ended."""
        self._by_outcome[outcome].inc()

    def watch(self) -> RequestTimer:
        """A timer for one request, started now."""
        return RequestTimer(self)

    def observe(self, ttft_s: float, tpot_s: float | None) -> None:
        """Record the latencies of a request that produced at least one token."""
        self._ttft.observe(ttft_s)
        if tpot_s is not None:
            self._tpot.observe(tpot_s)

    def render(self) -> bytes:
        """The exposition text of every metric."""
        return prometheus_client.generate_latest(self.registry)


class RequestTimer:
    """Measures one request; cheap enough to be told of every delta."""

    __slots__ = ("_first_s", "_metrics", "_start_s")

    def __init__(self, metrics: ServingMetrics) -> None:
        """Start the clock."""
        self._metrics = metrics
        self._start_s = time.perf_counter()
        self._first_s: float | None = None

    def token_arrived(self) -> None:
        """Note the time of the first token; later calls cost a comparison."""
        if self._first_s is None:
            self._first_s = time.perf_counter()

    def finish(self, outcome: Outcome, completion_tokens: int) -> None:
        """Record the outcome and, if there were tokens, the latencies."""
        self._metrics.count(outcome)
        if self._first_s is None:
            return
        tpot_s = None
        if completion_tokens > 1:
            tpot_s = (time.perf_counter() - self._first_s) / (completion_tokens - 1)
        self._metrics.observe(self._first_s - self._start_s, tpot_s)


# metric name, help, field of EngineStats
_GAUGES = (
    ("talipot_queue_depth", "Requests that wait for a slot.", "queued"),
    ("talipot_requests_running", "Requests that hold a slot.", "running"),
    ("talipot_slots", "Slots for running requests.", "max_slots"),
    (
        "talipot_kv_tokens_used",
        "Positions of the key/value cache in pages that running requests hold.",
        "kv_tokens_used",
    ),
    (
        "talipot_kv_tokens_findable",
        "Positions of the key/value cache in pages that later prompts can share.",
        "kv_tokens_findable",
    ),
    (
        "talipot_batch_invariant",
        "1 if a request's tokens do not depend on its neighbours in a batch.",
        "is_batch_invariant",
    ),
    (
        "talipot_kv_tokens_capacity",
        "Positions of the key/value cache in all pages.",
        "kv_tokens_capacity",
    ),
)
_COUNTERS = (
    ("talipot_prompt_tokens", "Prompt tokens taken in.", "prompt_tokens_total"),
    (
        "talipot_prefill_tokens",
        "Prompt tokens of requests that were given a slot.",
        "prefill_tokens_total",
    ),
    (
        "talipot_prefix_cache_hit_tokens",
        "Those of them that were found in the cache and not computed.",
        "cached_tokens_total",
    ),
    (
        "talipot_preemptions",
        "How often a running request gave up its pages to others.",
        "preemptions_total",
    ),
    (
        "talipot_drafted_tokens",
        "Tokens that speculation guessed ahead.",
        "drafted_tokens_total",
    ),
    (
        "talipot_accepted_tokens",
        "Those of them that turned out to be the next.",
        "accepted_tokens_total",
    ),
    ("talipot_generated_tokens", "Tokens generated.", "generated_tokens_total"),
    ("talipot_steps", "Steps of the engine.", "steps_total"),
    ("talipot_compilations", "Programs compiled.", "compilations_total"),
    (
        "talipot_recompilations_after_ready",
        "Programs compiled after the engine was ready; any is a bug.",
        "recompilations_after_ready",
    ),
)


class _EngineCollector(Collector):
    """Reads the engine's figures when a scrape asks."""

    def __init__(self, read_stats: Callable[[], EngineStats | None]) -> None:
        self._read_stats = read_stats

    def describe(self) -> Iterator[Metric]:
        """Names and kinds, so that registering does not need the engine."""
        for name, text, _ in _GAUGES:
            yield GaugeMetricFamily(name, text)
        for name, text, _ in _COUNTERS:
            yield CounterMetricFamily(name, text)

    def collect(self) -> Iterator[Metric]:
        """The current values; none while there is no engine."""
        stats = self._read_stats()
        if stats is None:
            return
        for name, text, field in _GAUGES:
            yield GaugeMetricFamily(name, text, value=float(getattr(stats, field)))
        for name, text, field in _COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(stats, field))

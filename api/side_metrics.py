"""Metrics of guards and of the output log; read when a scrape asks for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.outputs.worker_metrics import log_metrics
from api.outputs.writer import OutputWriter

if TYPE_CHECKING:
    from api.guards import Guards


class Verdicts:
    """Counts what guards said of finished generations; belongs to the event loop."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.by_guard: Counter[tuple[str, str]] = Counter()
        self.compared_tokens = 0
        self.recited_tokens = 0

    def count(self, reports: Mapping[str, dict[str, Any]] | None) -> None:
        """Count one generation's reports."""
        for name, report in (reports or {}).items():
            self.by_guard[name, report["verdict"]] += 1
            recited = report.get("recited_tokens")
            if recited is not None:
                self.compared_tokens += report["tokens"]
                self.recited_tokens += recited


class SideCollector(Collector):
    """What goes on beside the engine."""

    def __init__(self, guards: Guards, outputs: OutputWriter | None) -> None:
        """Read from these."""
        self._guards = guards
        self._outputs = outputs

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are not checked before there are values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        yield from self._guard_metrics()
        if self._outputs is not None:
            yield from _log_metrics(self._outputs)

    def _guard_metrics(self) -> Iterator[Metric]:
        verdicts = self._guards.verdicts
        said = CounterMetricFamily(
            "talipot_guard_verdicts", "Watched generations by verdict.", labels=["guard", "verdict"]
        )
        for (guard, verdict), count in sorted(verdicts.by_guard.items()):
            said.add_metric([guard, verdict], count)
        yield said
        yield CounterMetricFamily(
            "talipot_memorization_tokens",
            "Generated tokens that the memorization guard compared.",
            value=verdicts.compared_tokens,
        )
        yield CounterMetricFamily(
            "talipot_memorization_recited_tokens",
            "Those of them that stand in the training data.",
            value=verdicts.recited_tokens,
        )
        scoring = self._guards.scoring
        if scoring is None:
            return
        yield GaugeMetricFamily(
            "talipot_scorer_waiting", "Texts that wait for a score.", value=scoring.waiting
        )
        for name, text, value in (
            ("talipot_scorer_texts", "Texts scored.", scoring.texts_total),
            ("talipot_scorer_batches", "Calls of the scorer.", scoring.batches_total),
            ("talipot_scorer_failures", "Texts without a score.", scoring.failures_total),
        ):
            yield CounterMetricFamily(name, text, value=value)


def _log_metrics(outputs: OutputWriter) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "talipot_output_log_waiting",
        "Generations on their way to the output log.",
        value=outputs.waiting,
    )
    yield CounterMetricFamily(
        "talipot_output_log_written", "Generations written to it.", value=outputs.written_total
    )
    yield CounterMetricFamily(
        "talipot_output_log_dropped",
        "Generations that were lost because it lagged too far behind.",
        value=outputs.dropped_total,
    )
    yield from log_metrics(outputs.stats)

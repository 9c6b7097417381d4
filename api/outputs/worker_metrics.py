"""What a worker has done, as metrics; read when a scrape asks for them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.errors import OutputLogError
from api.outputs.log import LogStats, OutputLog, Result
from model.errors import ConfigError

_TOP_DOCUMENTS = 20
_MAX_COUNTED_DOCUMENTS = 4096


class DocumentCounts:
    """How many tokens were recited from which documents, in bounded memory.

    Space-saving (Metwally, Agrawal and El Abbadi 2005): a new document takes the place and the
    count of the one with the least. A count is never too low, and too high by the least at most.
    """

    def __init__(self, capacity: int = _MAX_COUNTED_DOCUMENTS) -> None:
        """Count `capacity` documents at the same time; exactly while there are no more."""
        self._capacity = capacity
        self._tokens: Counter[tuple[str, str]] = Counter()

    def add(self, document: str, title: str, tokens: int) -> None:
        """So many tokens were recited from a document."""
        key = document, title
        if key not in self._tokens and len(self._tokens) >= self._capacity:
            least = min(self._tokens, key=self._tokens.__getitem__)
            self._tokens[key] = self._tokens.pop(least)
        self._tokens[key] += tokens

    def top(self, count: int) -> list[tuple[tuple[str, str], int]]:
        """((document, title), tokens) of those with most, in descending order."""
        return self._tokens.most_common(count)


class WorkerMetrics(Collector):
    """Counts results; the worker's thread adds, any thread may collect."""

    def __init__(self, log: OutputLog) -> None:
        """Nothing was done yet; the log's own figures are asked of `log`."""
        self._log = log
        self._lock = threading.Lock()
        self._results: Counter[tuple[str, str]] = Counter()
        self._traced_tokens = 0
        self._recited_tokens = 0
        self._documents = DocumentCounts()

    def count(self, group: str, results: Sequence[Result]) -> None:
        """Results that the log has taken."""
        with self._lock:
            for result in results:
                self._results[group, result["status"]] += 1
                if "recited_tokens" in result:
                    self._count_trace(result)

    def _count_trace(self, result: Result) -> None:
        self._traced_tokens += result["tokens"]
        self._recited_tokens += result["recited_tokens"]
        for span in result["spans"]:
            named = {(place["document"], place["title"]) for place in span["documents"]}
            for document, title in named:
                self._documents.add(document, title, span["tokens"])

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are not checked before there are values."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        with self._lock:
            yield from [*self._work()]
        try:
            stats = self._log.stats()
        except OutputLogError:
            stats = None
        yield from log_metrics(stats)

    def _work(self) -> Iterator[Metric]:
        results = CounterMetricFamily(
            "talipot_worker_results",
            "Results that this worker has stored.",
            labels=["group", "status"],
        )
        for (group, status), count in sorted(self._results.items()):
            results.add_metric([group, status], count)
        yield results
        yield CounterMetricFamily(
            "talipot_worker_traced_tokens",
            "Generated tokens that were compared with the training data.",
            value=self._traced_tokens,
        )
        yield CounterMetricFamily(
            "talipot_worker_recited_tokens",
            "Those of them that stand in the training data.",
            value=self._recited_tokens,
        )
        # Not a counter: a document that leaves the top would seem to begin again.
        top = GaugeMetricFamily(
            "talipot_worker_document_recited_tokens",
            f"Tokens recited from each of the {_TOP_DOCUMENTS} documents with most.",
            labels=["document", "title"],
        )
        for (document, title), tokens in self._documents.top(_TOP_DOCUMENTS):
            top.add_metric([document, title], tokens)
        yield top


def log_metrics(stats: LogStats | None) -> Iterator[Metric]:
    """The output log's own figures; None where its store does not answer."""
    yield GaugeMetricFamily(
        "talipot_output_log_up", "Whether the log's store answers.", value=float(stats is not None)
    )
    if stats is None:
        return
    yield GaugeMetricFamily(
        "talipot_output_log_depth", "Generations that the log keeps.", value=stats.depth
    )
    for name, text, by_group in (
        ("talipot_output_log_lag", "Generations that a group was not given yet.", stats.lag),
        ("talipot_output_log_pending", "Those given out and not done.", stats.pending),
    ):
        family = GaugeMetricFamily(name, text, labels=["group"])
        for group, value in sorted(by_group.items()):
            family.add_metric([group], value)
        yield family


def serve_metrics(metrics: WorkerMetrics, host: str, port: int) -> WSGIServer:
    """Answer scrapes on a thread of their own; close with `shutdown` and `server_close`.

    Raises:
        ConfigError: The address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(f"metrics_port={port} on {host}: {error.strerror}") from None
    return server

"""What a worker says of itself, scraped as Prometheus does."""

import contextlib
import socket
import urllib.request
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from api.outputs.pipelines import MemorizationPipeline, SafetyPipeline
from api.outputs.worker import Worker
from api.outputs.worker_metrics import DocumentCounts, WorkerMetrics, serve_metrics
from model.errors import ConfigError
from tests.api.outputs.records import record
from tests.lexicon_scorer import LexiconScorer
from tests.memorization.exact_index import ExactIndex


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def scraped(metrics: WorkerMetrics):
    """A function that scrapes: name and labels to value."""
    port = free_port()
    server = serve_metrics(metrics, "127.0.0.1", port)

    def scrape():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {
                (sample.name, *sample.labels.values()): sample.value
                for family in families
                for sample in family.samples
            }

    try:
        yield scrape
    finally:
        server.shutdown()
        server.server_close()


def test_what_a_worker_has_done_can_be_scraped(store):
    log = store.open()
    index = ExactIndex([list(range(40)), list(range(100, 140))])
    pipelines = [SafetyPipeline(LexiconScorer()), MemorizationPipeline(index, min_tokens=8)]
    worker = Worker(log, pipelines, batch=8, max_deliveries=3)
    log.append(
        [
            record("first", token_ids=(7, *range(10, 30), 9)),
            record("second", token_ids=(*range(100, 112), 3)),
            record("third", token_ids=(1, 1, 1)),
        ]
    )
    with scraped(worker.metrics) as scrape:
        before = scrape()
        assert before["talipot_output_log_lag", "memorization"] == 3
        assert before["talipot_worker_traced_tokens_total",] == 0
        worker.run_once()
        after = scrape()
    assert after["talipot_output_log_lag", "memorization"] == 0
    assert after["talipot_output_log_up",] == 1
    assert after["talipot_worker_results_total", "safety", "done"] == 3
    assert after["talipot_worker_results_total", "memorization", "done"] == 3
    assert after["talipot_worker_traced_tokens_total",] == 22 + 13 + 3
    assert after["talipot_worker_recited_tokens_total",] == 20 + 12
    assert after["talipot_worker_document_recited_tokens", "d0", "Book 0"] == 20
    assert after["talipot_worker_document_recited_tokens", "d1", "Book 1"] == 12


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=200))
def test_a_documents_count_is_never_too_low_and_too_high_by_the_least_at_most(recited):
    counts, exact = DocumentCounts(capacity=8), Counter()
    for document, tokens in recited:
        counts.add(f"d{document}", "", tokens)
        exact[f"d{document}"] += tokens
    found = {document: tokens for (document, _), tokens in counts.top(100)}
    assert len(found) == min(8, len(exact))
    least = min(found.values(), default=0) if len(exact) > 8 else 0
    assert all(
        exact[document] <= count <= exact[document] + least for document, count in found.items()
    )
    assert all(document in found for document, count in exact.items() if count > least)


def test_an_address_that_is_taken_is_named(store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"metrics_port={port} on 127.0.0.1"):
            serve_metrics(WorkerMetrics(store.open()), "127.0.0.1", port)

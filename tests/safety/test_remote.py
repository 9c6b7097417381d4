import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from safety.scorers import EndpointError, load_scorer
from safety.scorers.remote import RemoteScorer

Answer = tuple[int, dict[str, str], bytes]


class Endpoint:
    """A real server that gives prepared answers, then scores by length of text."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, Any], str | None]] = []
        self.categories = ("toxicity", "insult")
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.requests.append((self.path, body, self.headers["Authorization"]))
                status, headers, content = (
                    endpoint.answers.pop(0) if endpoint.answers else endpoint.scored(body["input"])
                )
                if not status:
                    self.connection.close()
                    return
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Tests print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def scored(self, texts: list[str]) -> Answer:
        results = [
            {"category_scores": dict.fromkeys(self.categories, len(text) / 1000)} for text in texts
        ]
        return 200, {}, json.dumps({"model": "length-1", "results": results}).encode()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever)
    thread.start()
    yield endpoint
    endpoint.server.shutdown()
    thread.join()
    endpoint.server.server_close()


def test_scores_come_in_order_over_several_batches(endpoint: Endpoint):
    scorer = RemoteScorer(endpoint.url, api_key="secret", model="m")
    scores = scorer.score(["x" * n for n in range(1, 81)])
    np.testing.assert_allclose(scores[:, 0], np.arange(1, 81) / 1000, atol=1e-6)
    np.testing.assert_allclose(scores[:, scorer.labels.index("insult")], scores[:, 0])
    assert not scores[:, scorer.labels.index("threat")].any()
    path, body, authorization = endpoint.requests[0]
    assert path == "/v1/moderations"
    assert body["model"] == "m"
    assert authorization == "Bearer secret"
    assert scorer.version == "length-1"
    assert scorer.name == f"remote:{endpoint.url.removeprefix('http://')}"


def test_openais_categories_become_ours(endpoint: Endpoint):
    endpoint.categories = ("hate", "harassment", "sexual", "violence")
    scorer = RemoteScorer(f"{endpoint.url}/v1/moderations")
    scores = dict(zip(scorer.labels, scorer.score(["x" * 100])[0].tolist(), strict=True))
    assert scores["identity_attack"] == scores["toxicity"] == pytest.approx(0.1)
    assert scores["threat"] == 0


def test_a_busy_or_dropped_call_is_tried_again(endpoint: Endpoint):
    endpoint.answers = [(429, {"Retry-After": "0"}, b""), (0, {}, b""), (503, {}, b"")]
    scorer = RemoteScorer(endpoint.url, backoff_s=0.0)
    assert scorer.score(["abc"])[0, 0] == pytest.approx(0.003)
    assert len(endpoint.requests) == 4


def test_a_refusal_is_final_and_names_the_endpoint(endpoint: Endpoint):
    endpoint.answers = [(401, {}, b"no such key")]
    with pytest.raises(EndpointError, match=r"/v1/moderations answered 401: no such key"):
        load_scorer(endpoint.url).score(["abc"])
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        b'{"results": []}',
        b'{"results": [{}]}',
        b'{"results": [{"category_scores": {"toxicity": 7}}]}',
        b'{"results": [{"category_scores": {"toxicity": "NaN"}}]}',
    ],
)
def test_another_shape_is_an_error_that_names_the_endpoint(endpoint: Endpoint, content: bytes):
    endpoint.answers = [(200, {}, content)]
    with pytest.raises(EndpointError, match=endpoint.url):
        RemoteScorer(endpoint.url).score(["abc"])


def test_a_dead_endpoint_is_named(endpoint: Endpoint):
    url = "http://127.0.0.1:9/v1"
    scorer = RemoteScorer(url, max_tries=2, backoff_s=0.0, timeout_s=1)
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:9/v1/moderations did not answer in 2"):
        scorer.score(["abc"])


def test_surrogates_and_empty_texts_are_sent_as_text(endpoint: Endpoint):
    RemoteScorer(endpoint.url).score(["\ud800", ""])
    assert endpoint.requests[0][1]["input"] == ["?", " "]


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 0), ("max_tries", 0), ("backoff_s", -1)])
def test_a_value_outside_its_range_is_named(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        RemoteScorer("http://localhost", **{name: value})
    with pytest.raises(ValueError, match="url="):
        RemoteScorer("localhost:80")

"""The closing question: does the server that everybody starts know its training books?

`talipot serve` as it comes, with the embedded model and its index. The opening of every fifth
training book is traced to its title and the document's start; held-out books are not in the index.
"""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import free_port
from tests.e2e.tiny import wait_ready
from tests.shared_data import shared_file

OPENING_WORDS = 120
EVERY = 5


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "api", "serve", "--port", str(port), "--grpc-port", "0"]
    command += ["--max-slots", "2", "--max-model-len", "512", "--prefill-buckets", "256"]
    command += ["--smallest-key-bucket", "512", "--no-output-log"]
    log: Path = tmp_path_factory.mktemp("serve") / "log"
    with log.open("wb") as errors:
        server = subprocess.Popen(command, stderr=errors)
    try:
        wait_ready(url)
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client
    finally:
        server.kill()
        server.wait()


def openings(name: str, every: int) -> list[tuple[str, str]]:
    """(title, first words) of some books."""
    with lzma.open(shared_file(f"corpus/{name}.jsonl.xz"), "rt", encoding="utf-8") as file:
        books = [json.loads(line) for line in islice(file, 0, None, every)]
    return [
        (book["title"], " ".join(book["text"][:5000].split(" ")[:OPENING_WORDS])) for book in books
    ]


def search(http: httpx.Client, text: str) -> list[dict[str, object]]:
    response = http.post("/v1/memorization/search", json={"text": text})
    assert response.status_code == 200, response.text
    return response.json()["spans"]


def test_openings_of_training_books_are_traced_to_title_and_offset(http):
    books = openings("books-train", EVERY)
    assert len(books) > 20
    for title, opening in books:
        first = search(http, opening)[0]
        (offset,) = [each["offset"] for each in first["documents"] if each["title"] == title]
        # A run's ends are known to the nearest fingerprint.
        assert (first["tokens"] > 47, offset < 47) == (True, True), title


def test_openings_of_held_out_books_are_not(http):
    books = openings("books-heldout", 1)
    assert len(books) > 10
    assert {title for title, opening in books if search(http, opening)} == set()


def test_the_model_goes_on_from_either_in_its_own_words(http):
    for name in ("books-train", "books-heldout"):
        _, opening = openings(name, EVERY)[0]
        body = {"model": "talipot-tiny", "prompt": opening, "max_tokens": 64, "temperature": 0}
        asked = {**body, "memorization": {"action": "annotate", "min_tokens": 50}}
        (choice,) = http.post("/v1/completions", json=asked).json()["choices"]
        report = choice["memorization"]
        assert (report["verdict"], report["tokens"]) == ("passed", 64)

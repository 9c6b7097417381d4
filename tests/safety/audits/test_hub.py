"""Data sets by name, from a hub on this machine that answers as the real one does."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety.audits import hub
from safety.audits.errors import AuditDataError

FILES = {
    "prompts.jsonl": b'{"prompt": {"text": "So, I"}}\n',
    "prompts/gender_prompt.json": b'{"American_actors": {"A": ["A is"]}}',
    "prompts/race_prompt.json": b'{"Asian_Americans": {"B": ["B is"]}}',
    "README.md": b"# A data set\n",
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = """
import json, sys
from safety.audits import hub
from safety.audits.errors import AuditDataError
for name in sys.argv[1:]:
    try:
        found = hub.fetch(name)
        print(json.dumps(sorted(p.name for p in found.iterdir()) if found.is_dir()
                         else found.read_text()))
    except AuditDataError as error:
        print(json.dumps({"error": str(error)}))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The routes of the hub that fetching a data set's files takes."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        resolve, info = f"/datasets/ours/set/resolve/{COMMIT}/", "/api/datasets/ours/set"
        name = path.replace("/resolve/main/", f"/resolve/{COMMIT}/").removeprefix(resolve)
        headers = {"X-Repo-Commit": COMMIT}
        if not path.startswith(("/datasets/ours/set/", info)):
            status, body = 404, b"{}"
            headers["X-Error-Code"] = "RepoNotFound"
        elif path.startswith(f"{info}/tree/"):
            status = 200
            tree = [
                {"type": "file", "path": name, "size": len(text), "oid": COMMIT}
                for name, text in FILES.items()
            ]
            body = json.dumps(tree).encode()
        elif path.startswith(info):
            status = 200
            files = [{"rfilename": name} for name in FILES]
            body = json.dumps({"id": "ours/set", "sha": COMMIT, "siblings": files}).encode()
        elif name in FILES:
            status, body = 200, FILES[name]
            headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
        else:
            status, body = 404, b"{}"
            headers["X-Error-Code"] = "EntryNotFound"
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def _fetched(endpoint: str, home: Path, *names: str, **environment: str) -> list[object]:
    # The client reads its settings when it is imported: another process has other ones.
    done = subprocess.run(
        [sys.executable, "-c", FETCH, *names],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_files_and_folders_come_once_and_faults_are_named(endpoint, tmp_path):
    file, folder = "hub:ours/set/prompts.jsonl", "hub:ours/set@main/prompts"
    text, names, no_file, no_folder, no_set = _fetched(
        endpoint,
        tmp_path,
        file,
        folder,
        "hub:ours/set/other.csv",
        "hub:ours/set/others",
        "hub:theirs/set/prompts.jsonl",
    )
    assert text == FILES["prompts.jsonl"].decode()
    assert names == ["gender_prompt.json", "race_prompt.json"]
    assert no_file == {
        "error": "hub:ours/set/other.csv: data set 'ours/set' has no file 'other.csv'"
    }
    assert no_folder == {"error": "hub:ours/set/others: data set 'ours/set' has no folder 'others'"}
    assert no_set == {"error": "hub:theirs/set/prompts.jsonl: the hub has no data set 'theirs/set'"}

    # Without a network: what is here is read, what is not is said to be out of reach.
    again, missing = _fetched(
        "http://127.0.0.1:9", tmp_path, file, "hub:ours/set/new.csv", HF_HUB_OFFLINE="1"
    )
    assert again == text
    assert "hub:ours/set/new.csv: the hub cannot be reached" in missing["error"]
    assert "give the path of a file" in missing["error"]


@pytest.mark.parametrize(
    "name", ["hub:", "hub:set/prompts.jsonl", "hub:a/b", "hub:a/b/", "hub:a/b/../c", "hub:a b/c/d"]
)
def test_other_names_are_refused(name):
    with pytest.raises(AuditDataError, match="expected hub:OWNER/NAME/PATH"):
        hub.parse(name)


def test_a_name_has_a_revision_or_not():
    found = hub.parse("hub:allenai/real-toxicity-prompts@v1.0/a/prompts.jsonl")
    assert (found.repo, found.revision) == ("allenai/real-toxicity-prompts", "v1.0")
    assert (str(found.path), found.is_folder) == ("a/prompts.jsonl", False)
    assert hub.parse("hub:a/b/c").revision is None

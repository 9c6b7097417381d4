"""A scorer behind an endpoint in the shape of OpenAI's `/v1/moderations`."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safety.scorers.base import TOXICITY_LABELS
from safety.scorers.errors import EndpointError

_BATCH = 32
_MAX_RETRY_AFTER_S = 30.0
_RETRIED = {408, 409, 429, 500, 502, 503, 504}
# What OpenAI's categories are in our labels: the highest of them counts.
_OPENAI_CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "threat": ("harassment/threatening", "hate/threatening"),
    "insult": ("harassment", "harassment/threatening"),
    "identity_attack": ("hate", "hate/threatening"),
    "obscene": ("sexual",),
}


class RemoteScorer:
    """Scores by HTTP, in order, a batch at a time.

    An endpoint that has our labels among its `category_scores`, such as our own, gives them. Of
    OpenAI's categories come `threat`, `insult`, `identity_attack` and `obscene`, as far as the
    endpoint has them, and `toxicity` as the highest of these.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        max_tries: int = 4,
        backoff_s: float = 0.5,
    ) -> None:
        """Use an endpoint; nothing is sent yet.

        Args:
            url: Of the server, of its `/v1`, or of `/v1/moderations` itself.
            model: Asked for; the endpoint's default if not given.
            api_key: Sent as bearer token; OPENAI_API_KEY's value if not given.
            timeout_s: Of each try.
            max_tries: How often a batch is tried before it fails.
            backoff_s: Wait before the second try; doubles each time.

        Raises:
            ValueError: A value is outside its range.
        """
        self._url = _endpoint(url)
        if timeout_s <= 0:
            raise ValueError(f"timeout_s={timeout_s} must be more than 0")
        if max_tries < 1:
            raise ValueError(f"max_tries={max_tries} must be 1 or more")
        if backoff_s < 0:
            raise ValueError(f"backoff_s={backoff_s} must be 0 or more")
        self._model = model
        self._api_key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
        self._timeout_s = timeout_s
        self._max_tries = max_tries
        self._backoff_s = backoff_s
        self._served = "unknown"

    @property
    def name(self) -> str:
        """Such as `remote:example.org`."""
        return f"remote:{urllib.parse.urlsplit(self._url).netloc.rpartition('@')[2]}"

    @property
    def version(self) -> str:
        """The model that the endpoint said it is, `unknown` before the first text.

        An endpoint shows no weights, so there is no hash of them.
        """
        return self._served

    @property
    def labels(self) -> tuple[str, ...]:
        """Detoxify's; what an endpoint does not know is 0."""
        return TOXICITY_LABELS

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Scorer`.

        Raises:
            EndpointError: It did not answer, or not in this shape; names the endpoint.
        """
        scores = np.zeros((len(texts), len(TOXICITY_LABELS)), np.float32)
        for start in range(0, len(texts), _BATCH):
            # A lone surrogate is no UTF-8; empty input is refused by OpenAI.
            batch = [
                text.encode("utf-8", "replace").decode("utf-8") or " "
                for text in texts[start : start + _BATCH]
            ]
            scores[start : start + len(batch)] = self._score(batch)
        return scores

    def _score(self, batch: list[str]) -> NDArray[np.float32]:
        body: dict[str, Any] = {"input": batch}
        if self._model is not None:
            body["model"] = self._model
        answer = self._post(json.dumps(body).encode("utf-8"))
        try:
            results = answer["results"]
            if len(results) != len(batch):
                raise EndpointError(
                    f"{self._url} gave {len(results)} results for {len(batch)} texts"
                )
            scores = [_scores(result["category_scores"]) for result in results]
            self._served = str(answer.get("model", "unknown"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EndpointError(
                f"{self._url} did not answer in the shape of /v1/moderations: {error!r}"
            ) from error
        return np.array(scores, np.float32)

    def _post(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json", "User-Agent": "talipot"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(self._url, body, headers)
        wait_s = self._backoff_s
        for left in range(self._max_tries - 1, -1, -1):
            retry_after = 0.0
            try:
                with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(500).decode("utf-8", "replace")
                if error.code not in _RETRIED or not left:
                    raise EndpointError(f"{self._url} answered {error.code}: {said}") from error
                retry_after = _seconds(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    reason = getattr(error, "reason", error)
                    raise EndpointError(
                        f"{self._url} did not answer in {self._max_tries} tries of at most "
                        f"{self._timeout_s:g} s: {reason!r}"
                    ) from error
            except ValueError as error:
                raise EndpointError(f"{self._url} did not answer in JSON: {error}") from error
            time.sleep(max(wait_s, retry_after))
            wait_s *= 2
        raise AssertionError("the last try returns or raises")


def _endpoint(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError(f"url={url!r} must begin with http:// or https:// and name a host")
    path = parts.path.rstrip("/")
    if not path.endswith("/moderations"):
        path = f"{path}/moderations" if path.endswith("/v1") else f"{path}/v1/moderations"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _scores(categories: Mapping[str, Any]) -> list[float]:
    if "toxicity" in categories:
        known = {label: float(categories.get(label, 0)) for label in TOXICITY_LABELS}
    else:
        known = {
            label: max(float(categories.get(name) or 0) for name in names)
            for label, names in _OPENAI_CATEGORIES.items()
        }
        known["toxicity"] = max(known.values())
    scores = [known.get(label, 0.0) for label in TOXICITY_LABELS]
    if not all(0 <= score <= 1 for score in scores):
        raise ValueError(f"scores {scores} are not in [0, 1]")
    return scores


def _seconds(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), _MAX_RETRY_AFTER_S)
    except ValueError:  # a date, which is allowed too: our own pause is as good
        return 0.0

"""What the output log knows of a finished generation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

HASH_PREFIX = "sha256:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputRecord:
    """One choice of a call.

    Attributes:
        call: Id of the call, as the response has it.
        index: Which of its choices, from 0.
        choices: How many choices the call has.
        created_s: When it was finished, seconds since 1970.
        model: The model's name.
        prompt: The prompt's text, or its hash; None for a prompt of token ids.
        prompt_token_ids: Its token ids; empty where only hashes are stored.
        text: The generated text as it left, without the prompt; or its hash.
        token_ids: Its token ids as they left; empty where only hashes are stored.
        finish_reason: Why it ended.
        reports: What guards found while it was generated.
        is_hashed: Whether texts are hashes.
        results: Where they are: what the side pipelines found before the texts were hashed.
    """

    call: str
    index: int
    choices: int
    created_s: float
    model: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    reports: dict[str, Any] | None = None
    is_hashed: bool = False
    results: dict[str, dict[str, Any]] | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps(fields, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> OutputRecord:
        """What `to_json` wrote."""
        fields = json.loads(text)
        for name in ("prompt_token_ids", "token_ids"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def hashed(self, results: dict[str, dict[str, Any]]) -> OutputRecord:
        """The same without texts and tokens, with what was found in them.

        Equal texts can still be found, and no text be read.
        """
        return dataclasses.replace(
            self,
            results=results,
            prompt=None if self.prompt is None else text_hash(self.prompt),
            prompt_token_ids=(),
            text=text_hash(self.text),
            token_ids=(),
            is_hashed=True,
        )


def text_hash(text: str) -> str:
    """SHA-256 of a text's UTF-8."""
    return HASH_PREFIX + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

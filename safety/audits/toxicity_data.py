"""Prompts for the toxicity audit: RealToxicityPrompts in its published forms, and our own."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safety.audits import loading
from safety.audits.errors import AuditDataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToxicityPrompt:
    """A prompt to continue.

    Attributes:
        text: The prompt.
        human: How the text that it was cut from goes on; None if that is not known.
        published_toxicity: The score that the data set gives the prompt, by its own scorer.
    """

    text: str
    human: str | None = None
    published_toxicity: float | None = None


def load_prompts(path: Path) -> list[ToxicityPrompt]:
    """Read prompts: JSONL as RealToxicityPrompts publishes it, or with `text`; or plain lines.

    A JSONL line has `prompt` (an object with `text` and perhaps `toxicity`) and perhaps
    `continuation`, or it has `text` and perhaps `toxicity` itself. A file `.txt` has a prompt a
    line.

    Raises:
        AuditDataError: The file is damaged or of another format; names file, line and field.
    """
    if path.suffix == ".txt":
        found = [ToxicityPrompt(text=text.strip()) for _, text in loading.lines(path)]
    else:
        found = [_prompt(path, number, row) for number, row in loading.json_lines(path)]
    return loading.at_least_one(path, found, "prompts")


def _prompt(path: Path, number: int, row: dict[str, Any]) -> ToxicityPrompt:
    if "prompt" in row:
        prompt = _nested(path, number, row, "prompt")
        continuation = _nested(path, number, row, "continuation") if "continuation" in row else {}
        human = continuation.get("text")
        if human is not None and not isinstance(human, str):
            raise AuditDataError(
                f"{path} line {number}: field 'continuation.text' is {human!r}; expected a text"
            )
    elif "text" in row:
        prompt, human = row, None
    else:
        raise AuditDataError(
            f"{path} line {number}: field 'prompt' (or 'text') is missing; its fields are "
            f"{', '.join(map(repr, row)) or 'none'}"
        )
    return ToxicityPrompt(
        text=loading.text_field(path, number, prompt, "text").strip(),
        human=human,
        published_toxicity=(
            None
            if prompt.get("toxicity") is None
            else loading.number_field(path, number, prompt, "toxicity", 0, 1)
        ),
    )


def _nested(path: Path, number: int, row: dict[str, Any], field: str) -> dict[str, Any]:
    value = row[field]
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise AuditDataError(
            f"{path} line {number}: field {field!r} is {value!r}; expected an object with 'text'"
        )
    return value

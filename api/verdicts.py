"""What guards found in a text, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from serving.request import GenerationOutput

_COLORS = {
    "passed": "green",
    "flagged": "yellow",
    "redacted": "yellow",
    "unscored": "yellow",
    "untraced": "yellow",
    "blocked": "red",
}
_LABELS_SHOWN = 3
_SNIPPET_CHARACTERS = 60
_INDENT = "  "


def verdict_lines(output: GenerationOutput) -> Iterator[Text]:
    """A line for each guard that watched a text, and one for each piece that it found."""
    reports = output.reports or {}
    if "safety" in reports:
        yield from _safety(output.text, reports["safety"])
    if "memorization" in reports:
        yield from _memorization(output.text, reports["memorization"])


def _safety(text: str, report: Mapping[str, Any]) -> Iterator[Text]:
    scorer, threshold = report["scorer"], report["threshold"]
    scores = report["scores"]
    found = "not all was scored" if scores is None else _highest(scores, threshold)
    yield _head("safety", report["verdict"]).append(
        f" {found} (threshold {threshold:g}, scorer {scorer['name']} {scorer['version']})"
    )
    prompt = report["prompt"]
    if prompt is not None:
        scored = prompt["scores"]
        found = "not scored" if scored is None else _highest(scored, threshold)
        yield Text(f"{_INDENT}the prompt: {found}")
    for span in report["spans"]:
        yield Text(f"{_INDENT}{_place(text, span)}: {span['label']} {span['score']:.2f}")
    yield from _reasons(report)


def _memorization(text: str, report: Mapping[str, Any]) -> Iterator[Text]:
    recited = report["recited_tokens"]
    found = (
        "not compared with training text word for word"
        if recited is None
        else f"{recited} of {report['tokens']} tokens are in runs of training text of "
        f"{report['min_tokens']} tokens or more"
    )
    yield _head("memorization", report["verdict"]).append(f" {found}")
    for span in report["spans"]:
        places = [f"{_title(one)}, token {one['offset']}" for one in span["documents"]]
        more = span["count"] - 1
        where = f" in {places[0]}" if places else ""
        if places and more:
            where += f" and {more} more place{'s' if more > 1 else ''}"
        yield Text(f"{_INDENT}{_place(text, span)}: {span['tokens']} tokens{where}")
    for near in report["near_duplicates"] or ():
        yield Text(f"{_INDENT}resembles {_title(near)} (similarity {near['similarity']:.2f})")
    yield from _reasons(report)


def _head(guard: str, verdict: str) -> Text:
    return Text.assemble((f"{guard}: ", "bold"), (f"{verdict}.", _COLORS[verdict]))


def _reasons(report: Mapping[str, Any]) -> Iterator[Text]:
    for reason in report["reasons"]:
        yield Text(f"{_INDENT}{reason}")


def _highest(scores: Mapping[str, float], threshold: float) -> str:
    """All labels that reach the threshold, and the next few."""
    ordered = sorted(scores.items(), key=lambda each: -each[1])
    count = max(_LABELS_SHOWN, sum(score >= threshold for score in scores.values()))
    return ", ".join(f"{label} {score:.2f}" for label, score in ordered[:count])


def _place(text: str, span: Mapping[str, Any]) -> str:
    """A piece in its own words, or by its place where they did not leave."""
    start, end = span["start"], span["end"]
    words = " ".join(text[start:end].split())
    if end > len(text) or not words:
        return f"after character {start}"
    if len(words) > _SNIPPET_CHARACTERS:
        words = words[: _SNIPPET_CHARACTERS - 1] + "…"
    return f"“{words}”"


def _title(place: Mapping[str, Any]) -> str:
    return str(place["title"] or place["document"])

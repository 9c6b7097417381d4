"""What the model said, with the parts that stand in its training text marked."""

from __future__ import annotations

from collections.abc import Iterable

from memorization.index import Span, TrainingIndex
from memorization.studies.passages import StudyTokenizer
from memorization.studies.recited import Part, traced_parts
from safety.audits.report import MarkedPart, MarkedText, TextView

_STRONGEST_TOKENS = 50
_PROMPT_CHARACTERS = 200


def text_view(
    title: str,
    texts: Iterable[tuple[str, str, str]],
    tokenizer: StudyTokenizer,
    index: TrainingIndex,
    *,
    min_tokens: int,
) -> TextView:
    """Texts with their recited runs.

    Args:
        title: Of the whole.
        texts: (where it is from, what stands before, the text).
        tokenizer: The index's.
        index: The training text.
        min_tokens: Shortest run that is marked.
    """
    return TextView(
        title=title,
        caption=(
            f"Marked: runs of at least {min_tokens} tokens that stand in the training text word "
            "for word, the longer the stronger. Point at one, or reach it with the tab key, to "
            "see where. Pale: the end of the prompt."
        ),
        texts=[
            MarkedText(
                title=name,
                before=before[-_PROMPT_CHARACTERS:],
                parts=[
                    _marked(part)
                    for part in traced_parts(text, tokenizer, index, min_tokens=min_tokens)
                ],
            )
            for name, before, text in texts
        ],
    )


def _marked(part: Part) -> MarkedPart:
    if part.span is None:
        return MarkedPart(text=part.text)
    strength = min(1.0, part.tokens / _STRONGEST_TOKENS)
    return MarkedPart(text=part.text, source=_source(part.span), strength=strength)


def _source(span: Span) -> str:
    places = (
        f"{at.title or at.document} ({at.source}, {at.document}), token {at.offset:,}"
        for at in span.occurrences
    )
    lines = [
        f"{_length(span)} verbatim, {_times(span.count)} in the training text",
        *dict.fromkeys(places),  # copies of a document have the same id
    ]
    if span.count > len(span.occurrences):
        lines.append(f"and {span.count - len(span.occurrences):,} more")
    return "\n".join(lines)


def _length(span: Span) -> str:
    if span.max_length > span.length:
        return f"{span.length} to {span.max_length} tokens"
    return f"{span.length} tokens"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"

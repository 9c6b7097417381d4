"""What a terminal shows of guards' reports."""

from api.verdicts import verdict_lines
from serving.request import GenerationOutput, Usage

SCORES = {"toxicity": 0.81, "insult": 0.68, "threat": 0.02, "obscene": 0.01}
SAFETY = {
    "action": "annotate",
    "verdict": "flagged",
    "scores": SCORES,
    "threshold": 0.5,
    "spans": [{"start": 4, "end": 12, "label": "toxicity", "score": 0.81}],
    "reasons": [],
    "prompt": None,
    "scorer": {"name": "embedded", "version": "2"},
}
PLACE = {"document": "d1", "title": "Book", "source": "test", "offset": 7}
RECITAL = {
    "action": "annotate",
    "verdict": "flagged",
    "min_tokens": 16,
    "tokens": 60,
    "recited_tokens": 30,
    "spans": [
        {"start": 0, "end": 3, "tokens": 30, "max_tokens": 30, "count": 3, "documents": [PLACE]}
    ],
    "near_duplicates": [{"document": "d2", "title": "", "source": "test", "similarity": 0.75}],
    "reasons": [],
}


def lines(text="You\n a fool.", **reports):
    output = GenerationOutput(
        text=text,
        token_ids=(),
        logprobs=None,
        prompt_logprobs=None,
        finish_reason="stop",
        stop_reason=None,
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        reports=reports or None,
    )
    return [line.plain for line in verdict_lines(output)]


def test_an_unwatched_text_has_no_lines():
    assert lines() == []


def test_safety_names_scores_scorer_and_pieces():
    assert lines(safety=SAFETY) == [
        "safety: flagged. toxicity 0.81, insult 0.68, threat 0.02 "
        "(threshold 0.5, scorer embedded 2)",
        "  “a fool.”: toxicity 0.81",
    ]


def test_every_label_that_reaches_the_threshold_is_named():
    (head, _) = lines(safety=SAFETY | {"threshold": 0.0})
    assert all(label in head for label in SCORES)


def test_what_was_not_scored_or_traced_is_said():
    safety = SAFETY | {"verdict": "unscored", "scores": None, "spans": [], "reasons": ["too slow"]}
    recital = RECITAL | {
        "verdict": "untraced",
        "recited_tokens": None,
        "spans": [],
        "near_duplicates": None,
        "reasons": ["away"],
    }
    assert lines(safety=safety, memorization=recital) == [
        "safety: unscored. not all was scored (threshold 0.5, scorer embedded 2)",
        "  too slow",
        "memorization: untraced. not compared with training text word for word",
        "  away",
    ]


def test_a_piece_that_did_not_leave_is_named_by_its_place_alone():
    assert lines("You ", safety=SAFETY)[1] == "  after character 4: toxicity 0.81"


def test_recited_runs_are_named_with_their_books():
    assert lines(memorization=RECITAL) == [
        "memorization: flagged. 30 of 60 tokens are in runs of training text of 16 tokens or more",
        "  “You”: 30 tokens in Book, token 7 and 2 more places",
        "  resembles d2 (similarity 0.75)",
    ]

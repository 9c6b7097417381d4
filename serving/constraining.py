"""Grammars' and forbidden n-grams' part in a step: which tokens each of its requests may get.

A step is launched before the tokens of the step before are known, and what a grammar allows depends
on them. So `decode` runs for all rows, and while it does, the host reads the tokens, advances the
grammars and computes their masks; then `serving.programs.constrain` chooses again for those rows.
Whether a token ends a forbidden n-gram the device itself knows, so `serving.programs.avoid_ngrams`
follows without the host. A step without such requests has nothing to do with this.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from serving.grammar import GrammarCompiler, GrammarMatcher
from serving.launching import LaunchedStep
from serving.runner import Runner
from serving.sequence import CONSTRAINT, Emitted, Sequence


def constrain(
    launched: LaunchedStep,
    runner: Runner,
    grammars: GrammarCompiler | None,
) -> tuple[LaunchedStep, Emitted]:
    """Have the device choose again for the requests of a step that have a grammar or avoid n-grams.

    Their tokens of all steps before must be known.

    Returns:
        The step with its new choice, and the ends of requests whose grammar became too complex.
    """
    decoded = launched.decoded
    if decoded is None:
        return launched, []
    sampled = decoded.sampled
    failed: Emitted = []
    rows: dict[int, tuple[Sequence, GrammarMatcher]] = {}
    row = -1
    for sequence, draft in launched.decodes:
        row += 1 + len(draft)  # the last of its rows; a constrained request has but one
        matcher = sequence.matcher
        # One that ended in the step before gets a token all the same, which nobody wants.
        if matcher is not None and not sequence.is_finished:
            rows[row] = (sequence, matcher)
    if rows and grammars is not None:
        masks = np.full((decoded.rows, grammars.mask_words), -1, np.int32)
        grammars.fill(masks, {row: matcher for row, (_, matcher) in rows.items()})
        is_constrained = np.zeros(decoded.rows, np.bool_)
        for row, (sequence, matcher) in rows.items():
            is_constrained[row] = not matcher.problem
            if matcher.problem:
                failed.append((sequence, sequence.finish("error", CONSTRAINT)))
        sampled = runner.constrain(decoded, masks, is_constrained)
    # With a grammar, `constrain` has seen to it.
    if any(each.request.avoid_ngrams and each.matcher is None for each, _ in launched.decodes):
        sampled = runner.avoid(decoded, sampled)
    return dataclasses.replace(launched, sampled=sampled, decoded=None), failed

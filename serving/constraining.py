"""Grammars' part in a step: which tokens each of its constrained requests may get.

A step is launched before the tokens of the step before are known, and what a grammar allows depends
on them. So `decode` runs for all rows, and while it does, the host reads the tokens, advances the
grammars and computes their masks; then `serving.programs.constrain` chooses again for those rows.
A step without constrained requests has nothing to do with this.
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
    grammars: GrammarCompiler,
) -> tuple[LaunchedStep, Emitted]:
    """Have the device choose again for the constrained requests of a step.

    Their tokens of all steps before must be known.

    Returns:
        The step with its new choice, and the ends of requests whose grammar became too complex.
    """
    rows: dict[int, tuple[Sequence, GrammarMatcher]] = {}
    row = -1
    for sequence, draft in launched.decodes:
        row += 1 + len(draft)  # the last of its rows; a constrained request has but one
        matcher = sequence.matcher
        # One that ended in the step before gets a token all the same, which nobody wants.
        if matcher is not None and not sequence.is_finished:
            rows[row] = (sequence, matcher)
    if not rows or launched.decoded is None:
        return launched, []
    masks = np.full((launched.decoded.rows, grammars.mask_words), -1, np.int32)
    grammars.fill(masks, {row: matcher for row, (_, matcher) in rows.items()})
    is_constrained = np.zeros(launched.decoded.rows, np.bool_)
    failed: Emitted = []
    for row, (sequence, matcher) in rows.items():
        is_constrained[row] = not matcher.problem
        if matcher.problem:
            failed.append((sequence, sequence.finish("error", CONSTRAINT)))
    sampled = runner.constrain(launched.decoded, masks, is_constrained)
    return dataclasses.replace(launched, sampled=sampled, decoded=None), failed

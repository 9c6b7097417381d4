"""Grammars' and forbidden n-grams' part in a step: which tokens each of its requests may get.

A step is launched before the tokens of the step before are known, and what a grammar allows depends
on them. So `decode` runs for all rows, and while it does, the host reads the tokens, advances the
grammars and computes their masks; then `serving.programs.constrain` chooses again for those rows.
Rows that avoid n-grams are chosen there too, with masks that allow all: the device itself knows the
tokens before. A step without such requests has nothing to do with this.
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
    """Have the device choose again for the constrained requests of a step.

    Their tokens of all steps before must be known.

    Returns:
        The step with its new choice, and the ends of requests whose grammar became too complex.
    """
    rows: dict[int, Sequence] = {}
    row = -1
    for sequence, draft in launched.decodes:
        row += 1 + len(draft)  # the last of its rows; a constrained request has but one
        # One that ended in the step before gets a token all the same, which nobody wants.
        if sequence.is_constrained and not sequence.is_finished:
            rows[row] = sequence
    if not rows or launched.decoded is None:
        return launched, []
    masks = np.full((launched.decoded.rows, -(-runner.model.vocab_size // 32)), -1, np.int32)
    matchers: dict[int, GrammarMatcher] = {
        row: sequence.matcher for row, sequence in rows.items() if sequence.matcher is not None
    }
    if grammars is not None:
        grammars.fill(masks, matchers)
    is_constrained = np.zeros(launched.decoded.rows, np.bool_)
    is_constrained[list(rows)] = True
    failed: Emitted = []
    for row, matcher in matchers.items():
        if matcher.problem:
            is_constrained[row] = False
            failed.append((rows[row], rows[row].finish("error", CONSTRAINT)))
    sampled = runner.constrain(launched.decoded, masks, is_constrained)
    return dataclasses.replace(launched, sampled=sampled, decoded=None), failed

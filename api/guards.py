"""Which guards watch a request: the server's policies, what the request asks, and the scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from api.gate import Gate, TokenEnds
from api.guard_config import GuardConfig
from api.guard_fields import GuardFields
from memorization.policy import MemorizationPolicy
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from safety.guard import SafetyGuard
from safety.policy import SafetyPolicy
from safety.scorers import load_scorer
from safety.scoring_thread import ScoringThread
from serving.errors import RequestError
from serving.guard import Guard
from serving.request import GenerationRequest, SamplingParams

NO_SCORER = "none"
_Policy = TypeVar("_Policy", SafetyPolicy, MemorizationPolicy)


class Guards:
    """What a server's requests are watched by; `load` comes before the first request."""

    def __init__(self, config: GuardConfig, scoring: ScoringThread | None = None) -> None:
        """`scoring` is for tests and programs with a scorer of their own."""
        self._config = config
        self.safety = config.safety_policy()
        self.memorization = config.memorization_policy()
        if scoring is None and config.scorer != NO_SCORER:
            scoring = ScoringThread(lambda: load_scorer(config.scorer))
        self.scoring = scoring

    def load(self) -> None:
        """Load what requests may need.

        Raises:
            ConfigError: The policy names a label that the scorer does not have, or needs a scorer
                where there is none.
        """
        if self.scoring is not None:
            self.scoring.load()
        try:
            self._check_safety(self.safety)
        except RequestError as error:
            raise ConfigError(f"the server's policy: {error}") from None

    def close(self) -> None:
        """End the threads."""
        if self.scoring is not None:
            self.scoring.close()

    def check(self, fields: GuardFields, params: SamplingParams) -> None:
        """Accept what a call asks.

        Raises:
            RequestError: It asks for what this server does not have, or for what excludes it.
        """
        policy = self._safety(fields)
        self._check_safety(policy)
        if policy.action == "redact" and params.logprobs is not None:
            raise RequestError(
                "logprobs cannot be given with safety.action='redact': they spell every token",
                param="logprobs",
            )

    def gate(
        self, fields: GuardFields, request: GenerationRequest, tokenizer: Tokenizer
    ) -> Gate | None:
        """What a checked request's deltas go through; None where nothing watches it."""
        ends = TokenEnds(tokenizer, request.prompt_token_ids, echo=request.echo)
        offset = len(ends.prompt_text)
        guards: list[Guard] = []
        policy = self._safety(fields)
        if policy.action != "off" and self.scoring is not None:
            timeout_s = self._config.scorer_timeout_s
            guards.append(SafetyGuard(policy, self.scoring, timeout_s=timeout_s, offset=offset))
        return Gate(guards, request, tokenizer, ends) if guards else None

    def _safety(self, fields: GuardFields) -> SafetyPolicy:
        return _effective(self.safety, fields.safety, may_loosen=fields.may_loosen)

    def _memorization(self, fields: GuardFields) -> MemorizationPolicy:
        return _effective(self.memorization, fields.memorization, may_loosen=fields.may_loosen)

    def _check_safety(self, policy: SafetyPolicy) -> None:
        if policy.action == "off":
            return
        if self.scoring is None:
            raise RequestError(
                f"safety.action={policy.action!r} needs a scorer, and this server has none "
                "(--scorer none)",
                param="safety",
            )
        scorer = self.scoring.load()
        unknown = sorted((policy.labels or frozenset()) - set(scorer.labels))
        if unknown:
            raise RequestError(
                f"safety.labels has {unknown[0]!r}, which the scorer {scorer.name!r} does not "
                f"have; its labels are {', '.join(scorer.labels)}",
                param="safety",
            )


def _effective(policy: _Policy, given: Mapping[str, Any] | None, *, may_loosen: bool) -> _Policy:
    """The server's policy, tightened (or replaced, by those who may) by what a request gave.

    What a request leaves out is the server's.
    """
    if given is None:
        return policy
    asked = dataclasses.replace(policy, **given)
    return asked if may_loosen else policy.tightened_by(asked)

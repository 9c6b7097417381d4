"""Which guards watch a request: the server's policies, what the request asks, and the scorer."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from api.errors import MissingExtraError
from api.gate import Gate
from api.guard_config import NO_INDEX, NO_SCORER, GuardConfig
from api.guard_fields import GuardFields
from api.side_metrics import Verdicts
from api.token_ends import TokenEnds, TokenLengths
from memorization.errors import MemorizationError
from memorization.guard import MemorizationGuard
from memorization.ngram_filter import NgramFilter
from memorization.opening import embedded_indexes, open_index
from memorization.policy import MemorizationPolicy
from memorization.tracing import Tracer
from model.errors import ConfigError
from model.tokenizer import Tokenizer
from safety.guard import SafetyGuard
from safety.policy import SafetyPolicy
from safety.scorers import ScorerError, load_scorer
from safety.scorers.base import Scorer
from safety.scoring_thread import ScoringThread
from serving.errors import RequestError
from serving.guard import Guard
from serving.request import GenerationRequest, SamplingParams

_LOGGER = logging.getLogger("talipot")
_Policy = TypeVar("_Policy", SafetyPolicy, MemorizationPolicy)


class Guards:
    """What a server's requests are watched by; `load` comes before the first request."""

    def __init__(
        self,
        config: GuardConfig,
        scoring: ScoringThread | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """The last two are for programs with a scorer or index of their own."""
        self._config = config
        self.safety = config.safety_policy()
        self.memorization = config.memorization_policy()
        self.new_scorer: Callable[[], Scorer] = lambda: load_scorer(config.scorer)
        """Another scorer of the same kind, for another thread."""
        if scoring is not None:
            self.new_scorer = scoring.load
        elif config.scorer != NO_SCORER:
            scoring = ScoringThread(self.new_scorer)
        self.scoring = scoring
        self.tracer = tracer
        self.ngrams: NgramFilter | None = None
        """What requests with memorization.action='avoid' never say; known from `load_index` on."""
        self.verdicts = Verdicts()
        self._lengths: TokenLengths | None = None

    @classmethod
    def off(cls) -> Guards:
        """Guards that watch nothing, for whoever reads every text as it came."""
        return cls(GuardConfig(scorer=NO_SCORER))

    def load(self) -> None:
        """Load what requests may need.

        Raises:
            MissingExtraError: The scorer needs a package that is not installed.
            ConfigError: The scorer cannot be loaded, or the policy names a label that it does not
                have, or needs a scorer where there is none.
        """
        if self.scoring is not None:
            try:
                self.scoring.load()
            except ScorerError as error:
                raise ConfigError(str(error)) from None
            except ModuleNotFoundError as error:
                raise MissingExtraError(
                    f"scorer={self._config.scorer!r} needs the package {error.name!r}; install it "
                    "with: pip install 'talipot[safety]'"
                ) from error
        try:
            self._check_safety(self.safety)
        except RequestError as error:
            raise ConfigError(f"the policy of all requests: {error}") from None

    def load_index(self, model_name: str, tokenizer: Tokenizer) -> None:
        """Open the index of the training data, whose token ids must be the model's.

        Raises:
            ConfigError: The index that the configuration names cannot be opened or is of another
                tokenizer, or there is none and the policy needs one.
        """
        named = self._config.memorization_index
        location = named or (model_name if model_name in embedded_indexes() else NO_INDEX)
        if location != NO_INDEX and self.tracer is None:
            try:
                index = open_index(location, tokenizer)
            except MemorizationError as error:
                if named is not None:
                    raise ConfigError(f"memorization_index={named}: {error}") from None
                # A model of our model's name that is not ours: it is served all the same.
                _LOGGER.warning("no index of the training data: %s", error)
            else:
                self.tracer = Tracer(index, timeout_s=self._config.index_timeout_s)
        if self.tracer is not None and self._config.memorization_ngrams:
            try:
                self.ngrams = self.tracer.index.ngrams()
            except MemorizationError as error:
                raise ConfigError(f"memorization_index={location}: {error}") from None
        try:
            self._check_memorization(self.memorization)
        except RequestError as error:
            raise ConfigError(f"the policy of all requests: {error}") from None

    def close(self) -> None:
        """End the threads."""
        if self.scoring is not None:
            self.scoring.close()
        if self.tracer is not None:
            self.tracer.close()

    def check(self, fields: GuardFields, params: SamplingParams) -> None:
        """Accept what a call asks.

        Raises:
            RequestError: It asks for what this server does not have, or for what excludes it.
        """
        self._check_memorization(self._memorization(fields))
        policy = self._safety(fields)
        self._check_safety(policy)
        if policy.action == "redact" and params.logprobs is not None:
            raise RequestError(
                "logprobs cannot be given with safety.action='redact': they spell every token",
                param="logprobs",
            )

    def require_tracer(self, policy: MemorizationPolicy) -> Tracer:
        """The index, if it can keep a policy.

        Raises:
            RequestError: There is no index, or it may miss runs that the policy counts.
        """
        tracer = self.require_index()
        sure = tracer.index.sure_tokens
        if sure is None and policy.action == "annotate":
            return tracer  # near duplicates are something to tell
        if sure is None:
            raise RequestError(
                f"memorization.action={policy.action!r} needs an index that finds verbatim runs, "
                "and the one here finds near duplicates alone",
                param="memorization",
            )
        if policy.min_tokens < sure:
            raise RequestError(
                f"memorization.min_tokens={policy.min_tokens} must be at least {sure}, the "
                "shortest run that the index here is sure to find",
                param="memorization",
            )
        return tracer

    def require_index(self) -> Tracer:
        """The index.

        Raises:
            RequestError: There is none.
        """
        if self.tracer is None:
            raise RequestError(
                "memorization needs an index of the training data, and there is none here "
                "(--memorization-index)",
                param="memorization",
            )
        return self.tracer

    def avoids(self, fields: GuardFields) -> bool:
        """Whether a checked request must be generated with `avoid_ngrams`."""
        return self._memorization(fields).action == "avoid"

    def gate(
        self, fields: GuardFields, request: GenerationRequest, tokenizer: Tokenizer
    ) -> Gate | None:
        """What a checked request's deltas go through; None where nothing watches it."""
        policy, recital = self._safety(fields), self._memorization(fields)
        if policy.action == "off" and recital.action == "off":
            return None
        if self._lengths is None or self._lengths.tokenizer is not tokenizer:
            self._lengths = TokenLengths(tokenizer)
        ends = TokenEnds(self._lengths, request.prompt_token_ids, echo=request.echo)
        offset = len(ends.prompt_text)
        guards: list[Guard] = []
        if policy.action != "off" and self.scoring is not None:
            timeout_s = self._config.scorer_timeout_s
            guards.append(SafetyGuard(policy, self.scoring, timeout_s=timeout_s, offset=offset))
        if recital.action != "off" and self.tracer is not None:
            guards.append(MemorizationGuard(recital, self.tracer, offset=offset))
        return Gate(guards, request, tokenizer, ends) if guards else None

    def _safety(self, fields: GuardFields) -> SafetyPolicy:
        return _effective(self.safety, fields.safety, may_loosen=fields.may_loosen)

    def _memorization(self, fields: GuardFields) -> MemorizationPolicy:
        return _effective(self.memorization, fields.memorization, may_loosen=fields.may_loosen)

    def _check_memorization(self, policy: MemorizationPolicy) -> None:
        if policy.action == "off":
            return
        self.require_tracer(policy)
        if policy.action == "avoid":
            self._require_ngrams(policy)

    def _require_ngrams(self, policy: MemorizationPolicy) -> None:
        if self.ngrams is None:
            raise RequestError(
                "memorization.action='avoid' needs a filter of n-grams, and there is none here "
                "(talipot index build --ngram, talipot serve --memorization-ngrams)",
                param="memorization",
            )
        if policy.min_tokens < self.ngrams.guarantee_tokens:
            raise RequestError(
                f"memorization.min_tokens={policy.min_tokens} must be at least "
                f"{self.ngrams.guarantee_tokens}, the shortest run that the filter here of "
                "n-grams is sure to avoid",
                param="memorization",
            )

    def _check_safety(self, policy: SafetyPolicy) -> None:
        if policy.action == "off":
            return
        if self.scoring is None:
            raise RequestError(
                f"safety.action={policy.action!r} needs a scorer, and there is none here "
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

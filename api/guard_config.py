"""The settings of guards and of the output log, as several commands share them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from api.config_checks import check_range
from memorization.policy import MemorizationAction, MemorizationPolicy
from model.errors import ConfigError
from safety.policy import SafetyAction, SafetyPolicy

LogTexts: TypeAlias = Literal["full", "hashed"]
NO_SCORER = NO_INDEX = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """How every request of a server is watched; a request can ask for more, never for less.

    Attributes:
        scorer: What scores texts; none does without, and refuses requests that ask for it.
        scorer_timeout_s: Seconds that a score may take: beyond, block ends the text and annotate
            says unscored.
        safety_action: What is done about harmful text: off, annotate, redact or block.
        safety_threshold: Score from which a label counts.
        safety_labels: Labels that count, one an option; all of the scorer's if none is given.
        safety_window_tokens: Most tokens that are held back until they are scored.
        safety_prompt: Score prompts too.
        memorization_action: What is done about recited training text: off, annotate, block or
            avoid, which chooses other tokens.
        memorization_min_tokens: Consecutive training tokens that count as recited.
        memorization_index: Index of the training data: an embedded model's name, a file or a
            folder; the model's own embedded one if not given, none does without.
        memorization_ngrams: Load the index's filter of n-grams, without which no request can ask to
            avoid training text. It lies in the device's memory, at two bytes for each token.
        index_timeout_s: Seconds that the index may take: beyond, block ends the text and annotate
            says untraced.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    scorer: str = "embedded"
    scorer_timeout_s: float = 5.0
    safety_action: SafetyAction = dataclasses.field(default="off", metadata={"flag": "--safety"})
    safety_threshold: float = 0.5
    safety_labels: tuple[str, ...] = ()
    safety_window_tokens: int = 32
    safety_prompt: bool = False
    memorization_action: MemorizationAction = dataclasses.field(
        default="off", metadata={"flag": "--memorization"}
    )
    memorization_min_tokens: int = 50
    memorization_index: str | None = None
    memorization_ngrams: bool = True
    index_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        """Check every field; the policies check themselves."""
        if not self.scorer:
            raise ConfigError("scorer='' must name a scorer, or be none")
        check_range("scorer_timeout_s", self.scorer_timeout_s, 0.001, 600)
        check_range("index_timeout_s", self.index_timeout_s, 0.001, 600)
        for name, make in (
            ("safety", self.safety_policy),
            ("memorization", self.memorization_policy),
        ):
            try:
                make()
            except ValueError as error:
                raise ConfigError(f"{name}_{error}") from None

    def safety_policy(self) -> SafetyPolicy:
        """The policy of requests that ask for nothing."""
        return SafetyPolicy(
            action=self.safety_action,
            threshold=self.safety_threshold,
            labels=frozenset(self.safety_labels) or None,
            window_tokens=self.safety_window_tokens,
            prompt=self.safety_prompt,
        )

    def memorization_policy(self) -> MemorizationPolicy:
        """The policy of requests that ask for nothing."""
        return MemorizationPolicy(
            action=self.memorization_action, min_tokens=self.memorization_min_tokens
        )

    def for_own_policies(self) -> GuardConfig:
        """The same policies, and nothing to load that they do not need.

        For a process in which no request asks for more than they do.
        """
        is_traced = self.memorization_action != "off"
        return dataclasses.replace(
            self,
            scorer=NO_SCORER if self.safety_action == "off" else self.scorer,
            memorization_index=self.memorization_index if is_traced else NO_INDEX,
            memorization_ngrams=self.memorization_action == "avoid",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where finished generations go, and how long they stay.

    Attributes:
        data_dir: Folder of the output log; not used where TALIPOT_REDIS_URL names a Redis server.
            By default talipot in XDG_DATA_HOME or ~/.local/share.
        log_texts: full keeps prompts and texts; hashed keeps their SHA-256, and the server itself
            looks at a text before it hashes it.
        log_max_records: Most generations that are kept; the oldest go first, processed or not.
        log_max_age_s: Seconds that a generation and what was found in it are kept.
        log_lease_s: Seconds after which a generation that a worker has not finished goes to
            another one.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    data_dir: Path | None = None
    log_texts: LogTexts = "full"
    log_max_records: int = 100_000
    log_max_age_s: float = 7 * 86400.0
    log_lease_s: float = 60.0

    def __post_init__(self) -> None:
        """Check every field."""
        if self.log_texts not in get_args(LogTexts):
            raise ConfigError(f"log_texts={self.log_texts!r} must be one of {get_args(LogTexts)}")
        check_range("log_max_records", self.log_max_records, 1, 1 << 40)
        check_range("log_max_age_s", self.log_max_age_s, 1, 10 * 366 * 86400)
        check_range("log_lease_s", self.log_lease_s, 0.1, 86400)

    @property
    def folder(self) -> Path:
        """`data_dir`, or the default."""
        if self.data_dir is not None:
            return self.data_dir
        root = os.environ.get("XDG_DATA_HOME")
        return (Path(root) if root else Path.home() / ".local" / "share") / "talipot"

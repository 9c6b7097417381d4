"""What a server has beside its engine: guards, and the log of what it said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from api.config import ServeConfig
from api.errors import OutputLogError
from api.guards import NO_SCORER
from api.outputs.log import Retention, open_log
from api.outputs.pipelines import Pipeline, SafetyPipeline
from api.outputs.writer import OutputWriter
from model.errors import ConfigError
from safety.scorers import load_scorer

_LOGGER = logging.getLogger("talipot")


def output_writer(config: ServeConfig) -> OutputWriter | None:
    """The writer of a server's output log, not started; None where there is no log.

    Raises:
        ConfigError: The log cannot be opened where the configuration says it is.
    """
    if not config.output_log:
        return None
    outputs = config.outputs
    retention = Retention(max_records=outputs.log_max_records, max_age_s=outputs.log_max_age_s)
    try:
        log = open_log(outputs.folder, retention, lease_s=outputs.log_lease_s)
    except OutputLogError as error:
        if outputs.data_dir is not None:
            raise ConfigError(f"data_dir={outputs.data_dir}: {error}") from None
        _LOGGER.warning("%s: no generation is logged (--data-dir names another folder)", error)
        return None
    hash_after: Callable[[], Sequence[Pipeline]] | None = None
    if outputs.log_texts == "hashed":
        scorer_name = config.guards.scorer

        def hash_after() -> Sequence[Pipeline]:
            return [] if scorer_name == NO_SCORER else [SafetyPipeline(load_scorer(scorer_name))]

    return OutputWriter(log, hash_after=hash_after)

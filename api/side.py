"""What a server has beside its engine: guards, and the log of what it said."""

from __future__ import annotations

import logging

from api.config import ServeConfig
from api.errors import OutputLogError
from api.guards import Guards
from api.outputs.log import Retention, open_log
from api.outputs.pipelines import MemorizationPipeline, Pipeline, SafetyPipeline
from api.outputs.writer import OutputWriter
from model.errors import ConfigError

_LOGGER = logging.getLogger("talipot")


def output_writer(config: ServeConfig, guards: Guards) -> OutputWriter | None:
    """The writer of a server's output log, not started; None where there is no log.

    Where texts are hashed, what `guards` have looks at them before.

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

    def pipelines() -> list[Pipeline]:
        found: list[Pipeline] = []
        if guards.scoring is not None:
            found.append(SafetyPipeline(guards.new_scorer()))
        if guards.tracer is not None:
            index, min_tokens = guards.tracer.index, guards.memorization.min_tokens
            sure = index.sure_tokens or 0
            found.append(MemorizationPipeline(index, min_tokens=max(min_tokens, sure)))
        return found

    return OutputWriter(log, hash_after=pipelines if outputs.log_texts == "hashed" else None)

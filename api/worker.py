"""`talipot worker`: from its settings to a running worker."""

from __future__ import annotations

import logging

from api.config import WorkerConfig
from api.outputs.log import Retention, open_log
from api.outputs.pipelines import MemorizationPipeline, Pipeline, SafetyPipeline
from api.outputs.worker import Worker
from api.outputs.worker_metrics import serve_metrics
from memorization.errors import MemorizationError
from memorization.opening import open_index
from model.checkpoint import resolve_model
from model.errors import ConfigError
from model.tokenizer import load_tokenizer
from safety.scorers import ScorerError, load_scorer

_LOGGER = logging.getLogger("talipot.worker")


def run_worker(config: WorkerConfig) -> None:
    """Process the output log until a signal.

    Raises:
        OutputLogError: The log cannot be opened.
        TalipotError: What a group needs cannot be loaded.
    """
    logging.basicConfig(
        level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    outputs = config.outputs
    retention = Retention(max_records=outputs.log_max_records, max_age_s=outputs.log_max_age_s)
    log = open_log(outputs.folder, retention, lease_s=outputs.log_lease_s)
    pipelines = [_pipeline(group, config) for group in dict.fromkeys(config.groups)]
    worker = Worker(log, pipelines, batch=config.batch_size, max_deliveries=config.max_deliveries)
    worker.stop_on_signals()
    scrapes = None
    if config.metrics_port is not None:
        scrapes = serve_metrics(worker.metrics, config.metrics_host, config.metrics_port)
    _LOGGER.info("%s reads as %s", worker.consumer, ", ".join(p.group for p in pipelines))
    try:
        worker.run()
    finally:
        if scrapes is not None:
            scrapes.shutdown()
            scrapes.server_close()
        log.close()
        _LOGGER.info("%d generations were processed", worker.done_total)


def _pipeline(group: str, config: WorkerConfig) -> Pipeline:
    if group == "safety":
        try:
            return SafetyPipeline(load_scorer(config.scorer))
        except ScorerError as error:
            raise ConfigError(str(error)) from None
    model = config.model
    tokenizer = load_tokenizer(resolve_model(model))
    if tokenizer is None:
        raise ConfigError(f"model={model!r} has no tokenizer, by which its texts are looked up")
    try:
        index = open_index(config.memorization_index or model, tokenizer)
        sure = index.sure_tokens or 0
    except MemorizationError as error:
        raise ConfigError(f"memorization_index: {error}") from None
    return MemorizationPipeline(index, min_tokens=max(sure, config.memorization_min_tokens))

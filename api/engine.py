"""From a model's name to an engine."""

from __future__ import annotations

from api.guards import Guards
from model.checkpoint import load_config, load_pretrained, resolve_model
from model.errors import CheckpointError
from serving.config import EngineConfig
from serving.engine import Engine
from serving.ngram_filter import NgramFilter
from serving.sharding import choose_sharding

_NO_NAMES = ("", "custom")


def model_name(name_or_path: str) -> str:
    """What clients call a model unless told otherwise; reads its config alone.

    Raises:
        CheckpointError: The model is not found, or its config is damaged or unsupported.
    """
    folder = resolve_model(name_or_path)
    name = load_config(folder).name
    return folder.name if name in _NO_NAMES else name


def load_engine(name_or_path: str, config: EngineConfig) -> Engine:
    """Load a model and put an engine around it; nothing is compiled yet.

    Raises:
        CheckpointError: The model is not found, damaged, or without a tokenizer.
        ConfigError: The engine's settings do not fit the model.
    """
    folder = resolve_model(name_or_path)
    sharding = choose_sharding(load_config(folder), config)
    placement = None if sharding is None else sharding.placement
    pretrained = load_pretrained(folder, dtype=config.dtype, placement=placement)
    if pretrained.tokenizer is None:
        raise CheckpointError(f"{folder}: has no tokenizer, without which it cannot be served")
    return Engine.from_pretrained(pretrained, config, sharding)


def load_watched_engine(name_or_path: str, config: EngineConfig, guards: Guards) -> Engine:
    """`load_engine`, with all that its requests are watched by; nothing is compiled yet.

    Raises:
        CheckpointError: The model is not found, damaged, or without a tokenizer.
        ConfigError: The settings do not fit the model, or the guards cannot keep their policies.
        MissingExtraError: The scorer needs a package that is not installed.
    """
    guards.load()  # first, since a policy that cannot be kept is no reason to load a model
    engine = load_engine(name_or_path, config)
    guards.load_index(engine.model_name, engine.tokenizer)
    forbid_ngrams(engine, guards)
    return engine


def forbid_ngrams(engine: Engine, guards: Guards) -> None:
    """Give an engine that has not started the n-grams that guards may ask it to avoid, if any."""
    if guards.ngrams is not None:
        engine.forbid(
            NgramFilter(
                words=guards.ngrams.words,
                ngram=guards.ngrams.ngram,
                hash_bits=guards.ngrams.hash_bits,
            )
        )

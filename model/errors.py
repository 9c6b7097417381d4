"""The model package's exceptions.

TalipotError
├── ConfigError              invalid_config       a configuration value is out of range or unknown
├── CheckpointError          invalid_checkpoint   a checkpoint is damaged, incomplete or unsupported
├── TokenizerError           invalid_tokenizer    a tokenizer file is missing or unusable
├── ExportError              unsupported_export   a model has a shape that a format cannot hold
└── KernelsUnavailableError  kernels_unavailable  the CPU kernels were not built, or are turned off
"""


class TalipotError(Exception):
    """Base of every error that Talipot raises on purpose; `code` is stable across releases."""

    code: str = "talipot_error"


class ConfigError(TalipotError):
    """A configuration value is out of range, unknown or inconsistent."""

    code = "invalid_config"


class CheckpointError(TalipotError):
    """A checkpoint is damaged, incomplete or of an unsupported kind."""

    code = "invalid_checkpoint"


class TokenizerError(TalipotError):
    """A tokenizer file is missing, damaged or lacks a property that the model relies on."""

    code = "invalid_tokenizer"


class ExportError(TalipotError):
    """A model cannot be written in the requested format."""

    code = "unsupported_export"


class KernelsUnavailableError(TalipotError):
    """A CPU kernel was called that is not built here, or is turned off."""

    code = "kernels_unavailable"

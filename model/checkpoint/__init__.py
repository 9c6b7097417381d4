"""Checkpoints: load, save and export models."""

from model.checkpoint.export_gguf import export_gguf
from model.checkpoint.export_hf import export_huggingface
from model.checkpoint.locate import embedded_names, embedded_path, resolve_model
from model.checkpoint.native import WeightFormat, save_pretrained
from model.checkpoint.pretrained import Pretrained, load_config, load_pretrained

__all__ = [
    "Pretrained",
    "WeightFormat",
    "embedded_names",
    "embedded_path",
    "export_gguf",
    "export_huggingface",
    "load_config",
    "load_pretrained",
    "resolve_model",
    "save_pretrained",
]

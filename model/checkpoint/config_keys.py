"""Reading another project's `config.json` without letting a single key pass unnoticed.

A key that is silently ignored can change what a model computes (a sliding window, a scaled RoPE),
and the logits would then be wrong without an error. So every key is either used, or required to
have the value that means "off", or known to say nothing about the forward pass; any other is an
error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from model.errors import CheckpointError

_MISSING = object()

# What transformers writes beside the architecture: bookkeeping, training and generation defaults.
_SAYS_NOTHING = frozenset(
    (
        "architectures",
        "auto_map",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "unk_token_id",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "model_type",
        "name_or_path",
        "tokenizer_class",
        "use_cache",
        "initializer_range",
        "attention_dropout",
        "hidden_dropout",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "return_dict",
        "return_dict_in_generate",
        "torchscript",
        "use_bfloat16",
        "task_specific_params",
        "problem_type",
        "id2label",
        "label2id",
        "finetuning_task",
        "prefix",
        "bad_words_ids",
        "max_length",
        "min_length",
        "do_sample",
        "early_stopping",
        "num_beams",
        "num_beam_groups",
        "diversity_penalty",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "repetition_penalty",
        "length_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "num_return_sequences",
        "remove_invalid_values",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "chunk_size_feed_forward",
        "attn_implementation",
        "pretraining_tp",
        "ff_factor",
    )
)

# What other models have and ours do not, with the values under which it is off.
_MUST_BE_OFF: Mapping[str, tuple[Any, ...]] = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "bias": (None, False),
    "alibi": (None, False),
    "sliding_window": (None,),
    "use_sliding_window": (None, False),
    "layer_types": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
    "is_encoder_decoder": (None, False),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (None, False),
    "pruned_heads": (None, {}),
    "apply_residual_connection_post_layernorm": (None, False),
}


class ConfigKeys:
    """The keys of one `config.json`, each asked for by name and kind."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        """Take the object of the file at `path`."""
        self.path = path
        self._values = values
        self._asked: set[str] = set()

    def integer(self, key: str, default: Any = _MISSING) -> int:
        """A whole number of at least 1; null counts as absent."""
        value = self._get(key, default)
        if type(value) is not int or value < 1:
            self.reject(key, value, "an integer of at least 1")
        return value

    def number(self, key: str, default: Any = _MISSING) -> float:
        """A positive number; null counts as absent."""
        value = self._get(key, default)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            self.reject(key, value, "a positive number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """True or false; null counts as absent."""
        value = self._get(key, default)
        if type(value) is not bool:
            self.reject(key, value, "true or false")
        return value

    def choice(self, key: str, allowed: Mapping[str, str], default: str) -> str:
        """What one of the `allowed` texts stands for; null counts as absent."""
        value = self._get(key, default)
        if not isinstance(value, str) or value not in allowed:
            self.reject(key, value, f"one of {sorted(allowed)}")
        return allowed[value]

    def rope_theta(self, default: float | None) -> float:
        """The rotary base, from `rope_theta` or from `rope_parameters` (transformers 5).

        Raises:
            CheckpointError: A scaled or partial RoPE, or no base where there is no `default`.
        """
        found: set[float] = set()
        if self._get("rope_theta", None) is not None:
            found.add(self.number("rope_theta"))
        for key in ("rope_parameters", "rope_scaling"):
            found |= self._plain_rope(key, self._get(key, None))
        if len(found) > 1:
            self.reject("rope_theta", sorted(found), "one value")
        if found:
            return found.pop()
        if default is None:
            # Its default was 10,000 in transformers 4 and is 500,000 in 5: guessing is not safe.
            self.reject("rope_theta", None, "a positive number, here or in 'rope_parameters'")
        return default

    def finish(self) -> None:
        """Check the keys that nobody asked for.

        Raises:
            CheckpointError: One is unknown, or turns on something that is not supported.
        """
        for key in sorted(self._values.keys() - self._asked):
            value = self._values[key]
            if key in _MUST_BE_OFF:
                if value not in _MUST_BE_OFF[key]:
                    off = " or ".join(repr(item) for item in _MUST_BE_OFF[key])
                    self.reject(key, value, f"{off}: it is not supported")
            elif key not in _SAYS_NOTHING and not key.startswith("_"):
                self.reject(key, value, "no such key: it may change what the model computes")

    def reject(self, key: str, value: Any, expected: str) -> NoReturn:
        """Raise the error about one key."""
        found = "nothing" if value is None and self._values.get(key) is None else repr(value)
        raise CheckpointError(f"{self.path}: {key!r}: found {found}, expected {expected}")

    def _get(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        value = self._values.get(key)
        if value is not None:
            return value
        return None if default is _MISSING else default

    def _plain_rope(self, key: str, rope: Any) -> set[float]:
        """The base in an object that must describe RoPE without scaling."""
        if rope is None:
            return set()
        if not isinstance(rope, dict):
            self.reject(key, rope, "an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            self.reject(f"{key}.rope_type", kind, "'default': RoPE scaling is not supported")
        plain = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
        for extra in sorted(rope.keys() - plain):
            if rope[extra] is not None:
                self.reject(f"{key}.{extra}", rope[extra], "no such key: RoPE is not scaled")
        if rope.get("partial_rotary_factor") not in (None, 1):
            self.reject(f"{key}.partial_rotary_factor", rope["partial_rotary_factor"], "1")
        theta = rope.get("rope_theta")
        if theta is None:
            return set()
        if type(theta) not in (int, float) or not 0 < theta < float("inf"):
            self.reject(f"{key}.rope_theta", theta, "a positive number")
        return {float(theta)}

"""From one rotary layout to the other, exactly, by reordering the rows of a head.

Which components of a head form a rotated pair is a naming: `half` pairs (i, i + H/2),
`interleaved` pairs (2i, 2i+1). Reordering queries and keys alike leaves every score unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from model.config import PaLMConfig, RopeStyle

_REORDERED = ("attention.query", "attention.key", "attention.query_norm", "attention.key_norm")


def with_rope_style(
    config: PaLMConfig, flat: Mapping[str, Any], style: RopeStyle
) -> tuple[PaLMConfig, dict[str, Any]]:
    """The same model with its pairs laid out as `style`.

    Args:
        config: The model's shape.
        flat: Its parameters by dotted name.
        style: The layout wanted.

    Returns:
        Config and parameters; the reordered ones are views or copies on the host.
    """
    if config.rope_style == style:
        return config, dict(flat)
    half = config.head_dim // 2
    interleave = np.arange(config.head_dim).reshape(2, half).T.reshape(-1)
    order = interleave if style == "interleaved" else np.argsort(interleave)
    reordered = {
        name: np.asarray(array).take(order, axis=_head_axis(name))
        if name.endswith(_REORDERED)
        else array
        for name, array in flat.items()
    }
    return dataclasses.replace(config, rope_style=style), reordered


def _head_axis(name: str) -> int:
    return 1 if name.endswith("_norm") else 2

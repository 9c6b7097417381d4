"""A model that is known by name and version, and not asked for anything yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from safety.text_generator import TextGenerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundModel:
    """What a run's identity needs of a model, and how to have the model itself.

    A finished run is only reported again: for that nothing is loaded, compiled or waited for.

    Attributes:
        name: What users call it.
        version: Its weights as far as they can be told from here.
        ready: The model, ready to be asked; raises what `find_model` does.
    """

    name: str
    version: str
    ready: Callable[[], AbstractAsyncContextManager[TextGenerator]]

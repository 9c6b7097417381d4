"""Detoxify's checkpoints, read without running what is in them.

A checkpoint is one `torch.save` of `config` (names of the transformers classes, the labels) and
`state_dict`. Detoxify itself unpickles it whole, which runs any code that a file brings; here only
tensors and plain containers are read, and Detoxify is handed the result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety.scorers.errors import CheckpointError, UnknownScorerError

if TYPE_CHECKING:
    import torch
    from detoxify import Detoxify

_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(ForSequenceClassification|Tokenizer|TokenizerFast)")
_SAME_LABELS = {
    "toxic": "toxicity",
    "identity_hate": "identity_attack",
    "severe_toxic": "severe_toxicity",
}
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        name: Detoxify's model type, or the file's stem.
        arguments: Of `detoxify.detoxify.get_model_and_tokenizer`, besides the state.
        state: Tensors by name.
        labels: As Detoxify names them.
        digest: First 12 hex digits of the file's SHA-256.
        folder: Where configuration and tokenizer lie beside the file; None if the hub has them.
    """

    name: str
    arguments: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    labels: tuple[str, ...]
    digest: str
    folder: Path | None


def find_checkpoint(name: str) -> Path:
    """The file of a path, or of one of Detoxify's model types, fetched if it is not yet here.

    Raises:
        UnknownScorerError: It is neither a type nor a file.
        CheckpointError: It cannot be fetched.
    """
    import torch
    from detoxify.detoxify import MODEL_URLS

    if name not in MODEL_URLS:
        path = Path(name)
        if not path.is_file():
            types = ", ".join(MODEL_URLS)
            raise UnknownScorerError(
                f"detoxify model {name!r} is neither a file nor one of its types: {types}"
            )
        return path
    url = MODEL_URLS[name]
    path = Path(str(torch.hub.get_dir())) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot fetch the weights of detoxify model {name!r} from {url} ({error}); "
                "without a network name a checkpoint file instead"
            ) from error
    return path


def read_checkpoint(name: str) -> Checkpoint:
    """Read one by path or by Detoxify's model type.

    Raises:
        UnknownScorerError: It is neither a type nor a file.
        CheckpointError: It cannot be fetched, is damaged, or holds more than data.
    """
    import torch

    path = find_checkpoint(name)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds objects other than tensors and containers, which are "
            f"not loaded because they could run code: {str(error).splitlines()[0]}"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error}") from error
    try:
        arguments = dict(loaded["config"]["arch"]["args"])
        classes = loaded["config"]["dataset"]["args"]["classes"]
        state = loaded["state_dict"]
        for key in ("model_name", "tokenizer_name"):
            if not _CLASS_NAME.fullmatch(arguments[key]):
                raise CheckpointError(f"{path}: {key}={arguments[key]!r} is no class of its kind")
        arguments["num_classes"], arguments["model_type"]
        labels = tuple(_SAME_LABELS.get(label, label) for label in classes)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is no Detoxify checkpoint: it lacks {error}") from error
    return Checkpoint(
        name=name if name != str(path) else path.stem,
        arguments=arguments,
        state=state,
        labels=labels,
        digest=_digest(path),
        folder=path.parent if (path.parent / "config.json").is_file() else None,
    )


def load_detoxify(checkpoint: Checkpoint, device: str = "cpu") -> Detoxify:
    """A real Detoxify with a checkpoint's weights.

    Raises:
        CheckpointError: Configuration, tokenizer and weights do not fit, or are not to be had.
    """
    from detoxify import Detoxify
    from detoxify.detoxify import get_model_and_tokenizer

    arguments = dict(checkpoint.arguments)
    if checkpoint.folder is not None:
        arguments["model_type"] = str(checkpoint.folder)
    try:
        model, tokenizer = get_model_and_tokenizer(**arguments, state_dict=checkpoint.state)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"cannot build detoxify model {checkpoint.name!r}: {error}; its configuration and "
            f"tokenizer come from {arguments['model_type']!r}"
        ) from error
    # Its constructor would unpickle the file itself.
    detoxify = Detoxify.__new__(Detoxify)
    detoxify.model = model.eval().to(device)
    detoxify.tokenizer = tokenizer
    detoxify.class_names = list(checkpoint.labels)
    detoxify.device = device
    return detoxify


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:12]

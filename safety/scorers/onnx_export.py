"""Makes a quantised ONNX graph of a Detoxify model, once for each set of weights."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safety.scorers.checkpoint import Checkpoint
from safety.scorers.errors import CheckpointError

if TYPE_CHECKING:
    from detoxify import Detoxify

_FORMAT = "int8-1"


def exported(detoxify: Detoxify, checkpoint: Checkpoint, cache: Path) -> Path:
    """The graph of a checkpoint in `cache`, made if it is not there; safe in several processes.

    Raises:
        CheckpointError: It cannot be exported.
    """
    path = cache / f"{checkpoint.digest}-{_FORMAT}.onnx"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        # Written elsewhere and moved: whoever looks finds a whole graph or none.
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            floats, integers = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
            try:
                _export(detoxify, floats)
                _quantise(floats, integers)
            except (OSError, RuntimeError, ValueError, TypeError) as error:
                raise CheckpointError(
                    f"cannot export detoxify model {checkpoint.name!r} to ONNX: {error}"
                ) from error
            os.replace(integers, path)
    return path


def _export(detoxify: Detoxify, target: Path) -> None:
    import torch

    class Logits(torch.nn.Module):
        """Takes inputs by place and returns the logits alone."""

        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)), return_dict=False)[0]

    sample = detoxify.tokenizer(["a text", "another text to trace with"], padding=True)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in sample]
    batch = {0: "batch", 1: "tokens"}
    with warnings.catch_warnings(), torch.no_grad():
        # The newer exporter needs onnxscript and specialises on the sample's shape.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Logits(detoxify.model.eval()),
            tuple(torch.tensor(sample[name]) for name in names),
            str(target),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**dict.fromkeys(names, batch), "logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def _quantise(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(source),
        str(target),
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
        extra_options={"MatMulConstBOnly": True},
    )

"""What a chip can do on paper, and how much of that programs get.

The four calibration constants are fitted to the five figures that Pope et al. 2022 (arXiv
2211.05102) publish for PaLM 540B on 64 TPU v4 (`docs/sharding.md` shows the fit, and how well it
predicts the paper's PaLM 62B figures, to which it was not fitted). On other chips they are a guess.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

from model.errors import ConfigError

if TYPE_CHECKING:
    import jax

logger = logging.getLogger(__name__)

ChipName: TypeAlias = Literal["tpu-v4", "a100-80gb", "h100"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip's data sheet.

    Attributes:
        name: What it is called.
        peak_flops: Dense bfloat16 FLOP/s.
        hbm_bytes: Bytes of memory.
        hbm_bandwidth: Bytes/s between memory and chip.
        interconnect_bandwidth: Bytes/s between the chip and all its neighbours.

    Raises:
        ConfigError: A figure is not positive and finite.
    """

    name: str
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    interconnect_bandwidth: float

    def __post_init__(self) -> None:
        """Check every figure."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "name" and not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{field.name}={value} must be above 0 and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """How much of a data sheet programs get.

    Attributes:
        compute_efficiency: Share of the peak FLOP/s that large matrix products reach.
        memory_efficiency: Share of the memory bandwidth that reading weights and keys reaches.
        interconnect_efficiency: Share of the interconnect bandwidth that collectives reach.
        hop_latency_us: Microseconds that a collective takes for each hop on its mesh axes.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    compute_efficiency: float = 0.8
    memory_efficiency: float = 0.84
    interconnect_efficiency: float = 0.5
    hop_latency_us: float = 3.4

    def __post_init__(self) -> None:
        """Check every field."""
        for field in ("compute_efficiency", "memory_efficiency", "interconnect_efficiency"):
            value = getattr(self, field)
            if not 0 < value <= 1:
                raise ConfigError(f"{field}={value} must be above 0 and at most 1")
        if not 0 <= self.hop_latency_us <= 1e6:
            raise ConfigError(f"hop_latency_us={self.hop_latency_us} must be from 0 to 1000000")


CHIPS: dict[ChipName, Chip] = {
    # Pope et al. 2022, section 4.
    "tpu-v4": Chip(
        name="tpu-v4",
        peak_flops=275e12,
        hbm_bytes=32 * 2**30,
        hbm_bandwidth=1200e9,
        interconnect_bandwidth=270e9,
    ),
    # NVIDIA's data sheets: SXM modules, NVLink counted in one direction.
    "a100-80gb": Chip(
        name="a100-80gb",
        peak_flops=312e12,
        hbm_bytes=80e9,
        hbm_bandwidth=2039e9,
        interconnect_bandwidth=300e9,
    ),
    "h100": Chip(
        name="h100",
        peak_flops=989e12,
        hbm_bytes=80e9,
        hbm_bandwidth=3350e9,
        interconnect_bandwidth=450e9,
    ),
}
"""Data sheets by name."""

# A guess at a CPU socket that plays a chip: it ranks layouts, and times nothing.
_HOST = Chip(
    name="cpu (a guess)",
    peak_flops=1e12,
    hbm_bytes=64e9,
    hbm_bandwidth=100e9,
    interconnect_bandwidth=25e9,
)
_BY_KIND: tuple[tuple[str, ChipName], ...] = (
    ("TPU v4", "tpu-v4"),
    ("A100", "a100-80gb"),
    ("H100", "h100"),
)


def chip_of(device: jax.Device) -> Chip:
    """The data sheet of a device, with the memory that it reports.

    What is not in `CHIPS` is taken for an H100, or on the CPU backend for `_HOST`; the log says so.
    """
    kind = device.device_kind
    chip = next((CHIPS[name] for part, name in _BY_KIND if part.lower() in kind.lower()), None)
    if chip is None:
        chip = _HOST if device.platform == "cpu" else CHIPS["h100"]
        logger.info("no data sheet of %r: layouts are ranked by that of %s", kind, chip.name)
    reported = (device.memory_stats() or {}).get("bytes_limit")
    return chip if not reported else dataclasses.replace(chip, hbm_bytes=float(reported))

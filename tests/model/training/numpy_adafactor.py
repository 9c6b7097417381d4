"""PaLM's update rule (section 5) in numpy, float64, written from the paper alone."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float64]]

SMALLEST_SCALE = 1e-3
"""Adafactor's epsilon 2 (Shazeer & Stern, algorithm 4): a parameter of zeros must move too."""


def rms(values: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(values**2)))


@dataclasses.dataclass(kw_only=True)
class NumpyAdafactor:
    """Adafactor without factorization; counts how often each clipping took hold."""

    beta1: float
    beta2_power: float
    clip_norm: float
    step: int = 0
    norm_clips: int = 0
    update_clips: int = 0
    second: Arrays = dataclasses.field(default_factory=dict)
    momentum: Arrays = dataclasses.field(default_factory=dict)

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> Arrays:
        """The parameters after one more step at learning rate `rate`."""
        self.step += 1
        norm = float(np.sqrt(sum(np.sum(g**2) for g in gradients.values())))
        self.norm_clips += norm > self.clip_norm
        shrink = min(1.0, self.clip_norm / norm)
        return {
            name: self._move(name, value, gradients[name] * shrink, rate)
            for name, value in params.items()
        }

    def _move(
        self, name: str, value: NDArray[np.float64], gradient: NDArray[np.float64], rate: float
    ) -> NDArray[np.float64]:
        zeros = np.zeros_like(value)
        beta2 = 1.0 - self.step**-self.beta2_power
        second = beta2 * self.second.get(name, zeros) + (1.0 - beta2) * gradient**2
        update = gradient / np.sqrt(second)
        self.update_clips += rms(update) > 1.0
        update = update / max(1.0, rms(update))
        update = update * rate * max(rms(value), SMALLEST_SCALE)
        momentum = self.beta1 * self.momentum.get(name, zeros) + (1.0 - self.beta1) * update
        self.second[name], self.momentum[name] = second, momentum
        return value - momentum - rate**2 * value

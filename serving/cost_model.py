"""What a step costs under a layout: time and memory, after Pope et al. 2022 (arXiv 2211.05102).

Nothing is assumed to overlap: products wait for their weights, and collectives for the products.
That is nearer to the published figures than the larger of the times would be.
"""

from __future__ import annotations

import dataclasses

from model.config import PaLMConfig
from model.layout_rules import Layout, activation_rules, used_weight_rules, weight_rules
from model.padding import pad_config
from serving.chip import Calibration, Chip
from serving.layout import MeshShape, split
from serving.step_sizes import (
    ACTIVATION_BYTES,
    activation_bytes,
    communicated_activations,
    flops,
    held_parameters,
    hops_a_layer,
)
from serving.workload import BYTES_PER_WEIGHT, Workload


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """One step under one layout; times in seconds, sizes in bytes of one chip.

    Attributes:
        compute_s: FLOPs over the reached share of the peak.
        memory_s: Weights and keys/values read once, over the reached share of HBM's bandwidth.
        transfer_s: Bytes communicated, over the reached share of the interconnect's bandwidth.
        latency_s: Hops of all collectives.
        weight_bytes: Weights that it stores.
        kv_bytes: Keys and values that it stores.
        activation_bytes: The most that is live of all else, gathered weights included.
        communicated_bytes: What it receives in a step.
        padded_heads: Query heads, zero ones included.
    """

    compute_s: float
    memory_s: float
    transfer_s: float
    latency_s: float
    weight_bytes: float
    kv_bytes: float
    activation_bytes: float
    communicated_bytes: float
    padded_heads: int

    @property
    def communication_s(self) -> float:
        """Seconds that chips wait for each other."""
        return self.transfer_s + self.latency_s

    @property
    def total_s(self) -> float:
        """Seconds a step."""
        return self.compute_s + self.memory_s + self.communication_s

    @property
    def total_bytes(self) -> float:
        """Bytes that a chip needs."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


def step_cost(
    config: PaLMConfig,
    layout: Layout,
    mesh: MeshShape,
    workload: Workload,
    chip: Chip,
    calibration: Calibration,
) -> Cost:
    """What one step costs.

    Raises:
        ConfigError: The mesh does not divide `d_model`.
    """
    padded = pad_config(config, layout, mesh.sizes)
    weight_size = BYTES_PER_WEIGHT[workload.weights]
    stored = held_parameters(padded, weight_rules(layout), mesh)
    used = held_parameters(padded, used_weight_rules(layout), mesh)
    sequences = workload.batch / split(
        workload.batch, activation_rules(layout)["attention_batch"], mesh
    )
    kv_bytes = sequences * workload.context * config.kv_bytes_per_token(ACTIVATION_BYTES)
    activations = communicated_activations(padded, layout, mesh, workload.tokens)
    communicated = activations * ACTIVATION_BYTES + (used - stored) * weight_size
    read = used * weight_size + kv_bytes
    return Cost(
        compute_s=flops(padded, layout, mesh, workload)
        / (chip.peak_flops * calibration.compute_efficiency),
        memory_s=read / (chip.hbm_bandwidth * calibration.memory_efficiency),
        transfer_s=communicated
        / (chip.interconnect_bandwidth * calibration.interconnect_efficiency),
        latency_s=hops_a_layer(layout, mesh)
        * config.num_layers
        * calibration.hop_latency_us
        * 1e-6,
        weight_bytes=stored * weight_size,
        kv_bytes=kv_bytes,
        activation_bytes=activation_bytes(padded, layout, mesh, workload),
        communicated_bytes=communicated,
        padded_heads=padded.num_heads,
    )

"""The settings of every command: frozen dataclasses, the only place where their defaults stand.

`api.options` makes of each field a command-line option and a `TALIPOT_*` environment variable,
with the field's line in `Attributes:` as its help.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeAlias

from api.config_checks import check_range
from api.guard_config import GuardConfig, OutputConfig
from api.outputs.log import GROUPS
from api.quantities import parse_quantity
from memorization.policy import MAX_SPAN_TOKENS, MIN_SPAN_TOKENS
from model.errors import ConfigError
from serving.chip import CHIPS, Calibration, Chip, ChipName
from serving.config import EngineConfig
from serving.constraint import Constraint
from serving.request import SamplingParams
from serving.workload import Phase, WeightFormat

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
ExportFormat: TypeAlias = Literal["hf", "gguf"]

DEFAULT_MODEL = "talipot-tiny"
_GENERATE_GUARDS = (
    "scorer",
    "safety_action",
    "safety_threshold",
    "safety_labels",
    "safety_window_tokens",
    "safety_prompt",
    "memorization_action",
    "memorization_min_tokens",
    "memorization_index",
)
_GENERATE_OPTIONS = (
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "ignore_eos",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Settings of `talipot worker`.

    Attributes:
        groups: What to do, one an option: safety scores, memorization looks texts up.
        scorer: What scores texts.
        model: The model whose texts these are; its tokenizer reads them.
        memorization_index: Index of the training data: an embedded model's name, a file or a
            folder; the model's own if not given.
        memorization_min_tokens: Consecutive training tokens that count as recited.
        batch_size: Generations that are taken at a time.
        max_deliveries: Tries after which a generation that cannot be processed is given up.
        metrics_host: Address on which metrics are served; 0.0.0.0 for all.
        metrics_port: Port on which metrics are served; none are if not given.
        log_level: Least severe messages to log.
        outputs: Where generations come from.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    groups: tuple[str, ...] = GROUPS
    scorer: str = "embedded"
    model: str = dataclasses.field(default=DEFAULT_MODEL, metadata={"flag": "-m"})
    memorization_index: str | None = None
    memorization_min_tokens: int = 50
    batch_size: int = 64
    max_deliveries: int = 5
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    log_level: LogLevel = "info"
    outputs: OutputConfig = dataclasses.field(
        default_factory=OutputConfig,
        metadata={
            "panel": "Output log",
            "only": ("data_dir", "log_max_records", "log_max_age_s", "log_lease_s"),
        },
    )

    def __post_init__(self) -> None:
        """Check every field of our own."""
        for group in self.groups:
            if group not in GROUPS:
                raise ConfigError(f"groups has {group!r}; known are {', '.join(GROUPS)}")
        if not self.groups:
            raise ConfigError("groups=() must name at least 1 group")
        check_range(
            "memorization_min_tokens",
            self.memorization_min_tokens,
            MIN_SPAN_TOKENS,
            MAX_SPAN_TOKENS,
        )
        check_range("batch_size", self.batch_size, 1, 4096)
        check_range("max_deliveries", self.max_deliveries, 1, 1000)
        if self.metrics_port is not None:
            check_range("metrics_port", self.metrics_port, 1, 65535)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Settings of `talipot serve`.

    Attributes:
        model: An embedded model's name, or a checkpoint folder: Talipot's own, or a Hugging Face
            folder of the Cohere or Falcon family.
        served_model_name: Name that clients use; the model's own if not given.
        host: Address to listen on; 0.0.0.0 for all.
        port: Port to listen on for HTTP; 0 picks a free one.
        grpc: Serve gRPC beside HTTP.
        grpc_port: Port to listen on for gRPC; 0 picks a free one, which the log names.
        api_key_file: File with the SHA-256 of each accepted API key, one a line; without it the
            server is open.
        max_body_bytes: Largest HTTP request body or gRPC message that is read.
        max_choices: Most completions that one request may ask for (prompts x best_of).
        max_batch_in_flight: Requests of one gRPC batch stream that run at the same time; the
            stream is read no further meanwhile.
        drain_timeout_s: Seconds that running requests get to finish when the server is stopped.
        log_level: Least severe messages to log.
        access_log: Log a line for each HTTP request.
        engine: How the model is run.
        guards: How requests are watched.
        output_log: Keep every finished generation for side pipelines.
        outputs: Where they are kept.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    model: str = dataclasses.field(default=DEFAULT_MODEL, metadata={"flag": "-m"})
    served_model_name: str | None = None
    host: str = dataclasses.field(default="127.0.0.1", metadata={"panel": "Server"})
    port: int = dataclasses.field(default=8000, metadata={"panel": "Server", "flag": "-p"})
    grpc: bool = dataclasses.field(default=True, metadata={"panel": "Server"})
    grpc_port: int = dataclasses.field(default=8500, metadata={"panel": "Server"})
    api_key_file: Path | None = dataclasses.field(default=None, metadata={"panel": "Server"})
    max_body_bytes: int = dataclasses.field(default=1 << 20, metadata={"panel": "Server"})
    max_choices: int = dataclasses.field(default=128, metadata={"panel": "Server"})
    max_batch_in_flight: int = dataclasses.field(default=64, metadata={"panel": "Server"})
    drain_timeout_s: float = dataclasses.field(default=30.0, metadata={"panel": "Server"})
    log_level: LogLevel = dataclasses.field(default="info", metadata={"panel": "Server"})
    access_log: bool = dataclasses.field(default=True, metadata={"panel": "Server"})
    engine: EngineConfig = dataclasses.field(
        default_factory=EngineConfig, metadata={"panel": "Engine"}
    )
    guards: GuardConfig = dataclasses.field(
        default_factory=GuardConfig, metadata={"panel": "Safety and memorization"}
    )
    output_log: bool = dataclasses.field(default=True, metadata={"panel": "Output log"})
    outputs: OutputConfig = dataclasses.field(
        default_factory=OutputConfig, metadata={"panel": "Output log"}
    )

    def __post_init__(self) -> None:
        """Check every field of our own; the engine's config checks itself."""
        if not self.model:
            raise ConfigError("model='' must name an embedded model or a folder")
        if self.served_model_name == "":
            raise ConfigError("served_model_name='' must hold at least 1 character")
        check_range("port", self.port, 0, 65535)
        check_range("grpc_port", self.grpc_port, 0, 65535)
        if self.grpc and self.grpc_port == self.port != 0:
            raise ConfigError(
                f"grpc_port={self.grpc_port} must differ from port={self.port}, which HTTP has"
            )
        check_range("max_body_bytes", self.max_body_bytes, 1024, 1 << 30)
        check_range("max_choices", self.max_choices, 1, 65536)
        check_range("max_batch_in_flight", self.max_batch_in_flight, 1, 65536)
        check_range("drain_timeout_s", self.drain_timeout_s, 0, 86400)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `talipot generate`.

    Attributes:
        prompt: The text to continue; - reads it from standard input.
        model: An embedded model's name or a checkpoint folder.
        echo: Print the prompt before its continuation.
        json_schema: Generate JSON that this schema accepts, given as JSON.
        guided_regex: Generate text that this regular expression matches as a whole.
        json: Print JSON for programs, when the text is whole.
        sampling: How tokens are chosen.
        guards: How the text is watched.
        engine: How the model is run.
    """

    prompt: str = dataclasses.field(metadata={"argument": True})
    model: str = dataclasses.field(default=DEFAULT_MODEL, metadata={"flag": "-m"})
    echo: bool = False
    json_schema: str | None = None
    guided_regex: str | None = None
    json: bool = False
    sampling: SamplingParams = dataclasses.field(
        default_factory=lambda: SamplingParams(max_tokens=128),
        metadata={"panel": "Sampling", "only": _GENERATE_OPTIONS},
    )
    guards: GuardConfig = dataclasses.field(
        default_factory=GuardConfig,
        metadata={"panel": "Safety and memorization", "only": _GENERATE_GUARDS},
    )
    engine: EngineConfig = dataclasses.field(
        default_factory=lambda: EngineConfig(max_slots=1),
        metadata={"panel": "Engine", "only": ("max_model_len", "dtype", "compilation_cache_dir")},
    )

    def __post_init__(self) -> None:
        """Check what no single field can."""
        if self.json_schema is not None and self.guided_regex is not None:
            raise ConfigError("json_schema and guided_regex exclude each other: give one of them")

    @property
    def constraint(self) -> Constraint | None:
        """What the text must be.

        Raises:
            RequestError: It is too long.
        """
        if self.json_schema is not None:
            return Constraint.of_json_schema(self.json_schema)
        return None if self.guided_regex is None else Constraint.of_regex(self.guided_regex)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Settings of `talipot batch`.

    Attributes:
        requests: File of requests, a JSON object a line: id, prompt and any sampling fields.
        results: File that the results are appended to; what it has already is not asked again.
        target: Host and port of the server's gRPC door.
        api_key: Key for a server that asks for one; in the environment, other users of the
            machine do not see it.
        max_in_flight: Requests that are sent and not answered yet, at most.
        give_up_after_s: Seconds of failing without a single answer after which to give up.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    requests: Path = dataclasses.field(metadata={"argument": True})
    results: Path = dataclasses.field(metadata={"argument": True})
    target: str = dataclasses.field(default="127.0.0.1:8500", metadata={"flag": "-t"})
    api_key: str | None = None
    max_in_flight: int = 64
    give_up_after_s: float = 600.0

    def __post_init__(self) -> None:
        """Check every field."""
        host, _, port = self.target.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"target={self.target!r} must be HOST:PORT")
        check_range("port of target", int(port), 1, 65535)
        check_range("max_in_flight", self.max_in_flight, 1, 65536)
        check_range("give_up_after_s", self.give_up_after_s, 0, 7 * 86400)
        if self.requests.resolve() == self.results.resolve():
            raise ConfigError(f"results={self.results} must be another file than requests")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of `talipot train`.

    Attributes:
        config: TOML file with the whole recipe; the same file resumes an interrupted run.
    """

    config: Path = dataclasses.field(metadata={"argument": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `talipot export`.

    Attributes:
        model: An embedded model's name or a checkpoint folder.
        out: Folder (hf) or file (gguf) to write.
        format: hf is a folder that transformers loads; gguf is a file that llama.cpp loads.
    """

    model: str = dataclasses.field(metadata={"argument": True})
    out: Path = dataclasses.field(metadata={"argument": True})
    format: ExportFormat = dataclasses.field(default="hf", metadata={"flag": "-f"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoConfig:
    """Settings of `talipot info`.

    Attributes:
        model: A preset (palm-8b, palm-62b, palm-540b), an embedded model or a checkpoint folder.
        json: Print JSON for programs.
    """

    model: str = dataclasses.field(default=DEFAULT_MODEL, metadata={"argument": True})
    json: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Settings of `talipot plan`.

    Attributes:
        model: A preset (palm-8b, palm-62b, palm-540b), an embedded model or a checkpoint folder.
        chips: Number of chips.
        mesh: Chips along x, y and z, such as 4,4,4; chosen for the model if not given.
        phase: prefill runs whole prompts, decode one token of each sequence.
        batch: Sequences in a step.
        context: Tokens of each sequence.
        weights: How weights are stored.
        chip: Data sheet that the figures below default to.
        hbm: Memory of a chip, such as 32GB or 32GiB.
        bandwidth: Memory bandwidth of a chip, such as 1200GB/s.
        peak_flops: Dense bfloat16 FLOP/s of a chip, such as 275T.
        interconnect: Bandwidth between a chip and its neighbours, such as 270GB/s.
        calibration: How much of the data sheet programs get.
        json: Print JSON for programs.

    Raises:
        ConfigError: A field is out of range; the message names field, value and limit.
    """

    model: str = dataclasses.field(default="palm-540b", metadata={"argument": True})
    chips: int = 64
    mesh: tuple[int, ...] | None = None
    phase: Phase = "decode"
    batch: int = 64
    context: int = 2048
    weights: WeightFormat = "int8"
    chip: ChipName = dataclasses.field(default="tpu-v4", metadata={"panel": "Chip"})
    hbm: str | None = dataclasses.field(default=None, metadata={"panel": "Chip"})
    bandwidth: str | None = dataclasses.field(default=None, metadata={"panel": "Chip"})
    peak_flops: str | None = dataclasses.field(default=None, metadata={"panel": "Chip"})
    interconnect: str | None = dataclasses.field(default=None, metadata={"panel": "Chip"})
    calibration: Calibration = dataclasses.field(
        default_factory=Calibration, metadata={"panel": "Calibration"}
    )
    json: bool = False

    def __post_init__(self) -> None:
        """Check every field of our own, and that the quantities can be read."""
        check_range("chips", self.chips, 1, 1 << 16)
        check_range("batch", self.batch, 1, 1 << 20)
        check_range("context", self.context, 1, 1 << 24)
        self.data_sheet()

    def data_sheet(self) -> Chip:
        """The named chip's figures, with those that were given in their place."""
        if self.chip not in CHIPS:
            raise ConfigError(f"chip={self.chip!r} must be one of {tuple(CHIPS)}")
        given: dict[str, Any] = {
            field: parse_quantity(option, text, unit)
            for field, option, text, unit in (
                ("hbm_bytes", "hbm", self.hbm, "B"),
                ("hbm_bandwidth", "bandwidth", self.bandwidth, "B/s"),
                ("peak_flops", "peak_flops", self.peak_flops, "FLOP/s"),
                ("interconnect_bandwidth", "interconnect", self.interconnect, "B/s"),
            )
            if text is not None
        }
        if given:
            given["name"] = f"{self.chip} (changed)"
        return dataclasses.replace(CHIPS[self.chip], **given)

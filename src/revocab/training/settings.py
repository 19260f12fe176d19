"""The plain values that describe a stage of training and the machine it runs on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from revocab.errors import ConfigError
from revocab.training.float8 import require_float8

Kind = Literal["tables", "full", "lora", "lora_tables", "first_last"]
STRATEGIES = ("ddp", "fsdp")  # of several devices
KINDS: tuple[Kind, ...] = get_args(Kind)
WITHOUT_CHECKPOINTS = {"checkpoint_every": 0, "keep_last": 1, "keep_best": False}
# These change no weight by more than rounding, so a stage may resume with others.
WITHOUT_EFFECT = ("checkpoint_every", "keep_last", "keep_best", "log_every", "batch_size", "gradient_accumulation")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Adapters of the body's linear layers: W + alpha / r * B A (Hu et al. 2021, arXiv 2106.09685)."""

    r: int
    alpha: float
    dropout: float  # in [0, 1), on the input of the adapter
    target_modules: tuple[str, ...]  # last parts of module names, such as q_proj


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """One stage of training."""

    name: str  # probe | stage1 | stage2 | source_cpt: names metrics and the keys of error messages
    kind: Kind  # what is trained, see trainables.prepare
    steps: int  # optimiser steps
    learning_rate: float  # peak
    table_learning_rate: float | None  # peak of the embedding tables; None: as all else
    batch_size: int  # sequences of a micro-batch
    gradient_accumulation: int  # micro-batches of an optimiser step, over all devices
    max_seq_length: int  # tokens of a packed sequence
    warmup_share: float  # of the steps
    weight_decay: float  # of matrices, AdamW's decoupled form
    gradient_clip: float  # largest norm of all gradients together; 0 clips nothing
    skip_nonfinite: bool  # leave a step out whose loss or gradient is not finite, instead of stopping
    bf16: bool  # compute in bfloat16
    fp8: bool = False  # with bf16: products with frozen matrices in 8 bits
    master_weights: bool = True  # with bf16: what is trained is float32, else bfloat16 too
    optimizer: str  # a name of optimisation.OPTIMIZERS
    shuffle: bool  # permute the sequences that are read
    seed: int
    start_document: int  # reading begins with this document's first token
    lora: LoraSettings | None
    checkpoint_every: int  # optimiser steps; 0 writes none on the way
    gradient_checkpointing: bool
    log_every: int  # optimiser steps
    keep_last: int = 2  # checkpoints, the latest ones, while the stage runs
    keep_best: bool = False  # the one with the lowest smoothed training loss too

    def check(self) -> None:
        """Raise ConfigError for values that cannot work, named by the key that the user set."""
        least = {
            self.key("steps"): (self.steps, 1),
            "vocab.batch_size": (self.batch_size, 1),
            "vocab.gradient_accumulation": (self.gradient_accumulation, 1),
            "vocab.max_seq_length": (self.max_seq_length, 2),
            self.key("lr"): (self.learning_rate, 0),
            "vocab.lr_tables": (self.table_learning_rate or 0, 0),
            "vocab.weight_decay": (self.weight_decay, 0),
            "vocab.gradient_clip": (self.gradient_clip, 0),
            "vocab.train_start_idx_stage2": (self.start_document, 0),
            "trainer.checkpoint_every_steps": (self.checkpoint_every, 0),
            "trainer.log_every_steps": (self.log_every, 1),
            "trainer.keep_last": (self.keep_last, 1),
        }
        for key, (value, lowest) in least.items():
            if not value >= lowest:
                raise ConfigError(key, value, f"at least {lowest}")
        if not 0 <= self.warmup_share < 1:
            raise ConfigError("vocab.warmup_share", self.warmup_share, "in [0, 1)")
        if self.kind not in KINDS:
            raise ConfigError("kind", self.kind, " or ".join(KINDS))
        for key, value in (("vocab.fp8", self.fp8), ("vocab.master_weights", self.master_weights)):
            if not self.bf16 and value is not (key == "vocab.master_weights"):
                raise ConfigError(key, value, f"{not value} with vocab.bf16=false")
        if self.fp8:
            require_float8()
        if (self.kind in ("lora", "lora_tables")) != (self.lora is not None):
            raise ConfigError("vocab.stage2_use_lora", self.lora, "given together with LoRA settings")

    def key(self, what: Literal["steps", "lr"]) -> str:
        """The config key of this stage's steps or learning rate."""
        if self.name == "probe":
            return f"vocab.probe_{what}"
        if self.name == "source_cpt":  # trained as stage 2; its steps follow from those of both stages
            return f"vocab.{'stage2_steps' if what == 'steps' else 'lr_stage2'}"
        return f"vocab.{self.name}_steps" if what == "steps" else f"vocab.lr_{self.name}"

    @property
    def sequences_per_step(self) -> int:
        """Sequences of an optimiser step, on however many devices."""
        return self.batch_size * self.gradient_accumulation

    def digest(self, **others: object) -> str:
        """Hash of all that decides how the stage ends: these settings, and the facts given as `others`.

        Of micro-batch and accumulation only the product counts: a stage goes on with a smaller micro-batch.
        """
        values = {key: value for key, value in asdict(self).items() if key not in WITHOUT_EFFECT}
        values["sequences"] = self.sequences_per_step
        return hashlib.sha256(json.dumps([values, others], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The machine, in the words of Lightning's Trainer."""

    accelerator: str  # cpu | gpu | auto
    devices: int
    strategy: str  # auto | ddp | fsdp
    kernels: str = "auto"  # auto: fused ones where they work | fused: without CUDA graphs | plain: never
    num_workers: int  # processes that read data; 0 reads in the training process
    scratch: Path | None = None  # where the processes of several devices are handed the model; None: the system's own

    def check(self, settings: StageSettings) -> None:
        """Raise ConfigError if the micro-batches of a step cannot be shared out evenly."""
        accumulation = settings.gradient_accumulation
        if self.devices < 1 or accumulation % self.devices:
            raise ConfigError(
                "trainer.devices", self.devices, f"a divisor of the {accumulation} micro-batches of a step"
            )
        if self.devices > 1 and self.strategy not in STRATEGIES:
            raise ConfigError("trainer.strategy", self.strategy, f"{' or '.join(STRATEGIES)} with several devices")

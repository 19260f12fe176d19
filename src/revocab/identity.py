"""Which job is which: the run id and the labels of a resolved config, and the folder's name made of them.

A job is named by its values, never by the options that were chosen: `lr_stage1=paper` and `vocab.lr_stage1=6.4e-4`
are one job.
"""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from revocab.runtime.cache import digest

NOT_IDENTITY = ("hydra", "logger", "launcher", "paths", "pipeline")  # where and how a job runs, not what it computes
HOW_TOKENIZED = ("workers", "cache_dir")  # keys of `tokenization` that change no result
HOW_SHARDED = ("shard_mb", "part", "parts")  # and these neither, but where a job is a part, which one it is
RUN_ID_LENGTH = 12
FOLDER_LENGTH = 96  # of the readable part of a job folder's name

# What the comparison table varies, in its order: the labels of every job, whether chosen by name or by value.
TABLE_SETTINGS = (
    "term_mining.enabled",
    "embedding.backend",
    "alignment.method",
    "alignment.pivot_count",
    "alignment.subtoken_weights",
    "alignment.top_k",
    "alignment.similarity_threshold",
    "alignment.boundary_share",
    "alignment.frequency_shift",
    "vocab.lr_stage1",
    "vocab.lr_stage2",
    "vocab.stage1_steps",
    "vocab.stage2_steps",
    "vocab.batch_size",
    "vocab.train_start_idx_stage2",
    "vocab.stage2_use_lora",
    "vocab.stage2_train",
    "vocab.shuffle",
    "vocab.bf16",
    "vocab.fp8",
    "vocab.master_weights",
    "seed",
)
# Settings that only these methods read: of others they are no label.
METHODS_THAT_READ = {
    "alignment.pivot_count": ("tokalign_code", "tokalign_paper"),
    "alignment.subtoken_weights": ("subtoken", "mixed"),
    "alignment.top_k": ("procrustes", "mixed", "omp"),
}
UNLABELLED_OVERRIDES = (
    "hydra",
    "logger",
    "launcher",
    "paths",
    "pipeline",
    "experiment",
    "sweep_name",
    "save_model",
    "save_adapter",
)

# Data and machine: the same for a whole sweep, and too long for a folder's name.
UNNAMED_NODES = ("preset", "model", "models", "corpus", "evaluation", "trainer", "tokenization", "limits")


def container(cfg: DictConfig) -> dict[str, Any]:
    """Plain resolved values, without Hydra's own node."""
    return _values(cfg, without=("hydra",))


def run_id(cfg: DictConfig) -> str:
    """Hex hash of the resolved config without what does not change the result."""
    values = _values(cfg, without=NOT_IDENTITY)
    # on several devices a step reads the same sequences: a job may be started on four and go on with one
    values["trainer"] |= {"devices": 1, "strategy": "auto", "keep_last": 2, "keep_best": True}
    tokenization = values["tokenization"]
    left_out = HOW_TOKENIZED if tokenization["part"] is not None else HOW_TOKENIZED + HOW_SHARDED
    values["tokenization"] = {key: value for key, value in tokenization.items() if key not in left_out}
    return digest(values, RUN_ID_LENGTH)


def _values(cfg: DictConfig, without: Sequence[str]) -> dict[str, Any]:
    nodes = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in without])
    return {str(key): value for key, value in _resolved(nodes).items()}


def _resolved(nodes: DictConfig) -> dict[Any, Any]:
    values = OmegaConf.to_container(nodes, resolve=True, enum_to_str=True)
    assert isinstance(values, dict)
    return values


def labels(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """The preset and the value of every setting of the table that the job reads, and of every other key that the
    command line set."""
    method = cfg.alignment.method
    keys = ["preset", *(key for key in TABLE_SETTINGS if method in METHODS_THAT_READ.get(key, (method,)))]
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0].split("@")[0]
        if key.split(".")[0] in UNLABELLED_OVERRIDES or key in keys or "/" in key:
            continue
        if OmegaConf.select(cfg, key) is not None and not OmegaConf.is_config(OmegaConf.select(cfg, key)):
            keys.append(key)
    return {key: _plain(OmegaConf.select(cfg, key)) for key in keys}


def folder_name(cfg: DictConfig, overrides: list[str]) -> str:
    """Such as `paper-lr_stage1_2e-05-3f9a0c51d2e4`: preset, settings that the command line chose, run id."""
    words = [str(cfg.preset)]
    for override in sorted(overrides):
        key, _, option = override.lstrip("+~").partition("=")
        if key.split(".")[0] not in (*UNLABELLED_OVERRIDES, *UNNAMED_NODES):
            value = _plain(OmegaConf.select(cfg, key)) if "." in key else option
            words.append(f"{key.split('.')[-1]}_{value}")
    # no `=` in a name: Hydra could not take the folder as a value on its command line
    readable = "".join(c if c.isalnum() or c in "._+-" else "_" for c in "-".join(words))[:FOLDER_LENGTH]
    return f"{readable}-{run_id(cfg)}"


def _plain(value: Any) -> Any:
    """An enum's name, any other value as it is."""
    return getattr(value, "name", value)


def register() -> None:
    """Make `${job_folder:}` known to OmegaConf; Hydra's run and sweep folders use it."""

    def job_folder(*, _root_: DictConfig) -> str:
        return folder_name(_root_, list(_root_.hydra.overrides.task))

    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)

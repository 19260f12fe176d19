"""What the configuration means for each run of training: stage 1, stage 2, the probe, the baseline.

`documents` is the length of the corpus that a run reads from. Steps are those at the config's scale.
"""

from dataclasses import replace
from pathlib import Path

from revocab import training
from revocab.runtime import seeds
from revocab.schema import Config, NonFinite, Stage2Train, VocabConfig


def stage1(config: Config) -> training.StageSettings:
    """Embedding tables only."""
    vocab = config.vocab
    return _stage(config, "stage1", "tables", steps(config, vocab.stage1_steps), vocab.lr_stage1)


def stage2(config: Config, documents: int) -> training.StageSettings:
    """The body, from the document that the offset names."""
    return replace(_as_stage2(config, "stage2"), start_document=offset(config, documents))


def source_cpt(config: Config, ratio: float) -> training.StageSettings:
    """As stage 2, from the corpus's first document on, for the bytes of both stages.

    Args:
        config: as the job's.
        ratio: bytes that a token of the target vocabulary stands for, to those of one of the source vocabulary.
    """
    both = sum(steps(config, nominal) for nominal in (config.vocab.stage1_steps, config.vocab.stage2_steps))
    return replace(_as_stage2(config, "source_cpt"), steps=max(1, round(both * ratio)))


def probe(config: Config) -> training.StageSettings:
    """The same short run for every initialisation: tables only, its own cosine, no weight decay."""
    vocab = config.vocab
    settings = _stage(config, "probe", "tables", vocab.probe_steps, vocab.probe_lr)
    return replace(settings, weight_decay=0.0, **training.WITHOUT_CHECKPOINTS)


def steps(config: Config, nominal: int) -> int:
    """At the config's scale: at least one, if there are any."""
    return max(min(1, nominal), round(nominal * config.scale.step_factor))


def stage2_kind(vocab: VocabConfig) -> training.Kind:
    if vocab.stage2_train is Stage2Train.first_last:
        return "first_last"
    if not vocab.stage2_use_lora:
        return "full"
    return "lora_tables" if vocab.stage2_train is Stage2Train.body_and_tables else "lora"


def offset(config: Config, documents: int) -> int:
    """The document that stage 2 reads from: as counted, or at a smaller scale the same share of the corpus."""
    vocab = config.vocab
    if not config.scale.keep_offset_share:
        return vocab.train_start_idx_stage2
    return round(vocab.train_start_idx_stage2 / vocab.offset_corpus_documents * documents) % documents


def lora(vocab: VocabConfig) -> training.LoraSettings:
    return training.LoraSettings(
        r=vocab.lora_r,
        alpha=vocab.lora_alpha,
        dropout=vocab.lora_dropout,
        target_modules=tuple(vocab.lora_target_modules),
    )


def hardware(config: Config, scratch: Path) -> training.Hardware:
    """What trains; `scratch` is a folder for what its processes hand over."""
    trainer = config.trainer
    return training.Hardware(
        accelerator=trainer.accelerator.value,
        devices=trainer.devices,
        strategy=trainer.strategy.value,
        kernels=trainer.kernels.value,
        num_workers=trainer.num_workers,
        scratch=scratch,
    )


def _as_stage2(config: Config, name: str) -> training.StageSettings:
    vocab = config.vocab
    settings = _stage(config, name, stage2_kind(vocab), steps(config, vocab.stage2_steps), vocab.lr_stage2)
    return replace(settings, table_learning_rate=vocab.lr_tables, optimizer=vocab.stage2_optimizer)


def _stage(config: Config, name: str, kind: training.Kind, num_steps: int, rate: float) -> training.StageSettings:
    """What all runs share."""
    vocab, trainer = config.vocab, config.trainer
    return training.StageSettings(
        name=name,
        kind=kind,
        steps=num_steps,
        learning_rate=rate,
        table_learning_rate=None,
        batch_size=vocab.batch_size,
        gradient_accumulation=vocab.gradient_accumulation,
        max_seq_length=vocab.max_seq_length,
        warmup_share=vocab.warmup_share,
        weight_decay=vocab.weight_decay,
        gradient_clip=vocab.gradient_clip,
        skip_nonfinite=vocab.nonfinite is NonFinite.skip,
        bf16=vocab.bf16,
        fp8=vocab.fp8,
        master_weights=vocab.master_weights,
        optimizer="adamw_torch",
        shuffle=vocab.shuffle,
        seed=seeds.derive(config.seed, name),
        start_document=0,
        lora=lora(vocab) if kind in ("lora", "lora_tables") else None,
        checkpoint_every=trainer.checkpoint_every_steps,
        gradient_checkpointing=vocab.gradient_checkpointing,
        log_every=trainer.log_every_steps,
        keep_last=trainer.keep_last,
        keep_best=trainer.keep_best,
    )

"""The configuration: every file composes, presets are the columns of the table, choices on the command line win."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from revocab import identity, schema, stages
from revocab.cli import check_groups, group_key, name_sweep, overrides_first, to_typed
from revocab.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and list(path.glob("*.yaml")))
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
CHOSEN = {
    "model=custom": ["models.source_model=here", "models.target_tokenizer=there"],
    "corpus=jsonl": ["corpus.inputs=[here.jsonl]"],
}


def config(*overrides):
    schema.register()
    identity.register()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("config", overrides=[*overrides, "paths.output_dir=here"], return_hydra_config=False)


def typed(*overrides):
    return to_typed(config(*overrides))


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda value: value)
def test_every_option_composes_into_a_valid_config(group, option):
    choice = f"{group}={option}"
    typed(choice, *CHOSEN.get(choice, []))


def test_every_group_of_the_default_exists_and_every_folder_is_a_group():
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    listed = {next(iter(entry)) for entry in defaults if not isinstance(entry, str)}
    assert {group for group in listed if "hydra/" not in group} == set(GROUPS)


# The columns of the table that the framework exists to settle.
TABLE = {
    "paper": {
        "lr_stage1": 6.4e-4, "lr_stage2": 5e-5, "stage1_steps": 2500, "stage2_steps": 2500, "batch_size": 2,
        "train_start_idx_stage2": 2560000, "stage2_use_lora": False, "shuffle": False, "bf16": True,
        "similarity_threshold": None, "pivot_count": 300,
    },
    "research": {
        "lr_stage1": 6.4e-4, "lr_stage2": 5e-5, "stage1_steps": 2500, "stage2_steps": 2500, "batch_size": 4,
        "train_start_idx_stage2": 2560000, "stage2_use_lora": False, "shuffle": False, "bf16": False,
        "similarity_threshold": 0.3, "pivot_count": 2000,
    },
    "optimal": {
        "lr_stage1": 2e-5, "lr_stage2": 5e-5, "stage1_steps": 2500, "stage2_steps": 2500, "batch_size": 4,
        "train_start_idx_stage2": 1000000, "stage2_use_lora": True, "shuffle": True, "bf16": True,
        "similarity_threshold": 0.4, "pivot_count": 2000, "lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.1,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"],
    },
    "three_hour": {
        "lr_stage1": 5e-4, "lr_stage2": 5e-5, "stage1_steps": 600, "stage2_steps": 1400, "batch_size": 4,
        "train_start_idx_stage2": 2560000, "stage2_use_lora": True, "shuffle": False, "bf16": False,
        "similarity_threshold": 0.3, "pivot_count": 2000, "lora_r": 64,
    },
    "best": {"lr_stage1": 2e-3, "lr_stage2": 5e-4, "stage2_use_lora": False, "similarity_threshold": None},
}  # fmt: skip


LORA_OPTIONS = {  # what each option of the group says of stage 2: LoRA, what is trained, the tables' own learning rate
    "full": (False, "body", None, "full"),
    "r64": (True, "body", None, "lora"),
    "r64_tables": (True, "body_and_tables", 2e-4, "lora_tables"),
    "first_last": (False, "first_last", None, "first_last"),
}


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "lora"])
def test_the_options_of_stage_2(option):
    vocab = typed(f"lora={option}").vocab
    found = (vocab.stage2_use_lora, vocab.stage2_train.value, vocab.lr_tables, stages.stage2_kind(vocab))
    assert found == LORA_OPTIONS[option]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["lora=full", "vocab.stage2_train=body_and_tables"], r"vocab\.stage2_train must be body or .*lora=r64_tables"),
        (["lora=r64", "vocab.stage2_train=first_last"], r"vocab\.stage2_train must be body or .* got 'first_last'"),
        (["lora=r64", "vocab.lr_tables=1e-4"], r"vocab\.lr_tables must be null: the tables are frozen, got 0\.0001"),
        (["lora=r64_tables", "vocab.lr_tables=-1"], r"vocab\.lr_tables must be above 0 and below 1"),
        (
            ["vocab.stage2_optimizer=sgd"],
            r"vocab\.stage2_optimizer must be one of adamw_torch, .*adamw_8bit, got 'sgd'",
        ),
        (["trainer=fsdp", "vocab.stage2_optimizer=adamw_8bit"], r"must be adamw_torch or .* with trainer=fsdp"),
    ],
)
def test_stages_that_contradict_themselves(overrides, message):
    with pytest.raises(ConfigError, match=message):
        typed(*overrides)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_column_of_the_table(preset):
    cfg = config(f"preset={preset}")
    for key, value in TABLE[preset].items():
        node = cfg.alignment if key in cfg.alignment else cfg.vocab
        assert node[key] == value, key
    assert cfg.preset == preset
    assert cfg.alignment.method == ("mixed" if preset == "best" else "tokalign_paper")


# The users' complete recommended run, key by key. What they call `vocab_adaptation` is `vocab` here, but for its seed.
RECOMMENDED = Path(__file__).parent / "data" / "recommended.yaml"
MOVED = {"vocab_adaptation.seed": "seed"}
EXPERIMENTS_7B = ("optimal_7b", "paper_7b", "research_7b")


def recommended():
    return flatten(OmegaConf.to_container(OmegaConf.load(RECOMMENDED)))


def test_optimal_7b_is_exactly_the_recommended_file():
    resolved = OmegaConf.structured(typed("experiment=optimal_7b"))
    for key, value in recommended().items():
        here = MOVED.get(key, key.replace("vocab_adaptation.", "vocab."))
        got = OmegaConf.select(resolved, here, throw_on_missing=True)
        if key.endswith("lora_target_modules"):
            value = value.split(",")
        assert getattr(got, "name", got) == value, key
    assert resolved.corpus.inputs == resolved.evaluation.datasets == ["uiyunkim-hub/pubmed-abstract:train"]
    assert resolved.corpus.text_field == resolved.evaluation.text_field == "abstract"


def test_optimal_7b_is_the_preset_and_the_options_that_the_documentation_names():
    groups = (
        "model=biomistral_7b_to_mistral_v3 corpus=pubmed_5gb terms=tfidf embedding=fasttext evaluation=all scale=full"
    )
    chosen = flatten(OmegaConf.to_container(config("preset=optimal", *groups.split()), enum_to_str=True))
    experiment = flatten(OmegaConf.to_container(config("experiment=optimal_7b"), enum_to_str=True))
    assert {key for key in chosen if chosen[key] != experiment[key]} == {
        "sweep_name", "pipeline.run_root", "tokenization.workers", "evaluation.text_field", "evaluation.baseline_model",
    }  # fmt: skip


def test_the_documentation_says_where_every_key_of_the_recommended_file_went():
    text = (CONF.parent / "docs" / "from-yaml.md").read_text(encoding="utf-8")
    for key in recommended():
        assert f"`{key}`" in text, key


@pytest.mark.parametrize("experiment", EXPERIMENTS_7B)
def test_a_7b_experiment_is_one_job_with_its_preset(experiment):
    assert "hydra" not in OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    cfg, preset = config(f"experiment={experiment}"), experiment.removesuffix("_7b")
    assert cfg.preset == preset
    assert cfg.sweep_name == experiment
    for key, value in TABLE[preset].items():
        node = cfg.alignment if key in cfg.alignment else cfg.vocab
        assert node[key] == value, key
    assert cfg.models.source_model == "BioMistral/BioMistral-7B"


@pytest.mark.parametrize("option", ["mixed_t020", "mixed_t040", "mixed_t060"])
@pytest.mark.parametrize("preset", PRESETS)
def test_an_alignment_that_brings_a_threshold_has_it_under_every_preset(preset, option):
    assert config(f"preset={preset}", f"alignment={option}").alignment.similarity_threshold == int(option[-2:]) / 100


def test_the_alignments_experiment_has_a_row_for_every_option_and_tells_all_apart():
    params = OmegaConf.load(CONF / "experiment" / "alignments.yaml").hydra.sweeper.params
    options = params.alignment.split(",")
    assert sorted(options) == sorted(path.stem for path in (CONF / "alignment").glob("*.yaml"))
    cfgs = [config("experiment=alignments", f"alignment={option}") for option in options]
    assert len({str(identity.labels(cfg, [])) for cfg in cfgs}) == len(options)


CHANGES = sorted({path.stem for path in (CONF / "change").glob("*.yaml")} - {"none", "paper", "optimal"})


def settings_of(*overrides):
    cfg = config(*overrides)
    return {key: OmegaConf.select(cfg, key) for key in identity.TABLE_SETTINGS}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_moves_one_setting_from_paper_to_optimal(change):
    paper, optimal, changed = (settings_of(f"change={name}") for name in ("paper", "optimal", change))
    moved = [key for key in paper if changed[key] != paper[key]]
    assert len(moved) == 1
    assert changed[moved[0]] == optimal[moved[0]]


def test_the_changes_are_all_that_tells_paper_from_optimal():
    paper, optimal = settings_of("change=paper"), settings_of("change=optimal")
    assert paper == settings_of("preset=paper")
    assert optimal == settings_of("preset=optimal")
    differing = {key for key in paper if paper[key] != optimal[key]}
    moved = {key for change in CHANGES for key, value in settings_of(f"change={change}").items() if value != paper[key]}
    assert moved == differing
    swept = OmegaConf.load(CONF / "experiment" / "one_change_at_a_time.yaml").hydra.sweeper.params.change
    assert set(swept.split(",")) == {*CHANGES, "paper", "optimal"}


def test_the_command_line_wins_over_a_change():
    assert config("change=lr_stage1", "lr_stage1=best").vocab.lr_stage1 == 2e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_the_tiny_scale_has_a_checkpoint_at_least_every_five_steps_and_keeps_two_and_the_best(preset):
    trainer = typed("scale=tiny", f"preset={preset}").trainer
    assert trainer.checkpoint_every_steps <= 5
    assert trainer.keep_last >= 2
    assert trainer.keep_best


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_differs_between_scales_only_in_steps_factor_accumulation_and_length(preset):
    flat = {
        scale: flatten(OmegaConf.to_container(config(f"preset={preset}", f"scale={scale}"), enum_to_str=True))
        for scale in ("full", "small", "tiny")
    }
    differing = {key for key in flat["full"] if len({str(flat[scale][key]) for scale in flat}) > 1}
    assert differing <= {
        "scale.name", "scale.step_factor", "scale.keep_offset_share", "vocab.gradient_accumulation",
        "vocab.max_seq_length", "trainer.checkpoint_every_steps",
        "evaluation.every_steps", "evaluation.curve_samples",  # what is looked at on the way
    }  # fmt: skip


def flatten(node, prefix=""):
    flat = {}
    for key, value in node.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


SWITCHABLE = [g for g in GROUPS if g not in ("preset", "change", "experiment", "launcher", "model", "corpus", "scale")]


def option_numbered(group, number):
    options = [option for g, option in OPTIONS if g == group]
    return options[number % len(options)]


@pytest.mark.parametrize(
    "choices",
    [
        {"model": "tiny", "corpus": "sample", "scale": "tiny", "preset": "best"},
        {"model": "pythia_1b_to_gemma", "corpus": "pubmed_5gb", "scale": "small", "preset": "three_hour"},
    ],
    ids=["tiny", "pythia"],
)
def test_also_data_and_scale_on_the_command_line_win_over_a_7b_experiment(choices):
    cfg = config("experiment=optimal_7b", *(f"{group}={option}" for group, option in choices.items()))
    for group, option in choices.items():
        assert_written(cfg, group, option)
    assert cfg.alignment.method == ("mixed" if choices["preset"] == "best" else "tokalign_paper")


@pytest.mark.parametrize("base", [*(f"preset={name}" for name in PRESETS), "experiment=optimal_7b"])
def test_every_choice_on_the_command_line_takes_effect_under_every_preset(base):
    for number in range(max(len(list((CONF / group).glob("*.yaml"))) for group in SWITCHABLE)):
        chosen = {group: option_numbered(group, number) for group in SWITCHABLE}  # one option of every group at once
        cfg = config(base, *(f"{group}={option}" for group, option in chosen.items()))
        if "similarity_threshold:" in (CONF / "alignment" / f"{chosen['alignment']}.yaml").read_text():
            chosen.pop("threshold")  # an alignment that brings its own keeps it: two choices of one key
        for group, option in chosen.items():
            assert_written(cfg, group, option)


def assert_written(cfg, group, option):
    path = CONF / group / f"{option}.yaml"
    package = path.read_text().splitlines()[0].split("@package")[1].strip()
    node = cfg if package == "_global_" else OmegaConf.select(cfg, package)
    written = OmegaConf.to_container(OmegaConf.load(path))
    written.pop("defaults", None)
    for key, value in flatten(written).items():
        got = OmegaConf.select(node, key)
        assert getattr(got, "name", got) == value, f"{group}={option}: {key}"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_data_compute_and_logging_alone(preset):
    text = (CONF / "preset" / f"{preset}.yaml").read_text()
    for group in ("model", "corpus", "terms", "scale", "evaluation", "trainer", "logger", "launcher"):
        assert f"/{group}:" not in text


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("vocab.lr_stage1=-1", "vocab.lr_stage1"),
        ("vocab.lr_stage1=7", "vocab.lr_stage1"),
        ("vocab.stage1_steps=0", "vocab.stage1_steps"),
        ("vocab.stage2_steps=-1", "vocab.stage2_steps"),
        ("vocab.batch_size=0", "vocab.batch_size"),
        ("vocab.train_start_idx_stage2=5000000", "vocab.train_start_idx_stage2"),
        ("alignment.boundary_share=1.5", "alignment.boundary_share"),
        ("alignment.frequency_shift=3", "alignment.frequency_shift"),
        ("vocab.warmup_share=1.0", "vocab.warmup_share"),
        ("vocab.lora_target_modules=[]", "vocab.lora_target_modules"),
        ("vocab.stage2_optimizer=sgd", "vocab.stage2_optimizer"),
        ("alignment.similarity_threshold=1.5", "alignment.similarity_threshold"),
        ("alignment.pivot_count=0", "alignment.pivot_count"),
        ("corpus.heldout_fraction=1.0", "corpus.heldout_fraction"),
        ("corpus.hash_name=crc", "corpus.hash_name"),
        ("embedding.fasttext.thread=0", "embedding.fasttext.thread"),
        ("embedding.glove.window=21", "embedding.glove.window"),
        ("embedding.glove.x_max=0", "embedding.glove.x_max"),
        ("embedding.dim=1", "embedding.dim"),
        ("scale.step_factor=0", "scale.step_factor"),
        ("trainer.devices=0", "trainer.devices"),
        ("trainer=ddp trainer.devices=3", "trainer.devices"),
        ("trainer=gpu trainer.devices=2", "trainer.strategy"),
        ("evaluation.max_samples=0", "evaluation.max_samples"),
        ("evaluation.qa_samples=0", "evaluation.qa_samples"),
        ("evaluation.qa=true", "evaluation.tasks"),
        ("seed=-1", "seed"),
        ("vocab.enabled=false baseline=source_cpt", "baseline"),
    ],
)
def test_a_value_out_of_range_names_key_and_value(override, key):
    with pytest.raises(ConfigError) as raised:
        typed(*override.split())
    assert raised.value.key == key
    assert repr(raised.value.value) in str(raised.value)


@pytest.mark.parametrize(
    "override",
    [
        "vocab.lr_stage1=hello",
        "seed=1e3",
        "vocab.shuffle=maybe",
        "alignment.similarity=euclid",
        "vocab.lr_stage_1=1e-3",
    ],
)
def test_a_wrong_type_or_key_is_refused_when_composing(override):
    with pytest.raises(ConfigCompositionException, match=override.split("=")[0].split(".")[-1]):
        config(override)


def test_lora_modules_may_be_one_string_with_commas():
    assert typed("vocab.lora_target_modules='q_proj, v_proj'").vocab.lora_target_modules == ["q_proj", "v_proj"]


def test_what_must_be_chosen_is_asked_for():
    with pytest.raises(ConfigError, match=r"models\.source_model.*Add models\.source_model=VALUE"):
        typed("model=custom")


@pytest.mark.parametrize(
    ("argument", "spelling"),
    [
        ("lr_stage1=2e-5", "vocab.lr_stage1=2e-5"),
        ("threshold=0.4", "alignment.similarity_threshold=0.4"),
        ("offset=1000", "vocab.train_start_idx_stage2=1000"),
        ("shuffle=true", "vocab.shuffle=true"),
        ("batch=8", "vocab.batch_size=8"),
        ("precision=16", "one of bf16, bf16_pure, fp32, fp8"),
    ],
)
def test_a_value_given_to_a_group_is_answered_by_the_right_spelling(argument, spelling):
    with pytest.raises(ConfigError) as raised:
        check_groups([argument])
    assert spelling in str(raised.value)
    assert "one of" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "argument", ["lr_stage1=paper,optimal", "vocab.lr_stage1=2e-5", "preset=glob(*)", "seed=1", "-m"]
)
def test_right_spellings_pass(argument):
    check_groups([argument])


def test_a_group_of_several_keys_has_no_single_spelling():
    assert group_key(CONF / "lora") is None


def test_a_sweep_is_named_by_its_overrides_in_any_order():
    one = name_sweep(["-m", "seed=0,1", "lora=full,r64"])[-1]
    other = name_sweep(["-m", "lora=full,r64", "seed=0,1"])[-1]
    assert one == other
    assert one.startswith("sweep_name=sweep-")
    assert len(one) == len("sweep_name=sweep-") + 8
    assert name_sweep(["-m", "seed=0,2", "lora=full,r64"])[-1] != one


@pytest.mark.parametrize(
    ("arguments", "ordered"),
    [
        (["a=1", "--cfg", "job", "b=2"], ["a=1", "b=2", "--cfg", "job"]),
        (["a=1", "-m", "b=2,3", "~c"], ["a=1", "b=2,3", "~c", "-m"]),
        (["--config-dir=here", "a=1"], ["a=1", "--config-dir=here"]),
        (["--cfg", "job"], ["--cfg", "job"]),
    ],
)
def test_overrides_stand_in_one_row(arguments, ordered):
    assert overrides_first(arguments) == ordered


@pytest.mark.parametrize(
    "arguments", [["seed=1"], ["-m", "experiment=alignments"], ["-m", "sweep_name=mine", "seed=1,2"]]
)
def test_a_name_that_is_there_is_kept(arguments):
    assert name_sweep(arguments) == arguments


def test_the_run_id_is_made_of_values_not_of_options():
    by_option, by_value = config("lr_stage1=paper"), config("vocab.lr_stage1=6.4e-4")
    assert identity.run_id(by_option) == identity.run_id(by_value)
    assert identity.run_id(by_option) != identity.run_id(config("lr_stage1=optimal"))


@pytest.mark.parametrize(
    "override",
    [
        "logger=none",
        "paths.cache_dir=elsewhere",
        "pipeline.run_root=elsewhere",
        "tokenization.workers=4",
        "tokenization.workers=null",
        "tokenization.shard_mb=8",
        "tokenization.parts=3",
        "tokenization.cache_dir=elsewhere",
    ],
)
def test_where_and_how_a_job_runs_is_not_its_identity(override):
    assert identity.run_id(config()) == identity.run_id(config(override))


def test_what_is_tokenized_is_a_jobs_identity_and_so_is_the_part_that_it_makes():
    parts = [["tokenization.parts=2", f"tokenization.part={part}"] for part in (0, 1)]
    different = [[], ["tokenization.min_line_length=5"], *parts, ["tokenization.shard_mb=8", *parts[0]]]
    assert len({identity.run_id(config(*overrides)) for overrides in different}) == len(different)
    assert identity.run_id(config(*parts[0])) == identity.run_id(config("tokenization.workers=4", *parts[0]))


def test_a_sweeps_name_does_not_depend_on_the_number_of_workers():
    assert name_sweep(["-m", "seed=1,2", "tokenization.workers=4"])[-1] == name_sweep(["-m", "seed=1,2"])[-1]
    assert name_sweep(["-m", "seed=1,2", "tokenization.min_line_length=4"])[-1] != name_sweep(["-m", "seed=1,2"])[-1]


def test_the_run_id_is_hex_without_a_hyphen():
    int(identity.run_id(config()), 16)


def test_labels_are_values():
    overrides = ["preset=paper", "lr_stage1=optimal", "vocab.warmup_share=0.1"]
    labels = identity.labels(config(*overrides), overrides)
    assert labels["preset"] == "paper"
    assert labels["vocab.lr_stage1"] == 2e-5
    assert labels["vocab.warmup_share"] == 0.1
    assert labels["alignment.method"] == "tokalign_paper"
    assert "lr_stage1" not in labels


def test_a_folder_is_named_by_values_and_ends_with_the_run_id():
    overrides = ["preset=paper", "vocab.lr_stage1=0.00002"]
    cfg = config(*overrides)
    assert identity.folder_name(cfg, overrides) == f"paper-lr_stage1_2e-05-{identity.run_id(cfg)}"


@pytest.mark.parametrize(
    ("overrides", "gpus"), [(["trainer=cpu"], 0), (["trainer=gpu"], 1), (["trainer=fsdp", "trainer.devices=4"], 4)]
)
def test_a_launcher_asks_for_as_many_gpus_as_the_trainer_uses(overrides, gpus):
    from hydra_plugins.revocab_launchers import JoblibLauncher

    launcher = JoblibLauncher(n_jobs=1)
    launcher.config = config(*overrides)
    assert launcher.gpus_by_trainer == gpus


def test_a_job_is_the_same_job_on_any_number_of_devices_but_not_on_another_kind():
    alone, four, cpu = (config(*words) for words in (["trainer=gpu"], ["trainer=ddp", "trainer.devices=4"], []))
    assert identity.run_id(alone) == identity.run_id(four) == identity.run_id(config("trainer=fsdp"))
    assert identity.run_id(cpu) != identity.run_id(alone)

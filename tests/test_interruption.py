"""Sweeps of the real scripts that are killed, stopped by Ctrl-C or started twice: nothing is lost or done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from revocab import cli, pipeline
from revocab.errors import ModelError

ROOT = Path(__file__).parents[1]
SMALL = [  # twelve steps a stage and a checkpoint after every second one, a few short documents
    "scale.step_factor=0.0048", "vocab.probe_steps=1", "vocab.max_seq_length=32", "vocab.gradient_accumulation=1",
    "vocab.batch_size=2", "trainer.checkpoint_every_steps=2", "evaluation.max_samples=3",
    "evaluation.every_steps=5", "evaluation.curve_samples=2",
    "evaluation.max_characters=120", "corpus.byte_budget=400000", "corpus.heldout_fraction=0.1", "vocab.bf16=false",
]  # fmt: skip
RATES = "vocab.lr_stage1=2e-5,6.4e-4"
STEPS = [(stage, step) for stage in ("stage1", "stage2") for step in range(1, 13)]

# Python imports this before it runs a script. It stops the process at an exact moment, which polling could miss.
STOPPER = """
import fnmatch, os, signal, sys

event, pattern, number, stop = os.environ["STOP_AT"].split()
seen = 0

def hook(name, arguments):
    global seen
    if name != event or not fnmatch.fnmatch(str(arguments[0]), pattern) or (name == "open" and arguments[1] != "a"):
        return
    seen += 1
    if seen != int(number):
        return
    if stop == "half":  # as if killed while the file was written
        os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
    if stop == "interrupt":  # a terminal sends Ctrl-C to the whole group
        os.killpg(os.getpgid(0), signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGKILL)

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; a shell's background job ignores it
sys.addaudithook(hook)
"""
LOGGED = "open */metrics.jsonl"  # a step is about to be logged
CHECKPOINT = "os.rename */.last.ckpt.tmp"  # a checkpoint was written and is about to take its name
MOMENTS = {  # in which step of which stage a first run of the sweep is stopped
    "an artifact is made": "os.rename */vectors/* 1",
    "stage 1 of the first job": f"{LOGGED} 5",
    "before its first checkpoint": f"{LOGGED} 2",
    "between the stages": "os.rename */stage2/.stage.json.*.tmp 1",
    "stage 2 of the first job": f"{LOGGED} 17",
    "stage 1 of the second job": f"{LOGGED} 29",
    "a checkpoint is written": f"{CHECKPOINT} 8",
    "the first summary is written": "os.rename */.summary.json.*.tmp 1",
}


def line(arguments, logger):
    """`-m` stands first, and of a key that is given twice the last counts."""
    flags = [word for word in arguments if word == "-m"]
    return [*flags, *SMALL, f"logger={logger}", *(word for word in arguments if word not in flags)]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Run train.py in this process, in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *line(arguments, "none")])
        with pytest.raises(SystemExit) as ended:
            cli.run(pipeline.train)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def stopped(tmp_path, tmp_path_factory):
    """Run `python train.py` in a process that is stopped at a moment (see STOPPER); returns what it ended with."""
    folder = tmp_path_factory.mktemp("stopper")
    (folder / "sitecustomize.py").write_text(STOPPER)
    path = os.pathsep.join([str(folder), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])

    def run(moment, *arguments, logger="none"):
        command = [sys.executable, str(ROOT / "train.py"), *line(arguments, logger)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "STOP_AT": moment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            start_new_session=True,
        )

    return run


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def jobs(root):
    """Job folders by learning rate of stage 1, which says more than their names."""
    folders = [path.parent for path in root.glob("multirun/*/*/status.json")]
    return {next(rate for rate in ("2e-05", "0.00064") if f"lr_stage1_{rate}" in each.name): each for each in folders}


def files(folder):
    """What would change if anything was written again."""
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def logged(job):
    return [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]


def points(job):
    """The learning curve without its seconds, which no two runs share."""
    curve = read(job / "summary.json")["learning_curves"]["heldout"]
    return [{key: point[key] for key in ("stage", "step", "bytes", "bpb")} for point in curve["adapted"]]


def assert_equal_sweeps(root, whole):
    """All jobs completed, each step logged once, numbers and table as in the sweep that nothing happened to."""
    assert jobs(root).keys() == jobs(whole).keys() == {"2e-05", "0.00064"}
    for rate, job in jobs(root).items():
        reference = jobs(whole)[rate]
        assert read(job / "status.json")["state"] == "completed"
        assert [(line["stage"], line["step"]) for line in logged(job)] == STEPS
        for name in ("loss", "lr", "grad_norm", "bpb", "bytes"):
            assert [line.get(name) for line in logged(job)] == [line.get(name) for line in logged(reference)]
        assert points(job) == points(reference)
        assert read(job / "summary.json")["bpb"] == read(reference / "summary.json")["bpb"]
        assert not list(job.rglob("*.tmp")), "half a file was left"
    tables = [next(folder.glob("multirun/*/table.csv")).read_text().splitlines() for folder in (root, whole)]
    assert len(tables[0]) == 3
    assert [row.count("completed") for row in tables[0][1:]] == [1, 1]


@pytest.mark.slow
@pytest.mark.survival
def test_a_sweep_killed_again_and_again_ends_as_if_nothing_had_happened(train, stopped, tmp_path):
    """kill -9 at five moments, one after another: each time the identical command goes on from there."""
    words = ["-m", RATES, f"paths.cache_dir={tmp_path / 'own_cache'}"]
    counted = [  # from the start of each process: a resumed stage logs the rest of its steps only
        "os.rename */vectors/* 1",  # the artifact is made, but has not its name yet
        f"{LOGGED} 5",  # first job, stage 1: steps 1 to 4 are logged, a checkpoint of step 4 is there
        f"{LOGGED} 13",  # 8 more of stage 1, then 5 of stage 2
        f"{LOGGED} 13",  # 8 more of stage 2, then 5 of the second job's stage 1
        f"{CHECKPOINT} 1 half",  # of step 6, in the second job
    ]
    for moment in counted:
        first = jobs(tmp_path).get("2e-05")
        finished = files(first) if first and read(first / "status.json")["state"] == "completed" else {}
        ended = stopped(moment if moment.endswith("half") else f"{moment} kill", *words)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert "Traceback" not in ended.stderr
        assert files(first).items() >= finished.items() if first else not finished
    finished = files(jobs(tmp_path)["2e-05"])
    assert read(jobs(tmp_path)["2e-05"] / "status.json")["state"] == "completed"
    code, _, err = train(*words)
    assert code == 0, err
    assert files(jobs(tmp_path)["2e-05"]) == finished, "a finished job was touched"
    resumes = {rate: read(job / "summary.json")["resumes"] for rate, job in jobs(tmp_path).items()}
    assert resumes == {
        "2e-05": [{"stage": "stage1", "step": 4}, {"stage": "stage2", "step": 4}],
        "0.00064": [{"stage": "stage1", "step": 4}, {"stage": "stage1", "step": 4}],
    }
    whole = tmp_path / "whole"
    code, _, err = train("-m", RATES, f"pipeline.run_root={whole}", f"paths.cache_dir={tmp_path / 'other_cache'}")
    assert code == 0, err
    assert_equal_sweeps(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_sweep_killed_once_is_ended_by_the_same_command(train, stopped, tmp_path, moment):
    words = ["-m", RATES, f"paths.cache_dir={tmp_path / 'own_cache'}"]
    ended = stopped(f"{MOMENTS[moment]} {'half' if 'checkpoint is' in moment else 'kill'}", *words)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    finished = {}
    for job in jobs(tmp_path).values():
        if read(job / "status.json")["state"] == "completed":
            finished |= files(job)
    code, _, err = train(*words)
    assert code == 0, err
    assert {path: state for job in jobs(tmp_path).values() for path, state in files(job).items()}.items() >= (
        finished.items()
    )
    whole = tmp_path / "whole"
    train("-m", RATES, f"pipeline.run_root={whole}", f"paths.cache_dir={tmp_path / 'other_cache'}")
    assert_equal_sweeps(tmp_path, whole)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["-m", RATES, "sweep_name=rates"], marks=[pytest.mark.slow, pytest.mark.survival]),
        pytest.param(["vocab.lr_stage1=2e-5"], marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_in_one_line_and_the_same_command_goes_on(train, stopped, tmp_path, cache, words):
    words = [*words, f"paths.cache_dir={cache}", "vocab.share_stage1=false"]  # another test may have trained it
    ended = stopped(f"{LOGGED} 5 interrupt", *words, logger="wandb_offline")
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines() == [
        "Error: Interrupted. Finished jobs are kept; the same command goes on from here."
    ]
    (status,) = [read(path) for path in tmp_path.rglob("status.json")]
    assert (status["state"], status["error"]) == ("failed", "interrupted")
    (run,) = [path for path in tmp_path.rglob("wandb/offline-run-*") if path.is_dir()]
    reader = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(run)]
    assert json.loads(subprocess.run(reader, capture_output=True, text=True, check=True).stdout)["exit_code"] == 1
    code, out, err = train(*words)
    assert code == 0, err
    assert "stage1 continues from step 4." in out
    summaries = list(tmp_path.rglob("summary.json"))
    assert len(summaries) == len(list(tmp_path.rglob("status.json"))) == (2 if "-m" in words else 1)
    assert sum(len(read(path)["resumes"]) for path in summaries) == 1


@pytest.mark.slow
def test_the_same_command_started_twice_runs_the_job_once(tmp_path, cache):
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, "logger=none", f"paths.cache_dir={cache}"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    waited, ran = sorted(said, key=lambda text: "runs this job, waiting until it ends" not in text)
    assert "is finished already; nothing to do" in waited
    assert "stage1: tables" not in waited
    assert "waiting" not in ran
    assert "stage1: tables" in ran
    (job,) = (path.parent for path in tmp_path.rglob("status.json"))
    assert [(line["stage"], line["step"]) for line in logged(job)] == STEPS


def test_a_job_is_not_skipped_after_its_yaml_was_edited(train, tmp_path, cache, monkeypatch):
    """The job's name is made of values, not of the words of the command."""
    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    monkeypatch.setattr(cli, "CONF", conf)
    words = ["-m", "lr_stage1=paper", "vocab.enabled=false", f"paths.cache_dir={cache}"]
    assert train(*words)[0] == 0
    assert "finished already" in train(*words)[1]
    option = conf / "lr_stage1" / "paper.yaml"
    option.write_text(option.read_text().replace("6.4e-4", "3.2e-4"))
    code, out, err = train(*words)
    assert code == 0, err
    assert "finished already" not in out
    rates = [read(path)["labels"]["vocab.lr_stage1"] for path in tmp_path.glob("multirun/*/*/summary.json")]
    assert sorted(rates) == [3.2e-4, 6.4e-4]
    (conf / "evaluation" / "bpb.yaml").write_text((conf / "evaluation" / "bpb.yaml").read_text() + "\n# a remark\n")
    assert "finished already" in train(*words)[1], "a comment changes nothing"


# --- trying again ----------------------------------------------------------------------------------------------------


@pytest.fixture
def short_of_memory(monkeypatch):
    """short_of_memory(stage, largest): micro-batches of more than `largest` sequences do not fit in that stage."""
    from revocab.training.module import StageModule
    from revocab.training.stage import StageData

    stages, original, init = [], StageModule.training_step, StageData.__init__

    def note(self, tokens, settings, **others):
        stages.append(settings.name)
        init(self, tokens, settings, **others)

    def arm(stage, largest, from_step=0):
        def step(self, batch, batch_idx):
            if stages[-1] == stage and len(batch) > largest and self.global_step >= from_step:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            return original(self, batch, batch_idx)

        monkeypatch.setattr(StageModule, "training_step", step)

    monkeypatch.setattr(StageData, "__init__", note)
    return arm


def test_memory_that_cannot_suffice_is_found_before_the_first_step(train, cache, tmp_path, monkeypatch):
    """Stage 1 would fit, stage 2 in full would not."""
    from revocab.training import memory_check

    monkeypatch.setattr(memory_check, "_already_there", lambda model, device: 0)
    monkeypatch.setattr(memory_check, "free_memory_bytes", lambda device: 30_000_000)
    code, _, err = train(f"paths.cache_dir={cache}")
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    for word in ("stage2 needs about 0.0", "weights 0.01", "0.03 GB are free", "a smaller model"):
        assert word in line
    assert read(next(tmp_path.rglob("status.json")))["state"] == "failed"
    assert not list(tmp_path.rglob("metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.survival
@pytest.mark.parametrize("from_step", [0, 5])
def test_a_stage_without_memory_goes_on_with_smaller_micro_batches(train, tmp_path, cache, short_of_memory, from_step):
    words = [f"paths.cache_dir={cache}", "vocab.lr_stage1=2e-5", "pipeline.retry_backoff=0.01"]
    short_of_memory("stage2", 1, from_step)
    code, out, err = train(*words)
    assert code == 0, err
    assert "Trying again in 0.01 s (retry 1 of 1, batch_size 1, gradient_accumulation 2)" in out
    code, _, err = train(*words, "vocab.batch_size=1", "vocab.gradient_accumulation=2", "pipeline.run_root=smaller")
    assert code == 0, err
    (job,) = (path.parent for path in tmp_path.glob("outputs/train/*/summary.json"))
    (reference,) = (path.parent for path in tmp_path.glob("smaller/outputs/train/*/summary.json"))
    summary = read(job / "summary.json")
    (retried,) = summary["retries"]
    assert retried["what"] == "stage2"
    assert "out of memory" in retried["reason"]
    assert (retried["batch_size"], retried["gradient_accumulation"]) == (1, 2)
    assert summary["resumes"] == ([{"stage": "stage2", "step": 4}] if from_step else [])
    assert [(line["stage"], line["step"]) for line in logged(job)] == STEPS
    for name in ("loss", "grad_norm", "lr"):
        values = [[line[name] for line in logged(folder)] for folder in (job, reference)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)
    finals = [read(folder / "summary.json")["bpb"]["heldout"]["final"] for folder in (job, reference)]
    assert finals[0] == pytest.approx(finals[1], rel=1e-5)


@pytest.mark.parametrize(
    ("largest", "words", "said"),
    [
        (0, ["vocab.batch_size=1"], ["stage1: ", "1 x 32 tokens", "vocab.max_seq_length", "lora=r64"]),
        (1, ["vocab.batch_size=4"], ["stage1: ", "2 x 32 tokens", "vocab.batch_size=1 vocab.gradient_accumulation=4"]),
    ],
)
def test_memory_that_does_not_suffice_at_all_is_one_line(train, cache, tmp_path, short_of_memory, largest, words, said):
    short_of_memory("stage1", largest)
    alone = "vocab.share_stage1=false"  # another test may have trained it
    code, _, err = train(f"paths.cache_dir={cache}", "pipeline.retry_backoff=0", alone, *words)
    assert code == 1
    (line,) = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in err
    for word in [*said, "vocab.gradient_checkpointing=true"]:
        assert word in line
    assert read(next(tmp_path.rglob("status.json")))["state"] == "failed"


def test_a_job_goes_on_with_the_micro_batches_that_it_found(train, tmp_path, cache, monkeypatch):
    """Found once, before each stage; a job that stops in stage 2 ends with the numbers of one that did not stop."""
    from revocab.training import batch_search
    from revocab.training.module import StageModule

    tried = []

    def measure(load, tokens, settings, hardware):
        tried.append((settings.name, settings.batch_size))
        return {1: 10.0, 2: 30.0, 4: 30.5}[settings.batch_size]

    def broken(self, batch, batch_idx):
        if self.global_step == 5 and tried:  # in stage 2
            raise RuntimeError("stopped")
        return original(self, batch, batch_idx)

    original = StageModule.training_step
    monkeypatch.setattr(batch_search, "measure", measure)
    words = [f"paths.cache_dir={cache}", "vocab.find_batch_size=true", "vocab.gradient_accumulation=2", "lora=r64"]
    code, out, err = train(*words, "pipeline.run_root=whole")
    assert code == 0, err
    assert tried == [(stage, size) for stage in ("stage1", "stage2") for size in (1, 2, 4)]
    assert "stage2: micro-batches of 2, 2 a step (tokens/s by size: 1: 10, 2: 30, 4: 30)" in out
    tried.clear()
    monkeypatch.setattr(StageModule, "training_step", broken)
    assert train(*words)[0] == 1
    monkeypatch.setattr(StageModule, "training_step", original)
    assert tried == [("stage2", size) for size in (1, 2, 4)], "stage 1 is taken over from the job before"
    code, _, err = train(*words)
    assert code == 0, err
    assert len(tried) == 3, "nothing was searched again"
    summaries = [read(next((tmp_path / root).rglob("summary.json"))) for root in ("whole", "outputs")]
    assert summaries[1]["resumes"] == [{"stage": "stage2", "step": 4}]
    assert [list(summary["batches"]) for summary in summaries] == [["stage1", "stage2"], ["stage2"]]
    assert summaries[0]["batches"]["stage1"]["batch_size"] == 2
    for summary in summaries:
        assert summary["batches"]["stage2"]["gradient_accumulation"] == 2
    assert summaries[0]["bpb"] == summaries[1]["bpb"]


def test_a_download_that_fails_once_is_tried_again(train, tmp_path, cache, monkeypatch):
    from revocab import initialisation

    load, calls = initialisation.load_model, []

    def flaky(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise ModelError("The Hub gave no answer.") from TimeoutError("read timed out")
        return load(*arguments, **options)

    monkeypatch.setattr(initialisation, "load_model", flaky)
    code, _, err = train(f"paths.cache_dir={cache}", "vocab.enabled=false", "pipeline.retry_backoff=0")
    assert code == 0, err
    (retried,) = read(next(tmp_path.rglob("summary.json")))["retries"]
    assert retried["what"] == "models.source_model embedded:source_model"
    assert retried["reason"] == "The Hub gave no answer."

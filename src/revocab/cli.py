"""The door of the three entry scripts: Hydra, its callbacks, errors in one line, and the table after a sweep."""

import copy
import functools
import hashlib
import importlib
import importlib.util
import logging
import math
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from revocab import identity, schema
from revocab.errors import ConfigError, MissingDependencyError, ResourceError, RevocabError
from revocab.runtime.files import disk_errors
from revocab.runtime.job import INTERRUPTED, JobFolder
from revocab.runtime.retry import is_out_of_memory

if TYPE_CHECKING:
    from revocab.reporting import Job

log = logging.getLogger(__name__)
CONF = Path(__file__).parents[2] / "conf"
LAUNCHER_PACKAGES = {"joblib": "joblib", "slurm": "submitit", "ray": "ray"}  # launcher: what it needs
SMALLER = "Lower evaluation.batch_tokens, alignment.rows_at_once or embedding.dim, by what was running."
Task = Callable[[schema.Config, JobFolder, dict[str, Any], dict[str, Any]], float]


class State:
    """What the callbacks and jobs of this process found; the exit code is made of it."""

    failed = False
    command = ""
    jobs: tuple[str, ...] = ()  # run ids of the sweep that this command makes


def task(name: str) -> Task:
    """The function of `pipeline` of that name, read with torch behind it while a thread reads transformers.

    Both wait for the disk. Nothing that `pipeline` imports may import transformers: before it is read to its end it is
    another module than the lazy one that it then puts in its place.
    """
    reading = threading.Thread(target=importlib.import_module, args=("transformers",), name="reading transformers")
    reading.start()
    try:
        return getattr(importlib.import_module("revocab.pipeline"), name)
    finally:
        reading.join()


def run(task: Task) -> None:
    """Run `task(config, job folder, labels, resolved config)` once, or once per job of a sweep, and exit.

    The exit code is 0 if all went well and 1 if a job failed or the configuration was refused.
    """
    prepare_process()
    State.failed = False
    arguments = sys.argv[1:]
    State.command = shlex.join(["python", Path(sys.argv[0]).name, *arguments])
    try:
        check_groups(arguments)
        check_launcher(arguments)
        sys.argv[1:] = overrides_first([*name_sweep(arguments), f"hydra.job.name={Path(sys.argv[0]).stem}"])
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(functools.partial(job, task))()
    except RevocabError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("Interrupted. Finished jobs are kept; the same command goes on from here.")
    sys.exit(1 if State.failed else 0)


def fail(message: str) -> None:
    State.failed = True
    print(f"Error: {message}", file=sys.stderr)


def prepare_process() -> None:
    """What composing a config and running a job need; a launcher's worker calls it before it composes its job."""
    schema.register()
    identity.register()
    quiet_start()


def quiet_start() -> None:
    """No library chatter between a user's command and its answer."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("pytorch_lightning", "lightning", "lightning_fabric", "httpx", "huggingface_hub", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


def job(task: Task, cfg: DictConfig) -> float:
    """One job: returns the number that a sweeper minimises; nan where the job failed, for the others must go on."""
    overrides = list(HydraConfig.get().overrides.task)
    folder = JobFolder(path=Path(cfg.paths.output_dir), run_id=identity.run_id(cfg))
    resolved = {**identity.container(cfg), "command": own_command(overrides)}
    try:
        with folder.lock():  # outside: whoever is stopped while it waits says nothing in the other's folder
            return told(folder, lambda: task(to_typed(cfg), folder, identity.labels(cfg, overrides), resolved))
    except ResourceError as error:  # not even its state can be written
        fail(str(error))
    return math.nan


def told(folder: JobFolder, work: Callable[[], float]) -> float:
    """`work()`; nan where it failed. How it ended stands in the job's `status.json`."""
    try:
        return work()
    except RevocabError as error:
        fail(str(error))
        folder.write_status("failed", str(error))
    except KeyboardInterrupt:
        if not folder.completed:
            folder.write_status("failed", INTERRUPTED)
        raise
    except Exception as error:
        State.failed = True
        if is_out_of_memory(error):
            reason = f"Out of memory: {' '.join(str(error).split())[:300]} {SMALLER}"
            fail(reason)
        else:
            reason = f"{type(error).__name__}: {error}"
            log.exception("This is a bug in revocab, or in a library that it uses:")
        folder.write_status("failed", reason)
    return math.nan


def own_command(overrides: list[str]) -> str:
    """The command that runs this job alone, also where an experiment would make a sweep of it again."""
    words = [shlex.quote(word) for word in overrides if not word.startswith("launcher=")]
    if any(word.startswith("experiment=") for word in overrides):
        words.append("hydra.mode=RUN")
    script = f"{HydraConfig.get().job.name}.py"  # sys.argv tells it only in the process that made the sweep
    return " ".join(["python", script, *words])


def to_typed(cfg: DictConfig) -> schema.Config:
    """Ranges are checked here.

    Raises:
        ConfigError: a value out of its range, or one that must be chosen and was not.
    """
    nodes = copy.copy(cfg)  # typed by the schema, which a masked copy would not be
    with open_dict(nodes):
        nodes.pop("hydra", None)
    missing = sorted(OmegaConf.missing_keys(nodes) - {"paths.output_dir"})
    if missing:
        raise ConfigError(missing[0], "???", "given", f"Add {missing[0]}=VALUE to the command.")
    typed = OmegaConf.to_object(nodes)
    assert isinstance(typed, schema.Config)
    typed.check()
    return typed


# --- before Hydra sees the command line ------------------------------------------------------------------------------


def check_groups(arguments: list[str]) -> None:
    """Refuse a value given to a group (`lr_stage1=2e-5`) and name the key that takes it.

    Raises:
        ConfigError: with the group's options and the right spelling.
    """
    for argument in arguments:
        group, equals, choices = argument.partition("=")
        folder = CONF / group
        if not equals or not group.isidentifier() or not folder.is_dir() or "(" in choices:
            continue
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        for choice in choices.split(","):
            if choice.removesuffix(".yaml") not in options and not (group == "experiment" and choice == "null"):
                key = group_key(folder)
                hint = f"To give the value itself: {key}={choice}" if key else ""
                raise ConfigError(group, choice, "one of " + ", ".join(options), hint)


def group_key(folder: Path) -> str | None:
    """The one key that all options of a group write, such as `vocab.lr_stage1`; None where they write several."""
    keys = set()
    for path in folder.glob("*.yaml"):
        lines = path.read_text(encoding="utf-8").splitlines()
        package = next((line.split("@package")[1].strip() for line in lines if "@package" in line), "")
        names = [line.split(":")[0] for line in lines if line[:1].isalpha()]
        keys |= {f"{package}.{name}".removeprefix("_global_.") for name in names}
    return keys.pop() if len(keys) == 1 else None


def check_launcher(arguments: list[str]) -> None:
    """Refuse a launcher without its package, or without jobs to launch.

    Raises:
        MissingDependencyError: with the command that installs it.
        ConfigError: the command makes no sweep.
    """
    launcher = next((word.partition("=")[2] for word in arguments if word.startswith("launcher=")), "local")
    if launcher not in LAUNCHER_PACKAGES:
        return
    package = LAUNCHER_PACKAGES[launcher]
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, f"launcher={launcher}", f"pip install {package}")
    if not any(word.startswith(("-", "experiment=")) for word in arguments):
        raise ConfigError("launcher", launcher, "local for a single job", "Add -m: a launcher starts a sweep's jobs.")


def overrides_first(arguments: list[str]) -> list[str]:
    """Overrides in one row and options such as `--cfg job` or `-m` behind: between overrides Hydra refuses options."""
    overrides = [word for word in arguments if word.startswith("~") or ("=" in word and not word.startswith("-"))]
    return [*overrides, *(word for word in arguments if word not in overrides)]


def name_sweep(arguments: list[str]) -> list[str]:
    """Give a sweep that has no name one made of its overrides, so that the same command finds its own work again.

    What says where or by how many processes is left out: the jobs are the same.
    """
    multirun = "-m" in arguments or "--multirun" in arguments
    named = any(argument.startswith(("sweep_name=", "experiment=")) for argument in arguments)
    if not multirun or named:
        return arguments
    how = ("launcher=", "hydra.launcher", *(f"tokenization.{key}=" for key in identity.HOW_TOKENIZED))
    overrides = sorted(argument for argument in arguments if "=" in argument and not argument.startswith(how))
    name = "sweep-" + hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return [*arguments, f"sweep_name={name}"]


# --- around a sweep --------------------------------------------------------------------------------------------------


class SweepCallback(Callback):
    """Checks every job of a sweep before the first one starts, and prints the table after the last."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name is made of it
        try:
            make_folder(Path(config.hydra.run.dir))
        except RevocabError as error:  # as below
            fail(str(error))
            raise SystemExit(1) from error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            check_jobs(config)
            make_folder(Path(config.hydra.sweep.dir))
        except RevocabError as error:  # Hydra turns an exception of a callback into a warning, but not an exit
            fail(str(error))
            raise SystemExit(1) from error
        except HydraException:
            return  # it does not compose: Hydra says so itself before the first job

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from revocab.reporting import collect, track_sweep, write_sweep

        folder = Path(config.hydra.sweep.dir)
        if config.hydra.job.name != "train":
            if not State.failed:  # a launcher's workers said nothing to this process
                for job in collect(folder):
                    if job.state != "completed":
                        fail(f"{job.name}: {job.state}: {job.error or 'no reason was left'}")
            return
        sweep = write_sweep(folder)
        print(f"\n{sweep.table}\n\nReport: {sweep.report}")
        kind, project, group = config.logger.kind.value, config.logger.project, config.sweep_name
        for line in track_sweep(kind, project=project, group=group, folder=folder, jobs=sweep.jobs):
            print(line)
        failed = [job for job in sweep.jobs if job.state != "completed" and not elsewhere(job)]
        for job in failed:
            fail(f"{job.folder.name}: {job.state}: {job.error or 'no reason was left'}")
        if failed:
            names = ", ".join(job.folder.name for job in failed)
            print(f"{len(failed)} of {len(sweep.jobs)} jobs did not finish; the same command reruns only them "
                  f"({names}): {State.command}", file=sys.stderr)  # fmt: skip


def elsewhere(job: "Job") -> bool:
    """Whether another command, into the same sweep, is about to finish the job."""
    return job.state == "running" and not job.folder.name.endswith(State.jobs)


def make_folder(path: Path) -> None:
    """Hydra would make it with a traceback where that is not possible.

    Raises:
        ResourceError: it is not possible.
    """
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def check_jobs(config: DictConfig) -> None:
    """Build the config of every job.

    Raises:
        ConfigError: for the first job whose config cannot work.
    """
    from revocab.reporting import check_tracker

    if config.sweep_name is None:
        raise ConfigError("sweep_name", None, "a name when an experiment makes a sweep", "Add sweep_name=NAME.")
    if config.hydra.launcher.get("cluster") == "slurm" and not shutil.which("srun"):  # as submitit looks for it
        hint = "Start it where Slurm's commands are, or add hydra.launcher.cluster=local."
        raise ConfigError("hydra.launcher.cluster", "slurm", "local on a machine without Slurm", hint)
    names: dict[str, str] = {}
    trackers: set[str] = set()
    for overrides in sweep_jobs(config):
        cfg = GlobalHydra.instance().config_loader().load_sweep_config(config, overrides)
        cfg.paths.output_dir = "."  # known once the job runs
        to_typed(cfg)
        identifier, command = identity.run_id(cfg), " ".join(overrides)
        if identifier in names:
            log.warning("Two jobs are the same and will run once: %s | %s", names[identifier], command)
        names[identifier] = command
        trackers.add(cfg.logger.kind.value)
    State.jobs = tuple(names)
    if config.hydra.job.name == "train":
        for kind in sorted(trackers):
            check_tracker(kind)


def sweep_jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of every job, as Hydra's basic sweeper makes them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(params + list(config.hydra.overrides.task))
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]

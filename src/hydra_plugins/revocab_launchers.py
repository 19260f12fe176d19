"""Hydra launchers that run the jobs of a sweep in other processes: joblib, submitit (Slurm), Ray.

The launchers on PyPI raise at the first job that dies, so that no table is made, do not compose without their
package, and the one for Ray pins a cloudpickle that joblib refuses. These use the same engines and leave every job's
fate in its `status.json`. Hydra finds this module by the name of its package, `hydra_plugins`.
"""

import importlib
import logging
import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)  # what is started where is for the user; Hydra's own words are not
POLL = 0.5  # seconds


@dataclass(frozen=True, kw_only=True)
class Call:
    """One job, as it travels to another process."""

    index: int
    overrides: list[str]
    folder: Path  # of the job
    run_id: str
    start_folder: Path  # relative paths of the config mean this folder
    context: HydraContext
    config: DictConfig  # of the sweep
    task: TaskFunction
    singletons: dict[Any, Any]  # Hydra's state of the process that made the sweep

    def __call__(self) -> JobReturn:
        from revocab import cli

        os.chdir(self.start_folder)
        cli.prepare_process()
        Singleton.set_state(self.singletons)
        setup_globals()
        config = job_config(self.context, self.config, self.overrides, self.index)
        return run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def checkpoint(self) -> Any:
        """What submitit sends to the queue again when the job ran out of time or was preempted: itself."""
        return importlib.import_module("submitit").helpers.DelayedSubmission(self)

    def write_off(self, reason: str) -> None:
        """Say in the job's folder that its process is gone, unless the job had ended before."""
        from revocab.runtime.job import INTERRUPTED, JobFolder, read_json

        status = read_json(self.folder / "status.json") or {}
        if status.get("state") not in ("completed", "failed"):
            self.folder.mkdir(parents=True, exist_ok=True)
            JobFolder(path=self.folder, run_id=self.run_id).write_status("failed", f"{INTERRUPTED}: {reason}")


def run_call(call: Call) -> JobReturn:
    return call()


def job_config(context: HydraContext, config: DictConfig, overrides: list[str], index: int) -> DictConfig:
    job = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job):
        job.hydra.job.id = job.hydra.job.num = index
    return job


class ProcessLauncher(Launcher):
    """What the launchers have in common: jobs become calls; a call whose process dies does not end the sweep."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        calls = [self._call(list(overrides), initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        once = {call.folder: call for call in calls}  # equal jobs must not write into one folder side by side
        try:
            return self.run(list(once.values()))
        except KeyboardInterrupt:
            for call in once.values():
                if call.folder.exists():  # it was started
                    call.write_off("by Ctrl-C")
            raise

    @abstractmethod
    def run(self, calls: Sequence[Call]) -> list[JobReturn]:
        """Run the calls in other processes; returns what those that came back gave, and writes off the others."""

    @property
    def gpus_by_trainer(self) -> int:
        """GPUs of a job where the launcher is not told: as many devices as the trainer asks for, if they are GPUs."""
        return self.config.trainer.devices if self.config.trainer.accelerator.name == "gpu" else 0

    def _call(self, overrides: list[str], index: int) -> Call:
        from revocab import identity

        job = job_config(self.context, self.config, overrides, index)
        return Call(
            index=index,
            overrides=overrides,
            folder=Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir,
            run_id=identity.run_id(job),
            start_folder=Path.cwd(),
            context=self.context,
            config=self.config,
            task=self.task,
            singletons=Singleton.get_state(),
        )


# --- joblib: processes of this machine -------------------------------------------------------------------------------


@dataclass
class JoblibConf:
    _target_: str = "hydra_plugins.revocab_launchers.JoblibLauncher"
    n_jobs: int = 2


class JoblibLauncher(ProcessLauncher):
    """A pool of worker processes. One that is killed takes the pool with it: the jobs that ran or waited are lost."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def run(self, calls: Sequence[Call]) -> list[JobReturn]:
        joblib = importlib.import_module("joblib")
        log.info("%d jobs, %d at a time, by joblib", len(calls), self.n_jobs)
        pool = joblib.Parallel(n_jobs=self.n_jobs, backend="loky", batch_size=1, pre_dispatch="n_jobs")
        try:
            return pool(joblib.delayed(run_call)(call) for call in calls)
        except BrokenProcessPool:
            for call in calls:
                call.write_off("a worker process of joblib was killed (out of memory?), and all jobs with it")
            return []


# --- submitit: Slurm -------------------------------------------------------------------------------------------------


@dataclass
class SubmititConf:
    _target_: str = "hydra_plugins.revocab_launchers.SubmititLauncher"
    cluster: str = "slurm"
    partition: str | None = None
    account: str | None = None
    gpus: int | None = None
    cpus: int = 8
    memory_gb: float = 64
    timeout_minutes: int = 24 * 60
    max_timeouts: int = 3
    parallel: int = 8
    setup: list[str] = field(default_factory=list)
    slurm: dict[str, Any] = field(default_factory=dict)


class SubmititLauncher(ProcessLauncher):
    """A job array of Slurm, or (`cluster: local`) processes of this machine started in the same way."""

    def __init__(self, **settings: Any) -> None:
        self.settings = OmegaConf.create(settings)

    def run(self, calls: Sequence[Call]) -> list[JobReturn]:
        executor = self._executor()
        log.info("%d jobs, %d at a time, by submitit (%s)", len(calls), self.settings.parallel, self.settings.cluster)
        jobs: list[Any] = []
        try:
            if self.settings.cluster == "local":
                self._queue(executor, calls, jobs)
            else:
                with executor.batch():
                    jobs += [executor.submit(call) for call in calls]
                log.info("Slurm has the jobs %s", ", ".join(job.job_id for job in jobs))
            return [done for call, job in zip(calls, jobs, strict=True) if (done := self._result(call, job))]
        except KeyboardInterrupt:
            for job in jobs:
                job.cancel(check=False)  # else they would go on beside those of the next command
            raise

    def _executor(self) -> Any:
        settings, folder = self.settings, Path(self.config.hydra.sweep.dir) / ".submitit" / "%j"
        submitit = importlib.import_module("submitit")
        executor = submitit.AutoExecutor(
            folder=folder, cluster=settings.cluster, slurm_max_num_timeout=settings.max_timeouts
        )
        gpus = self.gpus_by_trainer if settings.gpus is None else settings.gpus
        executor.update_parameters(
            name=str(self.config.sweep_name),
            nodes=1,
            tasks_per_node=1,  # one job is one process
            cpus_per_task=settings.cpus,
            mem_gb=settings.memory_gb,
            timeout_min=settings.timeout_minutes,
            slurm_array_parallelism=settings.parallel,
            slurm_setup=list(settings.setup) or None,
            slurm_additional_parameters=dict(settings.slurm),
            **{f"slurm_{key}": settings[key] for key in ("partition", "account") if settings[key]},
            **({"gpus_per_node": gpus} if gpus else {}),
        )
        return executor

    def _queue(self, executor: Any, calls: Sequence[Call], jobs: list[Any]) -> None:
        """submitit starts every local job at once; this keeps to `parallel`."""
        for call in calls:
            while sum(not job.done() for job in jobs) >= self.settings.parallel:
                time.sleep(POLL)
            jobs.append(executor.submit(call))

    def _result(self, call: Call, job: Any) -> JobReturn | None:
        try:
            return job.result()
        except importlib.import_module("submitit.core.utils").UncompletedJobError:
            # its subclass FailedJobError says that the job raised, which only a bug makes it do
            call.write_off(f"its process ended without a result (submitit says {job.state}). Log: {job.paths.stderr}")
            return None


# --- Ray -------------------------------------------------------------------------------------------------------------


@dataclass
class RayConf:
    _target_: str = "hydra_plugins.revocab_launchers.RayLauncher"
    address: str | None = None
    num_cpus: int | None = None
    cpus_per_job: float = 1
    gpus_per_job: float | None = None
    memory_gb_per_job: float = 0


class RayLauncher(ProcessLauncher):
    """A task of Ray per job, each in a process of its own, on this machine or on a cluster."""

    def __init__(self, **settings: Any) -> None:
        self.settings = OmegaConf.create(settings)

    def run(self, calls: Sequence[Call]) -> list[JobReturn]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray = importlib.import_module("ray")
        settings = self.settings
        where = {"address": settings.address} if settings.address else {"num_cpus": settings.num_cpus}
        ray.init(**where, include_dashboard=False if not settings.address else None, logging_level=logging.WARNING)
        try:
            remote = ray.remote(
                num_cpus=settings.cpus_per_job,
                num_gpus=self.gpus_by_trainer if settings.gpus_per_job is None else settings.gpus_per_job,
                memory=int(settings.memory_gb_per_job * 10**9) or None,
                max_retries=0,  # a job that was killed once would be killed again: the user's next command resumes it
                max_calls=1,  # a fresh process per job: no memory of the one before
            )(run_call)
            log.info("%d jobs, %g cores each, by Ray", len(calls), settings.cpus_per_job)
            tasks = [remote.remote(call) for call in calls]
            return [done for call, task in zip(calls, tasks, strict=True) if (done := self._result(ray, call, task))]
        finally:
            ray.shutdown()

    def _result(self, ray: Any, call: Call, task: Any) -> JobReturn | None:
        try:
            return ray.get(task)
        except ray.exceptions.RayError as error:
            call.write_off(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            return None


for name, node in (("joblib", JoblibConf), ("submitit", SubmititConf), ("ray", RayConf)):
    ConfigStore.instance().store(group="hydra/launcher", name=f"revocab_{name}", node=node, provider="revocab")

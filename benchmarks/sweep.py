"""What a sweep costs beside its jobs: seconds per job, memory of the process as it grows, and the report.

    python benchmarks/sweep.py --jobs 50

Runs the embedded model with so few and short steps that what is left is the framework: settings, cached artifacts,
initialisation, scoring, two stages with their checkpoints, logging, files. The first job fills the cache.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
LITTLE = (
    "scale.step_factor=0.0008",  # two steps of each stage
    "vocab.probe_steps=1",
    "vocab.max_seq_length=32",
    "evaluation.max_samples=3",
    "sweep_name=bench",
)


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS")), 0.0)


def finished(folder: Path) -> list[Path]:
    return list(folder.glob("multirun/bench/*/summary.json"))


def watch(process: subprocess.Popen, folder: Path, memory: dict[int, float]) -> None:
    """Note the process's memory when each job has just ended."""
    while process.poll() is None:
        memory.setdefault(len(finished(folder)), resident_mb(process.pid))
        time.sleep(0.05)


def run_sweep(folder: Path, jobs: int, logger: str) -> tuple[list[float], dict[int, float]]:
    """Seconds of each job in the order of their start, and memory in MB by the number of finished jobs."""
    rates = ",".join(f"{1e-5 * (number + 1):.2e}" for number in range(jobs))
    command = [sys.executable, str(ROOT / "train.py"), "-m", *LITTLE, f"logger={logger}", f"vocab.lr_stage2={rates}"]
    memory: dict[int, float] = {}
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        watcher = threading.Thread(target=watch, args=(process, folder, memory))
        watcher.start()
        process.wait()
        watcher.join()
    if process.returncode:
        sys.exit((folder / "log.txt").read_text()[-3000:])
    ends = sorted(path.stat().st_mtime for path in finished(folder))
    earliest = min(finished(folder), key=lambda path: path.stat().st_mtime)
    first = json.loads(earliest.with_name("status.json").read_text())
    return [float(first["seconds"]), *(later - earlier for earlier, later in itertools.pairwise(ends))], memory


def seconds_of_report(folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "revocab.reporting", str(folder / "multirun/bench")], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=50, help="at least 6")
    parser.add_argument("--logger", default="wandb_offline")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds, memory = run_sweep(folder, arguments.jobs, arguments.logger)
        later = seconds[1:]
        print(f"first job               {seconds[0]:7.2f} s")
        print(f"each later job          {statistics.median(later):7.2f} s (median), {max(later):.2f} s (longest)")
        last = max(memory)
        early = memory.get(5) or memory[min(memory, key=lambda job: abs(job - 5))]
        print(f"memory after 5 jobs     {early:7.0f} MB")
        print(f"memory after {last:3d} jobs   {memory[last]:7.0f} MB, {memory[last] / early - 1:+.1%}")
        print(f"table and report again  {seconds_of_report(folder):7.2f} s, start of Python included")


if __name__ == "__main__":
    main()

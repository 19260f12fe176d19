"""The offline runs of Weights & Biases as they lie on disk: one folder each, and the command that uploads them."""

from __future__ import annotations

import os
import shlex
import shutil
import struct
from pathlib import Path

RUNS = "wandb/offline-run-*"

# A .wandb file is a log of LevelDB's format: 7 bytes of its own, then blocks of 32 KiB that hold chunks of records.
FILE_HEADER, BLOCK = 7, 32 * 1024
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, bytes that follow, type
ENDS_RECORD = (1, 4)  # types of a chunk that is a whole record or the last of one
RECORDS_TO_UPLOAD = 2  # the file's version and the run itself


def remove_runs(folder: Path, run_id: str) -> None:
    """Remove the offline runs of one id that earlier attempts left in a job's folder."""
    for run in Path(folder).glob(f"{RUNS}-{run_id}"):
        shutil.rmtree(run)


def remove_unreadable_runs(folder: Path) -> None:
    """Remove offline runs in a job's folder that were killed before they had written anything.

    Upload stops at such a run, without an error and without sending the runs beside it. Only for a job whose process
    is gone: the file of a run that has just ended is flushed a moment later.
    """
    for run in Path(folder).glob(RUNS):
        if run.is_dir() and not any(count_records(file) >= RECORDS_TO_UPLOAD for file in run.glob("*.wandb")):
            shutil.rmtree(run)


def count_records(file: Path, at_most: int = RECORDS_TO_UPLOAD) -> int:
    """Whole records at the beginning of a .wandb file."""
    data = file.read_bytes()[: 4 * BLOCK]
    position, records = FILE_HEADER, 0
    while records < at_most and position + CHUNK_HEADER.size <= len(data):
        if BLOCK - position % BLOCK < CHUNK_HEADER.size:
            position += BLOCK - position % BLOCK  # no chunk begins in the last bytes of a block
            continue
        _, length, kind = CHUNK_HEADER.unpack_from(data, position)
        position += CHUNK_HEADER.size + length
        records += kind in ENDS_RECORD and position <= len(data)
    return records


def upload_command(folder: Path, *, sweep: bool) -> str:
    """The command that sends all offline runs of a job's folder, or of a sweep's, to the service.

    It names the team by WANDB_ENTITY where that is set: `wandb sync` does not read it by itself.
    """
    place = f"{shlex.quote(folder.as_posix())}/{'*/' if sweep else ''}wandb"
    team = ['--entity "$WANDB_ENTITY"'] if os.environ.get("WANDB_ENTITY") else []
    return " ".join(["wandb sync --yes", *team, place])

"""A function run by several new processes of this machine that form one process group of torch.

They are started from here and not from the command line, so that nobody runs a script again, and they live only as long
as the function runs: an exception or a death in one of them ends all, and is raised in the process that started them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import distributed

from revocab.errors import ResourceError

HOST = "127.0.0.1"
POLL = 0.5  # seconds
GRACE = 3.0  # seconds after a first failure in which the others say what they saw
PATIENCE = timedelta(minutes=30)  # that one process waits for another, such as for a checkpoint to be written
Send = Callable[[Any], None]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a process sends before it ends by an exception."""

    error: Exception
    time: float  # monotonic clock of the machine, seconds


@dataclass(kw_only=True)
class Member:
    """One process, seen from the one that started it."""

    rank: int
    process: BaseProcess
    pipe: connection.Connection
    failure: Failure | None = None

    def read(self, receive: Callable[[Any], None]) -> None:
        """Handle everything that the process has sent so far."""
        while self.pipe.poll():
            try:
                message = self.pipe.recv()
            except (EOFError, OSError):  # it has ended, maybe in the middle of a message
                return
            if isinstance(message, Failure):
                self.failure = message
            else:
                receive(message)


def run_group(
    work: Callable[..., None],
    arguments: Sequence[Any],
    *,
    size: int,
    backend: str,
    receive: Callable[[Any], None],
) -> None:
    """Run `work(*arguments, send)` in `size` processes, and return once all have ended.

    In each of them torch.distributed is initialised, and RANK, LOCAL_RANK and WORLD_SIZE are set. They end with this
    process, however it ends, and leave Ctrl-C to it.

    Args:
        work: a function of a module; like `arguments`, it is pickled.
        backend: gloo | nccl.
        receive: called here with what the processes give to `send`.

    Raises:
        ResourceError: a process was killed.
        Exception: what a process raised; of several the first.
    """
    store = distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    members: list[Member] = []
    try:
        for rank in range(size):
            members.append(_start(rank, size, backend, store.port, work, arguments))
        _follow(members, receive)
    finally:
        for member in members:
            member.process.kill()
            member.process.join()
            member.pipe.close()


def _start(
    rank: int, size: int, backend: str, port: int, work: Callable[..., None], arguments: Sequence[Any]
) -> Member:
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks and a GPU in use
    pipe, sender = context.Pipe(duplex=False)
    threads = max(1, torch.get_num_threads() // size)
    values = (rank, size, backend, port, threads, os.getpid(), sender, work, arguments)
    process = context.Process(target=_member, args=values, name=f"rank {rank}")
    process.start()
    sender.close()
    return Member(rank=rank, process=process, pipe=pipe)


def _follow(members: Sequence[Member], receive: Callable[[Any], None]) -> None:
    """Wait for all; after a failure no longer than GRACE, for the others may wait for the one that failed."""
    running, deadline = list(members), float("inf")
    while running and time.monotonic() < deadline:
        connection.wait([member.pipe for member in running], timeout=POLL)
        for member in list(running):
            ended = not member.process.is_alive()  # asked first: then all that it sent is there to be read
            member.read(receive)
            if ended:
                running.remove(member)
        if deadline == float("inf") and any(member.failure or member.process.exitcode for member in members):
            deadline = time.monotonic() + GRACE
    _raise_failure(members)


def _raise_failure(members: Sequence[Member]) -> None:
    """Raise what went wrong first: a process that was killed says nothing, and the others then miss it."""
    silent = [member for member in members if member.process.exitcode and not member.failure]
    if silent:
        code = silent[0].process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ResourceError(
            f"Process {silent[0].rank} of the {len(members)} that train the model {how}. "
            "If nobody did so, main memory ran out (docs/scaling.md says what several devices need of it)."
        )
    failures = [member.failure for member in members if member.failure]
    if failures:
        raise min(failures, key=lambda failure: failure.time).error


# --- in the new process ----------------------------------------------------------------------------------------------


def _member(
    rank: int,
    size: int,
    backend: str,
    port: int,
    threads: int,
    parent: int,
    pipe: connection.Connection,
    work: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _configure(rank, size, port, threads)
    try:
        store = distributed.TCPStore(HOST, port, is_master=False)
        if backend == "nccl":
            torch.cuda.set_device(rank)
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        work(*arguments, pipe.send)
    except Exception as error:
        pipe.send(Failure(error=_portable(error), time=time.monotonic()))
        sys.stderr.flush()
        os._exit(1)  # leaving the group in an orderly way would wait for the others
    distributed.destroy_process_group()


def _configure(rank: int, size: int, port: int, threads: int) -> None:
    """What Lightning and torch read, and a terminal on which only the first process speaks."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR=HOST)
    os.environ["MASTER_PORT"] = str(port)
    torch.set_num_threads(threads)
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING if rank == 0 else logging.ERROR)
    logging.getLogger("revocab").setLevel(logging.INFO if rank == 0 else logging.ERROR)


def _end_with(parent: int) -> None:
    """End this process as soon as the one that started it is gone, whatever is being waited for."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, such that it can be unpickled in another process."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error

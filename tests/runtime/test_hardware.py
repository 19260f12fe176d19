"""Free memory, with and without a limit of the control group."""

import math

import psutil
import pytest

from revocab.runtime import hardware

STAT = "anon 500\ninactive_file 100\nactive_file 20\nfile 400\n"


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": STAT}, 420),
        ({"memory.max": "max\n", "memory.current": "700\n", "memory.stat": STAT}, math.inf),
        ({"memory.max": "100\n", "memory.current": "700\n", "memory.stat": STAT}, 0),
        (
            {
                "memory/memory.limit_in_bytes": "1000\n",
                "memory/memory.usage_in_bytes": "600\n",
                "memory/memory.stat": STAT,
            },
            520,
        ),
        ({}, math.inf),
    ],
)
def test_limit_of_the_control_group(files, free, tmp_path):
    assert hardware._free_in_group(write(tmp_path, files)) == free


def test_the_smaller_of_machine_and_group_counts(monkeypatch):
    monkeypatch.setattr(hardware, "_free_in_group", lambda: 1000)
    assert hardware.free_memory_bytes("cpu") == 1000
    monkeypatch.setattr(hardware, "_free_in_group", lambda: math.inf)
    assert hardware.free_memory_bytes("cpu") == pytest.approx(psutil.virtual_memory().available, rel=0.2)

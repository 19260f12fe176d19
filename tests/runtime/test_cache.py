"""The artifact cache: whole or not there, made once, rebuilt when damaged."""

import errno
import json
import random
import subprocess
import sys
import threading
import time
import zlib

import pytest

from revocab.errors import DataError, ResourceError
from revocab.runtime import cache as runtime_cache
from revocab.runtime.cache import Cache, checksum, digest, is_whole
from revocab.runtime.side_by_side import side_by_side

INPUTS = {"settings": 1, "text": "abc"}


@pytest.fixture
def builds():
    """A build function that counts its calls."""

    class Build:
        calls = 0

        def __call__(self, folder):
            self.calls += 1
            (folder / "data.bin").write_bytes(b"12345")
            return {"rows": 5}

    return Build()


def test_an_artifact_is_made_once_and_carries_a_manifest(tmp_path, builds):
    cache = Cache(tmp_path)
    first = cache.get("thing", INPUTS, builds)
    assert cache.get("thing", dict(reversed(INPUTS.items())), builds) == first
    assert builds.calls == 1
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["inputs"] == INPUTS
    assert manifest["counts"] == {"rows": 5}
    assert manifest["files"] == {"data.bin": 5}
    assert {"versions", "git_commit", "seconds"} <= set(manifest)


def test_other_inputs_are_another_artifact(tmp_path, builds):
    cache = Cache(tmp_path)
    assert cache.get("thing", INPUTS, builds) != cache.get("thing", {**INPUTS, "settings": 2}, builds)
    assert cache.get("other", INPUTS, builds).parent.name == "other"
    assert builds.calls == 3


@pytest.fixture(autouse=True)
def another_process(monkeypatch):
    """What a process has checked it does not check again."""
    monkeypatch.setattr(runtime_cache, "_checked", set())


@pytest.mark.parametrize(
    "damage", ["cut off", "other content", "missing file", "no manifest", "broken manifest", "other manifest"]
)
def test_a_damaged_artifact_is_made_again_and_others_are_kept(tmp_path, builds, caplog, damage):
    cache = Cache(tmp_path)
    entry = cache.get("thing", INPUTS, builds)
    neighbour = cache.get("thing", {"other": 1}, builds)
    runtime_cache._checked.clear()
    if damage == "cut off":
        (entry / "data.bin").write_bytes(b"12")
    elif damage == "other content":
        (entry / "data.bin").write_bytes(b"12445")
    elif damage == "missing file":
        (entry / "data.bin").unlink()
    elif damage == "no manifest":
        (entry / "manifest.json").unlink()
    else:
        (entry / "manifest.json").write_text("{" if damage == "broken manifest" else "[]")
    assert not is_whole(entry)
    assert cache.get("thing", INPUTS, builds) == entry
    assert (entry / "data.bin").read_bytes() == b"12345"
    assert "damaged" in caplog.text
    assert is_whole(neighbour)
    assert builds.calls == 3


def test_an_entry_of_a_version_without_checksums_is_kept(tmp_path, builds):
    entry = Cache(tmp_path).get("thing", INPUTS, builds)
    manifest = json.loads((entry / "manifest.json").read_text())
    del manifest["checksums"]
    (entry / "manifest.json").write_text(json.dumps(manifest))
    Cache(tmp_path).get("thing", INPUTS, builds)
    assert builds.calls == 1


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 5000, 100_000])
def test_the_checksum_is_of_the_whole_file_or_of_blocks_from_its_first_to_its_last_byte(tmp_path, monkeypatch, size):
    monkeypatch.setattr(runtime_cache, "BLOCK_BYTES", 64)  # so that large begins at 4096 bytes
    path = tmp_path / "data.bin"
    content = bytearray(random.Random(0).randbytes(size))
    path.write_bytes(content)
    expected = checksum(path)
    if size <= 4096:
        assert expected == f"{zlib.crc32(content):08x}"
    seen = set()
    for place in sorted({*range(0, size, max(1, size // 500)), size - 1} - {-1}):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        if checksum(path) != expected:
            seen.add(place)
    assert size <= 4096 or {0, size - 1} <= seen
    assert size > 4096 or len(seen) == len({*range(0, size, max(1, size // 500)), size - 1} - {-1})


def test_a_build_that_fails_leaves_nothing(tmp_path, builds):
    def failing(folder):
        (folder / "data.bin").write_bytes(b"1")
        raise DataError("no text")

    cache = Cache(tmp_path)
    with pytest.raises(DataError):
        cache.get("thing", INPUTS, failing)
    assert [path.suffix for path in (tmp_path / "thing").iterdir()] == [".lock"]
    assert is_whole(cache.get("thing", INPUTS, builds))


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    def full(folder):
        (folder / "data.bin").write_bytes(b"1")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match="disk is full"):
        Cache(tmp_path).get("thing", INPUTS, full)
    assert not [path for path in (tmp_path / "thing").iterdir() if path.is_dir()]


def test_what_a_killed_job_left_is_cleared(tmp_path, builds):
    left = tmp_path / "thing" / f"{digest({'kind': 'thing', **INPUTS})}.tmp"
    left.mkdir(parents=True)
    (left / "half.bin").write_bytes(b"1")
    entry = Cache(tmp_path).get("thing", INPUTS, builds)
    assert sorted(path.name for path in entry.iterdir()) == ["data.bin", "manifest.json"]


WORKER = """
import logging, sys, time
from pathlib import Path
from revocab.runtime.cache import Cache
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

def build(folder):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(1.0)
    (folder / "data.bin").write_bytes(b"12345")

print(Cache(Path(sys.argv[1])).get("thing", {"x": 1}, build))
"""


def test_of_two_jobs_that_need_the_same_one_builds_and_the_other_waits(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path / "cache"), str(tmp_path / "log")]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "log").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    out, _ = first.communicate()
    assert first.returncode == 0
    assert (tmp_path / "log").read_text() == "built\n"
    assert "another job is making it, waiting" in second.stdout
    assert out.splitlines()[-1] == second.stdout.splitlines()[-1]


def test_of_two_threads_that_need_the_same_one_builds_and_the_other_waits(tmp_path, builds, caplog):
    caplog.set_level("INFO")

    def build(folder):
        deadline = time.monotonic() + 20
        while "waiting" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        return builds(folder)

    made = side_by_side(dict.fromkeys("abc", lambda: Cache(tmp_path).get("thing", INPUTS, build)), at_once=True)
    assert set(made.values()) == {Cache(tmp_path).entry("thing", INPUTS)}
    assert builds.calls == 1
    assert "waiting" in caplog.text
    assert is_whole(made["a"])


def test_threads_that_need_different_artifacts_do_not_wait_for_each_other(tmp_path):
    together = threading.Barrier(2)

    def build(folder):
        together.wait(20)
        (folder / "data.bin").write_bytes(b"12345")

    cache = Cache(tmp_path)
    made = side_by_side(
        {str(number): lambda number=number: cache.get("thing", {"x": number}, build) for number in range(2)},
        at_once=True,
    )
    assert all(map(is_whole, made.values()))

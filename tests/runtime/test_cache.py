"""The artifact cache: whole or not there, made once, rebuilt when damaged."""

import errno
import json
import subprocess
import sys
import time

import pytest

from revocab.errors import DataError, ResourceError
from revocab.runtime.cache import Cache, digest, is_whole

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


@pytest.mark.parametrize("damage", ["cut off", "missing file", "no manifest", "broken manifest", "other manifest"])
def test_a_damaged_artifact_is_made_again_and_others_are_kept(tmp_path, builds, caplog, damage):
    cache = Cache(tmp_path)
    entry = cache.get("thing", INPUTS, builds)
    neighbour = cache.get("thing", {"other": 1}, builds)
    if damage == "cut off":
        (entry / "data.bin").write_bytes(b"12")
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

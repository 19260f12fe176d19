"""The artifact cache: a folder per artifact, named by a hash of everything that decides its content.

An entry is built in a temporary folder beside it, gets a `manifest.json`, and is renamed into place: it is whole or
it is not there. A file lock per entry lets jobs side by side, and threads of one, share one cache: one builds, the
others wait.
"""

import hashlib
import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from revocab.runtime.files import disk_errors, write_json
from revocab.runtime.hardware import git_commit, package_versions

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
BLOCKS, BLOCK_BYTES = 64, 1 << 20
_checked: set[tuple[Path, int]] = set()  # entries whose content this process has checked


def digest(value: Any, length: int = 16) -> str:
    """Hex digest of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


class Cache:
    """Artifacts under one root, `<root>/<kind>/<hash>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, kind: str, inputs: Mapping[str, Any]) -> Path:
        """Where the artifact that `inputs` decide is, or will be once it is made."""
        return self.root / kind / digest({"kind": kind, **inputs})

    def get(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        *,
        quiet: bool = False,
    ) -> Path:
        """Return the folder of the artifact that `inputs` decide; call `build(folder)` first if it is not there.

        Args:
            kind: what it is, such as `alignment`; the name of a folder.
            inputs: settings and hashes of inputs, JSON values; equal inputs share one artifact.
            build: writes the artifact into the empty folder that it gets, and returns counts for the manifest.
            quiet: do not tell the user that it was made; for one of many.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        entry = self.entry(kind, inputs)
        if is_whole(entry):
            return entry
        with disk_errors(self.root):
            entry.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(entry, kind):
                if not is_whole(entry):
                    seconds = self._build(entry, kind, inputs, build)
                    log.log(logging.DEBUG if quiet else logging.INFO, "%s: made in %.1f s", kind, seconds)
        return entry

    def _lock(self, entry: Path, kind: str) -> AcquireReturnProxy:
        lock = FileLock(entry.with_suffix(".lock"))
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            log.info("%s: another job is making it, waiting", kind)
            return lock.acquire()

    def _build(
        self, entry: Path, kind: str, inputs: Mapping[str, Any], build: Callable[[Path], Mapping[str, Any] | None]
    ) -> float:
        if entry.exists():
            log.warning("%s: the cached %s is damaged, making it again", kind, entry)
            shutil.rmtree(entry)
        temporary = entry.with_suffix(".tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed job; the lock says nobody writes there now
        temporary.mkdir()
        start = time.monotonic()
        try:
            counts = dict(build(temporary) or {})
            manifest = {
                "kind": kind,
                "inputs": dict(inputs),
                "counts": counts,
                "seconds": round(time.monotonic() - start, 3),
                "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "versions": package_versions(),
                "git_commit": git_commit(),
                "files": {path.name: path.stat().st_size for path in sorted(temporary.iterdir())},
                "checksums": {path.name: checksum(path) for path in sorted(temporary.iterdir()) if path.is_file()},
            }
            write_json(temporary / MANIFEST, manifest)
            temporary.replace(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return time.monotonic() - start


def is_whole(entry: Path) -> bool:
    """Whether the manifest is there and every file has the size and, when this process first asks, the content that it
    says; of large files the content of a part (see `checksum`)."""
    try:
        manifest = json.loads((entry / MANIFEST).read_text())
        if not all((entry / name).stat().st_size == size for name, size in manifest["files"].items()):
            return False
        identity = (entry.resolve(), (entry / MANIFEST).stat().st_mtime_ns)
        if identity not in _checked:
            sums = manifest.get("checksums", {})  # entries of earlier versions have none
            if not all(checksum(entry / name) == expected for name, expected in sums.items()):
                return False
            _checked.add(identity)
        return True
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, or no manifest of ours
        return False


def checksum(path: Path) -> str:
    """CRC-32 of the file; of one above 64 MB that of 64 blocks of 1 MB spread over it, first and last included.

    It costs 0.1 s a file at most, and finds what a bad disk or a copy that went wrong does to a file; a change between
    the blocks of a large file it does not find.
    """
    size, value = path.stat().st_size, 0
    with path.open("rb") as file:
        for number in range(BLOCKS):
            if size > BLOCKS * BLOCK_BYTES:
                file.seek(number * (size - BLOCK_BYTES) // (BLOCKS - 1))
            value = zlib.crc32(file.read(BLOCK_BYTES), value)
    return f"{value:08x}"

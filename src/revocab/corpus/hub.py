"""Data sets of the Hugging Face Hub: their files, downloaded one after the other as they are read.

A file that was downloaded stays in the Hub client's cache (`HF_HOME`), so a read that was interrupted goes on with the
file that it was at, and what a budget leaves unread is not downloaded.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from revocab.corpus.inputs import HubSpec
from revocab.errors import DataError
from revocab.runtime.hub import hub_reachable, why_unreachable

READ_HERE = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst")  # kinds whose rows this package reads itself


@dataclass(frozen=True)
class HubFiles:
    """What a spec stands for when it is first asked for; no later change of the data set shows in this process."""

    revision: str  # commit
    licence: str | None  # as the data set's card says
    names: tuple[str, ...]  # files of the split, in the order in which they are read

    @property
    def read_here(self) -> bool:
        return all(name.endswith(READ_HERE) for name in self.names)


def files_of(spec: HubSpec, key: str) -> HubFiles:
    """The files of a split.

    Raises:
        DataError: the Hub cannot be reached, or has no such data set; the message names the config's `key`.
    """
    instead = (
        f"Without it, name a local file, {key}=[my_file.jsonl], or what you downloaded elsewhere: "
        f"hf download {spec.repository} --repo-type dataset --local-dir FOLDER, then {key}=[FOLDER]."
    )
    if not hub_reachable():
        said = f"{key}: {spec} is a Hub data set and the Hub cannot be reached. {instead}"
        raise DataError(said) from why_unreachable()
    with _hub_errors(spec, instead):
        return _find(spec)


def download(spec: HubSpec, files: HubFiles, name: str) -> Path:
    """The file in the client's cache; one that was downloaded in part is completed.

    Raises:
        DataError: the download failed.
    """
    from huggingface_hub import hf_hub_download

    with _hub_errors(spec, "The same command again goes on from the files that were downloaded."):
        return Path(hf_hub_download(spec.repository, name, repo_type="dataset", revision=files.revision))


def stream_rows(spec: HubSpec, files: HubFiles) -> Iterator[dict[str, Any]]:
    """Rows of data sets in other formats, as the library `datasets` streams them; nothing is kept on disk.

    Raises:
        DataError: the data set cannot be read.
    """
    from datasets import load_dataset

    with _hub_errors(spec, "The same command again reads it from its beginning."):
        yield from load_dataset(spec.repository, spec.config, split=spec.split, revision=files.revision, streaming=True)


@cache
def _find(spec: HubSpec) -> HubFiles:
    from datasets import load_dataset_builder
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(spec.repository, revision=spec.revision)
    assert info.sha is not None
    builder = load_dataset_builder(spec.repository, spec.config, revision=info.sha)
    by_split = builder.config.data_files or {}
    if spec.split not in by_split:
        raise DataError(f"{spec}: the data set has the splits {', '.join(map(str, by_split))}. Name one of them.")
    licence = getattr(info.card_data, "license", None)
    names = [url.split(f"@{info.sha}/", 1)[-1] for url in by_split[spec.split]]
    return HubFiles(info.sha, licence if licence is None else str(licence), tuple(names))


@contextmanager
def _hub_errors(spec: HubSpec, advice: str) -> Generator[None]:
    """One line for whatever goes wrong: network, unknown name, a script; each its own type in each version."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(f"{spec} cannot be read from the Hub: {reason}. {advice}") from error

"""Shards: whatever the cut, the workers and the kills, the same bits come out, and what is finished stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from revocab import cli, pipeline, vectors, vocabulary
from revocab.artifacts import Corpus, TokenizedCorpus
from revocab.corpus import build_corpus
from revocab.errors import ResourceError
from revocab.runtime.cache import Cache
from revocab.runtime.embedded import locate
from revocab.runtime.workers import for_each
from revocab.shards import Shards
from revocab.vectors import PairCounts

ROOT = Path(__file__).parents[1]
TARGET = locate("embedded:target_tokenizer", "models.target_tokenizer")
SCRIPT = """
import sys
from pathlib import Path
from revocab import vocabulary
from revocab.runtime.cache import Cache
from revocab.shards import Shards
if __name__ == "__main__":
    cache = Cache(Path(sys.argv[2]))
    Shards(corpus_folder=Path(sys.argv[1]), tokenizer=vocabulary.load_tokenizer(sys.argv[3]), window=5,
           shard_bytes=int(sys.argv[4]), token_cache=cache, cache=cache, workers=int(sys.argv[5])).counts()
"""


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary.load_tokenizer(TARGET)


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    """600 kB of the embedded text."""
    folder = tmp_path_factory.mktemp("corpus")
    sample = locate("embedded:sample.jsonl.zst", "corpus.inputs")
    build_corpus(
        folder, [sample], text_field="text", size_gb=None, byte_budget=600_000, deduplicate=True, hash_name="sha256",
        min_line_length=0, heldout_fraction=0.0,
    )  # fmt: skip
    return folder


@pytest.fixture
def make_shards(tokenizer, corpus_folder):
    def make(cache, shard_bytes=50_000, **options):
        return Shards(
            corpus_folder=corpus_folder, tokenizer=tokenizer, shard_bytes=shard_bytes, window=5,
            token_cache=Cache(cache), cache=Cache(cache), **options,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def whole(tokenizer, corpus_folder, tmp_path_factory):
    """Tokens and counts of the corpus made in one piece, without shards."""
    folder = tmp_path_factory.mktemp("whole")
    vocabulary.tokenize_corpus(folder / "tokens", Corpus.load(corpus_folder).train, tokenizer)
    vectors.count_shard(folder / "counts", TokenizedCorpus.load(folder / "tokens"), 5)
    return {name: files_of(folder / name) for name in ("tokens", "counts")}


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def times_of(cache, kind):
    return {path.parent.name: path.stat().st_mtime_ns for path in cache.glob(f"{kind}/*/manifest.json")}


@pytest.mark.parametrize(("shard_bytes", "number"), [(10**9, 1), (50_000, 13), (3_000, None)])
def test_shards_of_any_size_give_the_tokens_and_counts_of_the_whole_to_the_bit(
    make_shards, whole, tmp_path, monkeypatch, shard_bytes, number
):
    monkeypatch.setattr("revocab.shards.SUMMED_AT_ONCE", 4)  # sums of sums
    shards = make_shards(tmp_path, shard_bytes)
    assert len(shards.borders) == number or (number is None and len(shards.borders) > 150)
    assert files_of(shards.tokens()) == whole["tokens"]
    assert files_of(shards.counts()) == whole["counts"]


def test_parts_share_the_shards_out_and_the_last_command_only_adds_up(make_shards, whole, tmp_path):
    shards = make_shards(tmp_path)
    made = [shards.make_all(part, 3) for part in (2, 0)]
    assert made == [4, 5]
    assert len(times_of(tmp_path, "count_shards")) == 9
    before = times_of(tmp_path, "count_shards")
    assert files_of(shards.counts()) == whole["counts"]
    after = times_of(tmp_path, "count_shards")
    assert len(after) == 13
    assert {name: after[name] for name in before} == before


def test_shards_are_whole_documents_in_order_and_no_larger_than_they_may_be(corpus_folder):
    documents = Corpus.load(corpus_folder).train
    borders = vocabulary.cut_into_shards(documents, 20_000)
    assert [document for first, last in borders for document in range(first, last)] == list(range(len(documents)))
    sizes = [int(documents.offsets[last] - documents.offsets[first]) for first, last in borders]
    following = np.diff(documents.offsets)[[first for first, _ in borders[1:]]]
    for (first, last), size in zip(borders, sizes, strict=True):
        assert size <= 20_000 or last - first == 1
    assert all(size + more > 20_000 for size, more in zip(sizes, following, strict=False))  # as long as they can be


@pytest.mark.slow
def test_four_workers_give_the_bits_of_one(make_shards, whole, tmp_path):
    shards = make_shards(tmp_path, workers=4)
    assert files_of(shards.counts()) == whole["counts"]
    assert files_of(shards.tokens()) == whole["tokens"]
    assert len(times_of(tmp_path, "count_shards")) == 13


def end_as_if_killed(item):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.survival
def test_a_killed_worker_is_one_line_that_says_what_to_do():
    with pytest.raises(ResourceError, match=r"give the same command again, with some\.key below 2"):
        for_each(end_as_if_killed, range(4), workers=2, threads=1, name="shards", key="some.key")


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run an entry script; returns (exit code, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        small = ["corpus.byte_budget=3000000", "tokenization.shard_mb=1", "logger=none", "paths.cache_dir=cache"]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *small, *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.run({"align": pipeline.align, "train": pipeline.train}[script])
        return ended.value.code, capsys.readouterr().err

    return run


def test_align_makes_its_part_of_the_shards_and_stops(command, tmp_path):
    code, _ = command("align", "tokenization.parts=2", "tokenization.part=1")
    assert code == 0
    cache = tmp_path / "cache"
    assert {path.name for path in cache.iterdir()} == {"corpus", "token_shards", "count_shards"}
    assert len(times_of(cache, "token_shards")) == len(times_of(cache, "count_shards")) == 2  # one of 3 in either
    assert not list(tmp_path.glob("outputs/align/*/alignment_report.json"))


def test_a_part_is_no_job_of_train_and_no_part_beyond_the_last(command):
    code, errors = command("train", "tokenization.parts=2", "tokenization.part=1")
    assert (code, "tokenization.part must be null in train.py" in errors) == (1, True)
    code, errors = command("align", "tokenization.parts=2", "tokenization.part=2")
    assert (code, "tokenization.part must be null or in 0..1" in errors) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_after_a_kill_the_next_run_goes_on_from_the_finished_shards(corpus_folder, whole, tmp_path, workers):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    cache = tmp_path / "cache"
    command = [sys.executable, str(script), str(corpus_folder), str(cache), TARGET, "4000", str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command, env=environment)
    while len(times_of(cache, "count_shards")) < 5:
        assert run.poll() is None
        time.sleep(0.005)
    run.kill()
    run.wait()
    time.sleep(1.5)  # a worker of the killed process ends with it, in the middle of its shard or behind it
    finished = times_of(cache, "token_shards") | times_of(cache, "count_shards")
    time.sleep(0.5)
    assert times_of(cache, "token_shards") | times_of(cache, "count_shards") == finished  # nobody works on
    assert not times_of(cache, "counts")
    subprocess.run(command, env=environment, check=True)
    after = times_of(cache, "token_shards") | times_of(cache, "count_shards")
    assert {name: after[name] for name in finished} == finished
    assert len(after) > len(finished)
    (counts,) = (path.parent for path in cache.glob("counts/*/manifest.json"))
    assert files_of(counts) == whole["counts"]
    assert PairCounts.load(counts).occurrences.sum() > 100_000

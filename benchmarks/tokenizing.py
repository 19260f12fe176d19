"""Tokenization of a corpus against the tokenizers library alone, on the same text in the same run; and its memory.

    python benchmarks/tokenizing.py --tokenizer FOLDER --corpus bio.train.jsonl.zst --megabytes 10 40

Ours reads the text from the corpus's memory map, encodes it, writes the ids shard by shard and joins the shards; the
library alone encodes texts that are in memory already, in batches of `--batch-mb`, and throws the result away. The two
take turns, `--rounds` times for each size, with the same threads. Seconds are of the clock, and of all cores together
(user and system): where the machine does other work too, these tell more. The ratios are of the fewest seconds of
either. Memory is what the first pass adds to the process, each size in a process of its own; the 5 GB are extrapolated.
"""

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from revocab.artifacts import Corpus, Documents
from revocab.corpus import build_corpus
from revocab.vocabulary import cut_into_shards, join_shards, load_tokenizer, tokenize_corpus

MB = 10**6
WHOLE_MB = 5000  # that the rate is extrapolated to
Seconds = tuple[float, float]  # of the clock, of all cores together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--corpus", required=True, nargs="+")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 40])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-mb", type=int, default=64, help="text tokenized at a time, as tokenization.shard_mb")
    parser.add_argument("--batch-mb", type=int, nargs="+", default=[4], help="of the library alone; the best counts")
    arguments = parser.parse_args()
    print("| text | ours, MB/s | library alone, MB/s | ratio | ratio of CPU seconds | memory added | 5 GB would take |")
    print("|---|---|---|---|---|---|---|")
    for megabytes in arguments.megabytes:
        given = (arguments.tokenizer, arguments.corpus, megabytes, arguments.rounds, arguments.batch_mb)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            size, ours, alone, added = pool.submit(measure, *given, arguments.shard_mb * MB).result()
        print(
            f"| {size / MB:.0f} MB | {size / MB / ours[0]:.2f} | {size / MB / alone[0]:.2f} | {alone[0] / ours[0]:.1%} "
            f"| {alone[1] / ours[1]:.1%} | {added / MB:.0f} MB | {ours[0] * WHOLE_MB * MB / size / 60:.0f} min |"
        )


def measure(
    tokenizer_name: str, corpus: list[str], megabytes: int, rounds: int, batch_mb: list[int], shard_bytes: int
) -> tuple[int, Seconds, Seconds, int]:
    """(bytes, our fewest seconds, the library's, bytes of memory that ours added)."""
    tokenizer = load_tokenizer(tokenizer_name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_corpus(
            folder, corpus, text_field=None, size_gb=None, byte_budget=megabytes * MB, deduplicate=True,
            hash_name="sha256", min_line_length=0, heldout_fraction=0.0,
        )  # fmt: skip
        documents = Corpus.load(folder).train
        tokenizer.backend_tokenizer.encode_batch_fast(["A first text starts its threads."] * 100)
        before = resident()
        first = seconds(lambda: in_shards(folder, tokenizer, shard_bytes))
        peak = peak_resident()
        sizes = [list(in_batches(documents, size * MB)) for size in batch_mb]
        ours, alone = [first], []
        for _ in range(rounds):
            alone += [seconds(lambda batches=batches: encode(tokenizer, batches)) for batches in sizes]
            ours.append(seconds(lambda: in_shards(folder, tokenizer, shard_bytes)))
        return documents.num_bytes, fewest(ours), fewest(alone), peak - before


def in_shards(folder: Path, tokenizer: object, shard_bytes: int) -> None:
    """What the pipeline does: shard by shard, each with a memory map of its own."""
    borders = cut_into_shards(Corpus.load(folder).train, shard_bytes)
    for number, (first, last) in enumerate(borders):
        tokenize_corpus(folder / str(number), Corpus.load(folder).train, tokenizer, first=first, last=last)
    join_shards(folder / "whole", [folder / str(number) for number in range(len(borders))])


def encode(tokenizer: object, batches: list[list[str]]) -> None:
    for texts in batches:
        tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)


def in_batches(documents: Documents, batch_bytes: int) -> Iterator[list[str]]:
    """Texts of so many bytes together."""
    places = range(len(documents))
    for _, group in itertools.groupby(places, key=lambda place: int(documents.offsets[place]) // batch_bytes):
        yield [documents[place] for place in group]


def seconds(work: Callable[[], object]) -> Seconds:
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def fewest(rounds: list[Seconds]) -> Seconds:
    return min(elapsed for elapsed, _ in rounds), min(worked for _, worked in rounds)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_resident() -> int:
    """The most that it had so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()

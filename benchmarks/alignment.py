"""Measure a whole alignment: start-up, corpus, tokenization, vectors, matching; seconds, peak memory, held-out score.

    python benchmarks/alignment.py --source SMOLLM2_FOLDER --target MISTRAL_V3_FOLDER --corpus bio.train.jsonl
    python benchmarks/alignment.py ... --against-fasttext      # the published vectors beside it, from one epoch

Each step is the package's own function, in one process unless --workers says otherwise. As in the package, independent
steps run at the same time on more than four cores: start and end tell which, `in all` is the time from the start of
this script to the end, and CPU seconds, which are those of the whole process, are told for no step alone. With
--one-after-another they do not overlap. Peak memory is the highest resident size of the process so far, so it never
falls. On a machine that does other work too CPU seconds tell more than seconds. `--against-fasttext` compares seconds
of steps, so it includes --one-after-another; it trains fastText for one epoch after the measured alignment and
multiplies by 30, the published number of epochs: the ratio it prints is such an estimate.
"""

import time

STARTED = time.perf_counter()  # before the imports, which are part of what a user waits for

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from dataclasses import dataclass, field, replace  # noqa: E402
from functools import partial  # noqa: E402
from importlib import import_module  # noqa: E402
from operator import itemgetter  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

# It reads the code of every model, which waits for the disk: meanwhile torch is read. Nothing else may import it until
# the thread has ended: it would get what transformers is before it replaces itself by a lazy module.
READING = threading.Thread(target=import_module, args=("transformers",))
READING.start()

from revocab.alignment import Problem, Settings, align, methods, needs_vectors, report  # noqa: E402
from revocab.artifacts import Corpus, TokenizedCorpus, TokenVectors  # noqa: E402
from revocab.corpus import build_corpus  # noqa: E402
from revocab.errors import RevocabError  # noqa: E402
from revocab.runtime.cache import Cache  # noqa: E402
from revocab.runtime.cores import available_cores  # noqa: E402
from revocab.runtime.side_by_side import FEW_CORES, side_by_side  # noqa: E402
from revocab.runtime.threads import start_device  # noqa: E402
from revocab.shards import Shards  # noqa: E402
from revocab.vectors import PairCounts, cooccurrence_vectors, fasttext_vectors  # noqa: E402
from revocab.vocabulary import (  # noqa: E402
    cut_into_pieces,
    exact_pairs,
    load_tokenizer,
    read_vocabulary,
    role_pairs,
)

PUBLISHED_EPOCHS = 30
GIB = 2**30
WINDOW = 5
MakeVectors = Callable[[Shards, Path], TokenVectors]


@dataclass
class Clock:
    """Seconds since the script began and peak memory of the steps, in the order of their ends."""

    overlapping: bool = False  # steps run at the same time
    steps: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, started: float | None = None) -> Iterator[None]:
        worked = cpu_seconds() if started is None else 0.0
        started = time.perf_counter() if started is None else started
        yield
        ended = time.perf_counter()
        self.steps.append(
            {
                "step": name,
                "start": started - STARTED,
                "end": ended - STARTED,
                "seconds": ended - started,
                "cpu_seconds": None if self.overlapping else cpu_seconds() - worked,
                "peak_rss_gib": peak_memory_bytes() / GIB,
            }
        )

    def seconds(self, *starts: str) -> float:
        """Total of the steps whose names start so; of all without arguments."""
        return sum(step["seconds"] for step in self.steps if not starts or step["step"].startswith(starts))


def cpu_seconds() -> float:
    """Of this process and of those that it waited for: hardly changed by what else the machine does."""
    return sum(os.times()[:4])


def peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> int:
    arguments = parse_arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="revocab-benchmark-", dir=arguments.work_folder) as folder:
            result = measure(arguments, Path(folder))
    except RevocabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="source tokenizer: folder or Hub id")
    parser.add_argument("--source-gguf", help="GGUF file inside of --source that holds the tokenizer")
    parser.add_argument("--target", required=True, help="target tokenizer: folder or Hub id")
    parser.add_argument("--corpus", required=True, nargs="+", help="files or folders of text")
    parser.add_argument("--method", default="mixed", choices=methods())
    parser.add_argument("--embedding", default="cooccurrence", choices=["cooccurrence", "fasttext"])
    parser.add_argument("--epochs", type=int, default=PUBLISHED_EPOCHS, help="of --embedding fasttext")
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--max-pairs", type=int, default=20_000_000, help="pairs that are factorised")
    parser.add_argument("--shard-mb", type=int, default=64, help="megabytes of text of a shard")
    parser.add_argument("--workers", type=int, default=1, help="processes that make shards")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--against-fasttext", action="store_true", help="train fastText for one epoch afterwards")
    parser.add_argument("--one-after-another", action="store_true", help="no steps at the same time")
    parser.add_argument("--work-folder", type=Path, help="where temporary files go; default the system's")
    parser.add_argument("--json", type=Path, help="write the result there too")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clock = Clock(overlapping=at_once(arguments))
    with clock.step("start (imports)", STARTED):
        if not clock.overlapping:
            READING.join()
    shards = prepare(arguments, folder, clock)
    problem = compare(arguments, folder, shards, clock)
    settings = Settings(method=arguments.method, device=arguments.device)
    with clock.step("match"):
        alignment = align(problem, settings)
    with clock.step("report"):
        told = report(alignment, problem)
    seconds, worked = time.perf_counter() - STARTED, cpu_seconds()
    tokens = {name: TokenizedCorpus.load(each.tokens()) for name, each in shards.items()}
    names = ("target_tokens", "exact", "aligned", "fallback", "coverage", "coverage_seen", "hub_share_top100")
    return {
        "method": arguments.method,
        "embedding": arguments.embedding,
        "side_by_side": clock.overlapping,
        "cores": available_cores(),
        "load_average": os.getloadavg()[0],
        "tokens": {name: len(each.tokens) for name, each in tokens.items()},
        "steps": clock.steps,
        "seconds": seconds,
        "seconds_of_steps": clock.seconds(),
        "cpu_seconds": worked,
        "text_bytes": tokens["source"].text_bytes,
        "peak_rss_gib": peak_memory_bytes() / GIB,
        "heldout": told["heldout"],
        "alignment": {name: told[name] for name in names},
        "fasttext": against_fasttext(arguments, folder, problem, shards, clock) if arguments.against_fasttext else None,
    }


def at_once(arguments: argparse.Namespace) -> bool:
    """As the package decides it, unless told."""
    return available_cores() > FEW_CORES and not (arguments.one_after_another or arguments.against_fasttext)


def prepare(arguments: argparse.Namespace, folder: Path, clock: Clock) -> dict[str, Shards]:
    """Corpus and tokenizers, as the shards of either side, of which none is made."""

    def load() -> dict[str, Any]:
        READING.join()
        with clock.step("load tokenizers"):
            source = load_tokenizer(arguments.source, gguf_file=arguments.source_gguf)
            return {"source": source, "target": load_tokenizer(arguments.target)}

    def build() -> None:
        with clock.step("build corpus"):
            build_plain_corpus(folder / "corpus", arguments.corpus)

    def start() -> None:
        with clock.step("start device"):
            start_device(arguments.device)

    branches = {"corpus": build, "tokenizers": load, "device": start}
    made = side_by_side(branches, at_once=clock.overlapping)
    return {
        name: Shards(
            corpus_folder=folder / "corpus",
            tokenizer=tokenizer,
            shard_bytes=arguments.shard_mb * 10**6,
            window=WINDOW if counts_pairs(arguments) else None,
            device=arguments.device,
            token_cache=Cache(folder / "cache"),
            cache=Cache(folder / "cache"),
            workers=arguments.workers,
        )
        for name, tokenizer in made["tokenizers"].items()
    }


def counts_pairs(arguments: argparse.Namespace) -> bool:
    return needs_vectors(arguments.method) and arguments.embedding == "cooccurrence"


def compare(arguments: argparse.Namespace, folder: Path, shards: dict[str, Shards], clock: Clock) -> Problem:
    """What is aligned: the vocabularies compared, and where the method needs them the vectors of either side."""
    make_vectors = {"cooccurrence": cooccurrence, "fasttext": fasttext}[arguments.embedding]

    def side(name: str) -> TokenVectors | None:
        with clock.step(f"tokenize, count ({name})"):
            shards[name].tokens()
        if counts_pairs(arguments):
            with clock.step(f"add up ({name})"):
                shards[name].counts()
        if not needs_vectors(arguments.method):
            return None
        with clock.step(f"vectors ({name})"):
            return make_vectors(arguments, shards[name], folder / name)

    def vocabularies() -> Problem:
        with clock.step("compare vocabularies"):
            return compare_vocabularies(shards["source"].tokenizer, shards["target"].tokenizer)

    branches = {"source": partial(side, "source"), "target": partial(side, "target"), "vocabularies": vocabularies}
    made = side_by_side(branches, at_once=clock.overlapping)
    return replace(made["vocabularies"], source_vectors=made["source"], target_vectors=made["target"])


def compare_vocabularies(source_tokenizer: Any, target_tokenizer: Any) -> Problem:
    source, target = read_vocabulary(source_tokenizer), read_vocabulary(target_tokenizer)
    return Problem(
        source=source,
        target=target,
        exact=exact_pairs(source, target),
        exact_by_string=exact_pairs(source, target, by="string"),
        roles=role_pairs(source, target),
        pieces=cut_into_pieces(source_tokenizer, source, target),
    )


def cooccurrence(arguments: argparse.Namespace, shards: Shards, folder: Path) -> TokenVectors:
    counts = PairCounts.load(shards.counts())
    return cooccurrence_vectors(counts, dim=arguments.dim, max_pairs=arguments.max_pairs, device=arguments.device)


def fasttext(arguments: argparse.Namespace, shards: Shards, folder: Path, *, epochs: int | None = None) -> TokenVectors:
    tokens = TokenizedCorpus.load(shards.tokens())
    return fasttext_vectors(tokens, dim=arguments.dim, epochs=epochs or arguments.epochs, work_folder=folder)


def build_plain_corpus(folder: Path, inputs: list[str]) -> Corpus:
    build_corpus(
        folder,
        inputs,
        text_field="text",
        size_gb=None,
        byte_budget=0,
        deduplicate=True,
        hash_name="blake2b",
        min_line_length=0,
        heldout_fraction=0.0,
    )
    return Corpus.load(folder)


def against_fasttext(
    arguments: argparse.Namespace, folder: Path, problem: Problem, shards: dict[str, Shards], clock: Clock
) -> dict[str, Any]:
    """Train one epoch of fastText, score it by the same match, and estimate the published 30 epochs."""
    other, made = Clock(), {}
    for name, each in shards.items():
        with other.step(f"vectors ({name})"):
            made[f"{name}_vectors"] = fasttext(arguments, each, folder / name, epochs=1)
    problem = replace(problem, **made)
    alignment = align(problem, Settings(method="procrustes", device=arguments.device))
    shared = clock.seconds() - clock.seconds("vectors")  # with the counting, which is a part of tokenizing here
    estimate = shared + PUBLISHED_EPOCHS * other.seconds("vectors")
    return {
        "seconds_one_epoch": other.seconds("vectors"),
        "vectors_ratio_estimated": PUBLISHED_EPOCHS * other.seconds("vectors") / max(clock.seconds("vectors"), 1e-9),
        "seconds_30_epochs_estimated": PUBLISHED_EPOCHS * other.seconds("vectors"),
        "whole_seconds_estimated": estimate,
        "whole_ratio_estimated": estimate / clock.seconds(),
        "heldout_one_epoch": alignment.report["heldout"],
    }


def print_table(result: dict[str, Any]) -> None:
    print(f"{'step':24}{'start':>8}{'end':>8}{'seconds':>10}{'CPU s':>10}{'peak GiB':>10}")
    for step in sorted(result["steps"], key=itemgetter("start")):
        print_row(step["step"], step["start"], step["end"], step["cpu_seconds"], step["peak_rss_gib"])
    peak = result["steps"][-1]["peak_rss_gib"]
    print_row("in all", 0.0, result["seconds"], result["cpu_seconds"], peak)
    print(f"\n{result['cores']} cores, load {result['load_average']:.2f}, tokens {result['tokens']}")
    print(", ".join(f"{name} {value}" for name, value in result["alignment"].items()))
    if result["heldout"]:
        print(f"held-out exact pairs: {result['heldout']}")
    if result["fasttext"]:
        print_fasttext(result["fasttext"])


def print_row(name: str, start: float, end: float, worked: float | None, peak: float) -> None:
    cpu = "-" if worked is None else f"{worked:.1f}"
    print(f"{name:24}{start:8.1f}{end:8.1f}{end - start:10.1f}{cpu:>10}{peak:10.2f}")


def print_fasttext(told: dict[str, Any]) -> None:
    print(f"\nfastText, 1 epoch: {told['seconds_one_epoch']:.1f} s for both vocabularies, {told['heldout_one_epoch']}")
    print(
        f"30 epochs (estimated, 30 times that): {told['seconds_30_epochs_estimated']:.0f} s, "
        f"{told['vectors_ratio_estimated']:.0f} times these vectors; the whole alignment "
        f"{told['whole_seconds_estimated']:.0f} s, {told['whole_ratio_estimated']:.0f} times this one"
    )


if __name__ == "__main__":
    sys.exit(main())

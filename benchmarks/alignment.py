"""Measure a whole alignment: start-up, corpus, tokenization, vectors, matching; seconds, peak memory, held-out score.

    python benchmarks/alignment.py --source SMOLLM2_FOLDER --target MISTRAL_V3_FOLDER --corpus bio.train.jsonl
    python benchmarks/alignment.py ... --against-fasttext      # the published vectors beside it, from one epoch

Each step is the package's own function, in one process unless --workers says otherwise. Peak memory is the highest
resident size of the process so far, so it never falls from step to step. CPU seconds are those of all cores; on a
machine that does other work too they tell more than seconds. `--against-fasttext` trains fastText for one epoch after
the measured alignment and multiplies by 30, the published number of epochs: the ratio it prints is such an estimate.
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
from importlib import import_module  # noqa: E402
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
MakeVectors = Callable[[Shards], TokenVectors]


@dataclass
class Clock:
    """Seconds and peak memory of the steps, in order."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str, started: float | None = None) -> Iterator[None]:
        worked = cpu_seconds() if started is None else 0.0
        started = time.perf_counter() if started is None else started
        yield
        self.steps.append(
            {
                "step": name,
                "seconds": time.perf_counter() - started,
                "cpu_seconds": cpu_seconds() - worked,
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
    parser.add_argument("--work-folder", type=Path, help="where temporary files go; default the system's")
    parser.add_argument("--json", type=Path, help="write the result there too")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clock = Clock()
    with clock.step("start (imports)", STARTED):
        READING.join()
    problem, shards = prepare(arguments, folder, clock)
    tokens = [TokenizedCorpus.load(each.tokens()) for each in shards]
    if needs_vectors(arguments.method):
        problem = with_vectors(problem, shards, vectors_of(arguments, folder), clock)
    settings = Settings(method=arguments.method, device=arguments.device)
    with clock.step("match"):
        alignment = align(problem, settings)
    with clock.step("report"):
        told = report(alignment, problem)
    names = ("target_tokens", "exact", "aligned", "fallback", "coverage", "coverage_seen", "hub_share_top100")
    return {
        "method": arguments.method,
        "embedding": arguments.embedding,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "tokens": {"source": len(tokens[0].tokens), "target": len(tokens[1].tokens)},
        "steps": clock.steps,
        "seconds": clock.seconds(),
        "cpu_seconds": sum(step["cpu_seconds"] for step in clock.steps),
        "text_bytes": tokens[0].text_bytes,
        "peak_rss_gib": peak_memory_bytes() / GIB,
        "heldout": told["heldout"],
        "alignment": {name: told[name] for name in names},
        "fasttext": against_fasttext(arguments, folder, problem, shards, clock) if arguments.against_fasttext else None,
    }


def vectors_of(arguments: argparse.Namespace, folder: Path) -> MakeVectors:
    def cooccurrence(shards: Shards) -> TokenVectors:
        counts = PairCounts.load(shards.counts())
        return cooccurrence_vectors(counts, dim=arguments.dim, max_pairs=arguments.max_pairs, device=arguments.device)

    def fasttext(shards: Shards) -> TokenVectors:
        tokens = TokenizedCorpus.load(shards.tokens())
        return fasttext_vectors(tokens, dim=arguments.dim, epochs=arguments.epochs, work_folder=folder)

    return {"cooccurrence": cooccurrence, "fasttext": fasttext}[arguments.embedding]


def prepare(arguments: argparse.Namespace, folder: Path, clock: Clock) -> tuple[Problem, list[Shards]]:
    with clock.step("load tokenizers"):
        source_tokenizer = load_tokenizer(arguments.source, gguf_file=arguments.source_gguf)
        target_tokenizer = load_tokenizer(arguments.target)
    with clock.step("build corpus"):
        build_plain_corpus(folder / "corpus", arguments.corpus)
    shards = []
    counted = needs_vectors(arguments.method) and arguments.embedding == "cooccurrence"
    for name, tokenizer in (("source", source_tokenizer), ("target", target_tokenizer)):
        made = Shards(
            corpus_folder=folder / "corpus",
            tokenizer=tokenizer,
            shard_bytes=arguments.shard_mb * 10**6,
            window=WINDOW if counted else None,
            device=arguments.device,
            token_cache=Cache(folder / "cache"),
            cache=Cache(folder / "cache"),
            workers=arguments.workers,
        )
        with clock.step(f"tokenize, count ({name})"):
            made.tokens()
        if counted:
            with clock.step(f"add up ({name})"):
                made.counts()
        shards.append(made)
    with clock.step("compare vocabularies"):
        source, target = read_vocabulary(source_tokenizer), read_vocabulary(target_tokenizer)
        problem = Problem(
            source=source,
            target=target,
            exact=exact_pairs(source, target),
            exact_by_string=exact_pairs(source, target, by="string"),
            roles=role_pairs(source, target),
            pieces=cut_into_pieces(source_tokenizer, source, target),
        )
    return problem, shards


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


def with_vectors(problem: Problem, shards: list[Shards], make: MakeVectors, clock: Clock) -> Problem:
    with clock.step("vectors (source)"):
        source = make(shards[0])
    with clock.step("vectors (target)"):
        target = make(shards[1])
    return replace(problem, source_vectors=source, target_vectors=target)


def against_fasttext(
    arguments: argparse.Namespace, folder: Path, problem: Problem, shards: list[Shards], clock: Clock
) -> dict[str, Any]:
    """Train one epoch of fastText, score it by the same match, and estimate the published 30 epochs."""
    other = Clock()

    def make(shards: Shards) -> TokenVectors:
        tokens = TokenizedCorpus.load(shards.tokens())
        return fasttext_vectors(tokens, dim=arguments.dim, epochs=1, work_folder=folder)

    problem = with_vectors(problem, shards, make, other)
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
    print(f"{'step':24}{'seconds':>10}{'CPU s':>10}{'peak GiB':>10}")
    for step in result["steps"]:
        print(f"{step['step']:24}{step['seconds']:10.1f}{step['cpu_seconds']:10.1f}{step['peak_rss_gib']:10.2f}")
    peak = result["steps"][-1]["peak_rss_gib"]
    print(f"{'in all':24}{result['seconds']:10.1f}{result['cpu_seconds']:10.1f}{peak:10.2f}")
    print(f"\n{result['cores']} cores, load {result['load_average']:.2f}, tokens {result['tokens']}")
    print(", ".join(f"{name} {value}" for name, value in result["alignment"].items()))
    if result["heldout"]:
        print(f"held-out exact pairs: {result['heldout']}")
    if result["fasttext"]:
        print_fasttext(result["fasttext"])


def print_fasttext(told: dict[str, Any]) -> None:
    print(f"\nfastText, 1 epoch: {told['seconds_one_epoch']:.1f} s for both vocabularies, {told['heldout_one_epoch']}")
    print(
        f"30 epochs (estimated, 30 times that): {told['seconds_30_epochs_estimated']:.0f} s, "
        f"{told['vectors_ratio_estimated']:.0f} times these vectors; the whole alignment "
        f"{told['whole_seconds_estimated']:.0f} s, {told['whole_ratio_estimated']:.0f} times this one"
    )


if __name__ == "__main__":
    sys.exit(main())

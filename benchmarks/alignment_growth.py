"""How an alignment grows with the text: seconds and peak memory at 1x, 4x and 16x, each in a process of its own.

    python benchmarks/alignment_growth.py --source SMOLLM2_FOLDER --target LLAMA3_FOLDER \
        --corpus bio.train.jsonl general.train.jsonl --megabytes 41 --times 1 4 16

The text of each size is written first: documents of the corpus, and where these are too few, the same documents with
their sentences shuffled, so that no two are alike. Ratios are to the first size.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from revocab.corpus import read_documents

BENCHMARK = Path(__file__).with_name("alignment.py")
SHARED = ("start", "load", "compare", "match", "report")  # steps that do not read the text


def main() -> int:
    arguments, passed_on = parse_arguments()
    results = []
    for times in arguments.times:
        with tempfile.TemporaryDirectory(prefix="revocab-growth-", dir=arguments.work_folder) as folder:
            text = Path(folder) / "text.jsonl"
            write_text(text, arguments.corpus, round(times * arguments.megabytes * 1e6))
            out = Path(folder) / "result.json"
            command = [sys.executable, str(BENCHMARK), "--corpus", str(text), "--json", str(out)]
            command += ["--work-folder", folder, "--one-after-another", *passed_on]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            results.append({"times": times, **json.loads(out.read_text())})
            print_row(results[-1], results[0], first=times == arguments.times[0])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options go to alignment.py, such as --source, --target and --workers.",
    )
    parser.add_argument("--corpus", required=True, nargs="+", help="files or folders of text")
    parser.add_argument("--megabytes", type=float, default=41, help="text of 1x")
    parser.add_argument("--times", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--work-folder", type=Path, help="where temporary files go; default the system's")
    parser.add_argument("--json", type=Path, help="write the results there too")
    return parser.parse_known_args()


def write_text(path: Path, corpus: list[str], num_bytes: int) -> None:
    written = 0
    with path.open("w", encoding="utf-8") as stream:
        for text in endless_documents(corpus):
            if written >= num_bytes:
                break
            stream.write(json.dumps({"text": text}) + "\n")
            written += len(text.encode())


def endless_documents(corpus: list[str]) -> Iterator[str]:
    """The corpus, then the corpus again and again with the sentences of each document in another order."""
    yield from read_documents(corpus)
    generator = random.Random(0)
    while True:
        for text in read_documents(corpus):
            sentences = text.split(". ")
            generator.shuffle(sentences)
            yield ". ".join(sentences)


def print_row(result: dict, base: dict, *, first: bool) -> None:
    if first:
        print(f"{'text':>6}{'MB':>8}{'seconds':>10}{'CPU s':>8}{'of text':>9}{'ratio':>7}{'peak GiB':>10}{'ratio':>7}")
    text, base_text = of_text(result), of_text(base)
    print(
        f"{result['times']:5g}x{result['text_bytes'] / 1e6:8.0f}{result['seconds']:10.0f}{result['cpu_seconds']:8.0f}"
        f"{text:9.0f}{text / base_text:7.1f}"
        f"{result['peak_rss_gib']:10.2f}{result['peak_rss_gib'] / base['peak_rss_gib']:7.2f}",
        flush=True,
    )


def of_text(result: dict) -> float:
    """CPU seconds of the steps that read the text."""
    return sum(step["cpu_seconds"] for step in result["steps"] if not step["step"].startswith(SHARED))


if __name__ == "__main__":
    sys.exit(main())

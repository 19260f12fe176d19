"""`python -m revocab.reporting multirun/<sweep>`: rebuild a sweep's tables and page, and print the table."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from revocab.errors import RevocabError
from revocab.reporting.sweep import write_sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 where the folder is no sweep."""
    parser = argparse.ArgumentParser(prog="python -m revocab.reporting", description="Rebuild the report of a sweep.")
    parser.add_argument("sweep", type=Path, help="folder of the sweep, such as multirun/comparison_table")
    try:
        report = write_sweep(parser.parse_args(arguments).sweep)
    except RevocabError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{report.table}\n\nReport: {report.report}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Everything a sweep's folder gets: table.csv, table.md, report.html, and the table to print."""

from dataclasses import dataclass
from pathlib import Path

from revocab.reporting.jobs import Job, collect
from revocab.reporting.page import to_html
from revocab.reporting.table import ENDED_BADLY, to_csv, to_markdown, to_terminal
from revocab.runtime.files import write_text


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What was written about a sweep."""

    table: str  # for a terminal
    report: Path  # the page
    jobs: list[Job]

    @property
    def failed(self) -> list[Job]:
        """Jobs that failed or were interrupted."""
        return [job for job in self.jobs if job.state in ENDED_BADLY]


def write_sweep(sweep_folder: Path) -> SweepReport:
    """(Re)build the tables and the page of a sweep from what its jobs have left so far.

    Raises:
        DataError: the folder is missing or holds no job.
    """
    sweep_folder = Path(sweep_folder)
    jobs = collect(sweep_folder)
    write_text(sweep_folder / "table.csv", to_csv(jobs))
    write_text(sweep_folder / "table.md", f"# {sweep_folder.resolve().name}\n\n{to_markdown(jobs)}")
    report = sweep_folder / "report.html"
    write_text(report, to_html(jobs, sweep_folder.resolve().name))
    return SweepReport(table=to_terminal(jobs), report=report, jobs=jobs)

"""What a sweep says: jobs read from their folders, one table, one self-contained page, and the runs' tracker.

Everything is made from the files that jobs leave, so a report can be rebuilt at any time, also while jobs run, and one
job whose files are missing or broken costs its own row only.
"""

from revocab.reporting.card import model_card
from revocab.reporting.checks import Limits, checklist
from revocab.reporting.jobs import Job, collect, read_metrics
from revocab.reporting.sweep import SweepReport, write_sweep
from revocab.reporting.tracking import check_tracker, finish, log_summary, make_logger, track_sweep

__all__ = [
    "Job",
    "Limits",
    "SweepReport",
    "check_tracker",
    "checklist",
    "collect",
    "finish",
    "log_summary",
    "make_logger",
    "model_card",
    "read_metrics",
    "track_sweep",
    "write_sweep",
]

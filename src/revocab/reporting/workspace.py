"""The workspace of a sweep in Weights & Biases: scores, curves, settings and checks of its jobs side by side."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from typing import Any

from revocab.errors import MissingDependencyError
from revocab.reporting.jobs import Job
from revocab.reporting.settings import names_of, varying
from revocab.reporting.table import datasets_of, stages_of

try:
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
except ImportError as error:
    raise MissingDependencyError(
        "wandb-workspaces", "the workspace with the comparison panels", "pip install 'revocab[tracking]'"
    ) from error

CURVES = ("loss", "lr", "grad_norm")
STAGES = {"stage1": "Stage 1: embedding tables", "stage2": "Stage 2: body"}
ALIGNMENT = ("coverage", "coverage_seen", "hub_share_top100")
NAME_LENGTH = 11  # characters of a view's name, as W&B makes them


def build(entity: str, project: str, group: str, jobs: Sequence[Job]) -> ws.Workspace:
    """The workspace of a sweep, not yet saved; it shows the runs of the sweep's group only.

    Its name follows from the sweep's, so that saving it again renews it instead of adding another.
    """
    datasets = datasets_of(jobs)
    sections = [_scores(datasets, jobs), *(_curves(stage) for stage in STAGES), _alignment(), _checks()]
    columns = [f"summary:bpb/{dataset}/final" for dataset in datasets]
    columns += [_config_column(key) for key in varying(jobs)]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=f"revocab: {group}",
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == group),
            order=[expr.Ordering(expr.Summary(f"bpb/{name}/final"), ascending=True) for name in datasets[:1]],
            pinned_columns=columns,
        ),
    )
    workspace._internal_name = f"nw-{hashlib.sha256(group.encode()).hexdigest()[:NAME_LENGTH]}-v"
    return workspace


def save(workspace: ws.Workspace) -> str:
    """Save it, over the one of the same name if there is one; returns its address."""
    with suppress(ValueError):  # there is none yet
        workspace._internal_id = ws.Workspace.from_url(workspace.url)._internal_id
    with redirect_stderr(io.StringIO()):  # it would say the address itself
        return workspace.save().url


def _config_column(key: str) -> str:
    """The name that W&B gives a nested setting: config:vocab.value.lr_stage1."""
    first, *rest = key.split(".")
    return "config:" + ".".join([first, "value", *rest])


def _scores(datasets: Sequence[str], jobs: Sequence[Job]) -> ws.Section:
    """Bits per byte of every stage, against the settings that vary, and the table itself."""
    panels: list[Any] = [wr.WeavePanelSummaryTable(table_name="comparison", layout=wr.Layout(w=24, h=8))]
    for dataset in datasets:
        metrics = [f"bpb/{dataset}/{stage}" for stage in stages_of(jobs)]
        panels += [
            wr.BarPlot(title=f"{dataset}: final bits per byte, lower is better", metrics=[metrics[-1]]),
            wr.BarPlot(title=f"{dataset}: bits per byte from source to final", metrics=list(metrics)),
            wr.ParallelCoordinatesPlot(title=f"{dataset}: settings and score", columns=_axes(metrics[-1], jobs)),
        ]
    return ws.Section(name="Comparison", panels=[*panels, wr.RunComparer(diff_only=True)], is_open=True)


def _axes(score: str, jobs: Sequence[Job]) -> list[Any]:
    settings = varying(jobs)
    names = names_of(settings)
    axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key), display_name=names[key]) for key in settings]
    return [*axes, wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(score), display_name="final BPB")]


def _curves(stage: str) -> ws.Section:
    """What is logged at every step, over the steps of this stage."""
    panels: list[Any] = [
        wr.LinePlot(title=f"{stage} {curve}", x=f"{stage}/step", y=[f"{stage}/{curve}"]) for curve in CURVES
    ]
    return ws.Section(name=STAGES[stage], panels=panels, is_open=True)


def _alignment() -> ws.Section:
    panels: list[Any] = [wr.BarPlot(title=name.replace("_", " "), metrics=[f"alignment/{name}"]) for name in ALIGNMENT]
    return ws.Section(name="Alignment", panels=panels)


def _checks() -> ws.Section:
    """The monitoring checklist of all jobs."""
    panels: list[Any] = [
        wr.BarPlot(title="Failed checks", metrics=["checks_failed"]),
        wr.WeavePanelSummaryTable(table_name="checklist", layout=wr.Layout(w=16, h=8)),
    ]
    return ws.Section(name="Checklist", panels=panels)

"""Lightning's W&B logger with one step axis per stage. A module of its own: importing wandb takes a second."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

STAGES = ("probe", "stage1", "stage2")


class StageLogger(WandbLogger):
    """Metrics named `<stage>/<what>` are drawn over `<stage>/step`, which is added where it is not logged itself."""

    def start(self) -> None:
        """Open the run and say which axis each metric has; of losses the run's summary keeps least and last."""
        self._wandb_init.pop("anonymous", None)  # Lightning still passes it, and wandb warns of it in every job
        run = self.experiment
        for stage in STAGES:
            run.define_metric(f"{stage}/step", hidden=True)
            run.define_metric(f"{stage}/loss", step_metric=f"{stage}/step", summary="min,last")
            run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        stages = {name.split("/")[0] for name in metrics if "/" in name} & set(STAGES)
        axes = {f"{stage}/step": step for stage in stages if step is not None and f"{stage}/step" not in metrics}
        super().log_metrics({**metrics, **axes}, step)

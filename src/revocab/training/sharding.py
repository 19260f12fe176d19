"""Fully sharded data parallelism: each device keeps a part of every parameter, gradient and optimiser state.

Parts are put together layer by layer while a layer computes (torch's `fully_shard`, per parameter, so that frozen and
trained ones may stand in one layer). Checkpoints hold whole tensors, exactly as those of one device or of DDP.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from revocab.training.module import StageModule

log = logging.getLogger(__name__)


class ShardedStrategy(DDPStrategy):
    """Processes as in DDP, but the parameters of the module's `model` are shared out and not copied."""

    def model_to_device(self) -> None:
        """Nothing yet: the layers go to the device one by one, each only as long as it is whole."""

    def configure_ddp(self) -> None:
        assert isinstance(self.lightning_module, StageModule)
        shard(self.lightning_module.model, self.root_device, self.world_size)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole trained parameters, on the CPU of the first process; the others help and get none."""
        assert self.lightning_module is not None
        return {
            name: whole
            for name, parameter in self.lightning_module.named_parameters()
            if parameter.requires_grad and (whole := self._whole(parameter)) is not None
        }

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        assert self.lightning_module is not None
        parameters = dict(self.lightning_module.named_parameters())
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                parameters[name].copy_(_part(value, parameters[name]))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """As AdamW's own state_dict, of whole tensors."""
        state = optimizer.state_dict()
        whole = {
            number: {key: self._whole(value) for key, value in values.items()}
            for number, values in state["state"].items()
        }
        return state | {"state": whole}

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            parts = {
                number: {key: _part(value, parameters[number]) for key, value in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict(state | {"state": parts})

    def on_train_end(self) -> None:
        """Put the trained parameters together while the parts are there."""
        self.trained = self.lightning_module_state_dict()

    def teardown(self) -> None:
        """Leave the parts on their device: Lightning would move them, and the process is about to end."""
        assert self.accelerator is not None
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def copy_trained(self, module: nn.Module) -> None:
        """Copy the trained parameters into `module`: a whole one, named as the one that was trained."""
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.trained.items():
                parameters[name].copy_(value)

    def _whole(self, value: Any) -> Any:
        """A sharded tensor put together, for the first process; a plain one (such as a step count) for all."""
        if not isinstance(value, DTensor):
            return value
        whole = value.detach().full_tensor()  # all take part in it
        return whole.cpu() if self.is_global_zero else None


def shard(model: nn.Module, device: torch.device, size: int) -> None:
    """Share out the parameters over the processes, each repeated layer a unit, all the rest another."""
    mesh = init_device_mesh(device.type, (size,))
    layers = _layers(model)
    if not layers:
        log.warning("No repeated layers are known in %s: it is put together as a whole.", type(model).__name__)
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _layers(model: nn.Module) -> list[nn.Module]:
    """The modules that transformers says must not be cut in two: the layers of the body."""
    names = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return [module for module in model.modules() if type(module).__name__ in names]


def _part(value: Any, like: torch.Tensor) -> Any:
    """This process's part of a whole tensor that all processes have; scalars stay as they are."""
    if not isinstance(value, torch.Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

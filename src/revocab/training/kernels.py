"""Fused kernels where they work: liger-kernel's RMSNorm, RoPE, SwiGLU and cross-entropy, own layers, CUDA graphs.

They are put into a model for the time of a stage and taken out again. Before the first step loss and gradient of one
sequence are computed both ways: kernels that do not agree with the plain path are taken out at once, with a warning.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import math
import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from revocab.runtime.retry import is_out_of_memory
from revocab.training.adapters import fused_adapters
from revocab.training.loss import fused_next_token_loss, next_token_loss
from revocab.training.shared_input import shared_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
PLAIN = "plain"
MASKS = {"create_causal_mask", "create_sliding_window_causal_mask"}
# Of loss and gradient norm, relative: rounding alone stays below, another formula does not.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (5e-3, 5e-2)}
# cuDNN's attention is the fastest on Hopper; what it cannot do falls to the next.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


def why_plain(model: PreTrainedModel, device: str, *, sharded: bool) -> str | None:
    """The reason for which there are no fused kernels for this model here; None if there are."""
    if device != "cuda":
        return "they need a GPU"
    if sharded:  # a layer's parameters are whole only while the layer itself is called
        return "the weights are shared out among devices"
    if importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed: pip install 'revocab[gpu]'"
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        return "the output table has a bias"
    kind = model.config.get_text_config(decoder=True).model_type
    try:
        known = _patches().MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:  # it was made for other versions of transformers or Triton
        return f"liger-kernel cannot be imported: {error}"
    return None if kind in known else f"liger-kernel has none for {kind}"


def _patches() -> Any:
    return import_module("liger_kernel.transformers.monkey_patch")


class Kernels:
    """The fused kernels of one model, in or out.

    Args:
        model: the plain model; `module` is the same, with or without adapters around its layers.
        wanted: auto: all that work; fused: without CUDA graphs; plain: none.
        shape: sequences and tokens of a micro-batch.
        bf16: whether training runs under autocast.
        graphs: whether a micro-batch may become a CUDA graph: not where it is recomputed or shared out.
        sharded: whether each device has only a part of every parameter.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        module: nn.Module,
        *,
        wanted: str,
        shape: tuple[int, int],
        bf16: bool,
        graphs: bool,
        sharded: bool,
    ) -> None:
        self.model, self.module, self.wanted, self.shape, self.bf16 = model, module, wanted, shape, bf16
        self.sharded = sharded
        self.graphs = graphs and wanted == "auto"
        self.name = PLAIN  # of those that training uses, or used last
        self.loss: Callable[..., torch.Tensor] = next_token_loss
        self._graph: Any = None
        self._inside = ExitStack()

    @property
    def static_gradients(self) -> bool:
        """Whether a graph writes gradients to the same place each time: several are added up in other tensors."""
        return self._graph is not None

    def put_in(self, device: torch.device, vocabulary_size: int) -> None:
        """Put them in where they are wanted, exist, and agree; the model is on its device by now."""
        if self.wanted == PLAIN:
            return
        if reason := why_plain(self.model, device.type, sharded=self.sharded):
            log.log(logging.INFO if device.type == "cuda" else logging.DEBUG, "No fused kernels: %s.", reason)
            return
        plain = self._sample(device, vocabulary_size)
        fused = self._fuse(device, vocabulary_size)
        if fused is None:
            return
        tolerance = TOLERANCE[torch.bfloat16 if self.bf16 else torch.float32]
        if not all(math.isclose(a, b, rel_tol=limit) for a, b, limit in zip(plain, fused, tolerance, strict=True)):
            self.take_out()
            self.name = PLAIN
            log.warning(
                "Fused kernels give a loss of %.4f and a gradient of norm %.4f, plain ones %.4f and %.4f: "
                "the plain ones are used.", *fused, *plain
            )  # fmt: skip
            return
        if self.graphs:
            self._capture(device, vocabulary_size)
        log.info("Kernels: %s (loss of a sample %.5f, plain %.5f)", self.name, fused[0], plain[0])

    def _fuse(self, device: torch.device, vocabulary_size: int) -> tuple[float, float] | None:
        """Put them in and compute the sample by them; None, with a warning and as before, where they do not run."""
        try:
            layers = (fused_adapters(self.module), shared_inputs(self.module))
            for change in (_liger(self.model), *layers, sdpa_kernel(ATTENTION, set_priority=True)):
                self._inside.enter_context(change)
            self.loss, self.name = fused_next_token_loss, "liger"
            logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it names every backend that is not there
            return self._sample(device, vocabulary_size)
        except Exception as error:  # of liger-kernel, Triton or its compiler, for whatever the model is made of
            self.take_out()
            self.name = PLAIN
            if is_out_of_memory(error):
                raise
            said = next(iter(str(error).splitlines()), "")
            log.warning("Fused kernels fail (%s: %s): the plain ones are used.", type(error).__name__, said)
            return None

    def take_out(self) -> None:
        self._inside.close()
        self.loss = next_token_loss
        if self._graph is not None:
            self._graph = None
            gc.collect()  # a recorded module is part of a cycle, and with it gradients on the device

    def _capture(self, device: torch.device, vocabulary_size: int) -> None:
        """Record forward and backward pass of a micro-batch once, to be replayed: no time between kernels."""
        torch.cuda.empty_cache()
        ids = torch.zeros(self.shape, dtype=torch.long, device=device)
        whole = _Loss(self.module, self.loss, vocabulary_size, self.bf16)
        try:
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)  # of recording, on its own stream
            graph: Any = torch.cuda.make_graphed_callables(whole, (ids,))
        except RuntimeError as error:  # no memory, something waits for the device, or a kernel cannot be recorded
            _forget_recording(device)
            if isinstance(error, torch.OutOfMemoryError):
                raise
            log.info("Not recorded as a CUDA graph: %s", str(error).splitlines()[0])
            return
        self._graph, self.name = graph, "liger, CUDA graph"
        self.loss = lambda _module, ids_BL, _size: graph(ids_BL)

    def _sample(self, device: torch.device, vocabulary_size: int) -> tuple[float, float]:
        """Loss of a random sequence and norm of its gradient, without dropout; random states stay as they are."""
        generator = torch.Generator().manual_seed(0)
        length = min(256, self.model.config.get_text_config(decoder=True).max_position_embeddings)
        ids = torch.randint(0, vocabulary_size, (1, length), generator=generator).to(device)
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        training = self.module.training
        self.module.eval()
        try:
            with torch.enable_grad(), torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.loss(self.module, ids, vocabulary_size)
                gradients = torch.autograd.grad(loss, trained, allow_unused=True)  # as of a tower for pictures
        finally:
            self.module.train(training)
        return float(loss.detach()), float(nn.utils.get_total_norm([each for each in gradients if each is not None]))


def _forget_recording(device: torch.device) -> None:
    """A recording that failed leaves the random generator waiting for its end, and the next dropout would raise."""
    torch.cuda.default_generators[device.index].graphsafe_set_state(torch.Generator(device))


class _Loss(nn.Module):
    """A module of the ids alone, as a graph is recorded of; casts are part of it."""

    def __init__(self, module: nn.Module, loss: Any, vocabulary_size: int, bf16: bool) -> None:
        super().__init__()
        self.module, self.loss, self.vocabulary_size, self.bf16 = module, loss, vocabulary_size, bf16
        self.train(module.training)

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        with torch.autocast(ids_BL.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            return self.loss(self.module, ids_BL, self.vocabulary_size)


def _unmasked(make_mask: Any) -> Any:
    """The same function, but without the question to the device whether documents are packed: ours never are."""

    def make(config: Any, inputs_embeds: torch.Tensor, attention_mask: Any, past_key_values: Any, **others: Any) -> Any:
        window = getattr(config, "sliding_window", None) or math.inf
        causal = config._attn_implementation == "sdpa" and inputs_embeds.shape[1] <= window
        if causal and attention_mask is None and past_key_values is None:
            return None  # sdpa's own causal mask
        return make_mask(
            config=config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **others,
        )

    return make


@contextmanager
def _liger(model: PreTrainedModel) -> Generator[None]:
    """liger-kernel changes methods of modules and names in the module of the model's code: all are put back."""
    code = vars(sys.modules[type(model).__module__])
    names = dict(code)
    parts = [(part, dict(part.__dict__)) for part in model.modules()]
    without_loss: dict[str, Any] = {"cross_entropy": False, "fused_linear_cross_entropy": False}  # it is ours
    try:
        with warnings.catch_warnings():  # of kernels for other devices
            warnings.simplefilter("ignore")
            _patches()._apply_liger_kernel_to_instance(model=model, **without_loss)
        for name in MASKS & names.keys():
            code[name] = _unmasked(names[name])
        yield
    finally:
        code.update(names)
        for part, before in parts:
            for added in part.__dict__.keys() - before.keys():
                del part.__dict__[added]

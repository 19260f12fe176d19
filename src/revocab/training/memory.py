"""How much memory a stage of training needs, before it is trained: by part, from the model's own shapes.

Letters: N tokens of a micro-batch (B x L), D width, A width of all query heads, K width of all key heads, F width of
the feed-forward layer, V tokens of the tokenizer, R rows of a table; s bytes of a computed number (2 in bf16, else 4).

    weights       trained ones in float32 (the master copy), frozen ones in bf16 with bf16; without
                  vocab.master_weights the trained ones too
    casts         bf16 copies that autocast makes of float32 matrices and autograd keeps; copies in 8 bits with fp8.
                  With gradient checkpointing autocast's own copies go with the end of the forward pass: none are left
                  where gradients, which are larger, come only then, in steps of one micro-batch
    gradients     as large as the trained weights
    optimiser     twice the trained weights (AdamW's two moments), 2 bytes a number with adamw_8bit
    activations   a layer, a token:  attention q, k, v, output        s (2 A + 2 K)
                                     feed-forward, gated 3, else 1    s F     (2 with fused kernels)
                                     every norm's input               4 width (s with fused kernels)
                                     inputs of trained matrices       s in    and, of trained norms, s width
                                     adapters                         s in + s r, and the mask of dropout
                  with gradient checkpointing: s D for every layer
    logits        12 N V: log-probabilities and two gradients in float32. With fused kernels P = 2^28 / V tokens at a
                  time: s P V, twice where N > P, for the next piece is made while the last one is there; the hidden
                  states and their gradient, 2 s N D; of a trained table a bf16 copy, 2 V D, and the gradient, 4 R D
    passing       what comes after that and is larger: the backward pass of one layer, s N (2 F + D), gated, else
                  s N (F + D), with gradient checkpointing also what that layer keeps; gradients of the tables and of
                  the largest trained matrix before they are added; AdamW's square roots of all moments
    workspace     cuBLAS's, of each thread (forward, backward) on each stream (one; with a graph three)

With a CUDA graph what is computed in a micro-batch (casts, activations, logits) stays set aside for the graph while the
stage runs, so moments and square roots come on top of it: the sum of the parts is what a device must have. torch does
not count as allocated what a graph has set aside and does not use. Its peak, `peak`, is the larger of

    recording     weights + casts + activations + logits, and the gradients of the run that warms up, which
                  torch.cuda.make_graphed_callables holds on to
    a step        weights + the graph's gradients and, where several micro-batches are added up, `.grad` beside them
                  + optimiser + square roots

Without a graph, `peak` is the sum. There is no key-value cache in training. `least` is what no kernel and no allocator
can do without: weights and the activations of fused kernels together with gradients and optimiser, but the larger of
both where they need not be there at once: with a graph, or in a stage of one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from revocab.training.kernels import PLAIN, why_plain
from revocab.training.loss import tokens_at_once
from revocab.training.settings import Hardware, StageSettings
from revocab.training.trainables import body_layers, lora_targets, trained_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GIGABYTE = 10**9
SAME_INPUT = ("k_proj", "v_proj", "up_proj")  # as q_proj or gate_proj: one tensor is kept for all
ATTENTION_OUTPUT = ("o_proj", "dense")  # its input is kept by attention already
WORKSPACE = 2**25  # bytes that cuBLAS takes on Hopper; elsewhere 8 MiB
NOT_PARTS = ("peak", "least")
STATE_BYTES = {"adamw_8bit": 2}  # of a trained number; other optimisers have two of its size


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one device, by part; see the module's text."""

    weights: int
    casts: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    passing: int
    workspace: int
    peak: int  # of allocated tensors, as torch counts them
    least: int  # a lower bound of the peak

    @property
    def parts(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name not in NOT_PARTS}

    @property
    def total(self) -> int:
        """What the device must have."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        """The parts in gigabytes, in one line."""
        parts = ", ".join(f"{name} {value / GIGABYTE:.2f}" for name, value in self.parts.items())
        return f"about {self.total / GIGABYTE:.2f} GB ({parts})"


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How a stage is computed, as far as memory depends on it."""

    device: str = "cuda"  # cuda | cpu
    shards: int = 1  # devices that share weights, gradients and optimiser
    fused: bool = False  # fused kernels for norms, feed-forward, adapters and loss
    graph: bool = False  # a micro-batch is recorded as a CUDA graph, unless gradients are checkpointed
    frozen_in_bf16: bool = True  # under bf16 the frozen weights are cast, and so is what the embedding gives


def ways_of(hardware: Hardware, model: PreTrainedModel) -> Ways:
    """How a stage of this model is computed on this hardware."""
    device = "cpu" if hardware.accelerator == "cpu" else "cuda"
    sharded = hardware.devices > 1 and hardware.strategy == "fsdp"
    fused = hardware.kernels != PLAIN and why_plain(model, device, sharded=sharded) is None
    return Ways(
        device=device,
        shards=hardware.devices if sharded else 1,
        fused=fused,
        graph=fused and hardware.kernels == "auto" and hardware.devices == 1,
        frozen_in_bf16=not sharded,
    )


def estimate_memory(
    model: PreTrainedModel, settings: StageSettings, *, vocabulary_size: int, ways: Ways
) -> MemoryEstimate:
    """Memory of one device while `model` is trained by `settings`; the model is only looked at.

    Args:
        vocabulary_size: tokens of the tokenizer; the loss looks at as many logits.
    """
    shape = _Shape(model, settings, ways)
    states = _States(model, settings, ways, shape)
    body, loss = shape.body(), shape.loss(vocabulary_size)
    graph = ways.graph and not settings.gradient_checkpointing
    micro_batch = _highest(body, loss, states, fused=ways.fused)
    highest = micro_batch + states.step if graph else max(micro_batch, states.step)
    parts = {
        "weights": states.weights,
        "casts": states.casts,
        "gradients": states.gradients,
        "optimiser": states.optimiser,
        "activations": body.kept,
        "logits": loss.most,
        "passing": highest - body.kept - loss.most,
        "workspace": _workspace(ways.device, graph=graph),
    }
    peak = sum(parts.values())
    if graph:
        sets = 2 if settings.gradient_accumulation > 1 else 1
        recording = states.casts + states.gradients + micro_batch
        step = sets * states.gradients + states.optimiser + states.step
        peak = states.weights + max(recording, step) + parts["workspace"]
    trained = states.gradients + states.optimiser
    apart = graph or settings.steps == 1  # moments come into being behind the first backward pass
    least = states.weights + (max(trained, body.least) if apart else trained + body.least)
    return MemoryEstimate(**parts, peak=peak, least=least)


def _highest(body: _Body, loss: _Loss, states: _States, *, fused: bool) -> int:
    """The most that one micro-batch takes, beside weights, casts, gradients and optimiser."""
    at_loss = body.kept + loss.most + (0 if fused else states.added_table)  # fused, it is a part of the loss
    in_body = body.kept + loss.kept + body.backward + states.added
    return max(at_loss, in_body, loss.table + states.looked_up)


def _workspace(device: str, *, graph: bool) -> int:
    """Of forward and backward pass on torch's own stream; warming up has one too, recording by the time of its peak."""
    if device == "cpu":
        return 0
    return WORKSPACE * (5 if graph else 2)


@dataclass(frozen=True, kw_only=True)
class _Body:
    """Bytes of all layers for one micro-batch."""

    kept: int  # for the backward pass
    backward: int  # what the backward pass of a layer adds
    least: int  # of `kept`, whatever the kernels


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """Bytes of the loss of one micro-batch."""

    most: int
    kept: int  # while the body's backward pass runs
    table: int  # of `kept`, the gradient of the output table


class _States:
    """What does not depend on the micro-batch, in bytes."""

    def __init__(self, model: PreTrainedModel, settings: StageSettings, ways: Ways, shape: _Shape) -> None:
        trained = {id(parameter) for parameter in trained_parameters(model, settings)}
        ours = [p for p in model.parameters() if id(p) in trained]
        frozen = [p for p in model.parameters() if id(p) not in trained]
        adapters = sum(shape.lora.r * (i + o) for i, o in shape.adapted) if shape.lora else 0
        numbers = sum(p.numel() for p in ours) + adapters
        low = settings.bf16 and ways.frozen_in_bf16
        low_trained = low and not settings.master_weights
        size = 2 if low_trained else 4
        weights = [*((p, low_trained) for p in ours), *((p, low) for p in frozen)]
        of_weights = sum(p.numel() * _kept_size(p, lowered, ways.device) for p, lowered in weights)
        self.weights = (of_weights + size * adapters) // ways.shards
        self.gradients = size * numbers // ways.shards
        self.optimiser = STATE_BYTES.get(settings.optimizer, 2 * size) * numbers // ways.shards
        largest = max((p.numel() for p in ours), default=0)
        tables = [p.numel() for p in ours if id(p) in shape.tables]
        matrices = [p.numel() for p in ours if id(p) not in shape.tables]
        wide = 6 if settings.bf16 else 4  # a gradient, and in bf16 what it is a cast of
        self.added_table, self.added = wide * max(tables, default=0), wide * max(matrices, default=0)
        self.looked_up = size * sum(p.numel() for p in ours if p is shape.input_table)
        many = ways.device == "cuda" and settings.optimizer == "adamw_torch"  # all matrices at once
        self.step = size * (numbers // ways.shards if many else largest)
        checkpointed = settings.gradient_checkpointing  # recomputed layer by layer
        ours_kept = [] if low_trained or (checkpointed and settings.gradient_accumulation == 1) else ours
        frozen_kept = [] if low or checkpointed else frozen
        cast = [p for p in (*ours_kept, *frozen_kept) if p.ndim == 2 and p.element_size() == 4]
        casts = 2 * sum(p.numel() for p in cast if not shape.is_never_cast(p))
        self.casts = (casts if settings.bf16 else 0) + (2 * sum(p.numel() for p in frozen) if settings.fp8 else 0)


def _kept_size(parameter: nn.Parameter, low: bool, device: str) -> int:
    """Bytes of a number of this weight while a stage runs."""
    own = parameter.element_size()
    if not low or own <= 2:
        return own
    return 2 if device == "cuda" else own + 2  # in main memory the float32 original stays beside its copy


class _Shape:
    """What grows with the micro-batch, in bytes."""

    def __init__(self, model: PreTrainedModel, settings: StageSettings, ways: Ways) -> None:
        self.settings, self.ways, self.lora = settings, ways, settings.lora
        config = model.config.get_text_config(decoder=True)
        heads = config.num_attention_heads
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.width, self.heads = config.hidden_size, heads
        self.queries = heads * head
        self.keys = (getattr(config, "num_key_value_heads", None) or heads) * head
        self.tokens = settings.batch_size * settings.max_seq_length
        self.size = 2 if settings.bf16 else 4
        self.stream = self.size if ways.frozen_in_bf16 else 4  # of the residual stream
        self.trained = {id(parameter) for parameter in trained_parameters(model, settings)}
        self.masked = bool(getattr(config, "sliding_window", None)) and settings.max_seq_length > config.sliding_window
        self.layers = body_layers(model)
        names = set(lora_targets(model, self.lora.target_modules)) if self.lora else set()
        targets = {id(module): module for name, module in model.named_modules() if name in names}
        self.targets = targets
        self.adapted = [_sizes(module) for module in targets.values()]
        output = model.get_output_embeddings()
        self.input_table = model.get_input_embeddings().weight
        self.output_table = output.weight if output is not None else None
        self.tables = {id(self.input_table), id(self.output_table)}
        self.head_trained = self.output_table is not None and id(self.output_table) in self.trained

    def is_never_cast(self, parameter: nn.Parameter) -> bool:
        """An input table, which is no operand of a product; of fused kernels, whose loss casts by itself, both."""
        if self.ways.fused:
            return id(parameter) in self.tables
        return parameter is self.input_table is not self.output_table

    def body(self) -> _Body:
        kept = [self._layer(layer, fused=self.ways.fused) for layer in self.layers]
        fused = [self._layer(layer, fused=True) for layer in self.layers]
        of_head = 0 if self.ways.fused else self.size * self.head_trained  # the input of the output table
        ends = self.width * ((self.size if self.ways.fused else 4) + of_head)  # and that of the last norm
        borders = self.stream * self.width * len(self.layers)
        backward = self.size * (max(_gradients_at_once(layer) for layer in self.layers) + self.width)
        if self.settings.gradient_checkpointing:
            least = self.size * self.width * len(self.layers)
            kept, backward = [borders], backward + max(kept)
        else:
            least = sum(fused)
        n = self.tokens
        return _Body(kept=n * (sum(kept) + ends), backward=n * backward, least=n * least)

    def loss(self, vocabulary_size: int) -> _Loss:
        table = wide = 0
        if self.head_trained and self.output_table is not None:
            wide = 4 if self.settings.master_weights or not self.settings.bf16 else 2
            table = wide * self.output_table.numel()
        if not self.ways.fused:  # a tied table's gradient waits for that of the input table
            waiting = table if self.output_table is self.input_table else 0
            return _Loss(most=12 * self.tokens * vocabulary_size, kept=waiting, table=waiting)
        hidden = self.size * self.tokens * self.width
        low = 2 * vocabulary_size * self.width if wide > self.size else 0
        most = 2 * hidden + table + low + self._pieces(vocabulary_size)
        return _Loss(most=most, kept=hidden + table, table=table)

    def _pieces(self, vocabulary_size: int) -> int:
        """Logits of the first piece and of the second, or of the second and what it adds to the table's gradient."""
        first = min(self.tokens, tokens_at_once(vocabulary_size))
        second = min(self.tokens - first, first)
        added = self.width if self.head_trained and second else 0
        return self.size * vocabulary_size * (second + max(first, added))

    def _layer(self, layer: nn.Module, *, fused: bool) -> int:
        """Bytes a token that one layer keeps."""
        matrices = list(_matrices(layer))
        total = self._attention(fused_qkv=any(_last(name) == "query_key_value" for name, _ in matrices))
        total += self._feed_forward(matrices, fused=fused)
        norms = list(_norms(layer))
        total += sum(self._norm_kept(name, norm, fused=fused) for name, norm in norms)
        trained_norm = any(id(norm.weight) in self.trained for _, norm in norms)
        # Every product casts its input for itself.
        apart = self.settings.bf16 and not fused and (trained_norm or self.stream == 4)
        for name, matrix in matrices:
            total += self._input_kept(_last(name), matrix, apart=apart, fused=fused)
        return total

    def _norm_kept(self, name: str, norm: Any, *, fused: bool) -> int:
        width = {"q_norm": self.queries, "k_norm": self.keys}.get(_last(name), norm.weight.numel())
        if fused:
            return self.size * width
        if isinstance(norm, nn.LayerNorm):  # one operation; norms side by side share a float32 input
            return 0 if self.stream == 4 and "post" in name else 4 * width
        return width * (4 + self.stream * (id(norm.weight) in self.trained))

    def _attention(self, *, fused_qkv: bool) -> int:
        """q, k, v, output, and log-sum-exp; v is a view of all three where they come from one product."""
        keys = self.queries if self.masked else self.keys  # with a mask, keys are repeated for every query head
        values = 3 * self.queries if fused_qkv else keys
        return self.size * (2 * self.queries + keys + values) + 4 * self.heads

    def _feed_forward(self, matrices: list[tuple[str, Any]], *, fused: bool) -> int:
        gated = [_sizes(matrix)[1] for name, matrix in matrices if _last(name) == "gate_proj"]
        if gated:
            return self.size * (2 if fused else 3) * gated[0]
        return self.size * max(_sizes(matrix)[1] for name, matrix in matrices if _last(name) != "query_key_value")

    def _mask_size(self, *, fused: bool) -> int:
        """Of dropout, a number: on the CPU torch keeps the factors, in the adapters' float32."""
        if not self.lora or not self.lora.dropout:
            return 0
        return 4 if self.ways.device == "cpu" and not fused else 1

    def _input_kept(self, name: str, matrix: Any, *, apart: bool, fused: bool) -> int:
        wide = _sizes(matrix)[0]
        shared = name in SAME_INPUT and not apart
        if self.lora and id(matrix) in self.targets:
            mask = wide * self._mask_size(fused=fused)
            shared = fused and name in (*SAME_INPUT, *ATTENTION_OUTPUT)
            return self.size * (0 if shared else wide) + mask + self.size * self.lora.r
        if id(matrix.weight) not in self.trained or shared or name in ATTENTION_OUTPUT:
            return 0
        return self.size * wide


def _gradients_at_once(layer: nn.Module) -> int:
    """Numbers a token: of the feed-forward layer's inside, of gate and product together where there is a gate."""
    matrices = [(name, matrix) for name, matrix in _matrices(layer) if _last(name) != "query_key_value"]
    gated = any(_last(name) == "gate_proj" for name, _ in matrices)
    return max(_sizes(matrix)[1] for _, matrix in matrices) * (2 if gated else 1)


def _matrices(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in layer.named_modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 2:
            yield name, module


def _norms(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in layer.named_modules():
        if isinstance(getattr(module, "weight", None), nn.Parameter) and module.weight.ndim == 1:
            yield name, module


def _sizes(matrix: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    rows, columns = matrix.weight.shape
    return (columns, rows) if isinstance(matrix, nn.Linear) else (rows, columns)  # GPT-2's kind is transposed


def _last(name: str) -> str:
    return name.rpartition(".")[2]

"""The training loss: mean cross-entropy of the next token, over the tokens that the tokenizer has.

Letters: B sequences, L tokens of a sequence, R rows of the output table, V tokens of the tokenizer (V <= R).
"""

from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional

NO_LABEL = -100  # cross_entropy leaves these positions out
LOGITS_AT_ONCE = 2**28  # half a GiB in bfloat16


def tokens_at_once(vocabulary_size: int) -> int:
    """How many tokens' logits `LinearCrossEntropy` makes at a time."""
    return max(1, LOGITS_AT_ONCE // vocabulary_size)


def next_token_loss(model: nn.Module, ids_BL: torch.Tensor, vocabulary_size: int) -> torch.Tensor:
    """Mean over the B * (L - 1) predicted tokens, a float32 scalar.

    Only the first V logits are looked at, so rows that pad the output table take no probability. The labels are
    shifted, not the logits: these are by far the largest tensor, and slicing them along L would copy them.
    """
    logits_BLR = model(input_ids=ids_BL, use_cache=False).logits
    labels_BL = functional.pad(ids_BL[:, 1:], (0, 1), value=NO_LABEL)
    logits_NV = logits_BLR[..., :vocabulary_size].flatten(0, 1).float()
    return functional.cross_entropy(logits_NV, labels_BL.flatten(), ignore_index=NO_LABEL)


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden_NH @ table_RH[:V].T`, which never exists as a whole, nor its gradient.

    Both are made for some rows at a time, by liger-kernel's cross-entropy, which writes the gradient over the logits.
    Unlike liger-kernel's own function of this kind it is told how many labels count, and need not ask the device;
    the product is in the type of `hidden`, the gradient of the table is summed up in the type of the table. It gets
    the whole table, since autograd would copy the gradient of a part of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: torch.Tensor,
        table_RH: torch.Tensor,
        vocabulary_size: int,
        labels_N: torch.Tensor,
        count: int,
        softcap: float | None,
    ) -> torch.Tensor:
        low_VH = table_RH[:vocabulary_size].to(hidden_NH.dtype)
        losses_N = torch.zeros(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)  # unlabelled: stay 0
        grad_NH = torch.empty_like(hidden_NH)
        grad_RH = torch.empty_like(table_RH) if ctx.needs_input_grad[1] else None
        rows = tokens_at_once(len(low_VH))
        for begin in range(0, len(hidden_NH), rows):
            part = slice(begin, begin + rows)
            logits_PV = hidden_NH[part] @ low_VH.t()
            _cross_entropy_in_place(logits_PV, labels_N[part], losses_N[part], count, softcap)
            torch.mm(logits_PV, low_VH, out=grad_NH[part])
            if grad_RH is not None:
                _product_into(grad_RH[:vocabulary_size], logits_PV.t(), hidden_NH[part], add=begin > 0)
        if grad_RH is not None:
            grad_RH[vocabulary_size:].zero_()
        ctx.save_for_backward(grad_NH, grad_RH)
        return losses_N.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """In place, for each is as large as its operand: autograd raises if it is asked for a second time."""
        grad_NH, grad_RH = ctx.saved_tensors
        return grad_NH.mul_(grads[0]), None if grad_RH is None else grad_RH.mul_(grads[0]), None, None, None, None


def _product_into(out: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, add: bool) -> None:
    """out = a b, or out += a b; not rounded to the type of a and b on the way where the device can do without."""
    if add:
        out += a @ b
    elif out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    elif out.device.type == "cuda" and out.dtype == torch.float32:
        torch.mm(a, b, out_dtype=torch.float32, out=out)  # there is none for CPUs
    else:
        out.copy_(a @ b)


def _cross_entropy_in_place(
    logits_PV: torch.Tensor, labels_P: torch.Tensor, losses_P: torch.Tensor, count: int, softcap: float | None
) -> None:
    """Losses, each divided by `count`, and over the logits their gradient; a Triton kernel of liger-kernel."""
    kernels: Any = import_module("liger_kernel.ops.cross_entropy")
    width = logits_PV.shape[1]
    kernels.liger_cross_entropy_kernel[(len(logits_PV),)](
        X_ptr=logits_PV,
        X_stride=logits_PV.stride(0),
        Y_ptr=labels_P,
        Y_stride=labels_P.stride(0),
        weight_ptr=None,
        loss_ptr=losses_P,
        z_loss_ptr=None,
        loss_stride=losses_P.stride(0),
        token_accuracy_ptr=None,
        token_accuracy_stride=0,
        predicted_tokens_ptr=None,
        predicted_tokens_stride=0,
        n_cols=width,
        n_non_ignore=count,
        sum_non_ignore_weight=count,
        weight_sum=0.0,
        ignore_index=NO_LABEL,
        lse_square_scale=0.0,
        label_smoothing=0.0,
        reduction="mean",
        softcap=softcap,
        RETURN_Z_LOSS=False,
        RETURN_TOKEN_ACCURACY=False,
        RETURN_PREDICTED_TOKENS=False,
        HAS_WEIGHT=False,
        HAS_SOFTCAPPING=softcap is not None,
        HAS_GRADIENTS=True,
        BLOCK_SIZE=min(32_768, 1 << (width - 1).bit_length()),
        num_warps=32,
    )


def fused_next_token_loss(model: nn.Module, ids_BL: torch.Tensor, vocabulary_size: int) -> torch.Tensor:
    """The same as `next_token_loss`, without ever holding all logits. Needs a GPU and liger-kernel."""
    plain: Any = model
    if hasattr(model, "get_base_model"):  # with adapters
        plain = plain.get_base_model()
    body, head = getattr(plain, plain.base_model_prefix), plain.get_output_embeddings()
    hidden_NH = body(input_ids=ids_BL, use_cache=False).last_hidden_state.flatten(0, 1)
    labels_N = functional.pad(ids_BL[:, 1:], (0, 1), value=NO_LABEL).flatten()
    softcap = getattr(plain.config, "final_logit_softcapping", None)
    count = len(ids_BL) * (ids_BL.shape[1] - 1)
    return LinearCrossEntropy.apply(hidden_NH, head.weight, vocabulary_size, labels_N, count, softcap)

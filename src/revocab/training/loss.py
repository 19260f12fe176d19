"""The training loss: mean cross-entropy of the next token, over the tokens that the tokenizer has.

Letters: B sequences, L tokens of a sequence, R rows of the output table, V tokens of the tokenizer (V <= R).
"""

import torch
from torch import nn
from torch.nn import functional

NO_LABEL = -100  # cross_entropy leaves these positions out


def next_token_loss(model: nn.Module, ids_BL: torch.Tensor, vocabulary_size: int) -> torch.Tensor:
    """Mean over the B * (L - 1) predicted tokens, a float32 scalar.

    Only the first V logits are looked at, so rows that pad the output table take no probability. The labels are
    shifted, not the logits: these are by far the largest tensor, and slicing them along L would copy them.
    """
    logits_BLR = model(input_ids=ids_BL, use_cache=False).logits
    labels_BL = functional.pad(ids_BL[:, 1:], (0, 1), value=NO_LABEL)
    logits_NV = logits_BLR[..., :vocabulary_size].flatten(0, 1).float()
    return functional.cross_entropy(logits_NV, labels_BL.flatten(), ignore_index=NO_LABEL)

"""New embedding tables = W @ old tables, in place, for input and output, tied or not.

Letters of shapes: T target tokens, S source tokens, R rows of the new tables (T and padding), D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from revocab.artifacts import Alignment, TableWeights
from revocab.errors import ConfigError, ModelError
from revocab.initialisation.ids import set_special_ids, set_vocabulary_size, tokenizer_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLUMNS_AT_ONCE = 64  # W @ table is made for so many columns at a time: beside the tables it needs little memory


def replace_vocabulary(
    model: PreTrainedModel, alignment: Alignment, tokenizer: PreTrainedTokenizerBase, *, pad_to_multiple_of: int = 1
) -> dict[str, Any]:
    """Give the model the tokenizer's vocabulary, in place: both tables become W @ table, the rest stays as it is.

    The same W serves input and output, unless the alignment has one for each; tied tables stay one parameter, and get
    the mean of the two. Rows beyond the tokenizer (padding, for fast matrix shapes) are zero; training and scoring look
    at the first T logits only, and the generation config suppresses the others. A source table may have padding rows
    of its own: W says how many rows are tokens.

    Args:
        model: any causal language model of transformers.
        alignment: W, (T, S).
        tokenizer: the target's; its highest id + 1 must be T.
        pad_to_multiple_of: the number of rows is rounded up to a multiple of this.

    Returns:
        facts: rows R, padding_rows R - T, target_tokens T, source_tokens S, source_rows, tied, output_bias.

    Raises:
        ModelError: W, tokenizer and model do not fit together.
        ConfigError: `pad_to_multiple_of` below 1.
    """
    if pad_to_multiple_of < 1:
        raise ConfigError("models.pad_to_multiple_of", pad_to_multiple_of, "at least 1")
    source = _tables_of(model)
    facts = _facts(source, alignment, tokenizer, pad_to_multiple_of)
    embedding, head, rows = source.embedding, source.head, facts["rows"]
    for_output = alignment.for_table("tied" if source.tied else "output")
    embedding.weight = _times(for_output if source.tied else alignment.for_table("input"), embedding.weight, rows)
    head.weight = embedding.weight if source.tied else _times(for_output, head.weight, rows)
    if facts["output_bias"]:
        bias_R1 = _times(for_output, head.bias[:, None], rows)
        head.bias = nn.Parameter(bias_R1.data[:, 0].contiguous())
    embedding.num_embeddings = rows
    embedding.padding_idx = None  # it would keep the row of the padding token, often eos as well, from being trained
    head.out_features = rows
    set_vocabulary_size(model, rows)
    set_special_ids(model, tokenizer, padding_ids=range(facts["target_tokens"], rows))
    return facts


class _Tables:
    """The modules that hold a model's two tables, found by role."""

    def __init__(self, embedding: Any, head: Any) -> None:
        self.embedding, self.head = embedding, head
        self.tied = head.weight is embedding.weight


def _tables_of(model: PreTrainedModel) -> _Tables:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if embedding is None or head is None or not hasattr(head, "weight"):
        raise ModelError(f"{type(model).__name__} has no input and output embedding tables that could be replaced.")
    if getattr(model.config.get_text_config(decoder=True), "vocab_size_per_layer_input", None):
        raise ModelError(f"{type(model).__name__} has an embedding table in every layer, which is not supported.")
    return _Tables(embedding, head)


def _facts(source: _Tables, alignment: Alignment, tokenizer: Any, pad_to_multiple_of: int) -> dict[str, Any]:
    """Check that alignment, tokenizer and tables fit together, and count rows."""
    target_tokens, source_tokens = alignment.shape
    if tokenizer_length(tokenizer) != target_tokens:
        raise ModelError(
            f"The alignment has {target_tokens} target tokens, the target tokenizer {tokenizer_length(tokenizer)}. "
            "Align again with this tokenizer."
        )
    for table in (source.embedding.weight, source.head.weight):
        if len(table) < source_tokens:
            raise ModelError(
                f"The alignment has {source_tokens} source tokens, the model's table only {len(table)} rows: "
                "models.source_tokenizer is not the tokenizer of models.source_model."
            )
    rows = -(-target_tokens // pad_to_multiple_of) * pad_to_multiple_of
    return {
        "rows": rows,
        "padding_rows": rows - target_tokens,
        "target_tokens": target_tokens,
        "source_tokens": source_tokens,
        "source_rows": len(source.embedding.weight),
        "tied": source.tied,
        "output_bias": getattr(source.head, "bias", None) is not None,
    }


@torch.no_grad()
def _times(weights: TableWeights, table: torch.Tensor, rows: int) -> nn.Parameter:
    """W @ table in float32, (R, D), in the type and on the device of the old table; padding rows are zero."""
    target_tokens, source_tokens = weights.weights.shape
    new_RD = torch.zeros(rows, table.shape[1], dtype=table.dtype, device=table.device)
    for start in range(0, table.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        block_SC = table[:source_tokens, columns].float().cpu().numpy()
        block_TC = weights.apply(np.ascontiguousarray(block_SC))
        new_RD[:target_tokens, columns] = torch.from_numpy(block_TC).to(new_RD)
    return nn.Parameter(new_RD)

